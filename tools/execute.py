"""Run notebooks from top to bottom and store their outputs, so that a second run changes no byte.

    python tools/execute.py                         every notebook under book/
    python tools/execute.py book/01-gradient-descent.ipynb
    python tools/execute.py --check                 write nothing; fail where a file would change
    python tools/execute.py --device cuda           write nothing; fail where a cell fails there

The kernel is always the Python that runs this script, whatever name the notebook asks for.
What differs from run to run or from machine to machine is not stored: no timings, no version of
the language, and text that a cell prints in pieces becomes one piece. Cell ids, tags and the rest
of the metadata stay as they are. A notebook in which a cell fails is left untouched.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import nbformat
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

ROOT = Path(__file__).resolve().parent.parent
KERNELSPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
ANSI = re.compile(r"\x1b\[[0-9;]*m")
PRETENDED = ROOT / "tests" / "elsewhere.py"  # a device that every machine has


class ThisPython(KernelSpecManager):
    """Answers every kernel name with the Python that is running, and says where it computes."""

    device: str | None = None

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        argv = [sys.executable, "-m", "ipykernel_launcher", "--log-level=ERROR"]
        env = {} if self.device is None else {"WALKTHROUGH_DEVICE": self.device}
        if self.device == PRETENDED.stem:
            argv.append(f"--IPKernelApp.exec_lines=import {PRETENDED.stem}")
            env = {"PYTHONPATH": path_with(PRETENDED.parent)}
        return KernelSpec(argv=[*argv, "-f", "{connection_file}"], env=env, **KERNELSPEC)


def path_with(folder: Path) -> str:
    """Where Python looks for modules, with one more folder."""
    return os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH", "")]))


def find(root: Path = ROOT) -> list[Path]:
    """Every notebook of the book, in order."""
    found = (root / "book").rglob("*.ipynb")
    return sorted(p for p in found if not any(part.startswith(".") for part in p.parts))


def tidy(nb: nbformat.NotebookNode) -> None:
    """Remove what a second run would write differently."""
    nb.metadata["kernelspec"] = dict(KERNELSPEC)
    nb.metadata.get("language_info", {}).pop("version", None)
    for cell in nb.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type != "code":
            continue
        joined: list[nbformat.NotebookNode] = []
        for output in cell.outputs:
            last = joined[-1] if joined else {}
            if output.output_type == "stream" and output.get("name") == last.get("name"):
                last["text"] += output.text
            else:
                joined.append(output)
        cell.outputs = joined


def execute(
    path: Path, timeout: int, check: bool = False, device: str | None = None
) -> tuple[bool, str]:
    """Run one notebook; say whether all went well, and what happened.

    With a device it runs there and nothing is written: what it prints may differ there.
    """
    before = path.read_text(encoding="utf-8")
    nb = nbformat.reads(before, as_version=4)
    for cell in nb.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    started = time.monotonic()
    kernels = ThisPython()
    kernels.device = device
    client = NotebookClient(
        nb,
        km=AsyncKernelManager(kernel_spec_manager=kernels),
        timeout=timeout,
        record_timing=False,
        resources={"metadata": {"path": str(path.parent)}},
    )
    try:
        client.execute()
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        return False, where(nb, error)
    tidy(nb)
    after = nbformat.writes(nb) + "\n"
    seconds = f"{time.monotonic() - started:.1f} s"
    if device is not None:
        cells = sum(cell.cell_type == "code" for cell in nb.cells)
        return True, f"{seconds}, all {cells} cells ran on {device}"
    if after == before:
        return True, f"{seconds}, unchanged"
    if check:
        return False, f"{seconds}, the stored outputs are not what this run gives"
    path.write_text(after, encoding="utf-8")
    return True, f"{seconds}, stored"


def where(nb: nbformat.NotebookNode, error: Exception) -> str:
    """Name the cell that failed, with its source and its error."""
    code = [cell for cell in nb.cells if cell.cell_type == "code"]
    failed = [n for n, c in enumerate(code, 1) if any(o.output_type == "error" for o in c.outputs)]
    number = failed[-1] if failed else sum(c.execution_count is not None for c in code)
    cell = code[max(number - 1, 0)]
    source = "\n".join("    | " + line for line in cell.source.splitlines())
    text = ANSI.sub("", str(error)).strip().splitlines()
    if isinstance(error, CellExecutionError):
        text = [
            line
            for o in cell.outputs
            for line in ANSI.sub("", "\n".join(o.get("traceback", []))).splitlines()
        ]
    tail = "\n".join("    " + line for line in text[-25:])
    return f"FAILED in code cell {number} (id {cell.get('id', '?')})\n{source}\n{tail}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: all under book/")
    parser.add_argument("-j", "--jobs", type=int, default=2, help="notebooks at a time (2)")
    parser.add_argument("--timeout", type=int, default=120, help="seconds for a cell (120)")
    parser.add_argument("--check", action="store_true", help="write nothing, fail on a change")
    parser.add_argument("--device", help="write nothing, compute there: cuda, or elsewhere")
    options = parser.parse_args()
    paths = [path.resolve() for path in options.notebooks] or find()
    missing = [str(path) for path in paths if not path.is_file()]
    if missing or not paths:
        parser.error("no such notebook: " + ", ".join(missing or ["book/**/*.ipynb"]))
    failures = 0
    with ProcessPoolExecutor(min(options.jobs, len(paths))) as pool:
        how = (options.timeout, options.check, options.device)
        running = {pool.submit(execute, p, *how): p for p in paths}
        for done, job in enumerate(as_completed(running), 1):
            good, text = job.result()
            failures += not good
            path = running[job]
            name = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
            print(f"[{done}/{len(paths)}] {name}: {text}", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
