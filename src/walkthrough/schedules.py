"""Schedules to look at: traces of schedulers, tables that compare them, and what they do to noise.

A *trace* is the learning rate of every step: what stands in the first group of an optimizer after
0, 1, 2, ... calls of ``scheduler.step()``. Each trace has an optimizer of its own, since schedulers
on one optimizer act on each other.
"""

import ast
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor

import minioptim

from . import plots
from .data import Digits
from .environment import device
from .parity import Outcome
from .surfaces import Surface
from .training import mean_loss
from .trajectories import Trajectory

Make = Callable[[Any], Any]  # makes a scheduler for an optimizer
Metric = Callable[[int], float]  # what a scheduler that asks for a metric is told at step t


def sgd(lrs: Sequence[Any] = (0.1,), package: Any = minioptim) -> Any:
    """An optimizer with one group for each learning rate, and parameters that never move."""
    groups = [{"params": [torch.zeros(1)], "lr": lr} for lr in lrs]
    return package.SGD(groups, lr=0.1, momentum=0.9)


def trace(
    make: Make,
    steps: int,
    lr: float = 0.1,
    by_hand: Mapping[int, float] | None = None,
    metric: Metric | None = None,
    package: Any = minioptim,
) -> list[float]:
    """The learning rates of steps 0 to ``steps``, with an optimizer made for this trace alone.

    Args:
        make: makes the scheduler, such as ``lambda o: StepLR(o, 30)``.
        by_hand: ``{t: factor}``: after step ``t`` somebody multiplies the rate by ``factor``.
        metric: what ``scheduler.step`` is given, for those that ask for it.
        package: whose optimizer to take, `minioptim` or ``torch.optim``.
    """
    optimizer = sgd([lr], package)
    scheduler = make(optimizer)
    rates = [float(optimizer.param_groups[0]["lr"])]
    for t in range(1, steps + 1):
        optimizer.step()
        scheduler.step(*([metric(t)] if metric else []))
        optimizer.param_groups[0]["lr"] *= (by_hand or {}).get(t, 1)
        rates.append(float(optimizer.param_groups[0]["lr"]))
    return rates


# --- two libraries side by side -------------------------------------------------------------------

RUNS: dict[str, dict[str, Any]] = {
    "plain": {},
    "groups": {"lrs": (0.1, 0.03)},
    "tensor": {"tensor": True},
    "by hand": {"by_hand": {5, 42}},
}


def table(
    ours: Any,
    theirs: Any,
    cases: Sequence[str],
    planted: Mapping[str, Any],
    steps: int = 100,
) -> None:
    """Print the largest difference between whole traces for each case and kind of run.

    The runs: one group; two groups; a rate that is a tensor; a rate that somebody halves by hand
    after steps 5 and 42. Compared after building and after every step, as numbers, with ``==``:
    rates, ``get_last_lr()``, counters, momentum, and the closed form where there is one.

    Args:
        ours, theirs: two modules with the same schedulers.
        cases: lines of Python such as ``"StepLR(o, 30)"``, in which ``o`` is an optimizer.
        planted: by name, classes with an error. The first case once more with these in place of
            ours has to differ: a check that cannot fail proves nothing.

    Raises:
        AssertionError: a row differs, or the last one does not.
    """
    rows = [(case, ours.__dict__) for case in cases]
    rows.append((cases[0], ours.__dict__ | dict(planted)))
    labels = [*map(_label, cases), "one planted error"]
    width = max(map(len, labels))
    lines = [" ".join([f"{'scheduler':{width}}", *(f"{run:>7}" for run in RUNS), "  values"])]
    compared = 0
    for number, (label, (case, names)) in enumerate(zip(labels, rows, strict=True)):
        outcomes = [
            _difference(
                _everything(case, names, minioptim, steps, **run),
                _everything(case, theirs.__dict__, torch.optim, steps, **run),
            )
            for run in RUNS.values()
        ]
        values = sum(outcome.values for outcome in outcomes)
        lines.append(f"{label:{width}} {' '.join(f'{o!s:>7}' for o in outcomes)} {values:>8,}")
        if number == len(cases):
            assert all(o.unequal for o in outcomes), "the planted error was not seen"
        else:
            assert not any(o.unequal for o in outcomes), f"{label}: ours and PyTorch's differ"
            compared += values
    lines.append(f"{compared:,} values in {steps} steps: all equal. Planted error: seen.")
    print("\n".join(lines))


