"""Nothing of PyTorch's optimizers is copied into this repository.

The book shows the real source by pulling it from the installed package when the site is built. Here
every text of the repository, and every stored output of a notebook, is compared with that source:
five lines of code in a row that stand there too are a copy. Lines that everybody would write alike
(imports, decorators, brackets, the parameters of a public signature) do not count.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
RUN = 5
DULL = re.compile(
    r"#|@|import |from |return|\)|\]|\}|\"|'|def __"  # starts like this
    r"|\w+(: [^=()]+(\[.*\])?)?( = [^()]+)?,$"  # or is a parameter with type and default
)


def telling(lines: Iterable[str]) -> list[str]:
    """The lines that carry a thought, without indentation."""
    plain = (re.sub(r"\s+", " ", line.strip()) for line in lines)
    return [line for line in plain if len(line) >= 12 and not DULL.match(line)]


def runs(lines: Iterable[str]) -> Iterator[tuple[str, ...]]:
    kept = telling(lines)
    return (tuple(kept[i : i + RUN]) for i in range(len(kept) - RUN + 1))


@cache
def pytorch() -> frozenset[tuple[str, ...]]:
    """Every five lines in a row of the installed torch/optim."""
    folder = Path(torch.optim.__file__).parent
    files = sorted(folder.rglob("*.py"))
    assert len(files) > 10
    return frozenset(run for file in files for run in runs(file.read_text().splitlines()))


def copied(lines: Iterable[str]) -> list[str]:
    return [" / ".join(run)[:150] for run in runs(lines) if run in pytorch()]


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


def pieces(path: Path) -> Iterator[str]:
    """The texts of a file: of a notebook each source and each stored text, else the whole."""
    try:
        content = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return
    if path.suffix != ".ipynb":
        yield content
        return
    for cell in json.loads(content)["cells"]:
        yield "".join(cell["source"])
        for output in cell.get("outputs", []):
            yield "".join(output.get("text", ""))
            for kind, data in output.get("data", {}).items():
                if kind.startswith("text/"):
                    yield "".join(data)


def test_no_file_holds_five_lines_of_pytorch() -> None:
    faults = [
        f"{path.relative_to(ROOT)}: {found}"
        for path in tracked()
        for piece in pieces(path)
        for found in copied(piece.splitlines())
    ]
    assert faults == []


@pytest.mark.parametrize("name", ["sgd", "adam", "lr_scheduler", "optimizer"])
def test_a_copy_is_seen(name: str) -> None:
    """Also when it is indented otherwise and has comments between."""
    source = (Path(torch.optim.__file__).parent / f"{name}.py").read_text().splitlines()
    middle = len(source) // 2
    lines = source[middle : middle + 60]
    disguised = [part for line in lines for part in ("  " + line.strip(), "# a remark", "")]
    assert copied(disguised)
