"""Kill training runs at random moments, resume them, and compare with runs that nobody killed.

    python tools/kills.py -n 100 --record     what `make kills N=100 RECORD=1` runs
    python tools/kills.py -n 3 --seed 0       what continuous integration runs

Every run is a process of its own, forked from this one so that torch is imported only once. It is
killed by SIGKILL, which it cannot catch, either after a random time or at the moment at which the
file of the next checkpoint appears. After each kill the checkpoint that is left must be a whole
one, equal to what an undisturbed run had after as many epochs.
"""

from __future__ import annotations

import argparse
import functools
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from walkthrough import data, evidence, train

EPOCHS = 4
OPTIMIZERS = [
    "SGD momentum=0.9", "SGD momentum=0.9 nesterov=True weight_decay=0.01", "Adam",
    "Adam amsgrad=True", "AdamW weight_decay=0.1",
]  # fmt: skip
SCHEDULERS = [
    "", "StepLR step_size=2 gamma=0.5", "CosineAnnealingLR T_max=4", "ReduceLROnPlateau patience=0",
    "CosineAnnealingWarmRestarts T_0=3", "LinearLR total_iters=3", "ExponentialLR gamma=0.9",
]  # fmt: skip
MOMENTS = {
    "start": "before the first checkpoint",
    "between": "between two checkpoints",
    "write": "while a checkpoint was written",
}


# --- processes ------------------------------------------------------------------------------------


def start(work: Callable[[], int], log: Path) -> int:
    """Do the work in a copy of this process, and return its number."""
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for number in (1, 2):
            os.dup2(stream, number)
        code = work() or 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def ended(child: int) -> int:
    """Wait for a process. 0 if it ended well, -9 if it was killed."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def stamp(path: Path | None) -> int | None:
    """When a file was last written to, or None if there is none."""
    try:
        return path.stat().st_mtime_ns if path else None
    except FileNotFoundError:
        return None


def strike(child: int, delay: float, part: Path | None) -> int:
    """Kill a process, some time from now, or from when ``part`` appears; how it ended."""
    lying = stamp(part)
    while part is not None and stamp(part) in (None, lying):
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return ended(child)
        time.sleep(0.0001)
    until = time.perf_counter() + delay
    while time.perf_counter() < until:
        time.sleep(0 if part else 0.0005)
    os.kill(child, signal.SIGKILL)  # one that has ended waits to be asked how, and feels nothing
    return ended(child)


# --- runs -----------------------------------------------------------------------------------------


def same(a: Any, b: Any) -> bool:
    """Equal, tensors to the last bit, with the same keys in the same order."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def draw(rng: random.Random) -> list[str]:
    """The command line of a run."""
    scheduler = rng.choice(SCHEDULERS).split()
    command = ["--optimizer", *rng.choice(OPTIMIZERS).split(), "--lr", rng.choice(["0.05", "0.01"])]
    command += ["--scheduler", *scheduler] if scheduler else []
    command += ["--library", rng.choice(list(train.LIBRARIES)), "--seed", str(rng.randrange(100))]
    command += ["--cadence", rng.choice(["epoch", "batch"]), "--threads", "1"]
    return [*command, "--batch-size", "256", "--hidden", rng.choice(["8", "64", "256"])]


def undisturbed(line: list[str], folder: Path) -> tuple[list[dict[str, Any]], float]:
    """What a run that nobody kills has after 1, 2, ... epochs, and how long it took."""
    files = [folder / f"whole-{epoch}.pt" for epoch in range(1, EPOCHS + 1)]
    left, replace = iter(files), os.replace

    def work() -> int:
        def replace_and_copy(part: Path, path: Path) -> None:
            replace(part, path)
            shutil.copy(path, next(left))

        os.replace = replace_and_copy  # in this process alone
        return train.main([*line, "--checkpoint", str(folder / "whole.pt")])

    begun = time.perf_counter()
    code = ended(start(work, folder / "log"))
    if code:
        raise RuntimeError(f"{' '.join(line)} ended with {code}:\n{text(folder / 'log')}")
    took = time.perf_counter() - begun
    return [torch.load(path, weights_only=True) for path in files], took


def text(log: Path) -> str:
    return log.read_text(encoding="utf-8") if log.exists() else ""


class Failed(Exception):
    """A run did not do what it should have done. The message says which, and what it did."""


