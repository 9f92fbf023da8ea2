"""What a step costs: bytes counted as it runs, and times that were measured before and stored.

Counting is exact and the same on every machine, so a notebook does it. Timing is neither: the times
on the page come from ``book/bench.json``, which ``make bench RECORD=1`` writes together with the
machine and the date.
"""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from minioptim.flat import FlatParameter

from .plots import COLOURS, DASHES, INK, MARKERS, finish, reference_lines

RECORD = Path(__file__).resolve().parents[2] / "book" / "bench.json"
WRITE_ONLY = ("copy_", "zero_", "fill_")  # they write a tensor without reading it
MADE_OF_NOTHING = ("zeros_like", "ones_like", "full_like", "empty_like")


# --- counting -------------------------------------------------------------------------------------


@dataclass
class Call:
    """One operation: its name, and for each tensor its place in the count and what was done."""

    name: str
    read: dict[int, int] = field(default_factory=dict)  # address: bytes
    written: dict[int, int] = field(default_factory=dict)
    alive: int = 0  # bytes of temporaries when it had run


class Traffic(TorchDispatchMode):
    """Counts what passes between the processor and its memory, if no cache kept anything.

    Every operation reads each of its tensors once from the first element to the last, and writes
    its result. Numbers, in tensors of one element, do not count. What an operation does inside is
    not seen; a fused kernel is one operation.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.alive = self.most_alive = 0

    @property
    def read(self) -> int:
        """Bytes read."""
        return sum(sum(call.read.values()) for call in self.calls)

    @property
    def written(self) -> int:
        """Bytes written."""
        return sum(sum(call.written.values()) for call in self.calls)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = func._schema.name.removeprefix("aten::")
        call = Call(name)
        known = set()
        aliases = [r.alias_info for r in func._schema.returns]
        is_view = any(alias is not None and not alias.is_write for alias in aliases)
        for argument, value in _bound(func._schema, args, kwargs):
            # The fused kernels may scale the gradients back, and write them only then.
            unscaled = argument.name == "grads" and kwargs.get("grad_scale") is None
            writes = argument.alias_info is not None and argument.alias_info.is_write
            for t in _tensors(value):
                known.add(t.untyped_storage().data_ptr())
                if is_view or t.numel() <= 1:
                    continue
                only_written = argument.is_out or (writes and name in WRITE_ONLY)
                if not only_written and name not in MADE_OF_NOTHING:
                    call.read[t.data_ptr()] = t.nbytes
                if writes and not unscaled:
                    call.written[t.data_ptr()] = t.nbytes
        for t in _tensors(result):
            if t.untyped_storage().data_ptr() not in known and t.numel() > 1:
                if not name.startswith(("empty", "new_empty")):
                    call.written[t.data_ptr()] = t.nbytes
                self._count(t.nbytes)
                weakref.finalize(t, self._count, -t.nbytes)
        if call.read or call.written:
            call.alive = self.alive
            self.calls.append(call)
        return result

    def _count(self, nbytes: int) -> None:
        self.alive += nbytes
        self.most_alive = max(self.most_alive, self.alive)


def _bound(schema: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[tuple]:
    for argument, value in zip(schema.arguments, args, strict=False):
        yield argument, value
    for argument in schema.arguments:
        if argument.name in kwargs:
            yield argument, kwargs[argument.name]


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)


def count(step: Callable[[], Any]) -> Traffic:
    """Run a step and count its traffic. Run it once before, so that state is not counted."""
    with Traffic() as traffic:
        step()
    return traffic


# --- what was measured ----------------------------------------------------------------------------


def stored(name: str = RECORD.name) -> dict[str, Any]:
    """The measurements that the book shows, with the machine and the date."""
    return json.loads(RECORD.with_name(name).read_text(encoding="utf-8"))


def spread(quartiles: Sequence[float], digits: int = 2) -> str:
    """A median between its quartiles: ``0.84 (0.82-0.86)``."""
    low, median, high = (f"{x:.{digits}f}" for x in quartiles)
    return f"{median} ({low}-{high})"


def table(found: Mapping[str, Any]) -> str:
    """All measurements as text, medians with their quartiles."""
    lines = ["; ".join(f"{key} {value}" for key, value in found["machine"].items())]
    for group in found["steps"]:
        lines += ["", f"{group['optimizer']}, {group['work']}: {group['tensors']} tensors, "
                      f"{group['elements']:,} elements"]  # fmt: skip
        for row in group["ratios"]:
            name, other = row["what"].replace("again", "torch itself,"), row["to"]
            aim = "" if row["target"] is None else f"   aim {row['target']}"
            if row["target"] is not None and row["ratio"][1] > row["target"]:
                aim += " MISSED"
            ms = group["ms"][row["what"]][1]
            lines.append(f"  {name:26} {ms:8.3f} ms  {spread(row['ratio'])} x {other}{aim}")
    bandwidth = found["bandwidth"]
    lines += ["", f"one tensor of {bandwidth['elements']:,}: p.add_(g) moves "
                  f"{spread(bandwidth['gigabytes_per_second'], 1)} GB/s at 12 bytes per element; "
                  f"a @ b makes {spread(bandwidth['gigaflops'], 0)} Gflop/s"]  # fmt: skip
    for name, part in bandwidth["part_of_it"].items():
        lines.append(f"  {name:26} {spread(part)} of it, at 28 bytes per element")
    for key, title in (("by_size", "one tensor"), ("by_number", "many tensors")):
        lines += ["", f"Adam over {title}: milliseconds of a step"]
        names = list(dict.fromkeys(name for point in found[key] for name in point["ms"]))
        lines.append(f"  {'tensors':>8} {'elements':>10}" + "".join(f"{n:>18}" for n in names))
        for point in found[key]:
            cells = [f"{point['ms'][n][1]:.4f}" if n in point["ms"] else "" for n in names]
            head = f"  {point['tensors']:>8} {point['elements']:>10}"
            lines.append(head + "".join(f"{cell:>18}" for cell in cells))
    lines += ["", "one tensor of two elements: microseconds"]
    lines += [f"  {name:30} {spread(us)}" for name, us in found["overhead"].items()]
    lines += ["", "scheduler.step()"]
    for row in found["schedulers"]:
        lines.append(f"  {row['scheduler']:26} {spread(row['ratio'])}   aim {row['target']}   "
                     f"torch with itself {spread(row['itself'])}")  # fmt: skip
    lines += ["", "temporaries, bytes per element: counted, allocated"]
    for row in found["temporaries"]:
        counted = "-" if row["counted"] is None else f"{row['counted']:.1f}"
        lines.append(
            f"  {row['optimizer']:6} {row['what']:26} {counted:>5} {row['allocated']:6.1f}"
        )
    lines += ["", "parameters after ten steps, against PyTorch's loop: unequal, largest difference"]
    for row in found["agreement"]:
        lines.append(f"  {row['optimizer']:6} {row['what']:26} {row['unequal']:8.2%} "
                     f"{row['largest']:.1e}")  # fmt: skip
    lines += ["", f"a first step that compiles: at most {found['compile_s']:.1f} s"]
    lines += [f"import minioptim after import torch: {spread(found['import_ms'], 1)} ms"]
    lines += [f"not measured: {text}" for text in found["missing"]]
    return "\n".join(lines)


def where(found: Mapping[str, Any]) -> None:
    """Print on what machine and when something was measured."""
    machine = dict(found["machine"])
    print(f"{machine.pop('date')}, PyTorch {machine['torch']}, {machine['cpu']}")
    print(f"{machine['threads']} threads on {machine['cores']} cores, "
          f"{machine['vector instructions']}, {machine.get('gpu', 'no GPU')}")  # fmt: skip


def medians(times: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Only the medians of quartiles."""
    return {name: quartiles[1] for name, quartiles in times.items()}


