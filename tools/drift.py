"""Has PyTorch changed under the book? Say which pages to read again, then run the parity tests.

    python tools/drift.py                   the installed PyTorch against the recorded digests
    python tools/drift.py --torch 2.14.1    another release: only torch/optim of it is unpacked
    python tools/drift.py --root FOLDER     a folder that holds torch/optim
    python tools/drift.py --record          record the digests of what the panels show now
    python tools/drift.py --torch 2.14.1 --record
                                            record which functions differ in that release

`make drift` and `make record` call it. It ends with 1 if there is something to read again, or if a
parity test fails.

The parity tests need PyTorch as a whole. `--python` names a Python that has the other release.
Without it, its torch/optim is put in the place of the installed one, if it runs there.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from walkthrough import source, sourcemap
from walkthrough.sourcemap import KINDS, Change, Shown

ROOT = Path(__file__).resolve().parent.parent
TOOLS = Path(__file__).resolve().parent
LINES = 30  # so many lines of a difference are printed
WIDTH = 100


# --- another release ------------------------------------------------------------------------------


def fetch(version: str, target: Path, more: set[str]) -> None:
    """Fetch one file of a release, and unpack torch/optim and ``more`` of it.

    Raises:
        SystemExit: pip does not find the release, or the file holds no torch/optim.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
        command += ["--progress-bar=off", "--no-input", "-d", folder, f"torch=={version}"]
        heard = []
        with subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONUNBUFFERED": "1"},
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:  # pip names the size before the first byte comes
                heard.append(line.rstrip())
                said = announcement(line, version)
                if said:
                    print(said, flush=True)
        if process.returncode:
            sys.exit("\n".join([*heard[-6:], f"torch {version} was not fetched."]))
        (wheel,) = Path(folder).glob("torch-*.whl")
        unpack(wheel, target, more)


def announcement(line: str, version: str) -> str:
    """What is about to be fetched, from a line that pip prints before it does so."""
    found = re.match(r"\s*Downloading \S*torch-\S+ \(([\d.]+ ?\w+)\)", line)
    if found:
        return (
            f"torch {version}: about to download one file of {found[1]}, without its dependencies."
            " Ctrl-C stops it."
        )
    found = re.match(r"\s*Using cached \S*torch-\S+ \(([\d.]+ ?\w+)\)", line)
    if found:
        return f"torch {version}: one file of {found[1]}, kept by pip; nothing is downloaded."
    found = re.match(r"\s*Processing (\S*torch-\S+\.whl)", line)
    if found and Path(found[1]).is_file():
        size = Path(found[1]).stat().st_size / 1e6
        return f"torch {version}: one file of {size:.1f} MB on this disk; nothing is downloaded."
    return ""


