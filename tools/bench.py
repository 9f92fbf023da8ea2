"""Measure the speed of a step: minioptim beside torch.optim, in the same run, on this machine.

    python tools/bench.py                 a few minutes; writes _build/bench.json and prints tables
    python tools/bench.py --record        writes book/bench.json, which the chapter draws
    python tools/bench.py --quick         seconds, and the numbers mean nothing: does it still work?

This is the only place that timings come from, and no test looks at one. Rules of measurement:

- What is compared runs in the same process, in alternating order, each with tensors of its own.
- A ratio is taken within each round and summed up over rounds as lower quartile, median and upper
  quartile, so that a slow moment of the machine meets both sides.
- Beside each ratio stands that of PyTorch with itself: the same code, measured as if it were two.
- Steps are repeated until a sample lasts some milliseconds. What fits in the cache is then in it.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import json
import math
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import nn

import minioptim
from minioptim import fused
from minioptim.flat import FlatParameter, flatten
from walkthrough.speed import RECORD, count, table

ROOT = Path(__file__).resolve().parent.parent
LIBRARIES = {"torch": torch.optim, "ours": minioptim}
ENGINES = {"loop": {"foreach": False}, "foreach": {"foreach": True}, "fused": {"fused": True}}
OPTIMIZERS = {"SGD": {"lr": 1e-4, "momentum": 0.9}, "Adam": {"lr": 1e-4}, "AdamW": {"lr": 1e-4}}
Quartiles = list[float]

# What a ratio of ours to PyTorch's is meant to stay below; {} where nothing is promised.
LOOP = {"one tensor": 0.8, "400 tensors": 1.0, "network": 0.8}
SGD_LOOP = dict.fromkeys(LOOP, 1.05)
TARGETS: dict[str, Callable[[str, str], float | None]] = {
    "loop": lambda optimizer, work: (SGD_LOOP if optimizer == "SGD" else LOOP)[work],
    "foreach": lambda optimizer, work: 1.05,
    "fused": lambda optimizer, work: 1.05 if work == "one tensor" else None,
    "flat fused": lambda optimizer, work: None if work == "one tensor" else 1.05,
}


def workloads(quick: bool) -> dict[str, list[tuple[int, ...]]]:
    """The shapes of three sets of parameters: 10 M in one, 1.6 M in 400, 5 M in 52."""
    d, blocks = (320, 4) if not quick else (8, 4)
    block = [(d,), (d,), (3 * d, d), (3 * d,), (d, d), (d,), (d,), (d,), (4 * d, d), (4 * d,),
             (d, 4 * d), (d,)]  # fmt: skip
    return {
        "one tensor": [(10_000_000 if not quick else 1000,)],
        "400 tensors": [(64, 64) if not quick else (2, 2)] * 400,
        "network": [(200, d), (64, d), *block * blocks, (d,), (d,)],
    }


class Bench:
    """Runs contenders side by side on one device."""

    def __init__(self, device: str, quick: bool) -> None:
        self.device, self.quick = torch.device(device), quick
        self.sample_s, self.budget_s = (0.0, 0.0) if quick else (0.005, 2.0)
        self.missing: set[str] = set()
        self.first_s = 0.0  # the longest first step of our fused engine: it compiles

    def wait(self) -> None:
        """Until the device has finished what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def stepper(
        self, shapes: list[tuple[int, ...]], who: str, optimizer: str, engine: str
    ) -> Callable[[], Any] | None:
        """A step of one optimizer over tensors of its own; None where there is no such engine."""
        params = [nn.Parameter(torch.full(shape, 0.5, device=self.device)) for shape in shapes]
        for p in params:
            p.grad = torch.full_like(p, 0.01)
        flat, _, mode = engine.rpartition(" ")
        given = flatten(nn.ParameterList(params)) if flat else params
        make = getattr(LIBRARIES[who], optimizer)
        try:
            step = make(given, **OPTIMIZERS[optimizer], **ENGINES[mode]).step
            if flat:
                step = after_backward(given, step)
            start = time.perf_counter()
            step()  # state is made, what is to be compiled is compiled
            if (who, mode) == ("ours", "fused"):
                self.first_s = max(self.first_s, time.perf_counter() - start)
        except (NotImplementedError, RuntimeError) as error:
            self.missing.add(f"{who} {engine}: {error}")
            return None
        return step

    def race(self, steps: dict[str, Callable[[], Any]]) -> dict[str, list[float]]:
        """Seconds per step of each contender, a list over rounds."""
        repeat = {name: self.repeats(step) for name, step in steps.items()}
        once = sum(
            self.time(step, repeat[name]) * (repeat[name] + 1) for name, step in steps.items()
        )
        rounds = 3 if self.quick else min(101, max(7, round(self.budget_s / once)))
        seconds: dict[str, list[float]] = {name: [] for name in steps}
        order = list(steps)
        gc.collect()
        gc.disable()
        for i in range(rounds):
            turn = order[i % len(order) :] + order[: i % len(order)]
            for name in turn if i % 2 else reversed(turn):
                seconds[name].append(self.time(steps[name], repeat[name]))
        gc.enable()
        return seconds

    def time(self, step: Callable[[], Any], repeat: int) -> float:
        """Seconds per step, over some steps after one that does not count."""
        if repeat > 1:
            step()
        self.wait()
        start = time.perf_counter()
        for _ in range(repeat):
            step()
        self.wait()
        return (time.perf_counter() - start) / repeat

    def repeats(self, step: Callable[[], Any]) -> int:
        once = min(self.time(step, 1) for _ in range(2))
        return min(500, max(1, math.ceil(self.sample_s / once)))

    # --- what is measured ------------------------------------------------------------------------

    def ratios(self, optimizer: str, work: str, shapes: list[tuple[int, ...]]) -> dict[str, Any]:
        """All engines of both libraries over one set of parameters."""
        engines = [*ENGINES, *(f"flat {e}" for e in ("loop", "fused") if len(shapes) > 1)]
        steps: dict[str, Callable[[], Any]] = {}
        for engine, who in product(engines, ("torch", "again", "ours")):
            step = self.stepper(shapes, "torch" if who == "again" else who, optimizer, engine)
            if step is not None:
                steps[f"{who} {engine}"] = step
        seconds = self.race(steps)
        rows = []
        for engine in engines:
            pairs = [("ours", engine, engine), ("again", engine, engine)]
            if engine.startswith("flat"):
                usual = engine.removeprefix("flat ")
                pairs += [("ours", engine, usual), ("torch", engine, usual)]
            for who, one, other in pairs:
                name, base = f"{who} {one}", f"torch {other}"
                if name in seconds:
                    target = TARGETS.get(one, lambda *_: None)(optimizer, work)
                    if one != other:
                        small = work == "400 tensors" and who == "ours" and other == "fused"
                        target = 0.35 if small else None
                    ratio = quartiles(by_round(seconds[name], seconds[base]))
                    row = {"what": name, "to": base, "ratio": ratio}
                    rows.append(row | {"target": None if who == "again" else target})
        return {
            "optimizer": optimizer,
            "work": work,
            "tensors": len(shapes),
            "elements": sum(map(math.prod, shapes)),
            "ms": {name: quartiles(times, 1e3) for name, times in seconds.items()},
            "ratios": rows,
        }

    def sweep(self, sizes: list[list[tuple[int, ...]]]) -> list[dict[str, Any]]:
        """Milliseconds of a step of Adam for every engine, over several sets of parameters."""
        points = []
        for shapes in sizes:
            engines = [*ENGINES] + (["flat fused"] if len(shapes) > 1 else [])
            steps = {}
            for engine, who in product(engines, LIBRARIES):
                step = self.stepper(shapes, who, "Adam", engine)
                if step is not None:
                    steps[f"{who} {engine}"] = step
            times = self.race(steps)
            points.append(
                {
                    "tensors": len(shapes),
                    "elements": sum(map(math.prod, shapes)),
                    "ms": {name: quartiles(t, 1e3) for name, t in times.items()},
                }
            )
        return points

    def agreement(self, steps: int = 10, n: int = 100_000) -> list[dict[str, Any]]:
        """How far parameters are from those of PyTorch's loop after some steps, by engine."""
        generator = torch.Generator().manual_seed(0)
        draws = [torch.randn(n, generator=generator) for _ in range(steps + 1)]
        rows = []
        for optimizer in OPTIMIZERS:
            base = None
            for engine, who in product(ENGINES, LIBRARIES):
                p = nn.Parameter(draws[0].clone().to(self.device))
                make = getattr(LIBRARIES[who], optimizer)
                try:
                    made = make([p], **{**OPTIMIZERS[optimizer], "lr": 0.01}, **ENGINES[engine])
                    for g in draws[1:]:
                        p.grad = g.clone().to(self.device)
                        made.step()
                except (NotImplementedError, RuntimeError):
                    continue
                base = p.detach() if base is None else base
                gap = (p.detach() - base).abs()
                row = {"optimizer": optimizer, "what": f"{who} {engine}"}
                row |= {"unequal": (gap > 0).float().mean().item(), "largest": gap.max().item()}
                rows.append(row)
        return rows

    def bandwidth(self, n: int) -> dict[str, Any]:
        """Adam over one large tensor, beside ``p.add_(g)`` there: milliseconds, bytes a second."""
        steps: dict[str, Callable[[], Any]] = {}
        for engine, who in product(ENGINES, LIBRARIES):
            step = self.stepper([(n,)], who, "Adam", engine)
            if step is not None:
                steps[f"{who} {engine}"] = step
        p, g = (torch.ones(n, device=self.device) for _ in range(2))
        steps["p.add_(g)"] = lambda: p.add_(g, alpha=1e-9)
        steps["g.sqrt(), new memory"] = lambda: g.sqrt()
        steps["g.sqrt(), old memory"] = lambda: torch.sqrt(g, out=p)
        seconds = self.race(steps)
        add = seconds["p.add_(g)"]
        reached = {
            name: quartiles([28 / 12 / ratio for ratio in by_round(seconds[name], add)])
            for name in steps
            if name.endswith("fused")
        }
        side = (4096 if self.device.type == "cuda" else 512) if not self.quick else 8
        a, b = (torch.randn(side, side, device=self.device) for _ in range(2))
        products = self.race({"a @ b": lambda: a @ b})["a @ b"]
        return {
            "elements": n,
            "ms": {name: quartiles(times, 1e3) for name, times in seconds.items()},
            "gigabytes_per_second": quartiles([12 * n / t for t in add], 1e-9),
            "part_of_it": reached,
            "gigaflops": quartiles([2 * side**3 / t for t in products], 1e-9),
        }

    def overhead(self) -> dict[str, Quartiles]:
        """Microseconds of the parts of a step over one tensor of two elements, where all is Python.

        What one call of an operation costs stands beside what an optimizer makes of it.
        """
        x, y, z = (torch.ones(2, device=self.device) for _ in range(3))
        t = torch.tensor(0.0)
        steps: dict[str, Callable[[], Any]] = {
            "x.mul_(2.0)": lambda: x.mul_(1.0),
            "x.addcdiv_(y, z)": lambda: x.addcdiv_(y, z, value=0.0),
            "torch._foreach_mul_([x], 2.0)": lambda: torch._foreach_mul_([x], 1.0),
            "step += 1": lambda: t.add_(1),
            "step.fill_(1.0)": lambda: t.fill_(1.0),
            "step.item()": lambda: t.item(),
        }
        for engine, who in product(ENGINES, LIBRARIES):
            step = self.stepper([(2,)], who, "Adam", engine)
            if step is not None:
                steps[f"{who} {engine}"] = step
        if "ours fused" in steps:
            steps["ours fused, checked each time"] = partial(checked, steps["ours fused"])
        return {name: quartiles(t, 1e6) for name, t in self.race(steps).items()}

    def schedulers(self) -> list[dict[str, Any]]:
        """The ratio of ``scheduler.step()``, ours to PyTorch's, each on its own optimizer."""
        cases: dict[str, dict[str, Any]] = {
            "StepLR": {"step_size": 10},
            "MultiStepLR": {"milestones": [10, 20]},
            "ExponentialLR": {"gamma": 0.9999},
            "CosineAnnealingLR": {"T_max": 1000},
        }
        rows = []
        for name, options in cases.items():
            steps = {}
            for who in ("torch", "again", "ours"):
                library = LIBRARIES.get(who, torch.optim)
                optimizer = library.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
                scheduler = getattr(library.lr_scheduler, name)(optimizer, **options)
                optimizer.step()  # or both libraries warn
                steps[who] = scheduler.step
            times = self.race(steps)
            rows.append({"scheduler": name, "target": 1.05})
            for who, key in (("ours", "ratio"), ("again", "itself")):
                rows[-1][key] = quartiles(by_round(times[who], times["torch"]))
            rows[-1]["microseconds"] = {who: quartiles(t, 1e6) for who, t in times.items()}
        return rows

    def temporaries(self) -> list[dict[str, Any]]:
        """Bytes per element of a step of Adam that are alive at once and gone after it."""
        rows = []
        n = 1000
        for optimizer, engine, who in product(OPTIMIZERS, ENGINES, LIBRARIES):
            step = self.stepper([(n,)] * 8, who, optimizer, engine)
            if step is not None:
                row = {"optimizer": optimizer, "what": f"{who} {engine}", "counted": None}
                if (who, engine) != ("ours", "fused"):  # no mode sees into a compiled kernel
                    row["counted"] = count(step).most_alive / (8 * n)
                rows.append(row | {"allocated": allocated(step, self.device.type) / (8 * n)})
        return rows