def curve(
    points: Sequence[Mapping[str, Any]], name: str, x: str, per: str | None = None
) -> tuple[list[float], list[float]]:
    """What one contender needed over a sweep, against ``elements`` or ``tensors``.

    Returns:
        ``(x, y)`` for `plots.lines`: microseconds of a step, or with ``per`` microseconds for each
        element or tensor.
    """
    inside = [point for point in points if name in point["ms"]]
    y = [1e3 * p["ms"][name][1] / (p[per] if per else 1) for p in inside]
    return [p[x] for p in inside], y


# --- figures --------------------------------------------------------------------------------------


def bars(
    values: Mapping[str, Sequence[float]],
    xlabel: str,
    level: Mapping[str, float] | None = None,
    digits: int = 1,
) -> None:
    """A bar for each median, with a whisker between its quartiles. Prints the medians.

    Args:
        level: vertical lines to compare with, by name; prints multiples of the first.
    """
    fig, ax = plt.subplots(figsize=(7.2, 0.8 + 0.36 * len(values)))
    rows = range(len(values))
    low, middle, high = (np.array([q[i] for q in values.values()]) for i in range(3))
    colours = [_colour(name) for name in values]
    ax.barh(rows, middle, color=colours, height=0.68, alpha=0.85)
    ax.hlines(rows, low, high, color=INK, linewidth=2)
    ax.set_yticks(rows, list(values))
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    reference_lines(ax, level, None)
    ax.set(xlabel=xlabel, xlim=(0, None))
    says = {name: f"{x:.{digits}f}" for name, x in zip(values, middle, strict=True)}
    for name, x in list((level or {}).items())[:1]:
        says = {key: f"{text}, {middle[i] / x:.2f} times {name}"
                for i, (key, text) in enumerate(says.items())}  # fmt: skip
    finish(fig, [low, middle, high, *(level or {}).values()], says)


