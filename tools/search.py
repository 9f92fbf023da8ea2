"""Random runs of minioptim and torch.optim, in search of one difference.

    python tools/search.py --n 20000           so many configurations, with a seed that is printed
    python tools/search.py --n 20000 --seed 7  the same ones again
    python tools/search.py --seconds 60 --seed 0

The configurations and the comparison are those of the tests named in ``SEARCHES``: each compares
both libraries to the last bit, after every event of a random story. Here they are asked with other
seeds and more examples, in two processes. A difference is shrunk by hypothesis and printed.
"""

from __future__ import annotations

import argparse
import collections
import importlib
import json
import os
import re
import secrets
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# what is searched, and its share of the configurations
SEARCHES = {
    "test_random_runs.test_any_run": 5,
    "test_lr_scheduler.test_random_runs": 3,
    "test_random_runs.test_any_run_of_the_others": 2,
}
WHAT = {
    "test_random_runs.test_any_run": "`SGD`, `Adam`, `AdamW`",
    "test_lr_scheduler.test_random_runs": "schedulers",
    "test_random_runs.test_any_run_of_the_others": "the optimizers of `minioptim.more`",
}
ROUND = 50  # examples that one seed stands for
PROCESSES = 2


def search(name: str, seed: int, examples: int) -> tuple[int, str]:
    """Run one test on this many examples; how many there were, and the first difference."""
    import hypothesis

    module, function = name.split(".")
    test = getattr(importlib.import_module(module), function)
    test._hypothesis_internal_use_settings = hypothesis.settings(
        test._hypothesis_internal_use_settings,
        max_examples=examples,
        derandomize=False,
        print_blob=False,
    )
    bare = test.hypothesis.inner_test
    count = 0

    def counted(*args: Any, **kwargs: Any) -> None:
        nonlocal count
        count += 1
        bare(*args, **kwargs)

    test.hypothesis.inner_test = counted
    try:
        hypothesis.seed(seed)(test)()
    except Exception:
        return count, traceback.format_exc()
    finally:
        test.hypothesis.inner_test = bare
    return count, ""


def rounds(n: int | None, part: int) -> Any:
    """Names and sizes of the rounds of one process; without ``n`` they never end."""
    turn = [name for name, share in SEARCHES.items() for _ in range(share)]
    left = None if n is None else n // PROCESSES + (part < n % PROCESSES)
    i = part
    while left is None or left > 0:
        size = ROUND if left is None else min(ROUND, left)
        yield i, turn[i * 7 % len(turn)], size  # 7 and 10 have no common divisor: all get a turn
        i += PROCESSES
        left = None if left is None else left - size


def work(part: int, seed: int, n: int | None, seconds: float | None) -> int:
    """One process: print a line of JSON for each round."""
    sys.path.insert(0, str(ROOT / "tests"))
    import torch

    torch.set_num_threads(1)
    end = time.monotonic() + (seconds or float("inf"))
    for i, name, size in rounds(n, part):
        if time.monotonic() > end:
            break
        count, said = search(name, seed * 1_000_003 + i, size)
        print(json.dumps({"round": i, "name": name, "count": count, "said": said}), flush=True)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, help="how many configurations (default 2,000)")
    parser.add_argument("--seconds", type=float, help="stop after this time instead")
    parser.add_argument("--seed", type=int, help="the same search again; default: a new one")
    parser.add_argument("--record", action="store_true", help="keep the result for the book")
    parser.add_argument("--part", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.n is None and options.seconds is None:
        options.n = 2000
    if options.part is not None:
        return work(options.part, options.seed, options.n, options.seconds)
    seed = secrets.randbelow(10**6) if options.seed is None else options.seed
    print(f"SEED={seed} asks the same again.", flush=True)
    start = time.monotonic()
    command = [sys.executable, __file__, "--seed", str(seed)]
    command += ["--n", str(options.n)] if options.n is not None else []
    command += ["--seconds", str(options.seconds)] if options.seconds else []
    paths = [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    workers = [
        subprocess.Popen(
            [*command, "--part", str(part)], env=environment, stdout=subprocess.PIPE, text=True
        )
        for part in range(PROCESSES)
    ]
    count: collections.Counter[str] = collections.Counter()
    different: list[str] = []
    for worker in workers:  # a pipe holds what the other one says meanwhile
        assert worker.stdout is not None
        for line in worker.stdout:
            if not line.startswith("{"):
                continue
            found = json.loads(line)
            count[found["name"]] += found["count"]
            if found["said"]:
                different.append(found["said"])
                print(found["said"], flush=True)
    failed = any(worker.wait() for worker in workers)
    total, seconds = sum(count.values()), time.monotonic() - start
    print(f"{total:,} random runs, {len(different)} differences, in {seconds:.0f} s.")
    for name in SEARCHES:
        print(f"  {count[name]:7,} {WHAT[name].replace('`', '')}")
    wrong = bool(different) or failed or not total
    if options.record and not wrong:
        record(count, seed, options.n, seconds)
    return wrong


def record(count: collections.Counter[str], seed: int, n: int | None, seconds: float) -> None:
    """Keep the result for the book, with the corners that are left out."""
    from walkthrough import evidence

    total = sum(count.values())
    text = (ROOT / "tests" / "test_random_runs.py").read_text(encoding="utf-8")
    left_out = re.search(r"names: (.*?)\"\"\"", text, re.DOTALL)
    assert left_out is not None
    evidence.record(
        "search",
        title="Random configurations against torch.optim",
        command=f"make search N={n} SEED={seed} RECORD=1",
        summary=f"{total:,} random runs of both libraries, compared after every event: "
        "no difference.",
        head=["what", "random runs", "the test that compares"],
        rows=[
            [WHAT[name], f"{count[name]:,}", f"`tests/{name.replace('.', '.py::')}`"]
            for name in SEARCHES
        ],
        notes=[
            "A run has random options, dtypes, shapes, strides and groups; missing, sparse, "
            "infinite and undefined gradients; closures; schedules; rates and options written by "
            "hand; and saving in one library and going on in the other.",
            "Left out, as documented: " + " ".join(left_out[1].split()),
        ],
        seconds=seconds,
    )


if __name__ == "__main__":
    sys.exit(main())