def checked(step: Callable[[], Any]) -> None:
    """A fused step of ours that asks, as ``torch.compile`` does, whether its code still fits."""
    usual, fused.INDEXABLE = fused.INDEXABLE, 0
    try:
        step()
    finally:
        fused.INDEXABLE = usual


def after_backward(flats: list[FlatParameter], step: Callable[[], Any]) -> Callable[[], Any]:
    """A step that finds flat parameters as ``backward`` leaves them: to be looked through first."""

    def looked_through() -> None:
        for flat in flats:
            flat.touched()
        step()

    return looked_through


def allocated(step: Callable[[], Any], device: str = "cpu") -> int:
    """The most bytes that were allocated at once during a step, as the allocator reports it.

    The allocator also sees what a compiled kernel or an operation makes for itself.
    """
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        step()
    alive = most = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]" and event.device_type() == torch.profiler.DeviceType.CPU:
            alive += event.nbytes()
            most = max(most, alive)
    return most


def imports(times: int) -> Quartiles:
    """Milliseconds that ``import minioptim`` takes after ``import torch``."""
    code = "import torch, time; t = time.perf_counter(); import minioptim; " \
        "print(time.perf_counter() - t)"  # fmt: skip
    seconds = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
        for _ in range(times)
    ]
    return quartiles(seconds, 1e3)


