"""Plant a fault in a copy of the book, and see which check finds it.

    python tools/wrong_books.py                    every fault, every check
    python tools/wrong_books.py --only link        faults with this in their name
    python tools/wrong_books.py --resume           only those that were not yet answered

Each fault is planted alone in a copy of the checkout, in a notebook or a page. Then the checks are
asked: nbval, about the one notebook; the tests that read the book; the builder. Each fault says
which check should see it. A check that misses what it should see is an error, and so is one that
sees what nobody should: the list of what no check can see stands in the book, and has to be true.

The builder is asked once about all the faults that are its business, each under a name of its own.
Each answer is kept in _build/wrong-books, so a run can be stopped and taken up again.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from walkthrough import evidence

ROOT = Path(__file__).resolve().parent.parent
ANSWERS = ROOT / "_build" / "wrong-books"
NBVAL, PYTEST, BUILD, NOBODY = "nbval", "pytest", "the builder", "nobody"
CHECKS = (NBVAL, BUILD, PYTEST)  # the names of tests are long, and come last
# the tests that read notebooks and pages; the others read src/ and are asked by `mutants.py`
READERS = [
    *("test_notebooks.py", "test_claims.py", "test_reference.py", "test_source_map.py"),
    *("test_project.py", "test_no_copied_source.py", "test_play.py", "test_inventory.py"),
    *("test_drift.py::test_the_book_shows_what_it_was_written_for",),
]
SHORT = "reference/conventions.ipynb"  # a notebook that is quickly compared
LONG = "02-momentum.ipynb"  # one with figures, panels and claims

Notebook = dict[str, Any]


@dataclass
class Fault:
    """One thing that is wrong: in which file, how it gets there, and who should see it."""

    name: str
    file: str
    plant: Callable[[Path], None]
    seen_by: str
    said: str = ""  # what the builder's message has in it


# --- ways of planting -----------------------------------------------------------------------------


def text(before: str, after: str) -> Callable[[Path], None]:
    """Replace the first match of a pattern in a page; in a notebook, in what people wrote."""

    def plant(path: Path) -> None:
        if path.suffix != ".ipynb":
            old = path.read_text(encoding="utf-8")
            path.write_text(_replaced(old, before, after, path), encoding="utf-8")
            return
        nb = json.loads(path.read_text(encoding="utf-8"))
        for cell in nb["cells"]:
            source = "".join(cell["source"])
            if re.search(before, source):
                cell["source"] = _replaced(source, before, after, path).splitlines(keepends=True)
                break
        else:
            raise LookupError(f"{path.name} has no {before!r}")
        _write(path, nb)

    return plant


def cell(change: Callable[[Any], None], where: Callable[[Any], bool]) -> Callable[[Path], None]:
    """Change the first code cell of a notebook that is of a kind."""

    def plant(path: Path) -> None:
        nb = json.loads(path.read_text(encoding="utf-8"))
        found = [c for c in nb["cells"] if c["cell_type"] == "code" and where(c)]
        if not found:
            raise LookupError(f"{path.name} has no such cell")
        change(found[0])
        _write(path, nb)

    return plant


def swapped_pictures(path: Path) -> None:
    """The pictures of two cells change places; what is printed beneath them stays."""
    nb = json.loads(path.read_text(encoding="utf-8"))
    data = [out["data"] for c in nb["cells"] for out in c.get("outputs", ()) if _is_picture(out)]
    a, b = data[:2]
    a["image/png"], b["image/png"] = b["image/png"], a["image/png"]
    _write(path, nb)


def extra(file: str, words: str) -> Callable[[Path], None]:
    """A page more, which nobody asked for."""

    def plant(path: Path) -> None:
        path.with_name(file).write_text(words, encoding="utf-8")

    return plant


def retyped(path: Path) -> None:
    """Lines of PyTorch's source, as if somebody had typed them into a page."""
    import torch.optim.sgd as module

    lines = Path(module.__file__).read_text(encoding="utf-8").splitlines()
    start = next(i for i, line in enumerate(lines) if "def _single_tensor_sgd" in line)
    code = "\n".join(lines[start + 20 : start + 50])
    old = path.read_text(encoding="utf-8")
    path.write_text(f"{old}\n```python\n{code}\n```\n", encoding="utf-8")


def _replaced(old: str, before: str, after: str, path: Path) -> str:
    new, count = re.subn(before, after, old, count=1)
    if not count or new == old:
        raise LookupError(f"{path.name} has no {before!r}")
    return new


