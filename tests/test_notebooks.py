"""What nbval cannot see in a notebook.

nbval compares the outputs of a cell that has an execution count and no tag that says otherwise; it
never compares pictures. So the counts, the tags and the pictures are checked here.
"""

from __future__ import annotations

import base64
import json
import re
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted(
    path
    for path in (ROOT / "book").rglob("*.ipynb")
    if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
)
SILENCERS = ("nbval", "raises-exception", "skip-execution")
MACHINE = re.compile(
    r"(?<![\w.:/])/(?:home|root|tmp|work|opt|mnt|usr|Users)/[\w.-]+"  # a path of one machine
    r"|[A-Z]:\\\\?Users|site-packages|ipykernel_\d+"
    r"|\b0x[0-9a-f]{6,}"  # an address in memory
)
WIDTH = 88
PICTURE = ("image/png", "image/jpeg", "image/svg+xml", "image/gif")

Notebook = dict[str, Any]
each_notebook = pytest.mark.parametrize(
    "notebook", NOTEBOOKS, ids=lambda path: path.relative_to(ROOT).as_posix()
)


def read(path: Path) -> Notebook:
    return json.loads(path.read_text(encoding="utf-8"))


def code_cells(nb: Notebook) -> list[dict[str, Any]]:
    return [cell for cell in nb["cells"] if cell["cell_type"] == "code"]


def text(value: str | list[str]) -> str:
    return value if isinstance(value, str) else "".join(value)


def texts(cell: dict[str, Any]) -> Iterator[str]:
    """Every text that a cell stored as output."""
    for output in cell["outputs"]:
        yield text(output.get("text", ""))
        for kind, data in output.get("data", {}).items():
            if kind not in PICTURE:
                yield json.dumps(data) if isinstance(data, dict) else text(data)


# --- one function per rule; each returns the faults it sees, so that it can be tested itself -----


def uncounted(nb: Notebook) -> list[str]:
    """Cells that nbval would not compare, because they were never run or not in order."""
    counts = [cell["execution_count"] for cell in code_cells(nb)]
    wanted = list(range(1, len(counts) + 1))
    return [] if counts == wanted else [f"execution counts are {counts}, not 1..{len(counts)}"]


def silenced(nb: Notebook) -> list[str]:
    faults = []
    for n, cell in enumerate(code_cells(nb), 1):
        tags = cell["metadata"].get("tags", [])
        found = [tag for tag in tags if tag.startswith(SILENCERS)]
        if re.search(r"#\s*(NBVAL_|PYTEST_VALIDATE_)", text(cell["source"])):
            found.append("a comment for nbval")
        faults += [f"code cell {n} is not compared: {tag}" for tag in found]
    return faults


def without_id(nb: Notebook) -> list[str]:
    ids = [cell.get("id") for cell in nb["cells"]]
    if nb.get("nbformat_minor", 0) < 5 or None in ids:
        return ["cells have no ids (nbformat 4.5)"]
    return [] if len(set(ids)) == len(ids) else ["two cells have one id"]


def leaking(nb: Notebook) -> list[str]:
    """Stored tracebacks, paths, addresses: they hold other people's lines, or one machine."""
    faults = []
    for n, cell in enumerate(code_cells(nb), 1):
        if any(output["output_type"] == "error" for output in cell["outputs"]):
            faults.append(f"code cell {n} stores a traceback")
        for found in texts(cell):
            if "Traceback (most recent call last)" in found:
                faults.append(f"code cell {n} stores a traceback")
            match = MACHINE.search(found)
            if match:
                faults.append(f"code cell {n} stores {match.group(0)!r}")
        if "execution" in cell["metadata"]:
            faults.append(f"code cell {n} stores the times of a run")
    return faults


def pictures(nb: Notebook) -> Iterator[tuple[int, dict[str, Any], str, str]]:
    for n, cell in enumerate(code_cells(nb), 1):
        for output in cell["outputs"]:
            for kind, data in output.get("data", {}).items():
                if kind in PICTURE:
                    yield n, cell, kind, text(data)


def heavy(nb: Notebook) -> list[str]:
    faults = []
    for n, _, kind, data in pictures(nb):
        size = len(data) if kind == "image/svg+xml" else len(base64.b64decode(data))
        if size > 100 * 1024:
            faults.append(f"code cell {n}: a picture of {size // 1024} KB, more than 100")
    return faults


def mute(nb: Notebook) -> list[str]:
    """Pictures that say nothing to who cannot see them, or that no text can refer to."""
    faults = []
    for n, cell, _, _ in pictures(nb):
        settings = cell["metadata"].get("mystnb", {})
        alt = settings.get("image", {}).get("alt", "")
        figure = settings.get("figure", {})
        if len(alt.strip()) < 30 or re.search(r"\.(png|svg|jpe?g)$", alt):
            faults.append(f"code cell {n}: alternative text of 30 characters or more is missing")
        if len(figure.get("caption", "").strip()) < 10 or not figure.get("name"):
            faults.append(f"code cell {n}: the figure has no caption, or no name to refer to")
    return faults


def misplaced(nb: Notebook) -> list[str]:
    """A picture that is not the one whose digest is printed beneath it: see `plots.finish`."""
    faults = []
    for n, cell, kind, data in pictures(nb):
        if kind == "image/png":
            drawn = re.search(rb"tEXtDigest\0([0-9a-f]{8})", base64.b64decode(data))
            printed = re.findall(r"digest ([0-9a-f]{8})", "".join(texts(cell)))
            if drawn is None or drawn[1].decode() not in printed:
                faults.append(f"code cell {n}: the picture is not that of the digest under it")
    return faults