def _label(case: str) -> str:
    """A case as it stands in the table: without the optimizer, and cut where it is long."""
    label = case.replace("(o, ", "(").replace("(o)", "()")
    return label if len(label) <= 44 else f"{label[:43]}…"


def _everything(
    case: str,
    names: Mapping[str, Any],
    package: Any,
    steps: int,
    lrs: Sequence[float] = (0.1,),
    tensor: bool = False,
    by_hand: frozenset[int] | set[int] = frozenset(),
) -> list[float]:
    """All that can be seen of a scheduler and its optimizer, after each step, as numbers."""
    kinds = [torch.tensor(lr, dtype=torch.float64) if tensor else lr for lr in lrs]
    optimizer = sgd(kinds, package)
    scheduler = eval(case, {**names, "o": optimizer})
    asks = "Plateau" in type(scheduler).__name__
    seen: list[float] = []
    for t in range(steps + 1):
        if t:
            optimizer.step()
            scheduler.step(*([round(math.cos(t / 3) + 1.5, 1)] if asks else []))
        for group in optimizer.param_groups:
            if t in by_hand:
                group["lr"] *= 0.5
            seen += [group["lr"], group["momentum"]]
        seen += scheduler.get_last_lr()
        seen.append(getattr(scheduler, "last_epoch", -1))
        if hasattr(scheduler, "_get_closed_form_lr"):
            seen += scheduler._get_closed_form_lr()
    return [float(x) for x in seen]


def _difference(a: Sequence[float], b: Sequence[float]) -> Outcome:
    if len(a) != len(b):
        return Outcome(0, 1, math.inf)
    apart = [abs(x - y) for x, y in zip(a, b, strict=True) if x != y]
    return Outcome(len(a), len(apart), max(apart, default=0.0))


def documented(scheduler: type) -> list[tuple[range, float, int]]:
    """The example rates in a scheduler's own documentation: steps, rate, and printed decimals.

    Read from the docstring of the installed class: each line there that gives a rate for an epoch,
    or for a range of epochs, which ends with epoch 99.
    """
    found = []
    for rate, condition in re.findall(r"# lr = ([\d.]+)\s+if (.+)", scheduler.__doc__ or ""):
        test = ast.parse(condition.strip(), mode="eval").body
        assert isinstance(test, ast.Compare)  # nothing but numbers and the word epoch
        assert all(isinstance(x, (ast.Constant, ast.Name)) for x in [test.left, *test.comparators])
        steps = [t for t in range(100) if eval(condition, {"epoch": t})]
        found.append((range(steps[0], steps[-1] + 1), float(rate), len(rate.split(".")[1])))
    return found


# --- noise ----------------------------------------------------------------------------------------


def hover(rates: Sequence[float], start: float = 3.0, runs: int = 20_000, seed: int = 1) -> Tensor:
    """Mean of ``x**2`` over many runs on ``x**2 / 2``, whose gradient is off by unit noise.

    Args:
        rates: the learning rate of each step, a trace.
        runs: how many runs at once, as one tensor.
    """
    noise = torch.Generator().manual_seed(seed)
    x = torch.full((runs,), start, dtype=torch.float64)
    optimizer, mean_square = minioptim.SGD([x], lr=0.0), [start**2]
    for lr in rates:
        optimizer.param_groups[0]["lr"] = lr
        x.grad = x + torch.randn(x.shape, dtype=x.dtype, generator=noise)
        optimizer.step()
        mean_square.append(x.square().mean().item())
    return torch.tensor(mean_square, dtype=torch.float64)


def expected(rates: Any, start: float = 3.0, noise: float = 1.0) -> Tensor:
    """What `hover` measures, computed: ``v -> (1 - lr)**2 * v + lr**2 * noise``.

    Args:
        rates: the learning rate of each step; more dimensions are many schedules at once.
    """
    rates = torch.as_tensor(rates, dtype=torch.float64)
    v = [torch.full(rates.shape[1:], start**2, dtype=torch.float64)]
    for lr in rates:
        v.append((1 - lr) ** 2 * v[-1] + lr**2 * noise)
    return torch.stack(v)