def by_round(some: list[float], others: list[float]) -> list[float]:
    """The ratio of two contenders in each round."""
    return [a / b for a, b in zip(some, others, strict=True)]


def quartiles(values: list[float], scale: float = 1.0) -> Quartiles:
    """Lower quartile, median and upper quartile, to four digits."""
    found = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return [float(f"{scale * x:.4g}") for x in found]


def in_a_row(numbers: re.Match[str]) -> str:
    """The numbers of a list on one line, so that a new record is a readable difference."""
    return "[" + " ".join(numbers[1].split()) + "]"


def machine(device: str) -> dict[str, Any]:
    """What it was measured on. No name of a host, no path."""
    model = platform.processor()
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        model = next(row for row in text.splitlines() if "model name" in row).split(":")[1].strip()
    except (OSError, StopIteration):
        pass
    found = {
        "cpu": model,
        "cores": os.cpu_count(),
        "vector instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
    }
    if device.startswith("cuda"):
        found["gpu"] = torch.cuda.get_device_name()
    return found


def measure(
    device: str, quick: bool, say: Callable[[str], None], only: list[str] | None = None
) -> dict[str, Any]:
    """Everything, or some parts, as the dictionary that is written."""
    bench = Bench(device, quick)
    found: dict[str, Any] = {"machine": machine(device), "quick": quick}
    on_gpu = bench.device.type == "cuda"
    powers = range(6, 29 if on_gpu else 25, 2) if not quick else range(4, 7, 2)
    counts = (1, 4, 16, 64, 256, 1024) if not quick else (1, 4)
    small = (64, 64) if not quick else (2, 2)
    parts: dict[str, Callable[[], Any]] = {
        "steps": lambda: [
            bench.ratios(optimizer, work, shapes)
            for work, shapes in workloads(quick).items()
            for optimizer in OPTIMIZERS
        ],
        "bandwidth": lambda: bench.bandwidth(30_000_000 if not quick else 1000),
        "by_size": lambda: bench.sweep([[(2**k,)] for k in powers]),
        "by_number": lambda: bench.sweep([[small] * k for k in counts]),
        "overhead": bench.overhead,
        "schedulers": bench.schedulers,
        "temporaries": bench.temporaries,
        "agreement": bench.agreement,
        "import_ms": lambda: imports(2 if quick else 7),
    }
    for name, part in parts.items():
        if only and name not in only:
            continue
        start, cpu = time.perf_counter(), time.process_time()
        bench.budget_s = {"steps": 2.0 if on_gpu else 12.0, "bandwidth": 2.0}.get(name, 0.5)
        found[name] = part()
        say(f"{name}: {time.perf_counter() - start:.0f} s, CPU {time.process_time() - cpu:.0f} s")
    found["compile_s"] = float(f"{bench.first_s:.3g}")
    found["missing"] = sorted(bench.missing)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure the speed of a step, on this machine.")
    parser.add_argument("--quick", action="store_true", help="seconds; the numbers mean nothing")
    parser.add_argument("--record", action="store_true", help=f"write {RECORD.name} of the book")
    parser.add_argument("--out", type=Path, default=ROOT / "_build" / "bench.json")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", help="cpu, or cuda")
    parser.add_argument("--only", nargs="+", help="some parts, which are written and not shown")
    args = parser.parse_args()
    if args.record and args.quick:
        parser.error("numbers that mean nothing are not recorded")
    torch.set_num_threads(1 if args.quick else args.threads)
    if args.record and args.only:
        parser.error("the record holds all parts")

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    found = measure(args.device, args.quick, say, args.only)
    if not args.only:
        print(table(found))
    path = RECORD if args.record else args.out
    path.parent.mkdir(parents=True, exist_ok=True)
    text = re.sub(r"\[\s+([-\d.e,\s]+?)\s+\]", in_a_row, json.dumps(found, indent=1))
    path.write_text(text + "\n", encoding="utf-8")
    print(f"\nwritten to {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
