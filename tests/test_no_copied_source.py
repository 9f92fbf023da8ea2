"""Nothing of PyTorch's optimizers is copied into this repository.

The book shows the real source by pulling it from the installed package when the site is built. Here
every text of the repository, of notebooks each cell and every stored output, is compared with the
installed torch/optim, in three ways:

- five lines of code in a row that stand there too (the parameters of public functions excepted,
  since ours have to be the same);
- five lines in a row that carry a thought, whatever stands between them;
- twelve words in a row of a comment, a docstring or a message.

A copy is also seen as HTML, with line numbers, as a quoted string, indented or commented out.
"""

from __future__ import annotations

import ast
import html
import io
import itertools
import json
import re
import subprocess
import tokenize
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import nbformat
import pytest
import torch
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from walkthrough import show, source

ROOT = Path(__file__).resolve().parent.parent
FOLDER = Path(torch.optim.__file__).parent
RUN = 5  # lines
WORDS = 12
DULL = re.compile(
    r"#|@|import |from |return|\)|\]|\}|\"|'|def __"  # starts like this
    r"|\w+(: [^=()]+(\[.*\])?)?( = [^()]+)?,$"  # or is a parameter with type and default
)
# what may stand before a line of a listing: its number, a prompt, a mark of quotation or of a diff
BEFORE = re.compile(r"^\s*(?:(?:\d+[:.|]?|>>>|\.\.\.|>|\+|-|\|)(?:\s+|$))?")

Lines = tuple[str, ...]


def plain(line: str) -> str:
    """A line without its number or prompt, its comment, and its indentation."""
    line = BEFORE.sub("", line.rstrip())
    return re.sub(r"\s+", " ", re.sub(r"(^|\s+)#\s.*$", "", line)).strip()


def windows(items: Sequence[str], size: int = RUN) -> Iterator[Lines]:
    return (tuple(items[i : i + size]) for i in range(len(items) - size + 1))


def telling(lines: Iterable[str]) -> list[str]:
    """The lines that carry a thought: no imports, decorators, brackets, parameters."""
    return [line for line in map(plain, lines) if len(line) >= 12 and not DULL.match(line)]


def words(text: str) -> list[str]:
    return re.findall(r"[A-Za-z][\w'.]*", text.lower())


# --- what PyTorch says ----------------------------------------------------------------------------


def code_of(text: str) -> tuple[set[Lines], set[Lines]]:
    """The runs of code lines of a file, and those inside the parameters of a public function."""
    code = dict(enumerate(map(plain, text.split("\n")), 1))
    inside: dict[int, str] = {}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
            first = node.body[0]
            if ast.get_docstring(node, clean=False) is not None:
                code.update(dict.fromkeys(range(first.lineno, (first.end_lineno or 0) + 1), ""))
        if isinstance(node, ast.FunctionDef) and not re.match("_(?!_)", node.name):
            inside.update({n: code[n] for n in range(node.lineno, node.body[0].lineno)})
    runs: dict[bool, set[Lines]] = {True: set(), False: set()}
    kept = [number for number, line in code.items() if line]
    for public, numbers in itertools.groupby(kept, lambda number: number in inside):
        runs[public].update(windows([code[number] for number in numbers]))
    return runs[False], runs[True]


@cache
def pytorch() -> tuple[frozenset[Lines], frozenset[Lines], frozenset[Lines]]:
    """Every run of code lines, of telling lines and of words in the installed torch/optim."""
    files = sorted(FOLDER.rglob("*.py"))
    assert len(files) > 10
    code: set[Lines] = set()
    thoughts: set[Lines] = set()
    prose: set[Lines] = set()
    allowed: set[Lines] = set()
    for file in files:
        text = file.read_text(encoding="utf-8")
        runs, parameters = code_of(text)
        code |= runs
        allowed |= parameters
        thoughts.update(windows(telling(text.splitlines())))
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type in (tokenize.COMMENT, tokenize.STRING):
                prose.update(windows(words(token.string), WORDS))
    return frozenset(code - allowed), frozenset(thoughts), frozenset(prose)


# --- what we say ----------------------------------------------------------------------------------


def tracked() -> list[Path]:
    """The files of the repository, also where there is no git."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode == 0 and listed.stdout.strip():
        paths = [ROOT / name for name in listed.stdout.splitlines()]
    else:
        folders = ("book", "src", "tests", "tools", "bench")
        paths = [p for name in folders for p in (ROOT / name).rglob("*")]
        paths += [p for p in ROOT.iterdir() if p.suffix in (".md", ".toml", ".yml", ".txt")]
    return [p for p in paths if p.is_file() and "__pycache__" not in p.parts]


def strings(value: Any) -> Iterator[str]:
    """Every text in a notebook, wherever it stands; pictures are none."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list) and all(isinstance(part, str) for part in value):
        yield "".join(value)
    elif isinstance(value, list):
        for part in value:
            yield from strings(part)
    elif isinstance(value, dict):
        for name, part in value.items():
            if name not in ("image/png", "image/jpeg"):
                yield from strings(part)


def pieces(path: Path) -> Iterator[str]:
    """The texts of a file: of a notebook all that it holds, of a bibliography all but the titles
    (the title of a paper is the same wherever it is cited), else the whole."""
    try:
        content = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return
    if path.suffix == ".ipynb":
        yield from strings(json.loads(content))
    elif path.suffix == ".bib":
        yield re.sub(r"^\s*title\s*=.*$", "", content, flags=re.MULTILINE)
    else:
        yield content


