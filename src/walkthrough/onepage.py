"""What the first chapter draws and runs: one training loop taken apart, and two processes."""

import copy
import os
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from typing import Any

import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn

from . import parity, plots
from .data import Digits, batches
from .training import mean_loss

# --- one training loop, taken apart ---------------------------------------------------------------

PARTS = ("parameters", "gradients", "state", "lr", "last_epoch")
OWNERS = ("model", "model", "optimizer", "optimizer", "scheduler")


class Anatomy:
    """How many entries of which part a call has changed.

    Args:
        model, optimizer, scheduler: the three objects of a training loop.
    """

    def __init__(self, model: nn.Module, optimizer: Any, scheduler: Any) -> None:
        self.objects = model, optimizer, scheduler
        self.rows: list[tuple[str, list[int]]] = []
        self.before = self.look()

    def look(self) -> list[list[Any]]:
        """A copy of every entry of every part."""
        model, optimizer, scheduler = self.objects
        params = list(model.parameters())
        state = [optimizer.state[p] for p in params if p in optimizer.state]
        parts = [
            params,
            [p.grad for p in params],
            [value for entries in state for value in entries.values()],
            [group["lr"] for group in optimizer.param_groups],
            [scheduler.last_epoch],
        ]
        return [[copy.deepcopy(_plain(entry)) for entry in part] for part in parts]

    def after(self, call: str, result: Any = None) -> Any:
        """Note what has changed; ``result`` is the call itself, and is handed on."""
        now = self.look()
        counts = [_changes(a, b) for a, b in zip(self.before, now, strict=True)]
        self.rows.append((call, counts))
        self.before = now
        return result

    def picture(self) -> None:
        """Draw and print the rows."""
        fig, ax = plt.subplots(figsize=(6.6, 0.42 * len(self.rows) + 1.1))
        colours = {"model": plots.COLOURS[0], "optimizer": plots.COLOURS[1]}
        for y, (_, counts) in enumerate(self.rows):
            for x, (count, owner) in enumerate(zip(counts, OWNERS, strict=True)):
                if count:
                    colour = colours.get(owner, plots.COLOURS[2])
                    ax.plot(x, y, "s", markersize=19, color=colour)
                    ax.text(x, y, str(count), color="white", ha="center", va="center")
        heads = [f"{part}\n({owner})" for part, owner in zip(PARTS, OWNERS, strict=True)]
        ax.set_xticks(range(len(PARTS)), heads)
        ax.set_yticks(range(len(self.rows)), [call for call, _ in self.rows])
        ax.set(xlim=(-0.5, len(PARTS) - 0.5), ylim=(len(self.rows) - 0.5, -0.5))
        ax.xaxis.tick_top()
        ax.tick_params(length=0)
        for spine in ax.spines.values():
            spine.set_visible(False)
        lines = [" " * 14 + "".join(f"{part:>12}" for part in PARTS)]
        for call, counts in self.rows:
            lines.append(f"{call:14}" + "".join(f"{count or '·':>12}" for count in counts))
        plots.finish(fig, [[counts for _, counts in self.rows]], "\n".join(lines))


def _plain(entry: Any) -> Any:
    return entry.detach() if isinstance(entry, Tensor) else entry


def _changes(before: Sequence[Any], now: Sequence[Any]) -> int:
    """How many entries are new, gone, or not what they were."""
    changed = abs(len(now) - len(before))
    for a, b in zip(before, now, strict=False):
        if isinstance(a, Tensor) and isinstance(b, Tensor):
            changed += not torch.equal(a, b)
        else:
            changed += isinstance(a, Tensor) or isinstance(b, Tensor) or a != b
    return changed


# --- figures --------------------------------------------------------------------------------------


def images(pictures: Mapping[str, Tensor]) -> None:
    """Small pictures in a row, each with its own scale from dark (low) to bright."""
    fig, axes = plt.subplots(1, len(pictures), figsize=(7.6, 7.6 / len(pictures) + 0.4))
    for ax, (name, picture) in zip(axes, pictures.items(), strict=True):
        ax.imshow(plots.numbers(picture), cmap="cividis")
        ax.set_title(name)
        ax.axis("off")
    says = {
        name: f"from {plots.number(x.min())} to {plots.number(x.max())}"
        for name, x in pictures.items()
    }
    plots.finish(fig, list(pictures.values()), says)


