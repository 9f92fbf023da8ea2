"""Prove on a GPU what only a GPU can prove: the tests marked `cuda`, and every notebook.

    python tools/run_cuda.py               on CUDA; says so and ends well where there is none
    python tools/run_cuda.py --pretend     on the device of tests/elsewhere.py, which all have

The result is recorded in book/verification/cuda.json, or elsewhere.json, also a bad one, and stands
on the page of verification. In the notebooks every assertion must hold; what they print may differ.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, wait
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import nbformat
import torch
from execute import PRETENDED, ROOT, find, path_with

from walkthrough import evidence


def absent() -> str:
    """Why CUDA cannot be used here, or nothing if it can."""
    if torch.version.cuda is None:
        return f"this PyTorch, {torch.__version__}, was built without it"
    if not torch.cuda.is_available():
        return f"PyTorch {torch.__version__} finds no GPU that it can use"
    return ""


def run_tests(pretend: bool, places: list[Path], jobs: int = 1) -> tuple[int, Counter[str]]:
    """Run the tests marked `cuda`, and count what became of them."""
    names = ("passed", "failed", "skipped")
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-m", "cuda", f"--junitxml={report}"]
        command += ["-p", PRETENDED.stem] * pretend
        command += ["-n", str(jobs), "--dist=worksteal"] if jobs > 1 else []
        environment = os.environ | {"PYTHONPATH": path_with(PRETENDED.parent)}
        done = subprocess.run([*command, *map(str, places)], cwd=ROOT, env=environment)
        counts = Counter(dict.fromkeys(names, 0))
        for case in ET.parse(report).iter("testcase") if report.is_file() else ():
            ends = {child.tag for child in case}
            bad = ends & {"failure", "error"}
            counts["failed" if bad else "skipped" if "skipped" in ends else "passed"] += 1
    return done.returncode, counts


def run_notebooks(device: str, notebooks: list[Path], jobs: int = 1) -> dict[Path, str]:
    """Run every notebook on a device; for those that failed, in which cell and by what."""
    command = [sys.executable, "-u", str(ROOT / "tools" / "execute.py"), f"--device={device}"]
    command += ["--timeout=1800", f"--jobs={jobs}"]
    failed: dict[Path, str] = {}
    with subprocess.Popen([*command, *map(str, notebooks)], stdout=subprocess.PIPE, text=True) as p:
        assert p.stdout is not None
        current = None
        for line in p.stdout:
            print(line, end="", flush=True)
            found = re.match(r"\[\d+/\d+\] (\S+): (FAILED)?", line)
            if found:
                current = ROOT / found[1] if found[2] else None
                if current is not None:
                    failed[current] = line.partition("FAILED ")[2].strip()
            elif current and (error := re.match(r"    (\w+(?:Error|Exception|Refused)): ", line)):
                failed[current] = failed[current].partition(",")[0] + f", {error[1]}"
    if p.returncode and not failed:
        raise RuntimeError(f"the notebooks could not be run: status {p.returncode}")
    return failed


def gpu() -> dict[str, str]:
    """What a result on CUDA can depend on besides the rest of the machine."""
    major, minor = torch.cuda.get_device_capability()
    return {
        "GPU": f"{torch.cuda.get_device_name()}, compute capability {major}.{minor}",
        "CUDA": str(torch.version.cuda),
        "Triton": metadata.version("triton") if find_spec("triton") else "none",
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: all under book/")
    parser.add_argument("--pretend", action="store_true", help="on a device that every machine has")
    parser.add_argument("-j", "--jobs", type=int, help="how many at a time (1)")
    parser.add_argument("--tests", nargs="*", type=Path, default=[ROOT / "tests"], help="or these")
    options = parser.parse_args()
    whole = not options.notebooks and options.tests == [ROOT / "tests"]
    reason = "" if options.pretend else absent()
    if reason:
        print(f"The tests for CUDA did not run: {reason}.")
        print("Nothing was recorded. `make test-cuda PRETEND=1` takes a device that pretends.")
        return 0
    device = PRETENDED.stem if options.pretend else "cuda"
    started = time.monotonic()
    notebooks = [path.resolve() for path in options.notebooks] or find()
    jobs = options.jobs or 1  # a small GPU has no memory for more
    with ThreadPoolExecutor() as pool:
        running = pool.submit(run_tests, options.pretend, options.tests, jobs)
        if jobs == 1:
            wait([running])
        failed = run_notebooks(device, notebooks, jobs)
        code, tests = running.result()
    nbs = {path: nbformat.read(path, as_version=4) for path in notebooks}
    cells = {p: sum(c.cell_type == "code" for c in nb.cells) for p, nb in nbs.items()}
    good = sum(n for path, n in cells.items() if path not in failed)
    whole_notebooks = f"{len(notebooks) - len(failed)} of {len(notebooks)} notebooks"
    summary = (
        f"{tests['passed']} tests passed, {tests['failed']} failed, {tests['skipped']} were "
        f"skipped; {whole_notebooks} ran from top to bottom, {good:,} code cells with all their "
        "assertions."
    )
    print(summary)
    ran_any = tests["passed"] + tests["failed"] > 0
    if whole:
        path = evidence.record(
            device,
            title="Tests and notebooks on " + ("CUDA" if device == "cuda" else "another device"),
            command="make test-cuda" + " PRETEND=1" * options.pretend,
            summary=summary,
            head=("notebook", "code cells", "on the device"),
            rows=[(f"`{p.name}`", n, failed.get(p, "all ran")) for p, n in cells.items()],
            seconds=time.monotonic() - started,
            where={"device": "pretended, on the CPU"} if options.pretend else gpu(),
        )
        print(f"Recorded in {path.relative_to(ROOT)}.")
    return 1 if code or failed or not ran_any else 0


if __name__ == "__main__":
    sys.exit(main())
