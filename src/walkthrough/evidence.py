"""What was found when the checks were checked: recorded by a command, shown on a page.

Some checks take too long for every run: all mutants, a hundred kills, every Python. Whoever runs
one calls `record`, which writes ``book/verification/NAME.json``. The directive ``{evidence} NAME``
turns that file into text and a table when the book is built, so nothing of it is typed by hand.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import platform
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from . import source

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "book" / "verification"
NAME = re.compile(r"[a-z][a-z0-9-]*")
# a place on one machine says nothing to a reader, and is nobody's business
PLACE = re.compile(r"(?<![\w.:/])/(?:home|root|tmp|work|mnt|Users)/[\w.-]+")


def record(
    name: str,
    *,
    title: str,
    command: str,
    summary: str,
    head: Sequence[str] = (),
    rows: Iterable[Sequence[Any]] = (),
    notes: Sequence[str] = (),
    seconds: float | None = None,
    where: Mapping[str, str] | None = None,
    folder: Path = FOLDER,
) -> Path:
    """Write down what a run has found, with the date, the machine and the versions.

    Everything is text that is read as markdown, so ``code`` and links work in it.

    Args:
        name: of the file, in small letters, digits and hyphens; the page shows it by this name.
        title: what was done, in a few words.
        command: the line that does it again.
        summary: the result, in one or two sentences. It says so if something failed.
        head: the columns of a table. Each has a name, which a screen reader says before a cell.
        rows: its rows, as long as ``head``; what is not text becomes text.
        notes: one sentence each, shown as a list under the table.
        seconds: how long it took.
        where: adds to what `machine` finds out, or replaces it: ``{"GPU": "NVIDIA H100"}``.
        folder: another place for the file, for a run on another machine.

    Returns:
        The file. Its keys are sorted, so that two records are compared line by line.

    Raises:
        ValueError: a bad name; an empty title, command or summary; a column without a name; a row
            that is not as long as ``head``; or a text that names a path of this machine, or the
            machine.
    """
    if not NAME.fullmatch(name):
        raise ValueError(f"a name has small letters, digits and hyphens, not {name!r}")
    if not (title and command and summary):
        raise ValueError("a record needs a title, a command and a summary")
    if not all(head):
        raise ValueError(f"every column needs a name, not {list(head)}")
    table = [[str(cell) for cell in row] for row in rows]
    if any(len(row) != len(head) for row in table):
        raise ValueError(f"every row must have {len(head)} cells, as the head has")
    found = {
        "title": title,
        "command": command,
        "summary": summary,
        "head": list(head),
        "rows": table,
        "notes": list(notes),
        "seconds": None if seconds is None else round(seconds, 1),
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit(),
        "code": code(),
        "where": machine() | dict(where or {}),
    }
    text = json.dumps(found, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    place = PLACE.search(text)
    if place or platform.node() in re.findall(r"[\w.-]+", text):
        raise ValueError(f"a record does not name a place: {place[0] if place else 'the host'}")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(text, encoding="utf-8")
    return path


def load(name: str, folder: Path = FOLDER) -> dict[str, Any] | None:
    """What was recorded under this name, or None if nothing was."""
    path = folder / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def machine() -> dict[str, str]:
    """What a result can depend on: processor, cores, system, versions. No name, no path."""
    return {
        "processor": processor(),
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.machine()}",
        "Python": platform.python_version(),
        "torch": torch.__version__,
    }


def processor() -> str:
    """The model of the CPU, as far as the system tells."""
    try:
        found = re.search(
            r"^model name\s*: (.*)$",
            Path("/proc/cpuinfo").read_text(encoding="utf-8"),
            re.MULTILINE,
        )
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()


def commit() -> str:
    """The commit of this checkout, with ``+`` if a file has changed since, or "" without git."""
    git = ["git", "-C", str(ROOT)]
    # a record of another check is no change of what was checked
    changed = [*git, "status", "--porcelain", "-uno", "--", ".", ":!book/verification"]
    try:
        head, dirty = (
            subprocess.run(line, capture_output=True, text=True, check=True).stdout.strip()
            for line in ([*git, "rev-parse", "--short=10", "HEAD"], changed)
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head + "+" * bool(dirty)


def code(root: Path = ROOT) -> str:
    """A short code for what `minioptim` does: comments, docstrings and types do not count."""
    found = hashlib.sha256()
    for path in sorted((root / "src" / "minioptim").glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        body = tree.body[1:] if ast.get_docstring(tree) else tree.body
        found.update("".join([path.name, *source._skeleton(body, types=False)]).encode())
    return found.hexdigest()[:12]


# --- the page -------------------------------------------------------------------------------------


def duration(seconds: float) -> str:
    """So many seconds, in words.

    60 is "1 min", 61 "1 min 1 s", and 7261 "2 h 1 min".
    """
    whole = round(seconds)
    parts = [(whole // 3600, "h"), (whole % 3600 // 60, "min"), (whole % 60, "s")]
    return " ".join([f"{n} {unit}" for n, unit in parts if n][:2]) or "0 s"


def markdown(name: str, found: Mapping[str, Any] | None, now: str = "") -> str:
    """A record as text and table, or a sentence that says that there is none.

    Args:
        now: the `code` of today; if the record was made with another one, it says so.
    """
    if found is None:
        return f"*This has not been run yet: there is no* `book/verification/{name}.json`."
    lines = [found["summary"], ""]
    if found["rows"]:
        for row in (found["head"], ["---"] * len(found["head"]), *found["rows"]):
            cells = (re.sub(r"\s+", " ", cell).replace("|", r"\|") for cell in row)
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    lines += [f"- {note}" for note in found["notes"]] + [""]
    took = "" if found["seconds"] is None else f", in {duration(found['seconds'])}"
    at = f", at commit {found['commit']}" if found["commit"] else ""
    where = dict(found["where"])
    there = [f"{where.pop('processor')}, {where.pop('cores')} cores", where.pop("system")]
    there += [f"{key} {value}" for key, value in where.items()]
    if now and now != found["code"]:
        there[-1] += ". **`minioptim` has been changed since then**"
    lines.append(f"*{found['date']}*, `{found['command']}`{took}{at}. {'; '.join(there)}.")
    return "\n".join(lines)


def setup(app: Any) -> dict[str, Any]:
    """Called by the builder."""
    from sphinx.util.docutils import SphinxDirective  # a reader without the site's tools has none

    class Evidence(SphinxDirective):
        """``{evidence} NAME``."""

        required_arguments = 1

        def run(self) -> list[Any]:
            name = self.arguments[0]
            root = Path(self.env.srcdir)
            folder = root / "book" / "verification"
            self.env.note_dependency(str(folder / f"{name}.json"))
            self.env.note_reread()  # it also says whether the code is still the same
            return self.parse_text_to_nodes(markdown(name, load(name, folder), code(root)))

    app.add_directive("evidence", Evidence)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
