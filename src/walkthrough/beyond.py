"""What the chapter on several processes builds and draws: many workers in one process.

A worker here is what a process is in earnest: a network, an optimizer, a share of every batch. They
live side by side in one process, so that a reader can look at all of them at once, and what they
would send each other is copied and counted. The real thing is `walkthrough.distributed`.
"""

from __future__ import annotations

import copy
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor, distributed, nn

from . import parity, plots
from .data import Digits, batches
from .distributed import bytes_of
from .training import mean_loss

Make = Callable[[Sequence[Tensor]], Any]  # builds an optimizer for some parameters

# --- many workers in one process ------------------------------------------------------------------


class Workers:
    """Networks that start equal and see one share each of every batch: alone, they drift apart.

    Args:
        net: copied for each worker.
        make: builds the optimizer of a worker from the parameters that are its own.
        processes: how many.

    Attributes:
        nets, optimizers: one for each worker.
        losses: of the last step, each on its share.
        sent: bytes that each worker has sent so far, if every message takes the shortest way.
    """

    def __init__(self, net: nn.Module, make: Make, processes: int) -> None:
        self.nets = [copy.deepcopy(net) for _ in range(processes)]
        self.world = processes
        self.params = [list(net.parameters()) for net in self.nets]
        self.sent = 0.0
        self.losses = [0.0] * processes
        nothing: list[Any] = [{"params": []}]  # where there are more workers than tensors
        self.optimizers = [make(self.own(rank) or nothing) for rank in range(processes)]

    def own(self, rank: int) -> list[Tensor]:
        """The parameters that the optimizer of a worker has in its groups."""
        return self.params[rank]

    def step(self, batch: Digits) -> None:
        """Forward and backward of every worker on its share, then one step of all."""
        for rank, net in enumerate(self.nets):
            share = batch.pick(slice(rank, None, self.world))
            net.zero_grad()
            weight = len(share.x) * self.world / len(batch.x)
            loss = mean_loss(net, share)
            (loss * weight).backward()
            self.losses[rank] = loss.item()
        self.update()

    def update(self) -> None:
        """From the gradients of all workers to the next parameters of all: here, unheard."""
        for optimizer in self.optimizers:
            optimizer.step()

    def held(self, rank: int) -> dict[str, int]:
        """The bytes of a worker, as `walkthrough.distributed.bytes_held` counts them."""
        state = self.optimizers[rank].state.values()
        own = self.own(rank)
        return {
            "parameters": bytes_of(own),
            "gradients": bytes_of(p.grad for p in own),
            "optimizer state": bytes_of(value for entry in state for value in entry.values()),
        }


class DDP(Workers):
    """All hold everything; the gradients are averaged before the step."""

    def update(self) -> None:
        """Average, then step."""
        self.average()
        super().update()

    def average(self) -> None:
        """Give every worker the mean of the gradients: an *all-reduce*."""
        for copies in zip(*self.params, strict=True):
            mean = sum(p.grad for p in copies) / self.world
            for p in copies:
                p.grad.copy_(mean)
            self.count(2, mean)  # every number is added up on its way round, and handed out again

    def count(self, rounds: int, tensor: Tensor) -> None:
        """Note that a tensor went round a ring so many times: each passes on all parts but one."""
        self.sent += rounds * bytes_of([tensor]) * (self.world - 1) / self.world


class ZeRO(DDP):
    """Each steps some of the parameters, remembers what belongs to these, and sends them round."""

    def own(self, rank: int) -> list[Tensor]:
        """The parameters dealt to a worker: the largest first, each to whom has least so far."""
        load = [0] * self.world
        mine = []
        for p in sorted(self.params[rank], key=Tensor.numel, reverse=True):
            poorest = load.index(min(load))
            load[poorest] += p.numel()
            if poorest == rank:
                mine.append(p)
        return mine

    def update(self) -> None:
        """Average, step one's own, and copy to the others what each has stepped: *broadcasts*."""
        super().update()
        places = [{id(p): i for i, p in enumerate(params)} for params in self.params]
        for rank in range(self.world):
            for p in self.own(rank):
                for params in self.params:
                    params[places[rank][id(p)]].data.copy_(p)
                self.count(1, p)

    def held(self, rank: int) -> dict[str, int]:
        """All parameters, all gradients, some state."""
        everything = self.params[rank]
        gradients = bytes_of(p.grad for p in everything)
        whole = {"parameters": bytes_of(everything), "gradients": gradients}
        return super().held(rank) | whole