def learning(runs: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
    """Loss, accuracy and learning rate of training runs, side by side.

    Args:
        runs: by name, what `scores` has read: ``loss``, ``test`` and ``lr``, a number per epoch.
    """
    fig, axes = plt.subplots(1, 3, figsize=(7.8, 3.4))
    drawn: list[Any] = []
    panels = {
        "loss": ("mean loss of the epoch", "y"),
        "test": ("right, test set", ""),
        "lr": ("lr", ""),
    }
    for ax, (key, (title, log)) in zip(axes, panels.items(), strict=True):
        looks = zip(cycle(plots.COLOURS), cycle(plots.DASHES), cycle(plots.MARKERS), strict=False)
        for (name, run), (colour, dashes, marker) in zip(runs.items(), looks, strict=False):
            epochs = range(1, len(run[key]) + 1)
            ax.plot(epochs, run[key], color=colour, ls=dashes, marker=marker, label=name)
            drawn.append(run[key])
        ax.set_yscale("log" if log else "linear")
        ax.set(title=title, xlabel="epoch")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(runs))
    says = {
        name: f"loss {run['loss'][0]:.2f} -> {run['loss'][-1]:.2f}, "
        f"test {run['test'][0]:.0%} -> {run['test'][-1]:.0%}, lr {plots.number(run['lr'][-1])}"
        for name, run in runs.items()
    }
    plots.finish(fig, drawn, says)


def scores(lines: Iterable[str]) -> dict[str, list[float]]:
    """What `walkthrough.train` prints, as numbers: for each of its columns one per epoch."""
    found: dict[str, list[float]] = {"lr": [], "loss": [], "test": []}
    for line in lines:
        words = line.split()
        if words and words[0] == "epoch":
            for key, values in found.items():
                word = words[words.index(key) + 1]
                values.append(float(word.rstrip("%")) / (100 if word.endswith("%") else 1))
    return found


# --- several processes ----------------------------------------------------------------------------


def torchrun(
    arguments: Sequence[str],
    processes: int = 2,
    timeout: float = 240,
    program: Sequence[str] = ("-m", "walkthrough.train"),
    restarts: int = 0,
) -> list[str]:
    """Start `walkthrough.train` under torchrun, wait for its end, and return what it printed.

    Args:
        arguments: of the command line of `walkthrough.train`.
        processes: how many. They meet on this machine, and no other can join or listen.
        timeout: seconds; then torchrun is asked to stop, and stops its processes.
        program: another one to start.
        restarts: how often all are started again when one of them has failed or was killed.

    Raises:
        subprocess.TimeoutExpired: it took longer.
        RuntimeError: it failed; with the last lines that it wrote.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={processes}", f"--max-restarts={restarts}"]
    command += [*program, *arguments]
    names = {name for _, name in socket.if_nameindex()}
    loopback = {"GLOO_SOCKET_IFNAME": "lo" if "lo" in names else "lo0"}
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | loopback,
    ) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except BaseException:
            process.terminate()  # it hands the signal on to its processes
            try:
                process.wait(timeout=40)
            finally:
                process.kill()
            raise
    if process.returncode:
        raise RuntimeError("\n".join((out + err).splitlines()[-80:]))
    return out.splitlines()


# --- is it equal, on a network? -------------------------------------------------------------------


def compare(
    model: nn.Module,
    digits: Digits,
    ours: Any,
    theirs: Any,
    options: Mapping[str, Any],
    dtype: torch.dtype = torch.float64,
    steps: int = 20,
) -> parity.Outcome:
    """Train two copies of a model on the same batches of 32, and compare after every step."""
    sides = []
    for make in (ours, theirs):
        net = copy.deepcopy(model).to(dtype)
        sides.append((net, make(net.parameters(), **options)))
    total = parity.Outcome(0, 0, 0.0)
    cast = Digits(digits.x.to(dtype), digits.y)
    for _, batch in zip(range(steps), batches(len(digits.x), 32), strict=False):
        held = []
        for net, optimizer in sides:
            optimizer.zero_grad()
            mean_loss(net, cast.pick(batch)).backward()
            optimizer.step()
            params = list(net.parameters())
            held.append(parity._everything(params, optimizer))
        total = parity._add(total, parity._difference(*held))
    return total


def table(
    model: nn.Module,
    digits: Digits,
    cases: Sequence[tuple[str, Any, Any, Mapping[str, Any]]],
    planted: Any,
) -> None:
    """Print the largest difference of each case in two dtypes; the last row must differ.

    Args:
        cases: name, our class, PyTorch's, options.
        planted: the class of the first case with an error in its rule.

    Raises:
        AssertionError: a row differs, or the last one does not.
    """
    _, _, theirs, options = cases[0]
    compared = 0
    print(f"{'':34}{'float64':>9}{'float32':>9}{'values':>10}")
    for label, ours, pytorchs, given in [*cases, ("one planted error", planted, theirs, options)]:
        text = label if ours is planted else f"{label} {parity.describe(given)}"
        found = [
            compare(model, digits, ours, pytorchs, given, dtype)
            for dtype in (torch.float64, torch.float32)
        ]
        values = sum(outcome.values for outcome in found)
        print(f"{text:34}" + "".join(f"{o!s:>9}" for o in found) + f"{values:>10,}")
        if ours is planted:
            assert all(o.unequal for o in found), "the planted error was not seen"
        else:
            assert not any(o.unequal for o in found), f"{text}: ours and PyTorch's differ"
            compared += values
    print(f"{compared:,} values after 20 steps each: all equal. Planted error: seen.")