def _colour(name: str) -> str:
    """Ours, PyTorch's, and what is neither."""
    return COLOURS[1] if "ours" in name else COLOURS[0] if "torch " in name else "#777777"


def passes(counted: Mapping[str, tuple[Traffic, Mapping[int, str]]], elements: int) -> None:
    """Draw which tensors each operation of a step reads and writes, one picture for each step.

    Prints bytes per element.

    Args:
        counted: by title, what was counted, and by address what to call a tensor. What has no name
            is a temporary, ``t``.
    """
    tall = max(len(traffic.calls) for traffic, _ in counted.values())
    fig, axes = plt.subplots(1, len(counted), figsize=(7.6, 1.2 + 0.36 * tall), sharey=True)
    drawn, says = [], {}
    for ax, (title, (traffic, names)) in zip(axes, counted.items(), strict=True):
        columns = [*names.values(), "t"]
        marks = []
        for row, call in enumerate(traffic.calls):
            for kind, places, shift in (("o", call.read, -0.2), ("s", call.written, 0.2)):
                for place in {names.get(address, "t") for address in places}:
                    x, colour = columns.index(place), COLOURS[0 if kind == "o" else 1]
                    inside = "white" if kind == "o" else colour
                    ax.plot(x + shift, row, kind, color=colour, markersize=7, mfc=inside)
                    marks.append((x, row, kind == "s"))
            ax.annotate(call.name, (len(columns) - 0.35, row), va="center", fontsize=9,
                        family="monospace", annotation_clip=False)  # fmt: skip
        ax.set_xticks(range(len(columns)), columns)
        ax.set(xlim=(-0.6, len(columns) + 2.4), ylim=(tall - 0.5, -0.6), title=title, yticks=[])
        ax.grid(axis="x")
        read, written = traffic.read / elements, traffic.written / elements
        says[title] = f"{read:.0f} bytes read, {written:.0f} written, {read + written:.0f} in all"
        drawn.append(sorted(marks))
    handles = [
        plt.Line2D([], [], color=COLOURS[0], marker="o", markerfacecolor="white", linestyle=""),
        plt.Line2D([], [], color=COLOURS[1], marker="s", linestyle=""),
    ]
    fig.legend(handles, ["read", "written"], loc="outside upper right", ncols=2)
    finish(fig, drawn, says)


