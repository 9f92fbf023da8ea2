"""Run notebooks and tests under circumstances that a reader's machine may have.

    python tools/platforms.py                        every circumstance that can be had here
    python tools/platforms.py --only avx2 locale     some of them
    python tools/platforms.py --python 3.12=PATH     and another Python, with the pinned packages
    python tools/platforms.py --record               write what was found down for the page

Nothing is compared with anything new: the notebooks are compared with their stored outputs, and the
tests assert what they assert everywhere. Each circumstance leaves its result in _build/platforms,
so that some can be run now and others later, or on another machine.
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
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
import torch
from execute import ROOT, find

from walkthrough import evidence

RESULTS = ROOT / "_build" / "platforms"
# the tests that compute, read files or start processes: what could depend on the machine
CORE = [
    "tests/test_parity.py", "tests/test_optimizer.py", "tests/test_lr_scheduler.py",
    "tests/test_exchange.py", "tests/test_random_runs.py", "tests/test_train.py",
    "tests/test_panels.py", "tests/test_source_map.py", "tests/test_notebooks.py",
    "tests/test_evidence.py",
]  # fmt: skip
ONLY_LOOPBACK = """
import fcntl, os, socket, struct, sys
names = [name for _, name in socket.if_nameindex()]
assert names == ["lo"], f"there are other networks: {names}"
with socket.socket() as s:
    request = struct.pack("16sh", b"lo", 1 | 64)  # up and running
    fcntl.ioctl(s, 0x8914, request)
try:
    socket.create_connection(("192.0.2.1", 80), timeout=5)
    sys.exit("a connection to another host was made")
except OSError:
    os.execvp(sys.argv[1], sys.argv[1:])
"""


@dataclass(frozen=True)
class Circumstance:
    """One row of the table.

    Attributes:
        says: what is different, for the page.
        set: variables of the environment; None takes one away.
        before: a command that runs the command given to it.
        python: another Python.
        missing: why it cannot be had here, or "".
    """

    says: str
    set: dict[str, str | None] = field(default_factory=dict)
    before: tuple[str, ...] = ()
    python: str = sys.executable
    place: Callable[[], object] | None = None
    missing: str = ""


def instructions(name: str) -> str:
    """Why PyTorch cannot be asked for these instructions of the processor here, or ""."""
    levels = ["DEFAULT", "AVX2", "AVX512"]
    here = torch.backends.cpu.get_cpu_capability()
    if here not in levels or levels.index(name.upper()) > levels.index(here):
        return f"this processor has {here}"
    return ""


def has(*command: str) -> bool:
    return subprocess.run(command, capture_output=True).returncode == 0


def circumstances(pythons: dict[str, str]) -> dict[str, Circumstance]:
    """All rows, by name."""
    rows = {
        name: Circumstance(
            f"`ATEN_CPU_CAPABILITY={name}`",
            {"ATEN_CPU_CAPABILITY": name},
            missing=instructions(name),
        )
        for name in ("default", "avx2", "avx512")
    }
    rows["threads"] = Circumstance(
        "2 threads", {"WALKTHROUGH_THREADS": "2", "OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"}
    )
    # Some differ in several things at once: what is equal then is equal under each of them.
    elsewhere = {"LC_ALL": "tr_TR.UTF-8", "LANG": "tr_TR.UTF-8", "TZ": "ODD-12:45"}
    rows["locale"] = Circumstance(
        "a Turkish locale, a time zone of UTC+12:45, `PYTHONHASHSEED=1`",
        {**elsewhere, "LOCPATH": str(RESULTS / "locale"), "PYTHONHASHSEED": "1"},
        missing="" if shutil.which("localedef") else "no `localedef` to make the locale",
    )
    ascii_only = {"LC_ALL": "C", "LANG": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    rows["ascii"] = Circumstance(
        "a locale that knows only ASCII, `PYTHONHASHSEED=4242`",
        {**ascii_only, "PYTHONHASHSEED": "4242"},
    )
    rows["path"] = Circumstance("a path with spaces, `ü` and `步`", place=copied)
    nowhere = {name: "/dev/null/nowhere" for name in ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME")}
    namespace = ("unshare", "-r", "-n")
    rows["alone"] = Circumstance(
        "no network: a namespace with loopback only; no home directory, and none can be made",
        nowhere,
        before=(*namespace, sys.executable, "-c", ONLY_LOOPBACK),
        missing="" if has(*namespace, "true") else "no `unshare`",
    )
    for name, python in pythons.items():
        rows[name] = Circumstance(name.replace("-", " "), python=python)
    return rows


@contextmanager
def copied() -> Iterator[Path]:
    """A copy of the checkout in a folder with an awkward name."""
    listed = ["git", "ls-files", "-co", "--exclude-standard", "-z"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "ein Ort für 步  (2)" / "walk through"
        for name in filter(None, names.split("\0")):
            if (ROOT / name).is_file():
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, place / name)
        yield place


@contextmanager
def here() -> Iterator[Path]:
    yield ROOT


def make_locale(name: str, folder: Path) -> None:
    """Compile a locale, which few machines have, into a folder of ours."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{name}.UTF-8"
    if not target.is_dir():
        made = ["localedef", "-i", name, "-f", "UTF-8", str(target)]
        subprocess.run(made, capture_output=True)
    if not target.is_dir():
        raise RuntimeError(f"the locale {name} cannot be made here")


# --- one row --------------------------------------------------------------------------------------


