"""Who writes what, and when: optimizer and scheduler observed from outside, call by call."""

from __future__ import annotations

import copy
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor

from . import plots
from .environment import device

FIELDS = ("lr", "initial_lr", "base_lrs", "last_epoch", "_step_count", "_last_lr", "_opt_called")
TWO_LINES = {  # the names as the head of a narrow table
    "initial_lr": ("initial", "_lr"),
    "base_lrs": ("base", "_lrs"),
    "last_epoch": ("last", "_epoch"),
    "_step_count": ("_step", "_count"),
    "_last_lr": ("_last", "_lr"),
    "_opt_called": ("_opt", "_called"),
}
NOTHING = "-"


# --- the contract as a trace ----------------------------------------------------------------------


class Trace:
    """What an optimizer and its scheduler hold after each of a series of calls.

    Only the first parameter group is looked at.
    """

    def __init__(self) -> None:
        self.optimizer: Any = None
        self.scheduler: Any = None
        self.rows: list[tuple[str, dict[str, str]]] = []

    def after(self, call: str, result: Any = None) -> Any:
        """Note what has become of every field by a call, and return what the call returned.

        An optimizer or a scheduler that is returned is looked at from then on.
        """
        if hasattr(result, "param_groups"):
            self.optimizer, self.scheduler = result, None
        elif hasattr(result, "get_last_lr"):
            self.scheduler = result
        group = self.optimizer.param_groups[0]
        found = {name: group.get(name, NOTHING) for name in ("lr", "initial_lr")}
        for name in ("base_lrs", "last_epoch", "_step_count", "_last_lr"):
            found[name] = getattr(self.scheduler, name, NOTHING)
        found["_opt_called"] = getattr(self.optimizer, "_opt_called", NOTHING)
        self.rows.append((call, {name: _short(found[name]) for name in FIELDS}))
        return result

    def changes(self) -> list[tuple[str, list[str | None]]]:
        """For each call the fields it changed, None for the others."""
        before = dict.fromkeys(FIELDS, NOTHING)
        table: list[tuple[str, list[str | None]]] = []
        for call, found in self.rows:
            table.append((call, [found[f] if found[f] != before[f] else None for f in FIELDS]))
            before = found
        return table

    def show(self) -> None:
        """Print the table: a value stands where the call has changed it."""
        width = max(len(call) for call, _ in self.rows)
        heads = zip(*(TWO_LINES.get(name, ("", name)) for name in FIELDS), strict=True)
        rows = [("", list(words)) for words in heads]
        rows += [(call, [cell or "·" for cell in cells]) for call, cells in self.changes()]
        print("\n".join(line(call, cells, width) for call, cells in rows))

    def picture(self) -> None:
        """Draw it: a mark where a call has changed a field. Prints the writers of each field."""
        changes = self.changes()
        marks = [[cell not in (None, NOTHING) for cell in cells] for _, cells in changes]
        written = np.array(marks, float).T
        fig, ax = plt.subplots(figsize=(7.6, 3.4))
        colours = [plots.COLOURS[0]] * 2 + [plots.COLOURS[1]] * 4 + [plots.COLOURS[2]]
        for i, (row, colour) in enumerate(zip(written, colours, strict=True)):
            ax.axhline(i, color="#dddddd", linewidth=0.8, zorder=0)
            hits = np.flatnonzero(row)
            ax.plot(hits, [i] * len(hits), "s", color=colour, markersize=8)
        ax.set_xticks(range(len(changes)), [call for call, _ in changes], rotation=60, ha="right")
        ax.set_yticks(range(len(FIELDS)), FIELDS, family="monospace")
        ax.tick_params(labelsize=9)
        ax.set_ylim(len(FIELDS) - 0.5, -0.5)
        ax.grid(False)
        says = {
            name: ", ".join(dict.fromkeys(changes[i][0] for i in np.flatnonzero(hit)))
            for name, hit in zip(FIELDS, written, strict=True)
        }
        plots.finish(fig, [written], says)