def alive(counted: Mapping[str, Traffic], unit: int) -> None:
    """Draw the temporaries that are alive after each operation of a step, in units of bytes."""
    fig, ax = plt.subplots()
    drawn, says = [], {}
    looks = zip(COLOURS, DASHES, strict=True)
    for (name, traffic), (colour, dashes) in zip(counted.items(), looks, strict=False):
        y = np.array([0.0] + [call.alive / unit for call in traffic.calls])
        x = np.linspace(0, 1, len(y))
        ax.step(x, y, where="post", color=colour, linestyle=dashes, label=name)
        says[name] = f"{len(y) - 1} operations, at most {traffic.most_alive / unit:.1f} alive"
        drawn += [x, y]
    ax.set(xlabel="part of the operations done", ylabel="temporaries / all parameters")
    fig.legend(loc="outside upper left", ncols=len(counted))
    finish(fig, drawn, says)


def roofline(found: Mapping[str, Any], per_element: Mapping[str, float], flops: float) -> None:
    """Draw every engine under the two roofs of the machine: its memory and its arithmetic.

    Across: arithmetic operations for each byte moved. Up: operations a second. The slope is what
    ``p.add_(g)`` moves, the ceiling what a matrix product computes.

    Args:
        found: what was measured.
        per_element: bytes that a step moves for each element, by engine.
        flops: arithmetic operations of a step for each element.
    """
    bandwidth, ceiling = (
        found["bandwidth"]["gigabytes_per_second"][1],
        found["bandwidth"]["gigaflops"][1],
    )
    n = found["bandwidth"]["elements"]
    many = next(g for g in found["steps"] if g["optimizer"] == "Adam" and g["tensors"] == 400)
    fig, ax = plt.subplots(figsize=(7.2, 4.6))
    x = np.geomspace(0.05, 100, 200)
    roof = np.minimum(bandwidth * x, ceiling)
    ax.loglog(x, roof, color=INK, linewidth=2)
    drawn: list[Any] = [x, roof]
    says = {"roof": f"{bandwidth:.1f} GB/s, {ceiling:.0f} Gflop/s"}
    for large, times, size in ((True, found["bandwidth"]["ms"], n),
                               (False, many["ms"], many["elements"])):  # fmt: skip
        for name, quartiles in times.items():
            who, _, engine = name.partition(" ")
            mode = engine.removeprefix("flat ")
            if who not in ("ours", "torch") or mode not in per_element:
                continue
            at, speed = flops / per_element[mode], flops * size / quartiles[1] / 1e6
            marker = "os^"[list(per_element).index(mode)]
            if engine.startswith("flat"):
                marker = "D"
            ax.plot(at * (0.97 if who == "torch" else 1.03), speed, marker, color=_colour(name),
                    markersize=8, markerfacecolor=_colour(name) if large else "white")  # fmt: skip
            drawn.append([at, speed])
            label = f"{name}, {'one tensor' if large else '400 tensors'}"
            says[label] = f"{speed:.2f} Gflop/s, {speed / (bandwidth * at):.2f} of the roof"
    ax.axvline(flops / 28, color="#555555", linewidth=1, linestyle=":")
    ax.set(xlabel="arithmetic operations per byte", ylabel="Gflop/s", xlim=(0.05, 100))
    shapes = [("o", "loop"), ("s", "foreach"), ("^", "fused"), ("D", "over a flat buffer")]
    handles = [plt.Line2D([], [], color=INK, marker=m, linestyle="") for m, _ in shapes]
    handles += [plt.Line2D([], [], color=COLOURS[i], marker="o", linestyle="") for i in (0, 1)]
    handles += [plt.Line2D([], [], color=INK, marker="o", markerfacecolor="white", linestyle="")]
    words = [word for _, word in shapes] + ["torch.optim", "minioptim", "hollow: 400 tensors"]
    ax.legend(handles, words, loc="lower right", fontsize=9.5)
    finish(fig, drawn, says)