class FSDP(DDP):
    """Each holds some rows of every parameter; the whole is put together only to compute with."""

    def own(self, rank: int) -> list[Tensor]:
        """The rows of a worker, made at first from the network that all have."""
        if not hasattr(self, "rows"):
            self.rows = [
                [nn.Parameter(_chunk(p, self.world, r).clone()) for p in params]
                for r, params in enumerate(self.params)
            ]
        return self.rows[rank]

    def step(self, batch: Digits) -> None:
        """Gather, compute, and gather again: what was gathered is forgotten on the way back."""
        for p in self.params[0]:
            self.count(2, p)  # once for the forward, once for the backward pass
        super().step(batch)

    def average(self) -> None:
        """Give every worker its rows of the mean gradient: a *reduce-scatter*."""
        for i, copies in enumerate(zip(*self.params, strict=True)):
            mean = sum(p.grad for p in copies) / self.world
            for rank in range(self.world):
                self.rows[rank][i].grad = _chunk(mean, self.world, rank).clone()
            self.count(1, mean)

    def update(self) -> None:
        """Scatter the mean gradient, step one's rows, and put the whole together again."""
        super().update()
        for i, copies in enumerate(zip(*self.params, strict=True)):
            whole = torch.cat([self.rows[rank][i].detach() for rank in range(self.world)])
            for p in copies:
                p.data.copy_(whole)