def wander(
    make: Make, surface: Surface, start: Sequence[float], steps: int, lr: float, noise: float
) -> Trajectory:
    """One walk over a surface with noise in the gradient, and a scheduler stepped after each step.

    The noise comes from a generator of its own, so that every walk sees the same one.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.tensor(start, dtype=torch.float64)
    optimizer = minioptim.SGD([x], lr=lr)
    scheduler, points = make(optimizer), [x.clone()]
    for _ in range(steps):
        shake = torch.randn(x.shape, dtype=torch.float64, generator=generator)
        x.grad = surface.gradient(x) + noise * shake
        optimizer.step()
        scheduler.step()
        points.append(x.clone())
    way = torch.stack(points)
    return Trajectory(way, surface.value(way))


def lengths(make: Make, steps: int = 60, lr: float = 0.01, runs: int = 20_000) -> Tensor:
    """How far Adam moves in each step on gradients that are unit noise, as a multiple of ``lr``."""
    noise, x = torch.Generator().manual_seed(1), torch.zeros(runs, dtype=torch.float64)
    optimizer = minioptim.Adam([x], lr=lr)
    scheduler, found = make(optimizer), []
    for _ in range(steps):
        before = x.clone()
        x.grad = torch.randn(runs, dtype=torch.float64, generator=noise)
        optimizer.step()
        scheduler.step()
        found.append((x - before).square().mean().sqrt() / lr)
    return torch.stack(found)


# --- training -------------------------------------------------------------------------------------


def regress(make: Make, x: Tensor, y: Tensor, lr: float, steps: int = 3000) -> Tensor:
    """The weights of a linear model after full-batch descent on the mean squared error, from 0."""
    w = torch.zeros(x.shape[1], dtype=torch.float64)
    optimizer = minioptim.SGD([w], lr=lr)
    scheduler = make(optimizer)
    for _ in range(steps):
        w.grad = x.T @ (x @ w - y) / len(x)
        optimizer.step()
        scheduler.step()
    return w


def network(hidden: int = 32, seed: int = 0) -> torch.nn.Module:
    """A small network for the digits, in float64: 64 inputs, one hidden layer, 10 outputs."""
    torch.manual_seed(seed)
    exact = {"dtype": torch.float64}  # from the start: drawn in float32, weights differ by CPU
    first, last = torch.nn.Linear(64, hidden, **exact), torch.nn.Linear(hidden, 10, **exact)
    return torch.nn.Sequential(first, torch.nn.Tanh(), last).to(device())


def fit(
    model: torch.nn.Module,
    optimizer: Any,
    scheduler: Any,
    train: Digits,
    batches: Iterator[Tensor],
    steps: int,
) -> list[float]:
    """Train, with a scheduler stepped after every batch. Returns the loss of each batch."""
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = mean_loss(model, train.pick(next(batches)))
        loss.backward()
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())
    return losses


# --- figures --------------------------------------------------------------------------------------


def gallery(traces: Mapping[str, Sequence[float]], metric: Sequence[float], lr: float) -> None:
    """One small picture for each trace, all on the same axes, and one for the metric."""
    rows = math.ceil((len(traces) + 1) / 4)
    fig, axes = plt.subplots(rows, 4, figsize=(7.6, 1.75 * rows), sharex=True)
    drawn: list[Any] = []
    says = {}
    for ax, (name, rates) in zip(axes.flat, traces.items(), strict=False):
        ax.plot(rates, color=plots.COLOURS[0], linewidth=1.6)
        ax.set_ylim(-0.05 * lr, 1.1 * lr)
        ax.set_yticks([0, lr / 2, lr])
        ax.set_title(name, fontsize=8.5)
        ax.tick_params(labelsize=8)
        drawn.append(rates)
        turns = len(np.unique(np.round(np.asarray(rates) / lr, 6)))
        ends = f"{plots.number(rates[0])} -> {plots.number(rates[-1])}"
        says[name] = f"{ends:18} between {plots.number(min(rates))} and {plots.number(max(rates))}"
        says[name] += f", {turns} different"
    last = axes.flat[len(traces)]
    last.plot(metric, color=plots.COLOURS[1], linewidth=1.6)
    last.set_title("metric told to Plateau", fontsize=8.5, color=plots.COLOURS[1])
    last.tick_params(labelsize=8)
    for ax in axes.flat[len(traces) + 1 :]:
        ax.axis("off")
    for ax in axes[-1]:
        ax.set_xlabel("step", fontsize=9)
    for ax in axes[:, 0]:
        ax.set_ylabel("lr", fontsize=9)
    plots.finish(fig, [*drawn, metric], says)


def bands(traces: Mapping[str, Sequence[float]], lr: float) -> None:
    """A heat map with a row for each trace: dark where the rate is high."""
    rates = np.array(list(traces.values())) / lr
    fig, ax = plt.subplots(figsize=(7.6, 4.6))
    image = ax.imshow(rates, aspect="auto", cmap=plots.DEPTH, vmin=0, vmax=1, interpolation="none")
    ax.set_yticks(range(len(traces)), list(traces), fontsize=9)
    ax.set(xlabel="step")
    ax.grid(False)
    fig.colorbar(image, ax=ax, label="lr, as a part of the highest", pad=0.02)
    order = sorted(traces, key=lambda name: -sum(traces[name]))
    most, least = (f"{name} {sum(traces[name]) / lr:.1f}" for name in (order[0], order[-1]))
    plots.finish(fig, [rates], f"sum of lr / highest lr: most {most}, least {least}")


def rounding(parts: Mapping[str, Tensor], limit: float) -> None:
    """Curves of what rounding has done, and a limit they stay below.

    They are the last digits of numbers, in which processors may differ, so what is printed of them
    is a power of ten that they do not reach, and the digest stands for the limit alone.
    """
    fig, ax = plt.subplots()
    plots.draw_lines(ax, parts, log="y", ylim=(1e-18, 10 * limit))
    plots.reference_lines(ax, None, {f"{limit:.0e}": limit})
    ax.set(xlabel="t", ylabel="largest difference so far")
    assert all(0 < part.max() < limit for part in parts.values())
    says = {name: f"rounding differs, by less than {limit:.0e}" for name in parts}
    plots.finish(fig, [[limit], [len(part) for part in parts.values()]], says)


def heat(
    x: Tensor, y: Tensor, values: Tensor, *, xlabel: str, ylabel: str, label: str, mark: str
) -> None:
    """A heat map over two logarithmic axes, with its lowest point marked. Light is low."""
    fig, ax = plt.subplots(figsize=(6.4, 4.2))
    shown = ax.contourf(x, y, values.log10(), levels=14, cmap=plots.DEPTH)
    ax.set_xscale("log")
    ax.set_yscale("log")
    row, column = divmod(int(values.argmin()), len(x))
    ax.plot(x[column], y[row], "*", color=plots.INK, markersize=12)
    place = (float(x[column]), float(y[row]))
    ax.annotate(mark, place, (8, 6), textcoords="offset points", color=plots.INK)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.grid(False)
    fig.colorbar(shown, ax=ax, label=label)
    best = float(values.min())
    at = f"{plots.number(place[0])}, {plots.number(place[1])}"
    plots.finish(fig, [x, y, values.log10()], f"lowest {plots.number(best)} at {at}")


def search(
    lrs: Sequence[float], losses: Sequence[float], grid: Sequence[float], ends: Sequence[float]
) -> float:
    """Left a range test, right a sweep of constant rates. Returns the rate where the test turns.

    The turn is where the mean of five losses is lowest. Beyond it runs differ between processors,
    so what is drawn there does not count in the digest.
    """
    smooth = [float(np.mean(losses[max(0, i - 4) : i + 1])) for i in range(len(losses))]
    turn = int(np.argmin(smooth))
    best = int(np.argmin(ends))
    fig, (left, right) = plt.subplots(1, 2, figsize=(7.6, 3.6), sharey=True)
    left.plot(lrs, losses, color="#8899a6", linewidth=1)
    left.plot(lrs, smooth, color=plots.COLOURS[0])
    left.annotate("turns", (lrs[turn], smooth[turn]), (-4, -16), textcoords="offset points")
    left.plot(lrs[turn], smooth[turn], "o", color=plots.COLOURS[1])
    left.set(title="one run, rising rate", ylabel="loss", ylim=(0, 3.2))
    right.plot(grid, ends, color=plots.COLOURS[0], marker="s")
    right.set(title="one run for each rate")
    for ax in (left, right):
        ax.set(xscale="log", xlabel="learning rate")
    says = {"turns": f"{lrs[turn]:.1f}", "lowest": f"{grid[best]:.1f}"}
    stable = [lrs[: turn - 10], smooth[: turn - 10], grid[: best + 1], ends[: best + 1]]
    plots.finish(fig, stable, says)
    return lrs[turn]
