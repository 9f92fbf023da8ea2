"""The tool that kills training runs: it passes, and it sees what it is there to see."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

START = """
import sys, time
sys.path.insert(0, "tools")
import kills
from walkthrough import train
{fault}
sys.exit(kills.main(["-n", "{n}", "--seed", "1"]))
"""
IN_PLACE = """
save = train.save
def in_place(run, path):
    save(run, path)
    content = path.read_bytes()
    with path.open("wb") as file:
        for i in range(0, len(content), 1 + len(content) // 20):
            file.write(content[i : i + 1 + len(content) // 20])
            file.flush()
            time.sleep(0.005)
train.save = in_place
"""
FORGETS_THE_ORDER = """
load = train.load
def forgetful(path, settings):
    run = load(path, settings)
    run.order.manual_seed(99)
    return run
train.load = forgetful
"""
LONGER = """
kills.EPOCHS = 16  # so that most kills come after the first checkpoint, on a busy machine too
"""
CRASHES = """
def crash(path, settings):
    raise ZeroDivisionError
train.load = crash
"""


def kills(fault: str = "", n: int = 12) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", START.format(fault=fault, n=n)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


def test_killed_runs_end_as_if_nothing_had_happened() -> None:
    run = kills(n=3)
    assert run.returncode == 0, run.stderr
    assert "3 kills of " in run.stdout


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (IN_PLACE, "no whole checkpoint is left"),
        (FORGETS_THE_ORDER, "it is another run"),
        pytest.param(CRASHES, "ZeroDivisionError", marks=pytest.mark.long),
    ],
    ids=["in-place", "order", "crash"],
)
def test_a_training_loop_with_a_fault_is_found_out(fault: str, says: str) -> None:
    run = kills(LONGER + fault)
    assert run.returncode == 1, run.stdout
    assert says in run.stderr