def run(name: str, row: Circumstance, parts: list[str]) -> dict[str, object]:
    """Run notebooks and tests under one circumstance: what came of it."""
    if "LOCPATH" in row.set:
        make_locale(str(row.set["LANG"]).split(".")[0], Path(str(row.set["LOCPATH"])))
    with (row.place or here)() as place:
        environment = os.environ | {
            "PYTHONPATH": str(place / "src"),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        environment |= {key: value for key, value in row.set.items() if value is not None}
        for key, value in row.set.items():
            if value is None:
                environment.pop(key, None)
        report = RESULTS / f"{name}.xml"
        command = [
            *row.before,
            row.python,
            "-m",
            "pytest",
            "-q",
            "--nbval",
            "-p",
            "no:cacheprovider",
        ]
        command += ["-c", str(place / "pyproject.toml"), f"--rootdir={place}"]
        command += ["-o", "junit_family=xunit1", f"--junitxml={report}"]
        command += ["-n", "2", "--dist", "loadscope", *(str(place / part) for part in parts)]
        report.unlink(missing_ok=True)
        begun = time.perf_counter()
        with (RESULTS / f"{name}.log").open("w", encoding="utf-8") as log:
            code = subprocess.run(command, cwd=place, env=environment, stdout=log, stderr=log)
        took = time.perf_counter() - begun
        return judged(row, code.returncode, report, parts) | {"seconds": round(took)}


def judged(row: Circumstance, code: int, report: Path, parts: list[str]) -> dict[str, object]:
    """What the report of a run says. A run that is not whole has failed."""
    cells, tests, failed = 0, 0, []
    cases = ET.parse(report).iter("testcase") if report.is_file() else ()
    for case in cases:
        tags = {child.tag for child in case}
        if tags & {"failure", "error"}:
            failed.append(f"{Path(case.get('file', '')).name} {case.get('name')}")
        elif "skipped" not in tags:
            notebook = case.get("file", "").endswith(".ipynb")
            cells, tests = cells + notebook, tests + (not notebook)
    wanted = sum(
        cell.cell_type == "code"
        for part in parts
        if part.endswith(".ipynb")
        for cell in nbformat.read(ROOT / part, as_version=4).cells
    )
    good = code == 0 and cells == wanted and cells + tests > 0 and not failed
    return {
        "says": row.says, "good": good, "cells": cells, "tests": tests, "failed": failed,
        "torch": version(row.python), "processor": evidence.processor(),
        "code": evidence.code(),
    }  # fmt: skip


def version(python: str) -> str:
    line = "import platform, torch; print(platform.python_version(), torch.__version__)"
    found = subprocess.run([python, "-c", line], capture_output=True, text=True).stdout.split()
    return "Python {}, torch {}".format(*found) if found else "no torch"


# --- the table ------------------------------------------------------------------------------------


def result(found: dict) -> str:
    """One word, or what failed."""
    if found.get("missing"):
        return f"not run: {found['missing']}"
    if found["good"]:
        return "all equal"
    failed = found["failed"]
    return f"**{len(failed)} failed**: {', '.join(failed[:3])}" if failed else "**not whole**"


def record(pythons: dict[str, str]) -> None:
    """Write the results that are there down for the page."""
    known = circumstances(pythons)
    names = [*known, *sorted({p.stem for p in RESULTS.glob("*.json")} - known.keys())]
    rows, total, bad, now = [], 0.0, 0, evidence.code()
    for name in names:
        path = RESULTS / f"{name}.json"
        if not path.is_file():
            continue
        found = json.loads(path.read_text(encoding="utf-8"))
        if found.get("code", now) != now:
            print(f"{name}: left out, minioptim has been changed since", file=sys.stderr)
            continue
        seconds = found.get("seconds", 0)
        took = evidence.duration(seconds) if seconds else ""
        counts = [found.get("cells", ""), found.get("tests", ""), found.get("torch", "")]
        rows.append([found["says"], *counts, result(found), took])
        total += seconds
        bad += not (found.get("missing") or found["good"])
    ran = [row for row in rows if not row[4].startswith("not run")]
    said = f"In {len(ran) - bad} of {len(ran)} circumstances every output was equal and every test "
    said += "passed." if not bad else f"passed; **in {bad} not**."
    evidence.record(
        "platforms",
        title="The same everywhere",
        command="make platforms",
        summary=said,
        head=["circumstance", "cells", "tests", "with", "result", "time"],
        rows=rows,
        notes=[
            "A cell is a code cell of a notebook whose every text output was compared.",
            "Without a network means: in a namespace in which a connection to another host was "
            "tried first, and failed.",
        ],
        seconds=total,
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="some circumstances")
    parser.add_argument("--python", nargs="+", default=[], metavar="NAME=PATH", help="more Pythons")
    parser.add_argument(
        "--parts", nargs="+", help="files to run; default: notebooks and core tests"
    )
    parser.add_argument("--record", action="store_true", help="record the results for the page")
    parser.add_argument("--no-run", action="store_true", help="only record what was found before")
    options = parser.parse_args(arguments)
    pythons = dict(pair.split("=", 1) for pair in options.python)
    known = circumstances(pythons)
    wanted = options.only or list(known)
    if unknown := [name for name in wanted if name not in known]:
        parser.error(f"{', '.join(unknown)}: not one of {', '.join(known)}")
    notebooks = [path.relative_to(ROOT).as_posix() for path in find()]
    parts = options.parts or [*notebooks, *CORE]
    RESULTS.mkdir(parents=True, exist_ok=True)
    bad = 0
    for name in () if options.no_run else wanted:
        row = known[name]
        found: dict = {"says": row.says, "missing": row.missing}
        if not row.missing:
            found = run(name, row, parts)
        path = RESULTS / f"{name}.json"
        path.write_text(json.dumps(found, ensure_ascii=False), encoding="utf-8")
        bad += not (row.missing or found["good"])
        took = f" ({found['seconds']} s)" if "seconds" in found else ""
        print(f"{re.sub('`', '', row.says):45} {result(found)}{took}", flush=True)
    if options.record:
        record(pythons)
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