def _short(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ",".join(map(_short, value[:1]))
    if isinstance(value, Tensor):
        value = value.item()
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def rate(optimizer: Any) -> float:
    """The learning rate of the first group, as a number."""
    return float(optimizer.param_groups[0]["lr"])


def lone(library: Any = torch.optim, lr: Any = 0.1, make: str = "SGD", **options: Any) -> Any:
    """An optimizer of one parameter, 1.0, whose gradient is 1.0 at every step."""
    p = torch.nn.Parameter(torch.ones(1, dtype=torch.float64, device=device()))
    p.grad = torch.ones_like(p)
    return getattr(library, make)([p], lr=lr, **options)


def used(scheduler: Any, steps: int, optimizer: Any = None) -> list[float]:
    """The rates that the next ``steps`` steps of the optimizer use, in the right order of calls."""
    optimizer = optimizer or scheduler.optimizer
    rates = []
    for _ in range(steps):
        rates.append(rate(optimizer))
        optimizer.step()
        advance(scheduler)
    return rates


def advance(scheduler: Any) -> None:
    """One step of any scheduler; one that wants a metric gets 1.0."""
    scheduler.step(1.0) if hasattr(scheduler, "num_bad_epochs") else scheduler.step()


@contextmanager
def warned() -> Iterator[list[str]]:
    """Collect the warnings of a block, by the names of their kinds."""
    kinds: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield kinds
    kinds += [w.category.__name__ for w in caught]


# --- saving and resuming --------------------------------------------------------------------------

Make = Callable[..., Any]  # (the lr_scheduler module, an optimizer, last_epoch=...) -> a scheduler


def _half(t: int) -> float:
    return 0.5 ** (t // 3)


def _slower(t: int) -> float:
    return 0.9


SCHEDULERS: dict[str, Make] = {
    "StepLR": lambda s, o, **e: s.StepLR(o, 3, 0.5, **e),
    "MultiStepLR": lambda s, o, **e: s.MultiStepLR(o, [6, 9], 0.5, **e),
    "ExponentialLR": lambda s, o, **e: s.ExponentialLR(o, 0.9, **e),
    "CosineAnnealingLR": lambda s, o, **e: s.CosineAnnealingLR(o, 20, **e),
    "ConstantLR": lambda s, o, **e: s.ConstantLR(o, 0.5, 8, **e),
    "LinearLR": lambda s, o, **e: s.LinearLR(o, 0.2, total_iters=10, **e),
    "PolynomialLR": lambda s, o, **e: s.PolynomialLR(o, 16, **e),
    "MultiplicativeLR": lambda s, o, **e: s.MultiplicativeLR(o, _slower, **e),
    "LambdaLR": lambda s, o, **e: s.LambdaLR(o, _half, **e),
    "CosineAnnealingWarmRestarts": lambda s, o, **e: s.CosineAnnealingWarmRestarts(o, 8, **e),
    "CyclicLR": lambda s, o, **e: s.CyclicLR(o, 0.02, 0.1, 5, cycle_momentum=False, **e),
    "OneCycleLR": lambda s, o, **e: s.OneCycleLR(o, 0.1, 20, cycle_momentum=False, **e),
    "SequentialLR": lambda s, o, **e: s.SequentialLR(
        o, [s.LinearLR(o, 0.2, total_iters=4, **e), s.ExponentialLR(o, 0.9, **e)], [4], **e
    ),
    "ChainedScheduler": lambda s, o, **e: s.ChainedScheduler(
        [s.ConstantLR(o, 0.5, 8, **e), s.ExponentialLR(o, 0.9, **e)]
    ),
    "ReduceLROnPlateau": lambda s, o: s.ReduceLROnPlateau(o, factor=0.5, patience=2),
}
ORDERS = {
    "B O S": "build, load optimizer, load scheduler",
    "B S O": "build, load scheduler, load optimizer",
    "O B S": "load optimizer, build, load scheduler",
    "O E": "load optimizer, build with last_epoch=",
    "B S": "build, load the scheduler only",
    "B O": "build, load the optimizer only",
}


def resumed(
    name: str, order: str, library: Any = torch.optim, at: int = 6, total: int = 20
) -> tuple[list[float], list[float]]:
    """The rates of the steps from ``at`` on: of a run that was never stopped, and of a resumed one.

    Args:
        order: what is done to resume, as letters: O and S load optimizer and scheduler, B builds
            the scheduler, and E builds it with ``last_epoch=at - 1``.
    """
    make, module = SCHEDULERS[name], library.lr_scheduler
    optimizer = lone(library)
    scheduler = make(module, optimizer)
    used(scheduler, at, optimizer)
    saved = {"O": optimizer.state_dict(), "S": scheduler.state_dict()}
    saved = copy.deepcopy(saved)  # what a file would hold
    whole = used(scheduler, total - at, optimizer)

    optimizer = lone(library)
    for letter in order.split():
        if letter == "O":
            optimizer.load_state_dict(saved["O"])
        elif letter == "S":
            scheduler.load_state_dict(saved["S"])
        else:
            scheduler = make(module, optimizer, **{"last_epoch": at - 1} if letter == "E" else {})
    with warned():  # a scheduler built with last_epoch= may think that the order of calls is wrong
        return whole, used(scheduler, total - at, optimizer)


def can(name: str, order: str) -> bool:
    """Whether this scheduler can be resumed like that: two know no ``last_epoch``."""
    return not (name == "ReduceLROnPlateau" and "E" in order)


def first_rates(library: Any = torch.optim) -> None:
    """Print, for each scheduler and order, the rate of the first step after resuming."""
    rows = [line("first lr after resuming", ["whole", *ORDERS])]
    for name in SCHEDULERS:
        whole, _ = resumed(name, "B O S", library)
        found = [
            f"{resumed(name, order, library)[1][0]:.4f}" if can(name, order) else NOTHING
            for order in ORDERS
        ]
        rows.append(line(name, [f"{whole[0]:.4f}", *found]))
    print("\n".join(rows))


def deviations(library: Any = torch.optim) -> dict[str, dict[str, float]]:
    """By scheduler and order, the largest difference to a run that was never stopped.

    Runs are stopped after 5, 6 and 10 steps: one place alone may be right by luck.
    """

    def worst(name: str, order: str) -> float:
        pairs = [zip(*resumed(name, order, library, at), strict=True) for at in (5, 6, 10)]
        return max(abs(a - b) for pair in pairs for a, b in pair)

    return {
        name: {order: worst(name, order) for order in ORDERS if can(name, order)}
        for name in SCHEDULERS
    }


def line(name: str, cells: Sequence[str], width: int = 27) -> str:
    """A row of a table, narrow enough for a page."""
    return " ".join([f"{name:{width}}", *(f"{cell:>7}" for cell in cells)])


def map_of_orders(table: dict[str, dict[str, float]]) -> None:
    """Draw which order is right for which scheduler. Prints how many are."""
    fig, ax = plt.subplots(figsize=(7.4, 4.6))
    drawn = []
    for y, row in enumerate(table.values()):
        for x, order in enumerate(ORDERS):
            if order not in row:
                ax.text(x, y, "not possible", ha="center", va="center", color="#666666", fontsize=8)
                continue
            right = row[order] == 0
            ax.plot(
                x, y, "o", markersize=13, markeredgewidth=1.8,
                color=plots.COLOURS[2] if right else plots.COLOURS[1],
                markerfacecolor=plots.COLOURS[2] if right else "white",
            )  # fmt: skip
            if not right:
                ax.text(x + 0.17, y, plots.number(row[order]), va="center", fontsize=8.5)
            drawn.append(row[order])
    ax.set_xticks(range(len(ORDERS)), [f"{k}" for k in ORDERS], weight="bold")
    ax.set_yticks(range(len(table)), list(table))
    ax.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, labelsize=10)
    ax.set(xlim=(-0.5, len(ORDERS) - 0.3), ylim=(len(table) - 0.5, -0.5))
    ax.grid(False)
    says = {
        order: f"right for {sum(row.get(order) == 0 for row in table.values()):2} of "
        f"{sum(order in row for row in table.values())}   ({ORDERS[order]})"
        for order in ORDERS
    }
    plots.finish(fig, [drawn], says)


# --- both libraries, side by side -----------------------------------------------------------------

KINDS = {  # of learning rates
    "float": lambda: 0.1,
    "float64": lambda: torch.tensor(0.1, dtype=torch.float64),
    "float32": lambda: torch.tensor(0.1),
    "bf16": lambda: torch.tensor(0.1, dtype=torch.bfloat16),
}


def course(
    library: Any, make: Make, lr: Any, steps: int, change: int = 0, to: Any = None
) -> list[Any]:
    """Rates and parameters of a run, step by step, and what is in the two dictionaries at its end.

    Args:
        change: after so many steps, load both dictionaries into a pair of library ``to``.
    """
    optimizer = lone(library, lr, momentum=0.9)
    p = optimizer.param_groups[0]["params"][0]
    scheduler, found = make(library.lr_scheduler, optimizer), []
    for step in range(steps):
        if change and step == change:
            saved = copy.deepcopy((optimizer.state_dict(), scheduler.state_dict()))
            optimizer = to.SGD([p], lr=copy.copy(lr), momentum=0.9)
            scheduler = make(to.lr_scheduler, optimizer)
            optimizer.load_state_dict(saved[0])
            scheduler.load_state_dict(saved[1])
        optimizer.step()
        advance(scheduler)
        found += [rate(optimizer), p.item()]
    return found + plain([optimizer.state_dict(), scheduler.state_dict()])


def plain(value: Any) -> list[Any]:
    """All numbers in nested dicts and lists, in order."""
    if isinstance(value, dict):
        return [x for key in sorted(value, key=str) for x in plain(value[key])]
    if isinstance(value, (list, tuple)):
        return [x for item in value for x in plain(item)]
    return value.flatten().tolist() if isinstance(value, Tensor) else [value]


def parity(planted: Any, steps: int = 20) -> None:
    """Print, for each scheduler and kind of rate, how many values differ between the libraries.

    Compared with ``==``: the rate and the parameter after each step, and both dictionaries at the
    end. In the last column the run changes library half-way, there and back. The last row is the
    first once more with ``planted``, a scheduler with one error, in place of ours; it must differ.

    Raises:
        AssertionError: something differs, or the planted error does not.
    """
    import minioptim

    def row(ours: Make, theirs: Make) -> tuple[list[int], int]:
        counts, values = [], 0
        for lr in KINDS.values():
            pair = [
                course(minioptim, ours, lr(), steps),
                course(torch.optim, theirs, lr(), steps),
            ]
            counts.append(unequal(*pair))
            values += len(pair[0])
        there = course(torch.optim, theirs, 0.1, steps, steps // 2, minioptim)
        back = course(minioptim, ours, 0.1, steps, steps // 2, torch.optim)
        whole = course(torch.optim, theirs, 0.1, steps)
        changed = unequal(there, whole) + unequal(back, whole)
        return [*counts, changed], values + 2 * len(whole)

    rows, compared = [line("values that differ", [*KINDS, "changed", "values"])], 0
    for name, make in SCHEDULERS.items():
        counts, values = row(make, make)
        rows.append(line(name, [*map(str, counts), f"{values:,}"]))
        assert not any(counts), f"{name}: ours and PyTorch's differ"
        compared += values
    first = next(iter(SCHEDULERS.values()))
    counts, values = row(lambda s, o: planted(o, 3, 0.5), first)
    rows.append(line("one planted error", [*map(str, counts), f"{values:,}"]))
    assert all(counts[: len(KINDS)]), "the planted error was not seen"
    rows.append(f"{compared:,} values after {steps} steps each: all equal. Planted error: seen.")
    print("\n".join(rows))


def unequal(a: Sequence[Any], b: Sequence[Any]) -> int:
    """How many values differ; a missing one differs."""
    return sum(x != y for x, y in zip(a, b, strict=False)) + abs(len(a) - len(b))


# --- a run that is killed -------------------------------------------------------------------------

KILLED = """
import os, signal, sys
from torch.optim.optimizer import register_optimizer_step_post_hook
from walkthrough import train
left = [int(sys.argv.pop(1))]
def count(*_):
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
register_optimizer_step_post_hook(count)
train.main(sys.argv[1:])
"""


def killed(arguments: Sequence[str], after: int) -> int:
    """Run ``walkthrough.train`` in a process of its own, and kill it after so many steps.

    It computes with as many threads as this process, so that the bits can be compared.

    Returns:
        How the process ended, -9 if it was killed by SIGKILL.
    """
    threads = ["--threads", str(torch.get_num_threads())]
    command = [sys.executable, "-c", KILLED, str(after), *arguments, *threads]
    return subprocess.run(command, capture_output=True).returncode
