"""Build the site and test it in a real browser, from a server on this machine and from disk.

    python tools/test_site.py              what `make test-site` runs
    python tools/test_site.py -k search    further arguments go to pytest

The tests are in tests/site. They need Chromium, from the system's packages: none is downloaded.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "site"))

from conftest import find_browser  # noqa: E402

HOW = """There is no Chromium here, and the site cannot be tested without a browser. To install it:
    Debian, Ubuntu   sudo apt-get install chromium
    Fedora           sudo dnf install chromium
    macOS            brew install --cask chromium
or name another one: CHROMIUM=/path/to/chrome make test-site"""


def main() -> int:
    try:
        browser = find_browser()
    except FileNotFoundError as error:
        print(f"{error}\n{HOW}", file=sys.stderr)
        return 1
    built = subprocess.run([sys.executable, str(ROOT / "tools" / "build.py")], cwd=ROOT)
    if built.returncode:
        return built.returncode
    print(f"Testing in {browser} ...", flush=True)
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "-c", str(ROOT / "pyproject.toml")]
    command += [f"--rootdir={ROOT}", str(ROOT / "tests" / "site"), *sys.argv[1:]]
    return subprocess.run(command, cwd=ROOT, env=os.environ | {"CHROMIUM": browser}).returncode


if __name__ == "__main__":
    sys.exit(main())
