"""Run every notebook of the book and compare every output with the stored one, strictly.

    python tools/nbval.py                  all notebooks under book/
    python tools/nbval.py book/NAME.ipynb

Then count: each code cell of each notebook must have been run, compared and found equal. A test
runner alone would also end well with a notebook that it never collected.
"""

from __future__ import annotations

import collections
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import nbformat
from execute import ROOT, find

REPORT = ROOT / "_build" / "reports" / "nbval.xml"


def main() -> int:
    paths = [Path(name).resolve() for name in sys.argv[1:]] or find()
    if not paths:
        print("no notebook under book/", file=sys.stderr)
        return 1
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.unlink(missing_ok=True)
    # loadscope: a notebook is never split over two workers
    command = [sys.executable, "-m", "pytest", "-q", "--nbval", "-n", "2", "--dist", "loadscope"]
    command += [f"--junitxml={REPORT}", "-o", "junit_family=xunit1", *map(str, paths)]
    code = subprocess.run(command, cwd=ROOT, env=os.environ | {"JUPYTER_PREFER_ENV_PATH": "1"})
    if code.returncode:
        return code.returncode
    passed: collections.Counter[str] = collections.Counter()
    for case in ET.parse(REPORT).iter("testcase"):
        if not any(child.tag in ("failure", "error", "skipped") for child in case):
            passed[Path(case.get("file", "")).name] += 1
    faults = []
    cells = 0
    for path in paths:
        nb = nbformat.read(path, as_version=4)
        wanted = sum(cell.cell_type == "code" and bool(cell.source.strip()) for cell in nb.cells)
        cells += wanted
        if passed[path.name] != wanted or not wanted:
            faults.append(f"{path.name}: {passed[path.name]} of {wanted} code cells were compared")
    for fault in faults:
        print(fault, file=sys.stderr)
    if not faults:
        print(f"nbval: all {cells} code cells of {len(paths)} notebooks ran and agree.")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