def long_winded(nb: Notebook) -> list[str]:
    """A cell holds one idea; what is longer belongs into src/ and is shown by a panel."""
    sizes = [
        sum(bool(line.strip()) for line in text(cell["source"]).splitlines())
        for cell in code_cells(nb)
    ]
    faults = [f"code cell {n} has {size} lines" for n, size in enumerate(sizes, 1) if size > 20]
    if sizes and statistics.median(sizes) > 6:
        faults.append(f"half of the code cells have more than {statistics.median(sizes)} lines")
    return faults


def hiding(nb: Notebook) -> list[str]:
    """A semicolon at the end of a cell hides its value, but not from every kernel that runs it."""
    found = [
        n for n, cell in enumerate(code_cells(nb), 1) if text(cell["source"]).rstrip()[-1:] == ";"
    ]
    return [f"code cell {n} ends with a semicolon" for n in found]


def wide(nb: Notebook) -> list[str]:
    """The column of a page holds 88 characters of code; what is longer is cut off there."""
    return [
        f"code cell {n}: a line of {len(line)} characters, more than {WIDTH}"
        for n, cell in enumerate(code_cells(nb), 1)
        for line in text(cell["source"]).splitlines()
        if len(line) > WIDTH
    ]


RULES = [uncounted, silenced, without_id, leaking, heavy, mute, misplaced, long_winded, hiding]
RULES += [wide]


@each_notebook
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_notebook(notebook: Path, rule: Any) -> None:
    assert rule(read(notebook)) == []


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS


# --- the rules see a fault ------------------------------------------------------------------------


DIGEST = b"....tEXtDigest\x001b587a68...."


def sound() -> Notebook:
    picture = base64.b64encode(DIGEST + b"p" * 1000).decode()
    cell = {
        "cell_type": "code",
        "id": "a",
        "execution_count": 1,
        "metadata": {
            "mystnb": {
                "image": {"alt": "a curve that falls from three to one and rises again"},
                "figure": {"caption": "A curve of some length.", "name": "fig-a"},
            }
        },
        "source": "draw()",
        "outputs": [
            {"output_type": "stream", "name": "stdout", "text": ["digest 1b587a68\n"]},
            {"output_type": "display_data", "data": {"image/png": picture}, "metadata": {}},
        ],
    }
    other = json.loads(json.dumps(cell)) | {"id": "b", "execution_count": 2, "outputs": []}
    return {"cells": [cell, other], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def planted(path: str, value: Any) -> Notebook:
    """The sound notebook with one thing changed; the path names it, by keys from the top."""
    nb: Any = sound()
    *keys, last = [int(key) if key.isdigit() else key for key in path.split("/")]
    place = nb
    for key in keys:
        place = place[key]
    place[last] = value
    return nb


BIG = base64.b64encode(DIGEST + b"p" * 103_000).decode()
OTHER = base64.b64encode(DIGEST.replace(b"1b", b"2b") + b"p" * 1000).decode()
NAMELESS = base64.b64encode(b"p" * 1000).decode()
PLANTED = [
    (uncounted, planted("cells/1/execution_count", None)),
    (uncounted, planted("cells/1/execution_count", 3)),
    (silenced, planted("cells/0/metadata/tags", ["nbval-ignore-output"])),
    (silenced, planted("cells/0/metadata/tags", ["nbval-skip"])),
    (silenced, planted("cells/0/metadata/tags", ["raises-exception"])),
    (silenced, planted("cells/0/source", "# NBVAL_IGNORE_OUTPUT\ndraw()")),
    (without_id, planted("cells/1/id", "a")),
    (leaking, planted("cells/0/outputs/0/text", "saved in /" + "home/me/x")),
    (leaking, planted("cells/0/outputs/0/text", "<object at 0x7f3a5c2d>")),
    (leaking, planted("cells/0/outputs/0/output_type", "error")),
    (leaking, planted("cells/0/outputs/0/text", "Traceback (most recent call last)")),
    (leaking, planted("cells/0/metadata/execution", {"iopub.execute_input": "now"})),
    (heavy, planted("cells/0/outputs/1/data", {"image/png": BIG})),
    (mute, planted("cells/0/metadata/mystnb/image/alt", "a curve")),
    (mute, planted("cells/0/metadata/mystnb/image/alt", "book/_images/a-curve-that-falls.png")),
    (mute, planted("cells/0/metadata/mystnb/figure/caption", "")),
    (mute, planted("cells/0/metadata/mystnb/figure/name", "")),
    (misplaced, planted("cells/0/outputs/1/data", {"image/png": OTHER})),
    (misplaced, planted("cells/0/outputs/1/data", {"image/png": NAMELESS})),
    (misplaced, planted("cells/0/outputs/0/text", "digest 2b587a68")),
    (long_winded, planted("cells/0/source", "x = 1\n" * 21)),
    (hiding, planted("cells/0/source", "draw();")),
    (wide, planted("cells/0/source", "x = 1\ny = " + "1" * 85)),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_sound_notebook_passes(rule: Any) -> None:
    assert rule(sound()) == []


@pytest.mark.parametrize(("rule", "nb"), PLANTED, ids=lambda value: getattr(value, "__name__", ""))
def test_a_planted_fault_is_seen(rule: Any, nb: Notebook) -> None:
    assert rule(nb) != []
