"""Build the site, warnings being errors, and check that it is whole.

    python tools/build.py            build if anything changed since the last good build
    python tools/build.py --force    build in any case

The notebooks are executed by the builder; outputs are kept in _build/.jupyter_cache, whose entries
hold as long as neither the notebook nor src/ nor a pinned version changes.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from check_site import check

ROOT = Path(__file__).resolve().parent.parent
HTML = ROOT / "_build" / "html"
STAMP = ROOT / "_build" / ".built"
TOP = ["_config.yml", "_toc.yml", "requirements.txt", "constraints.txt", "pyproject.toml"]
ANSI = re.compile(r"\x1b\[[0-9;]*m")
# lines of the tools beneath that tell a reader nothing
NOISE = re.compile(
    r"Kernel is running over TCP without encryption|INFO traitlets client.py"
    r"|(Md|Nb)ParserConfig\(|^(\x1b\[\d+m)*={60,}|^\s*$"
    r"|^(The HTML pages are|Finished generating|Your book's HTML|You can look at|Or paste this)"
    r"|^    (_build/|file:)"
)


def digest() -> str:
    """A digest of everything that the site is made from."""
    found = hashlib.sha256(os.environ.get("WALKTHROUGH_DEVICE", "").encode() + sys.version.encode())
    files = [ROOT / name for name in TOP]
    for folder, kinds in (("book", "*"), ("src", "*.py"), ("tools", "*.py")):
        files += sorted((ROOT / folder).rglob(kinds))
    for path in files:
        inside = path.relative_to(ROOT)
        if path.is_file() and not any(part.startswith((".", "__")) for part in inside.parts[:-1]):
            found.update(inside.as_posix().encode() + b"\0" + path.read_bytes())
    return found.hexdigest()


def build() -> tuple[int, list[str]]:
    """Run the builder afresh (only the notebook cache is kept); its exit code and its faults."""
    for old in (HTML, ROOT / "_build" / ".doctrees", STAMP):
        shutil.rmtree(old) if old.is_dir() else old.unlink(missing_ok=True)
    builder = Path(sys.executable).with_name("jupyter-book")
    command = [str(builder), "build", ".", "-W", "--keep-going"]
    environment = os.environ | {
        "PYTHONUNBUFFERED": "1",
        "JUPYTER_PREFER_ENV_PATH": "1",
    }
    faults: list[str] = []
    cells: list[str] = []
    over = False
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    assert process.stdout is not None
    for line in process.stdout:
        if not sys.stdout.isatty():
            line = ANSI.sub("", line)
        # what follows a failed cell is the builder's own way of giving up
        if not over and (line.startswith("FAILED ") or (cells and line.startswith("    "))):
            cells.append(line.rstrip())
        elif cells:
            over = True
        if cells or NOISE.search(line):
            continue
        print(line, end="", flush=True)
        if re.search(r"\b(WARNING|ERROR|CRITICAL)\b", line):
            faults.append(line.strip())
    return process.wait(), cells or faults


def main() -> int:
    now = digest()
    index = HTML / "index.html"
    if "--force" not in sys.argv and STAMP.is_file() and STAMP.read_text() == now:
        if not check(ROOT):
            print(f"Nothing changed since the last build. Open {index}")
            return 0
        print("The last build is no longer whole: building again.")
    code, faults = build()
    if code:
        print("\nThe book was not built.", file=sys.stderr)
        for fault in faults:
            print(f"  {fault}", file=sys.stderr)
        return 1
    missing = check(ROOT)
    if missing:
        print("\nThe builder ended well, but the site is not whole:", file=sys.stderr)
        for fault in missing:
            print(f"  {fault}", file=sys.stderr)
        return 1
    STAMP.write_text(now)
    print(f"\nThe book is built. Open {index}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