def _chunk(x: Tensor, parts: int, which: int) -> Tensor:
    """The rows of one of so many; as `torch.chunk`, but the last ones may have none."""
    size = -(-len(x) // parts)  # rounded up
    return x.detach()[which * size : (which + 1) * size]


def rows_of(params: Iterable[Tensor], processes: int, rank: int) -> int:
    """How many numbers a process has if every parameter is cut along its rows."""
    return sum(_chunk(p, processes, rank).numel() for p in params)


def gap(workers: Workers, other: Workers | nn.Module) -> float:
    """The largest difference between any two parameters of some workers, and of a network."""
    nets = [*workers.nets, *(other.nets if isinstance(other, Workers) else [other])]
    columns = zip(*(net.parameters() for net in nets), strict=True)
    return max((p - column[0]).abs().max().item() for column in columns for p in column)


def train(workers: Workers, digits: Digits, steps: int = 20, size: int = 32) -> Workers:
    """Some steps on batches that depend on nothing but their number. Returns the workers."""
    for _, batch in zip(range(steps), batches(len(digits.x), size), strict=False):
        workers.step(digits.pick(batch))
    return workers


def table(
    net: nn.Module,
    digits: Digits,
    cases: Sequence[tuple[type[Workers], str, Any, Any, Mapping[str, Any]]],
    planted: Any,
    processes: int = 3,
) -> None:
    """Print, for each case and dtype, the largest difference of our optimizer and PyTorch's.

    Args:
        cases: kind of workers, name, our class, PyTorch's class, options.
        planted: the optimizer of the first case with an error in its rule.

    Raises:
        AssertionError: a row differs, or the last one does not.
    """
    print(f"{processes} workers, {'20 steps':35}{'float64':>9}{'float32':>9}{'values':>10}")
    compared = 0
    kind, _, _, theirs, options = cases[0]
    wrong = kind, "one planted error", planted, theirs, options
    for case in [*cases, wrong]:
        kind, label, ours, pytorchs, options = case
        found = [
            _compare(kind, net, digits, ours, pytorchs, options, processes, dtype)
            for dtype in (torch.float64, torch.float32)
        ]
        values = sum(outcome.values for outcome in found)
        text = label if case is wrong else f"{kind.__name__:5} {label} {parity.describe(options)}"
        print(f"{text:46}" + "".join(f"{o!s:>9}" for o in found) + f"{values:>10,}")
        if case is wrong:
            assert all(o.unequal for o in found), "the planted error was not seen"
        else:
            assert not any(o.unequal for o in found), f"{text}: ours and PyTorch's differ"
            compared += values
    print(f"{compared:,} values: all equal. Planted error: seen.")


def _compare(
    kind: type[Workers], net: nn.Module, digits: Digits, ours: Any, theirs: Any,
    options: Mapping[str, Any], processes: int, dtype: torch.dtype,
) -> parity.Outcome:  # fmt: skip
    cast = Digits(digits.x.to(dtype), digits.y)
    start = copy.deepcopy(net).to(dtype)
    sides = [
        train(kind(start, lambda p, make=make: make(p, **options), processes), cast)
        for make in (ours, theirs)
    ]
    total = parity.Outcome(0, 0, 0.0)
    for rank in range(processes):
        held = [parity._everything(w.own(rank), w.optimizers[rank]) for w in sides]
        total = parity._add(total, parity._difference(*held))
    return total


# --- processes that do not exist, and threads that talk -------------------------------------------


@contextmanager
def pretend(processes: int, rank: int = 0) -> Iterator[None]:
    """Be one of so many processes, of which no other exists: nothing is sent, nothing arrives.

    PyTorch has such a backend for its own tests. What a process *holds* is decided without the
    others, so it can be looked at here; what it would compute cannot.
    """
    from torch.testing._internal.distributed.fake_pg import FakeStore

    distributed.init_process_group("fake", rank=rank, world_size=processes, store=FakeStore())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch warns of its own modules when it loads them
            yield
    finally:
        distributed.destroy_process_group()


def talk(work: Callable[[int, Callable], Any], processes: int = 2, patience: float = 1.0) -> list:
    """Let threads talk through gloo, as processes do, and return what each has come to.

    Args:
        work: called in each thread with its number and with a function ``all_reduce(number)`` that
            returns the sum of what all have given. It returns a list, or a generator that is run.
        patience: seconds to wait for the others; then gloo raises an error, whose kind is added.
    """
    gloo, store = distributed.ProcessGroupGloo, distributed.HashStore()
    found: list[list[Any]] = [[] for _ in range(processes)]
    groups, failed = [], []

    def run(rank: int) -> None:
        options = gloo._Options()
        options._devices = [gloo.create_device(hostname="127.0.0.1")]
        options._timeout = timedelta(seconds=patience)
        group = gloo(store, rank, processes, options)
        groups.append(group)  # stays until all are done: who has left would be noticed at once

        def all_reduce(number: float) -> float:
            x = torch.tensor([number], dtype=torch.float64, device="cpu")
            group.allreduce([x]).wait()
            return x.item()

        try:
            for result in work(rank, all_reduce):
                found[rank].append(result)
        except RuntimeError as error:
            found[rank].append(type(error).__name__)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(processes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    return found


def held_in(lines: Sequence[str]) -> list[dict[str, int]]:
    """What `walkthrough.train --memory` has printed: for each process, bytes by what they are for.

    The other way round: `walkthrough.summary.shares`.
    """
    rows = [line.removesuffix(" bytes").split() for line in lines if line.endswith(" bytes")]
    return [
        dict(zip(PARTS, (int(n.replace(",", "")) for n in row[1:]), strict=True)) for row in rows
    ]


# --- bytes on paper -------------------------------------------------------------------------------

PARTS = ("parameters", "gradients", "optimizer state")
SPLIT = {"DDP": (False, False, False), "ZeRO": (False, False, True), "FSDP2": (True, True, True)}
FLOAT32 = (4, 4, 8)  # bytes per number: the parameter, its gradient, two moments of Adam
MIXED = (2, 2, 12)  # in 16 bits the first two; a copy in float32 and two moments in the third


def paper(
    numbers: float, processes: int, scheme: str, width: tuple[int, int, int] = FLOAT32
) -> dict[str, float]:
    """The bytes of one process by what they are for, if what is split is split evenly.

    Args:
        numbers: parameters of the network.
        scheme: one of `SPLIT`.
        width: bytes per parameter, in the order of `PARTS`.
    """
    split = SPLIT[scheme]
    return {
        part: numbers * size / (processes if cut else 1)
        for part, size, cut in zip(PARTS, width, split, strict=True)
    }


class Transformer(nn.Module):
    """The parameters of a language model of 6.7 billion numbers, and no way to compute with it.

    Widths and counts are those of the smallest LLaMA (Touvron et al. 2023). Build it on the device
    ``meta``, where a tensor has a shape and no memory.
    """

    def __init__(
        self, layers: int = 32, width: int = 4096, inner: int = 11008, words: int = 32000
    ) -> None:
        super().__init__()

        def block() -> nn.Module:
            square = (nn.Linear(width, width, bias=False) for _ in range(4))
            wide = (nn.Linear(width, inner, bias=False) for _ in range(2))
            norms = (nn.RMSNorm(width) for _ in range(2))
            return nn.Sequential(*square, *wide, nn.Linear(inner, width, bias=False), *norms)

        self.embedding = nn.Embedding(words, width)
        self.layers = nn.ModuleList(block() for _ in range(layers))
        self.norm = nn.RMSNorm(width)
        self.head = nn.Linear(width, words, bias=False)


def shard(net: Transformer) -> None:
    """FSDP2 as it is used: one unit for each layer, and one for the rest."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (distributed.get_world_size(),))
    for layer in net.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(net, mesh=mesh)


def state_bytes(params: Sequence[Tensor], make: Make) -> int:
    """The bytes of state that an optimizer makes for these parameters in its first step."""
    params = list(params)
    if not params:
        return 0
    optimizer = make(params)
    for p in params:
        p.grad = torch.zeros_like(p)
    optimizer.step()
    return bytes_of(x for state in optimizer.state.values() for x in state.values() if x.dim())


# --- figures --------------------------------------------------------------------------------------

HUES = dict(zip(PARTS, plots.COLOURS, strict=False))


def _plain(ax: Any) -> None:
    ax.grid(False)
    for side in ax.spines.values():
        side.set_visible(False)
    ax.tick_params(length=0)


def owners(processes: int = 4, width: tuple[int, int, int] = FLOAT32) -> None:
    """Who holds which bytes under each scheme: full colour is held, pale is held by another."""
    fig, axes = plt.subplots(1, len(SPLIT), figsize=(7.6, 3.3), sharey=True)
    says: dict[str, str] = {}
    drawn = []
    for ax, (scheme, split) in zip(axes, SPLIT.items(), strict=True):
        for rank in range(processes):
            left = 0.0
            for part, size, cut in zip(PARTS, width, split, strict=True):
                ax.barh(rank, size, left=left, height=0.7, color=HUES[part], alpha=0.13)
                piece = size / processes if cut else size
                start = left + rank * piece if cut else left
                ax.barh(rank, piece, left=start, height=0.7, color=HUES[part])
                drawn.append([rank, start, piece])
                left += size
        total = sum(paper(1, processes, scheme, width).values())
        says[scheme] = f"{total:g} bytes per parameter in each of {processes} processes"
        ax.set_title(f"{scheme}: {total:g} bytes")
        ax.set_yticks(range(processes), [f"process {rank}" for rank in range(processes)])
        ax.set_xticks([])
        _plain(ax)
    axes[0].invert_yaxis()
    handles = [plt.Rectangle((0, 0), 1, 1, color=HUES[part]) for part in PARTS]
    fig.legend(handles, PARTS, loc="outside lower center", ncols=3)
    plots.finish(fig, drawn, says)


TALK = {  # in the order of a step: what is sent, in units of all parameters, twice is an all-reduce
    "DDP": {"backward": ("all-reduce\ngradients", 2)},
    "ZeRO": {
        "backward": ("all-reduce\ngradients", 2),
        "after the step": ("broadcast\nparameters", 1),
    },
    "FSDP2": {
        "forward": ("all-gather\nparameters", 1),
        "backward": ("all-gather again,\nthen reduce-scatter", 2),
    },
}
PHASES = ("forward", "backward", "step", "after the step")


def talking(sent: Mapping[str, float]) -> None:
    """What is said in one step, and how much of it.

    Args:
        sent: for each scheme, the bytes that one process has sent, over the bytes of its parameters
            and (P - 1)/P: a whole number.
    """
    fig, ax = plt.subplots(figsize=(7.6, 3.0))
    for y, (scheme, said) in enumerate(TALK.items()):
        for x, phase in enumerate(PHASES):
            text, rounds = said.get(phase, ("", 0))
            quiet = phase == "step" and not text
            colour = plots.COLOURS[y] if rounds else "#888888"
            face = colour if rounds else "white"
            ax.add_patch(
                plt.Rectangle((x + 0.03, y - 0.4), 0.94, 0.8, facecolor=face, edgecolor=colour,
                              alpha=1.0 if rounds else 0.5)
            )  # fmt: skip
            text = text or ("nothing is said" if quiet else "")
            ax.text(x + 0.5, y, text, ha="center", va="center", fontsize=9.5,
                    color="white" if rounds else "#555555")  # fmt: skip
        ax.text(4.08, y, f"{sent[scheme]:.0f} Ψ", va="center", fontsize=11)
    ax.set(xlim=(0, 4.6), ylim=(2.6, -0.6))
    ax.set_yticks(range(len(TALK)), TALK)
    ax.set_xticks([x + 0.5 for x in range(4)], PHASES)
    ax.xaxis.tick_top()
    _plain(ax)
    said = {scheme: sum(rounds for _, rounds in parts.values()) for scheme, parts in TALK.items()}
    assert said == {scheme: round(value) for scheme, value in sent.items()}
    says = {scheme: f"every process sends {n} times the parameters" for scheme, n in said.items()}
    plots.finish(fig, [list(said.values())], says)


def pieces(names: Sequence[str], sizes: Sequence[int], cuts: Mapping[str, Sequence[Any]]) -> None:
    """Which process steps which part of which tensor.

    Args:
        names, sizes: of the parameters.
        cuts: by scheme, for each parameter the numbers that each process steps.
    """
    fig, axes = plt.subplots(1, len(cuts), figsize=(7.6, 3.2), sharey=True, squeeze=False)
    says = {}
    drawn = []
    for ax, (scheme, shares) in zip(axes[0], cuts.items(), strict=True):
        for y, (size, counts) in enumerate(zip(sizes, shares, strict=True)):
            left = 0.0
            for rank, count in enumerate(counts):
                width = count / size
                colour = plots.COLOURS[rank % len(plots.COLOURS)]
                ax.barh(y, width, left=left, height=0.72, color=colour, edgecolor="white")
                if width > 0.07:
                    ax.text(left + width / 2, y, str(rank), color="white", ha="center", va="center")
                left += width
            drawn.append(list(counts))
        totals = np.sum(shares, axis=0)
        says[scheme] = "steps " + ", ".join(f"{n:,}" for n in totals) + " numbers"
        ax.set_title(scheme)
        ax.set_yticks(range(len(names)), [f"{n}\n{s:,}" for n, s in zip(names, sizes, strict=True)])
        ax.set_xticks([])
        _plain(ax)
    axes[0, 0].invert_yaxis()
    plots.finish(fig, drawn, says)


def measured(held: Mapping[str, Sequence[Mapping[str, int]]], numbers: int, width: Any) -> None:
    """Measured bytes of every process beside the formula, scheme by scheme.

    Args:
        held: by scheme, for each process the bytes by what they are for.
        numbers: parameters of the network.
        width: bytes per parameter, in the order of `PARTS`.
    """
    fig, ax = plt.subplots(figsize=(7.2, 3.6))
    drawn: list[Any] = []
    says: dict[str, str] = {}
    labels: list[str] = []
    for scheme, processes in held.items():
        rows = [*(list(h.values()) for h in processes)]
        rows.append(list(paper(numbers, len(processes), scheme, width).values()))
        for i, row in enumerate(rows):
            x = len(labels)
            bottom = 0.0
            for part, size in zip(PARTS, row, strict=True):
                hatch = "//" if i == len(processes) else None
                ax.bar(x, size, 0.75, bottom, color=HUES[part], edgecolor="white", hatch=hatch)
                bottom += size
            labels.append("formula" if hatch else f"process {i}")
            drawn.append(row)
        ax.text(x - 1, ax.get_ylim()[1], scheme, ha="center", weight="bold")
        worst = max(abs(sum(row) / sum(rows[-1]) - 1) for row in rows[:-1])
        totals = ", ".join(f"{sum(row):,.0f}" for row in rows[:-1])
        says[scheme] = f"{totals} bytes; formula {sum(rows[-1]):,.0f}, off by {worst:.0%} at most"
    ax.set_xticks(range(len(labels)), labels, rotation=35, ha="right")
    ax.set(ylabel="bytes", ylim=(0, 1.12 * numbers * sum(width)))
    for text, x in zip(ax.texts, range(1, len(labels), 3), strict=True):
        text.set_position((x, 1.03 * numbers * sum(width)))
    handles = [plt.Rectangle((0, 0), 1, 1, color=HUES[part]) for part in PARTS]
    fig.legend(handles, PARTS, loc="outside lower center", ncols=3)
    plots.finish(fig, drawn, says)


def fair(loads: Mapping[str, Sequence[int]]) -> None:
    """How much each process has to step, over its fair share; the busiest first.

    Args:
        loads: by name, the numbers that each process steps.
    """
    curves = {}
    for name, counts in loads.items():
        share = sum(counts) / len(counts)
        rank = range(1, len(counts) + 1)
        curves[name] = rank, [max(n / share, 0.01) for n in sorted(counts, reverse=True)]
    plots.lines(
        curves, log="xy", xlabel="processes, the busiest first", ylabel="over its fair share",
        level={"fair": 1.0}, ylim=(0.008, 40),
    )  # fmt: skip
    for name, counts in loads.items():
        idle = sum(n == 0 for n in counts)
        print(
            f"{name}: largest {max(counts):,}, fair {sum(counts) / len(counts):,.0f}, idle {idle}"
        )


def on_paper(numbers: float, width: tuple[int, int, int] = FLOAT32) -> None:
    """Bytes per process against the number of processes, for each scheme."""
    processes = [2**k for k in range(11)]

    def size(scheme: str) -> list[float]:
        return [sum(paper(numbers, p, scheme, width).values()) / 1e9 for p in processes]

    curves = {scheme: (processes, size(scheme)) for scheme in SPLIT}
    plots.lines(
        curves, log="xy", xlabel="processes", ylabel="GB per process",
        level={"": 80}, ylim=(0.05, 300), markers=True,
    )  # fmt: skip