def unpack(wheel: Path, target: Path, more: set[str]) -> None:
    """Take torch/optim, and the files named in ``more``, out of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        names = [
            name
            for name in archive.namelist()
            if name.endswith(".py") and (name.startswith("torch/optim/") or name in more)
        ]
        if not names:
            sys.exit(f"{wheel.name} holds no torch/optim.")
        archive.extractall(target, names)
    print(f"Unpacked {len(names)} files into {target}.")


# --- the report -----------------------------------------------------------------------------------


def report(changes: list[Change]) -> list[str]:
    """What to read again, change by change."""
    out = []
    for change in changes:
        out += ["", f"{change.name}: {KINDS[change.kind]}", f"  {change.said}".rstrip()]
        out += [f"    {line[:WIDTH]}" for line in change.lines[:LINES]]
        if len(change.lines) > LINES:
            out.append(f"    ... and {len(change.lines) - LINES} lines more")
        for side in change.again:
            out += [f"  {line}" for line in place(side, side in change.spared)]
    return [line for i, line in enumerate(out) if line or i]


def place(side: Shown, spared: bool) -> list[str]:
    """Where a panel stands, and the text around it."""
    lines = [f"read again: {side.page}, under {side.heading!r}, panel {side.label or '(no name)'}"]
    if spared:
        lines.append("    its own lines are the same; the change is elsewhere in the function")
    for where, text in (("before", side.before), ("after", side.after)):
        if text:
            short = text if len(text) <= WIDTH else text[: WIDTH - 4] + " ..."
            lines.append(f"    {where + ' it:':10} {short}")
    return lines


# --- the parity tests -----------------------------------------------------------------------------


def parity_files() -> list[Path]:
    """The tests that hold minioptim against torch.optim."""
    found = []
    others = {"test_site.py", "test_beyond.py"}  # they ask the rest of PyTorch, and its files
    for path in sorted((ROOT / "tests").glob("test_*.py")):
        if path.name in others:
            continue
        text = path.read_text(encoding="utf-8")
        if "torch.optim" in text and re.search(r"^(import|from) minioptim\b", text, re.MULTILINE):
            found.append(path)
    return found


def run_parity(version: str = "", root: Path | None = None, python: str = "") -> int:
    """Run the parity tests: with the installed PyTorch, or with another one."""
    environment = dict(os.environ)
    paths = [str(ROOT / "src"), str(TOOLS), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    command = [python or sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += [f"--rootdir={ROOT}", "-c", str(ROOT / "pyproject.toml"), "-o", "addopts="]
    said = f"the installed torch {source.version_of('torch')}"
    if root is not None:
        command += [
            "-o",
            "filterwarnings=default",
        ]  # what a newer PyTorch warns of is not the point
        said = f"torch {version or 'in ' + str(root)}"
        if python:
            check = [python, "-c", "import torch; print(torch.__version__.split('+')[0])"]
        else:
            environment["WALKTHROUGH_TORCH_OPTIM"] = str(root)
            command += ["-p", "overlay"]
            check = [sys.executable, "-c", "import overlay, torch.optim; print(overlay.check())"]
            said = (
                f"torch/optim of {version or root} in the place of that of the installed torch "
                f"{source.version_of('torch')}"
            )
        tried = subprocess.run(check, env=environment, capture_output=True, text=True, cwd=TOOLS)
        if tried.returncode or (python and version and tried.stdout.strip() != version):
            found = (tried.stderr or tried.stdout).strip().splitlines()[-1:]
            print(f"\nThe parity tests were not run: {said} cannot be imported here.")
            print(f"  {found[0] if found else 'it says nothing'}")
            print("  TORCH_PYTHON=... names the Python of an environment that has that release.")
            return 0
    print(f"\nParity tests, with {said}:", flush=True)
    command += map(str, parity_files())
    return subprocess.run(command, cwd=ROOT, env=environment).returncode


# --- the command ----------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch", default="", metavar="VERSION", help="compare another release")
    parser.add_argument("--root", type=Path, help="compare a folder that holds torch/optim")
    parser.add_argument("--record", action="store_true", help="record what is found")
    parser.add_argument("--python", default="", help="a Python that has the other release")
    parser.add_argument("--no-tests", action="store_true", help="leave out the parity tests")
    parser.add_argument("--book", type=Path, default=ROOT / "book", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    shown = sourcemap.collect(options.book)
    if options.record and not (options.torch or options.root):
        return record(options.book)

    held = sourcemap.load(options.book)
    here = source.version_of("torch")
    root = options.root
    if options.torch:
        if not re.fullmatch(r"\d+(\.\w+)+", options.torch):
            parser.error(f"{options.torch!r} is not the number of a release")
        root = ROOT / "_build" / "torch" / options.torch
        if (root / "torch" / "optim").is_dir():
            print(f"torch {options.torch} was fetched before; it is in {root}.")
        else:
            fetch(options.torch, root, {side.span[0] for side in shown if side.span})
    other = f"torch {options.torch}" if options.torch else str(root or f"torch {here}")

    before = None
    if root is None and held["torch"] not in ("", here):
        before = ROOT / "_build" / "torch" / held["torch"]
        if not before.is_dir():
            before = None
            print(f"To see the lines that differ, run first: make drift TORCH={held['torch']}")
    changes = sourcemap.compare(shown, held["digests"], root, before)
    names = sourcemap.by_name(shown)
    print(sourcemap.count_line(shown).replace("`", ""))
    print(f"Digests recorded of torch {held['torch']}, compared with {other}.")
    print("\n".join(report(changes)) if changes else f"All {len(names)} functions are the same.")
    if any(change.kind == "unrecorded" for change in changes):
        print("\nNew panels are recorded by: make record")
    if options.torch:
        summary(root, options.torch)
        if options.record:
            sourcemap.record_release(options.book, options.torch, root)
            print(f"Recorded in {options.book.name}/{sourcemap.RECORD}.")
    failed = 0 if options.no_tests else run_parity(options.torch, root, options.python)
    return int(bool(changes) or bool(failed))


def summary(root: Path, version: str) -> None:
    """How much of torch.optim differs, shown in the book or not."""
    differ = sourcemap.release_differences(root)
    count = len(sourcemap.functions_in(sourcemap.installed()))
    here = source.version_of("torch")
    print(f"\nOf all {count} functions of torch.optim {here}, in torch {version}:")
    for kind, words in KINDS.items():
        names = [name.removeprefix("torch.optim.") for name, k in differ.items() if k == kind]
        if names:
            print(f"  {words}, {len(names)}: {', '.join(names)}")
    if not differ:
        print("  none differs")


def record(book: Path) -> int:
    """Record the digests, and say what that changed."""
    before = sourcemap.load(book)["digests"]
    sourcemap.record(book)
    after = sourcemap.load(book)["digests"]
    for name in sorted(before.keys() | after.keys()):
        if name not in before:
            print(f"new:     {name}")
        elif name not in after:
            print(f"no more: {name}")
        elif before[name] != after[name]:
            print(f"changed: {name}")
    print(sourcemap.count_line(sourcemap.collect(book)).replace("`", ""))
    print(f"{len(after)} digests are in {book.name}/{sourcemap.RECORD}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