def views(piece: str) -> Iterator[list[str]]:
    """A text as lines: as it stands, as a quoted string, as HTML, and with comments as code."""
    texts = [piece]
    if "\\n" in piece:
        texts.append(piece.replace("\\n", "\n").replace("\\'", "'").replace('\\"', '"'))
    if "</" in piece or "&lt;" in piece:
        inner = re.sub(r"<style.*?</style>", "", piece, flags=re.DOTALL)
        texts.append(html.unescape(re.sub(r"<[^>]*>", "", inner)))
    for text in texts:
        yield text.splitlines()
        if re.search(r"^\s*# ", text, re.MULTILINE):
            yield [re.sub(r"^\s*# ", "", line) for line in text.splitlines()]


def copied(piece: str) -> list[str]:
    """What of a text stands in torch/optim too."""
    code, thoughts, prose = pytorch()
    found = []
    for lines in views(piece):
        kept = [line for line in map(plain, lines) if line]
        found += [" / ".join(run) for run in windows(kept) if run in code]
        found += [" / ".join(run) for run in windows(telling(lines)) if run in thoughts]
        said = words("\n".join(lines))
        found += [" ".join(run) for run in windows(said, WORDS) if run in prose]
    return [text[:150] for text in found]


def test_no_file_holds_a_copy() -> None:
    faults = [
        f"{path.relative_to(ROOT)}: {found}"
        for path in tracked()
        for piece in pieces(path)
        for found in copied(piece)
    ]
    assert faults == []


# --- a copy is seen -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sgd", "adam", "lr_scheduler", "optimizer"])
def test_a_disguised_copy_is_seen(name: str) -> None:
    """Also when it is indented otherwise and has remarks between."""
    text = (FOLDER / f"{name}.py").read_text(encoding="utf-8").splitlines()
    lines = text[len(text) // 2 :][:60]
    disguised = [part for line in lines for part in ("  " + line.strip(), "# a remark", "")]
    assert copied("\n".join(disguised))


def excerpt() -> tuple[str, list[str]]:
    """Some lines of code of PyTorch's own, and the panel that shows them."""
    panel = show("torch.optim.sgd._single_tensor_sgd", start_at="buf = mom", end_at="nesterov:")
    return panel.sides[0].code, [repr(panel), panel._repr_html_()]


def notebooks() -> dict[str, nbformat.NotebookNode]:
    """Notebooks that store those lines in one way each."""
    code, (as_text, as_page) = excerpt()
    numbered = "\n".join(f"{n:4d}  {line}" for n, line in enumerate(code.split("\n"), 358))
    stream = new_output("stream", text=code)
    outputs = {
        "printed": stream,
        "printed with numbers": new_output("stream", text=numbered),
        "the value of a cell": new_output("execute_result", {"text/plain": repr(code)}),
        "a panel as text": new_output("execute_result", {"text/plain": as_text}),
        "a panel as HTML": new_output("execute_result", {"text/html": as_page}),
        "data": new_output("display_data", {"application/json": {"rows": [{"code": code}]}}),
    }
    found = {
        name: new_notebook(cells=[new_code_cell("1", outputs=[output])])
        for name, output in outputs.items()
    }
    quoted = "\n".join(f"> {line}" for line in code.split("\n"))
    remarks = "\n".join(f"# {line}" for line in code.split("\n"))
    found["markdown"] = new_notebook(cells=[new_markdown_cell(f"It reads\n\n{quoted}\n")])
    found["a code cell"] = new_notebook(cells=[new_code_cell(f"def f():\n{code}")])
    found["remarks"] = new_notebook(cells=[new_code_cell(remarks)])
    found["metadata"] = new_notebook(cells=[new_code_cell("1", metadata={"note": {"x": code}})])
    return found


@pytest.mark.parametrize("way", notebooks())
def test_a_copy_in_a_notebook_is_seen(tmp_path: Path, way: str) -> None:
    path = tmp_path / "a.ipynb"
    nbformat.write(notebooks()[way], path)
    assert any(copied(piece) for piece in pieces(path))


def test_five_lines_are_a_copy_and_four_are_not() -> None:
    code = [line for line in excerpt()[0].split("\n") if line.strip()]
    assert copied("\n".join(code[:5]))
    assert not copied("\n".join(code[:4]))


def test_dull_lines_count_when_they_stand_in_a_row() -> None:
    """Returns, brackets and the like are no thoughts, but five lines in a row are a copy."""
    text = (FOLDER / "optimizer.py").read_text(encoding="utf-8")
    place = source.locate("torch.optim.optimizer.Optimizer.__getstate__")
    body = text.split("\n")[place.first : place.last]
    assert len(telling(body)) < RUN <= len(body)
    assert copied("\n".join(body))


def test_prose_is_seen_and_public_parameters_are_not() -> None:
    place = source.locate("torch.optim.sgd.sgd")
    text = ast.get_docstring(source.locate("torch.optim.optimizer.Optimizer.state_dict").node)
    assert text is not None
    assert copied(" ".join(text.split()[:40]))
    parameters = place.text.split("\n")[place.first - 1 : place.node.body[0].lineno - 1]
    parameters = [line for line in parameters if "#" not in line]
    assert len(parameters) > 10
    assert not copied("\n".join(parameters))
    private = source.locate("torch.optim.sgd._single_tensor_sgd")
    parameters = private.text.split("\n")[private.first - 1 : private.node.body[0].lineno - 1]
    assert copied("\n".join(parameters))


def test_the_notebooks_are_opened() -> None:
    """Source and outputs of a real one arrive as texts."""
    found = "\n".join(pieces(ROOT / "book" / "01-gradient-descent.ipynb"))
    assert "walkthrough.setup()" in found
    assert "values after 20 steps each: all equal" in found
