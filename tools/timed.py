"""Run a command, say how long it took, and remember it for the page on verification.

    python tools/timed.py "the book" -- make book      one phase; a failure is passed on
    python tools/timed.py --record ".ci/run"           write down all phases since --forget
    python tools/timed.py --forget

It needs nothing but Python: the first phase may be the one that installs everything else.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PHASES = ROOT / "_build" / "times.json"


def phases() -> list[list]:
    """Name, seconds and exit status of each phase so far."""
    return json.loads(PHASES.read_text(encoding="utf-8")) if PHASES.is_file() else []


def run(name: str, command: list[str]) -> int:
    """Run a phase, and print one line about it."""
    begun = time.monotonic()
    code = subprocess.run(command, cwd=ROOT).returncode
    took = time.monotonic() - begun
    PHASES.parent.mkdir(exist_ok=True)
    PHASES.write_text(json.dumps([*phases(), [name, took, code]]) + "\n", encoding="utf-8")
    print(f"== {name}: {took:.0f} s{f', FAILED with {code}' if code else ''}", flush=True)
    return code


def record(command: str, found: list[list]) -> None:
    """Write the phases down for the page."""
    sys.path.insert(0, str(ROOT / "src"))
    from walkthrough import evidence

    total = sum(took for _, took, _ in found)
    failed = [name for name, _, code in found if code]
    said = f"{len(found)} phases took {evidence.duration(total)}"
    said += f"; **failed: {', '.join(failed)}**." if failed else ", and all ended well."
    evidence.record(
        "time",
        title="How long the checks take",
        command=command,
        summary=said,
        head=["phase", "time"],
        rows=[(name, evidence.duration(took)) for name, took, _ in found],
        notes=["Times are those of one run on one machine, and nothing asserts them."],
        seconds=total,
    )


def main(arguments: list[str]) -> int:
    match arguments:
        case ["--forget"]:
            PHASES.unlink(missing_ok=True)
        case ["--record", command] if phases():
            record(command, phases())
        case [name, "--", *command] if command and not name.startswith("-"):
            return run(name, command)
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
