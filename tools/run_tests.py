"""Run every notebook of the book and compare every output with the stored one, strictly.

    python tools/run_tests.py                  all notebooks under book/
    python tools/run_tests.py --tests          these and the tests under tests/, in one run
    python tools/run_tests.py book/NAME.ipynb

Then count: each code cell of each notebook must have been run, compared and found equal. A test
runner alone would also end well with a notebook that it never collected.
"""

from __future__ import annotations

import argparse
import collections
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path

import nbformat
from execute import ROOT, find


def compare(places: list[Path], report: Path) -> int:
    """Run pytest with nbval; on two processors, never splitting a notebook over both."""
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "--nbval", f"--rootdir={ROOT}"]
    command += ["-c", str(ROOT / "pyproject.toml"), f"--junitxml={report}"]
    command += ["-o", "junit_family=xunit1"]  # this form names the file of each case
    if len(places) > 1:
        command += ["-n", "2", "--dist", "loadscope"]
    environment = os.environ | {"JUPYTER_PREFER_ENV_PATH": "1"}
    return subprocess.run([*command, *map(str, places)], cwd=ROOT, env=environment).returncode


def count(notebooks: list[Path], report: Path) -> list[str]:
    """The notebooks of which not every code cell passed."""
    passed: collections.Counter[Path] = collections.Counter()
    for case in ET.parse(report).iter("testcase"):
        if not any(child.tag in ("failure", "error", "skipped") for child in case):
            passed[(ROOT / case.get("file", "")).resolve()] += 1
    faults = []
    cells = 0
    for path in notebooks:
        nb = nbformat.read(path, as_version=4)
        wanted = sum(cell.cell_type == "code" for cell in nb.cells)
        cells += wanted
        if passed[path] != wanted or not wanted:
            faults.append(f"{path.name}: {passed[path]} of {wanted} code cells were compared")
    if not faults:
        print(f"All {cells} code cells of {len(notebooks)} notebooks ran and agree.")
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: all under book/")
    parser.add_argument("--tests", action="store_true", help="run tests/ too")
    options = parser.parse_args()
    notebooks = [path.resolve() for path in options.notebooks] or find()
    if not notebooks:
        parser.error("no notebook under book/")
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        code = compare([ROOT / "tests"] * options.tests + notebooks, report)
        faults = [] if code else count(notebooks, report)
    for fault in faults:
        print(fault, file=sys.stderr)
    return code or bool(faults)


if __name__ == "__main__":
    sys.exit(main())