def torment(command: list[str], folder: Path, rng: random.Random, most: int) -> Counter[str]:
    """Kill a run again and again, at most so often, and resume it until it ends.

    Returns:
        How often it was killed at which of the `MOMENTS`.

    Raises:
        Failed: what was left is no whole checkpoint, or not that of an undisturbed run.
    """
    command = [*command, "--epochs", str(EPOCHS)]
    states, took = undisturbed(command, folder)
    path, log = folder / "run.pt", folder / "log"
    part = path.with_name(path.name + ".part")
    line = [*command, "--checkpoint", str(path)]
    kills: Counter[str] = Counter()
    reached = 0
    while True:
        resumed = ["--resume"] if path.exists() else []
        part.unlink(missing_ok=True) if rng.random() < 0.5 else None  # or it lies in the way
        lying = stamp(part)
        child = start(lambda resumed=resumed: train.main([*line, *resumed]), log)
        left = took * (EPOCHS - reached) / EPOCHS
        if kills.total() >= most:
            code = ended(child)
        elif rng.random() < 0.5:
            code = strike(child, rng.uniform(0, 0.003), part)
        else:
            code = strike(child, rng.uniform(0, left), None)
        if code not in (0, -signal.SIGKILL):
            raise Failed(f"{' '.join([*line, *resumed])} ended with {code}:\n{text(log)}")
        found = epoch_of(path, states, line, reached)
        if code == 0:
            if found != EPOCHS:
                raise Failed(f"{' '.join(line)} ended after {found} of {EPOCHS} epochs")
            return kills
        writing = stamp(part) not in (None, lying)  # one that lay there before says nothing
        kills["write" if writing else "between" if found else "start"] += 1
        reached = found


def epoch_of(path: Path, states: list[dict[str, Any]], line: list[str], reached: int) -> int:
    """The epochs behind the checkpoint that is there; 0 if there is none."""
    if not path.exists():
        if reached:
            raise Failed(f"{' '.join(line)}: the checkpoint of epoch {reached} is gone")
        return 0
    try:
        state = torch.load(path, weights_only=True)
    except Exception as error:
        raise Failed(f"{' '.join(line)}: no whole checkpoint is left ({error})") from error
    epoch = state["epoch"]
    if epoch < reached:
        raise Failed(f"{' '.join(line)}: it went back from epoch {reached} to {epoch}")
    if not same(state, states[epoch - 1]):
        raise Failed(f"{' '.join(line)}: after {epoch} epochs it is another run")
    return epoch


# --- the command ----------------------------------------------------------------------------------


def kills(n: int, seed: int) -> tuple[Counter[str], int]:
    """Kill runs until there are so many kills; how many at which moment, and of how many runs."""
    rng = random.Random(seed)
    torch.set_num_threads(1)  # a fork takes only one thread with it
    data.digits = functools.cache(data.digits)  # read once, for all of them
    data.digits()
    total: Counter[str] = Counter()
    runs = 0
    while total.total() < n:
        with tempfile.TemporaryDirectory() as folder:
            total += torment(draw(rng), Path(folder), rng, min(10, n - total.total()))
        runs += 1
        print(f"\r{total.total()} of {n} kills, {runs} runs", end="", flush=True)
    print()
    return total, runs


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", type=int, default=100, help="how many kills; default: 100")
    parser.add_argument("--seed", type=int, help="draw the same runs again; default: another one")
    parser.add_argument("--record", action="store_true", help="record the result for the page")
    options = parser.parse_args(arguments)
    seed = random.randrange(10**6) if options.seed is None else options.seed
    print(f"seed {seed}")
    begun = time.perf_counter()
    try:
        total, runs = kills(options.n, seed)
    except Failed as failure:
        print(f"\nFAILED: {failure}", file=sys.stderr)
        return 1
    rows = [(words, total[moment], total[moment]) for moment, words in MOMENTS.items()]
    for words, count, _ in rows:
        print(f"{count:5}  {words}")
    said = f"{total.total()} kills of {runs} runs: each resumed from a whole checkpoint, or from "
    said += "the start, and each run ended bitwise equal to one that nobody killed."
    print(said)
    if options.record:
        evidence.record(
            "kills",
            title="Kill and resume",
            command=f"make kills N={options.n} SEED={seed}",
            summary=said,
            head=["killed", "times", "went on from a whole state"],
            rows=rows,
            notes=[
                "Runs are drawn at random: optimizer, scheduler, cadence, library, size, seed.",
                "After every kill the checkpoint is loaded with `weights_only=True`, and all of it "
                "(parameters, optimizer, scheduler, order of the data, record of every step) is "
                "compared with that of an undisturbed run of as many epochs.",
                "Half of the kills wait for the file of the next checkpoint to appear.",
            ],
            seconds=time.perf_counter() - begun,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