def _write(path: Path, nb: Notebook) -> None:
    path.write_text(json.dumps(nb, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _is_picture(output: Any) -> bool:
    return "image/png" in output.get("data", {})


def _prints(c: Any) -> bool:
    return any(out["output_type"] == "stream" for out in c["outputs"])


def _draws(c: Any) -> bool:
    return any(map(_is_picture, c["outputs"]))


def _other_digit(c: Any) -> None:
    out = next(out for out in c["outputs"] if out["output_type"] == "stream")
    lines = "".join(out["text"])
    digits = list(re.finditer(r"\d", lines))
    place = digits[-1].start()
    lines = lines[:place] + str((int(lines[place]) + 1) % 10) + lines[place + 1 :]
    out["text"] = lines.splitlines(keepends=True)


def _tagged(*tags: str) -> Callable[[Any], None]:
    return lambda c: c["metadata"].update(tags=[*c["metadata"].get("tags", []), *tags])


def _printing(words: str) -> Callable[[Any], None]:
    return lambda c: c["outputs"].append(
        {"name": "stdout", "output_type": "stream", "text": [words]}
    )


def _without_asserts(c: Any) -> None:
    kept = [line for line in "".join(c["source"]).splitlines() if not line.startswith("assert")]
    c["source"] = "\n".join(kept).splitlines(keepends=True)


def _of_a_claim(c: Any) -> bool:
    return any(t.startswith("claim-") for t in c["metadata"].get("tags", ()))


def _asserts_and_prints(c: Any) -> bool:
    source = "".join(c["source"])
    return "\nassert " in source and _prints(c) and not _of_a_claim(c) and source.count("(") > 2


def _settles(c: Any) -> bool:
    lines = "".join(c["source"]).splitlines()
    return _of_a_claim(c) and sum(x.startswith("assert") for x in lines) == 1 and len(lines) > 2


FAULTS = [
    Fault("a digit of a printed result", SHORT, cell(_other_digit, _prints), NBVAL),
    Fault(
        "a number in the code of a cell, its output left as it was",
        SHORT, text(r"burst\[0\] = 10", "burst[0] = 11"), NBVAL,
    ),
    Fault("a removed output", SHORT, cell(lambda c: c.update(outputs=[]), _prints), NBVAL),
    Fault(
        "an output more than the cell makes",
        SHORT, cell(_printing("and so it is\n"), _prints), NBVAL,
    ),
    Fault("an assertion that does not hold", SHORT, text(r"assert shared > 3", "assert shared > 9"),
          NBVAL),
    Fault("a cleared execution count", SHORT,
          cell(lambda c: c.update(execution_count=None), _prints), PYTEST),
    Fault("the tag nbval-skip", SHORT, cell(_tagged("nbval-skip"), _prints), PYTEST),
    Fault("the comment NBVAL_IGNORE_OUTPUT", SHORT,
          text(r"^burst = ", "# NBVAL_IGNORE_OUTPUT\nburst = "), PYTEST),
    Fault("a traceback that was stored", SHORT,
          cell(_printing("Traceback (most recent call last)\n"), _prints), PYTEST),
    Fault("a path of somebody's machine in an output", SHORT,
          cell(_printing("saved in /" + "home/me/run\n"), _prints), PYTEST),
    Fault("a picture that changed places with another", LONG, swapped_pictures, PYTEST),
    Fault(
        "a figure without alternative text", LONG,
        cell(lambda c: c["metadata"]["mystnb"].pop("image"), _draws), PYTEST,
    ),
    Fault("the verdict on a claim, in the list", "claims.yml",
          text(r"(id: a19\n    verdict: )wrong", r"\1right"), PYTEST),
    Fault("the verdict on a claim, in the chapter", LONG,
          text(r"\*Imprecise\.\*", "*Wrong.*"), PYTEST),
    Fault("the assertion of a cell that settles a claim", LONG, cell(_without_asserts, _settles),
          PYTEST),
    Fault("a claim whose cell lost its tag", LONG,
          cell(lambda c: c["metadata"].update(tags=[]), _settles), PYTEST),
    Fault("the digest of a function that a panel shows", "source-map.yml",
          text(r"(Tensor\.backward: )\w{4}", r"\g<1>0000"), PYTEST),
    Fault("a misspelt anchor of a panel", LONG,
          text(r'start_at=\\?"buf = momentum_buffer', 'start_at="buf = momentum_bufer'), PYTEST),
    Fault("five lines of PyTorch, retyped", "reference/errata.md", retyped, PYTEST),
    Fault("a guard that does not exist", "reference/errata.md",
          text(r"::test_notebook`", "::test_note`"), PYTEST),
    Fault("a page that is not in the table of contents", "reference/errata.md",
          extra("forgotten.md", "# A page that nobody finds\n"), PYTEST),
    Fault("a term that the glossary does not have", LONG,
          text(r"\{term\}`ravine`", "{term}`ravene`"), BUILD, "ravene"),
    Fault("a link to a target that does not exist", LONG,
          text(r"\]\(fig-momentum-noise\)", "](fig-momentum-nose)"), BUILD, "fig-momentum-nose"),
    Fault("a reference to a section that does not exist", SHORT,
          text(r"\{ref\}`conventions-section`", "{ref}`conventions-sektion`"), BUILD,
          "conventions-sektion"),
    Fault("a source that the bibliography does not have", SHORT,
          text(r"\{cite\}`torchadam`", "{cite}`torchadan`"), BUILD, "torchadan"),
    Fault("a label that two places have", "reference/errata.md",
          text(r"\(errata\)=", "(errata)=\n(conventions-momentum)="), BUILD,
          "conventions-momentum"),
    Fault("the sign of a formula, beside the cell that computes it right", LONG,
          text(r"\\theta_t - \\eta", r"\\theta_t + \\eta"), NOBODY),
    Fault("a wrong number in a sentence", LONG, text(r"here fifty times", "here sixty times"),
          NOBODY),
    Fault("a caption that says the opposite", LONG,
          cell(lambda c: _in_caption(c, "it still swings", "it no longer swings"), _draws),
          NOBODY),
    Fault("an alternative text of something else", LONG,
          cell(lambda c: c["metadata"]["mystnb"]["image"].update(
              alt="A bar chart of the yearly rainfall in four towns."), _draws), NOBODY),
    Fault("a correction that corrects nothing", "claims.yml",
          text(r"(claim: 2019.*\n    correction: ).*", r"\1It was so."), PYTEST),
    Fault("an assertion taken out of a cell that settles no claim", SHORT,
          cell(_without_asserts, _asserts_and_prints), NOBODY),
    Fault("a link to another site that leads nowhere", "reference/errata.md",
          text(r"# Errata", "# Errata\n\nSee [there](https://example.invalid/nothing)."), NOBODY),
    Fault("the number of a question in PyTorch's tracker", LONG,
          text(r"pytorch#(\d+)", r"pytorch#9\1"), NOBODY),
    Fault("a year in the bibliography", "references.bib",
          text(r"year += +\{(\d{3})\d", r"year = {\g<1>0"), NOBODY),
]  # fmt: skip


def _in_caption(c: Any, before: str, after: str) -> None:
    figure = c["metadata"]["mystnb"]["figure"]
    if before not in figure["caption"]:
        raise LookupError(before)
    figure["caption"] = figure["caption"].replace(before, after)


# --- the checks -----------------------------------------------------------------------------------


def copy(folder: Path) -> Path:
    """All that belongs to the project, as it lies here."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, check=True, text=True).stdout
    for name in names.split("\0"):
        if name and (ROOT / name).is_file():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target)
    run = ["git", "-c", "init.defaultBranch=main", "init", "-q"]
    subprocess.run(run, cwd=folder, check=True)  # tests ask git which files there are
    subprocess.run(["git", "add", "-A"], cwd=folder, check=True)
    return folder


def _run(folder: Path, *command: str) -> tuple[int, str]:
    environment = os.environ | {"PYTHONPATH": str(folder / "src"), "PYTHONUNBUFFERED": "1"}
    environment |= {"JUPYTER_PREFER_ENV_PATH": "1"}
    ended = subprocess.run(
        command, cwd=folder, env=environment, text=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    return ended.returncode, ended.stdout


def _pytest(folder: Path, *arguments: str) -> tuple[int, str]:
    return _run(folder, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments)


def ask_nbval(folder: Path, fault: Fault) -> str:
    """ "" if nbval sees nothing wrong with the notebook, else the first cell it names."""
    code, said = _pytest(folder, "--nbval", f"book/{fault.file}")
    found = re.search(r"^FAILED \S+::(Cell \d+)|^(FAILED|ERROR)", said, re.MULTILINE)
    return "" if code == 0 else (found and found[1]) or "the notebook"


def ask_pytest(folder: Path, readers: list[str]) -> str:
    """ "" if every test that reads the book is green, else the first that is red."""
    code, said = _pytest(folder, "-x", *(f"tests/{name}" for name in readers))
    found = re.search(r"^(?:FAILED|ERROR) (tests/\S+?)(\[| - |$)", said, re.MULTILINE)
    return "" if code == 0 else f"`{found[1] if found else 'at collection'}`"


def ask_builder(folder: Path) -> str:
    """What the builder complains of, notebooks shown with their stored outputs."""
    config = folder / "_config.yml"
    old = config.read_text(encoding="utf-8")
    config.write_text(old.replace("execute_notebooks: cache", 'execute_notebooks: "off"'))
    builder = Path(sys.executable).with_name("jupyter-book")
    _, said = _run(folder, str(builder), "build", ".", "--keep-going")
    return "\n".join(x for x in said.splitlines() if re.search(r"\b(WARNING|ERROR)\b", x))


def plant(folder: Path, fault: Fault) -> None:
    fault.plant(folder / "book" / fault.file)
    subprocess.run(["git", "add", "-A"], cwd=folder, check=True)


def ask(folder: Path, fault: Fault, built: str) -> tuple[Fault, dict[str, str]]:
    """What each check says of one fault, in a copy of its own; "" if it sees nothing."""
    folder = copy(folder / re.sub(r"\W", "-", fault.name))
    plant(folder, fault)
    seen = {PYTEST: ask_pytest(folder, READERS)}
    if fault.file.endswith(".ipynb"):
        seen[NBVAL] = ask_nbval(folder, fault)
    if fault.said:
        seen[BUILD] = "a warning" if fault.said in built else ""
    shutil.rmtree(folder)
    return fault, seen


def judge(fault: Fault, seen: dict[str, str]) -> str:
    """What is wrong with the answer of the checks, or ""."""
    hit = {check for check, said in seen.items() if said}
    if fault.seen_by == NOBODY:
        return f"{fault.name}: {' and '.join(sorted(hit))} saw it" if hit else ""
    return "" if fault.seen_by in hit else f"{fault.name}: {fault.seen_by} did not see it"


def answer_of(fault: Fault) -> Path:
    """The file with what the checks said of a fault: a dictionary, check by check."""
    return ANSWERS / (re.sub(r"\W", "-", fault.name) + ".json")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="faults whose name has this in it")
    parser.add_argument("--resume", action="store_true", help="keep the answers that are there")
    parser.add_argument("--record", action="store_true", help="keep the result for the book")
    options = parser.parse_args()
    os.nice(5)
    start = time.monotonic()
    wanted = [fault for fault in FAULTS if options.only in fault.name]
    faults = [f for f in wanted if not (options.resume and answer_of(f).is_file())]
    ANSWERS.mkdir(parents=True, exist_ok=True)
    wrong, rows = [], []
    with tempfile.TemporaryDirectory() as name:
        whole = copy(Path(name, "whole"))
        said = ask_pytest(whole, READERS)
        if said:
            sys.exit(f"Red without any fault: {said}")
        built = ""
        if any(fault.said for fault in faults):
            folder = copy(Path(name, "built"))
            before = ask_builder(folder)
            if before:
                sys.exit(f"The builder complains without any fault:\n{before}")
            for fault in faults:
                if fault.said:
                    plant(folder, fault)
            built = ask_builder(folder)
        with ThreadPoolExecutor(max_workers=2) as pool:
            for fault, seen in pool.map(lambda fault: ask(Path(name), fault, built), faults):
                answer_of(fault).write_text(json.dumps(seen), encoding="utf-8")
                print(fault.name, seen, flush=True)
    for fault in wanted:
        seen = json.loads(answer_of(fault).read_text(encoding="utf-8"))
        columns = (seen.get(check, "not asked") or "no" for check in CHECKS)
        rows.append([fault.name, *columns])
        print(" | ".join(rows[-1]))
        wrong += filter(None, [judge(fault, seen)])
    print("\n".join(wrong))
    if options.record and not wrong and not options.only:
        record(rows, None if options.resume else time.monotonic() - start)
    return bool(wrong)


def record(rows: list[list[str]], seconds: float | None) -> None:
    """Keep the table for the book; what nobody sees first of all."""
    blind = [row for row, fault in zip(rows, FAULTS, strict=True) if fault.seen_by == NOBODY]
    evidence.record(
        "wrong-books",
        title="Faults planted in notebooks and pages",
        command="make wrong-books RECORD=1",
        summary=f"{len(rows)} faults were planted, one at a time. {len(rows) - len(blind)} were "
        f"seen by a check; {len(blind)} are of a kind that no check here can see, and the table "
        "says which.",
        head=["fault", *CHECKS],
        rows=rows,
        notes=[
            "Words are not computed: a formula, a caption or a sentence can be wrong beside a cell "
            "that is right. The reader, and whoever reviews a change, are the check.",
            "An assertion that is gone asserts nothing. Only the cell of a claim must have one.",
            "Links to other sites are not followed, because no check uses the network.",
        ],
        seconds=seconds,
    )


if __name__ == "__main__":
    sys.exit(main())