def ratios(found: Mapping[str, Any]) -> None:
    """Draw every ratio of ours to PyTorch's, with the ratio of PyTorch to itself behind it.

    A mark is a median, its line goes from quartile to quartile, a tick is what was aimed at. Prints
    the ratios.
    """
    rows: dict[str, dict[str, tuple[Any, ...]]] = {}
    for group in found["steps"]:
        by_name = {(row["what"], row["to"]): row for row in group["ratios"]}
        for (what, to), row in by_name.items():
            who, _, engine = what.partition(" ")
            if who == "ours" and to == f"torch {engine}":
                twin = by_name[f"again {engine}", to]["ratio"]
                label = f"{group['work']}, {engine}"
                entry = row["ratio"], twin, row["target"]
                rows.setdefault(label, {})[group["optimizer"]] = entry
    fig, ax = plt.subplots(figsize=(7.2, 1.2 + 0.42 * len(rows)))
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    says, drawn, met = {}, [], []
    for i, (label, row) in enumerate(rows.items()):
        for k, (name, (ours, itself, target)) in enumerate(row.items()):
            y, colour = i + 0.26 * (k - 1), COLOURS[names.index(name)]
            ax.hlines(y, itself[0], itself[2], color="#c8c8c8", linewidth=6)
            ax.hlines(y, ours[0], ours[2], color=colour, linewidth=1.8)
            ax.plot(ours[1], y, MARKERS[names.index(name)], color=colour)
            if target is not None:
                ax.plot(target, y, "|", color=INK, markersize=9, markeredgewidth=1.6)
                met.append(ours[1] <= target)
            says[f"{label}, {name}"] = f"{spread(ours)}, PyTorch with itself {spread(itself)}"
            drawn.append([*ours, *itself])
    ax.axvline(1, color=INK, linewidth=1)
    ax.set_xscale("log")
    ticks = [0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 4, 8, 16]
    ax.set_xticks(ticks, [f"{x:g}" for x in ticks])
    ax.minorticks_off()
    ax.set_yticks(range(len(rows)), list(rows))
    ax.set(ylim=(len(rows) - 0.4, -0.6), xlabel="time of ours / time of torch.optim")
    ax.grid(axis="y", visible=False)
    handles = [plt.Line2D([], [], color=COLOURS[i], marker=MARKERS[i]) for i in range(len(names))]
    fig.legend(handles, names, loc="outside upper left", ncols=len(names))
    finish(fig, drawn, says | {"aims met": f"{sum(met)} of {len(met)}"})


def buffer(flat: FlatParameter) -> None:
    """Draw where the parameters lie in a flat buffer. Prints first element and size of each."""
    fig, ax = plt.subplots(figsize=(7.6, 1.5))
    unit, says, drawn = flat.element_size(), {}, []
    for i, (name, p) in enumerate(zip(flat.names, flat.parts, strict=True)):
        start = (p.data_ptr() - flat.data_ptr()) // unit
        colour = COLOURS[i % len(COLOURS)]
        ax.broken_barh([(start, p.numel())], (0, 1), color=colour, alpha=0.8)
        ax.text(start + p.numel() / 2, 1.15, name, ha="center", fontsize=9, color=colour)
        says[name] = f"elements {start} to {start + p.numel() - 1}, shape {tuple(p.shape)}"
        drawn.append([start, p.numel()])
    ax.set(xlim=(-1, flat.numel() + 1), ylim=(0, 1.8), yticks=[], xlabel="element of the buffer")
    ax.grid(False)
    ax.spines["left"].set_visible(False)
    finish(fig, drawn, says | {"the buffer": f"{flat.numel()} elements"})
