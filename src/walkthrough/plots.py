"""Figures of the book. Each helper draws one figure, shows it, and prints beneath it what it shows.

What is printed is compared in the tests, a picture is not: so a helper prints key numbers and a
digest of the data it has drawn. Colours differ for colour-blind readers too, and every line has
dashes or markers of its own; lines carry their names where they end.
"""

import hashlib
import io
from collections.abc import Mapping, Sequence
from itertools import cycle, pairwise
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from .surfaces import Surface
from .trajectories import Trajectory

# Five dark colours that stay apart with any colour vision, each at least 4.5:1 on white.
COLOURS = ("#0064A8", "#C2410C", "#00735A", "#9B3B8F", "#7A5C00", "#333333")
DASHES = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)), (0, (3, 1)), "-")
MARKERS = ("o", "s", "^", "D", "v", "X")
INK = "#222222"
# Ordered from light (low) to blue (high), and light all over, so that lines stay readable on it.
DEPTH = ListedColormap(mpl.colormaps["YlGnBu"](np.linspace(0.0, 0.62, 256)), "depth")

Curve = Any  # y, or (x, y): sequences or tensors of numbers


def style() -> None:
    """The look of every figure: white ground, readable on a light and on a dark page, sharp."""
    mpl.rcParams.update(
        {
            "figure.figsize": (6.4, 3.8),
            "figure.dpi": 100,
            "figure.facecolor": "white",
            "savefig.facecolor": "white",
            "figure.constrained_layout.use": True,
            "font.size": 11,
            "text.color": INK,
            "axes.edgecolor": "#666666",
            "axes.labelcolor": INK,
            "axes.titlesize": 11,
            "axes.titlelocation": "left",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.color": "#dddddd",
            "grid.linewidth": 0.7,
            "axes.axisbelow": True,
            "lines.linewidth": 1.9,
            "lines.markersize": 4.5,
            "legend.frameon": False,
            "axes.prop_cycle": mpl.cycler(color=COLOURS),
        }
    )


# --- what is printed beneath a figure ------------------------------------------------------------


def digest(*data: Any) -> str:
    """Eight hexadecimal digits that stand for float64 data.

    Each array is divided by its largest absolute value and rounded to five decimals, so that the
    last bits, in which processors differ, do not count.

    Raises:
        TypeError: data of another dtype. Single precision agrees on no two machines.
    """
    code = hashlib.sha256()
    for item in data:
        x = item.detach().cpu().numpy() if isinstance(item, torch.Tensor) else np.asarray(item)
        if x.dtype.kind in "iub":
            x = x.astype(np.float64)
        if x.dtype != np.float64:
            raise TypeError(f"a digest is made of float64 data, not of {x.dtype}")
        finite = x[np.isfinite(x)]
        scale = np.abs(finite).max(initial=0.0) or 1.0
        # The offset keeps round numbers away from the edge between two rounded values.
        steps = np.floor(np.nan_to_num(x / scale, nan=7.0, posinf=8.0, neginf=9.0) * 1e5 + 0.3183)
        code.update(f"{x.shape} {scale:.4e} ".encode() + steps.astype(np.int64).tobytes())
    return code.hexdigest()[:8]


def numbers(values: Any) -> np.ndarray:
    """Numbers, tensors or sequences of them, as an array of float64."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
    return np.asarray(values, dtype=np.float64)


def png(fig: Figure, scale: int = 2, code: str = "") -> bytes:
    """A figure as a PNG of ``scale`` times its size and 256 colours: sharp, and small to load.

    ``code`` is written into the file, where nobody sees it: the digest of what was drawn, so that a
    picture can be told from another one. Its chunk is called ``Digest``.
    """
    raw, packed, info = io.BytesIO(), io.BytesIO(), PngInfo()
    if code:
        info.add_text("Digest", code)
    fig.savefig(raw, format="png", dpi=scale * fig.dpi)
    small = Image.open(raw).convert("RGB").quantize(256)
    small.save(packed, "PNG", optimize=True, pnginfo=info)
    return packed.getvalue()


def show(fig: Figure, code: str = "") -> None:
    """Show a figure: in a notebook as a PNG, elsewhere in a window if there is one."""
    from IPython import display, get_ipython

    if get_ipython() is not None:
        width = round(fig.get_figwidth() * fig.dpi)
        display.display(display.Image(png(fig, code=code), width=width))
    elif mpl.get_backend().lower() != "agg":
        plt.show()
    plt.close(fig)


def finish(fig: Figure, drawn: Sequence[Any], says: str | Mapping[str, str] = "") -> None:
    """Show a figure, then print what it says and the digest of the data that was drawn."""
    arrays = [numbers(item) for item in drawn]
    code = digest(*arrays)
    show(fig, code)
    if isinstance(says, Mapping):
        width = max(map(len, says), default=0)
        says = "\n".join(f"{name:{width}}  {text}" for name, text in says.items())
    if says:
        print(says)
    print(f"drawn: {sum(a.size for a in arrays):,} numbers, digest {code}")


def number(x: float) -> str:
    """A number to three digits, the same on every processor."""
    x = float(x)
    if abs(x) < 1e-13:
        return "0"  # what rounding leaves of a zero
    return f"{x:.3g}"


# --- lines ----------------------------------------------------------------------------------------


def lines(
    curves: Mapping[str, Curve],
    *,
    xlabel: str,
    ylabel: str,
    title: str = "",
    log: str = "",
    xlim: tuple[float, float] | None = None,
    ylim: tuple[float, float] | None = None,
    at: Mapping[str, float] | None = None,
    level: Mapping[str, float] | None = None,
    markers: bool = False,
) -> None:
    """One line for each curve, with its name at its end. Prints where each curve ends.

    Args:
        curves: by name, ``y`` (against its index) or ``(x, y)``.
        log: axes with a logarithmic scale: ``"x"``, ``"y"`` or ``"xy"``.
        at, level: vertical and horizontal lines to compare with, by name.
        markers: mark every point, for few and separate points.
    """
    fig, ax = plt.subplots()
    drawn, ends = draw_lines(ax, curves, log=log, markers=markers, xlim=xlim, ylim=ylim)
    reference_lines(ax, at, level)
    ax.set(xlabel=xlabel, ylabel=ylabel, title=title)
    finish(fig, drawn, ends)


def pair(left: Mapping[str, Any], right: Mapping[str, Any]) -> None:
    """Two sets of lines side by side. ``left`` and ``right`` hold the arguments of `lines`."""
    fig, axes = plt.subplots(1, 2, figsize=(7.6, 3.7))
    drawn: list[np.ndarray] = []
    ends: dict[str, str] = {}
    for ax, side in zip(axes, (left, right), strict=True):
        side = dict(side)
        at, level = side.pop("at", None), side.pop("level", None)
        curves, labels = side.pop("curves"), {k: side.pop(k, "") for k in ("xlabel", "ylabel")}
        title = side.pop("title", "")
        more, its_ends = draw_lines(ax, curves, **side)
        reference_lines(ax, at, level)
        ax.set(title=title, **labels)
        drawn += more
        ends |= its_ends
    finish(fig, drawn, ends)


def draw_lines(
    ax: Axes,
    curves: Mapping[str, Curve],
    *,
    log: str = "",
    markers: bool = False,
    xlim: tuple[float, float] | None = None,
    ylim: tuple[float, float] | None = None,
) -> tuple[list[np.ndarray], dict[str, str]]:
    """Draw curves with their names, and return the data and, by name, where each ends."""
    ax.set_xscale("log" if "x" in log else "linear")
    ax.set_yscale("log" if "y" in log else "linear")
    drawn: list[np.ndarray] = []
    ends: dict[str, str] = {}
    tips = []
    looks = zip(cycle(COLOURS), cycle(DASHES), cycle(MARKERS), strict=False)
    for (name, curve), (colour, dashes, marker) in zip(curves.items(), looks, strict=False):
        x, y = curve if isinstance(curve, tuple) else (np.arange(len(curve)), curve)
        x, y = numbers(x), numbers(y)
        every = 1 if markers else max(1, len(x) // 8)
        ax.plot(x, y, color=colour, linestyle=dashes, marker=marker, markevery=every)
        drawn += [x, y]
        ends[name] = f"{number(y[0])} -> {number(y[-1])}"
        tips.append((name, x, y, colour))
    if xlim:
        ax.set_xlim(*xlim)
    if ylim:
        ax.set_ylim(*ylim)
    _name_the_ends(ax, tips)
    return drawn, ends


def reference_lines(
    ax: Axes, at: Mapping[str, float] | None, level: Mapping[str, float] | None
) -> None:
    """Thin lines across the axes with a name: what theory says, to compare with."""
    for name, x in (at or {}).items():
        ax.axvline(x, color="#555555", linewidth=1, linestyle=":")
        ax.annotate(
            name, (x, 1), (0, 2), xycoords=("data", "axes fraction"), color="#444444",
            textcoords="offset points", ha="center", va="bottom", fontsize=10,
        )  # fmt: skip
    for name, y in (level or {}).items():
        ax.axhline(y, color="#555555", linewidth=1, linestyle=":")
        ax.annotate(
            name, (0.99, y), (0, 2), xycoords=("axes fraction", "data"), color="#444444",
            textcoords="offset points", ha="right", va="bottom", fontsize=10,
        )  # fmt: skip


def _name_the_ends(ax: Axes, tips: Sequence[tuple[str, np.ndarray, np.ndarray, str]]) -> None:
    """Write each name where its line ends: in the right margin, none over another, or inside."""
    fig = ax.figure
    fig.draw_without_rendering()  # so that the limits of the axes are known
    (x0, x1), (y0, y1) = sorted(ax.get_xlim()), sorted(ax.get_ylim())
    margin = []
    for name, x, y, colour in tips:
        inside = np.flatnonzero((x >= x0) & (x <= x1) & (y >= y0) & (y <= y1) & np.isfinite(y))
        last = inside[-1] if len(inside) else 0
        tip = x[last], y[last]
        right, height = ax.transAxes.inverted().transform(ax.transData.transform(tip))
        if right < 0.75:  # a line that ends early
            label = ax.annotate(name, tip, (7, 5), textcoords="offset points", color=colour)
            label.set_path_effects([withStroke(linewidth=3, foreground="white")])
        else:
            margin.append([float(np.clip(height, 0.0, 1.0)), name, colour])
    margin.sort(key=lambda place: place[0])
    gap = 16 / (ax.get_position().height * fig.get_figheight() * 72)
    for _ in range(100):  # push apart names that are too close
        for low, high in pairwise(margin):
            short = gap - (high[0] - low[0])
            if short > 1e-9:
                low[0], high[0] = low[0] - short / 2, high[0] + short / 2
    for height, name, colour in margin:
        ax.annotate(
            name, (1, height), (5, 0), xycoords="axes fraction", textcoords="offset points",
            color=colour, va="center", ha="left", annotation_clip=False,
        )  # fmt: skip


# --- surfaces -------------------------------------------------------------------------------------


def grid(surface: Surface, points: int = 121) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A surface of two variables, evaluated over its domain."""
    axes = [torch.linspace(low, high, points, dtype=torch.float64) for low, high in surface.domain]
    x, y = torch.meshgrid(*axes, indexing="xy")
    return x.numpy(), y.numpy(), surface.value(torch.stack([x, y], -1)).numpy()


def draw_surface(ax: Axes, surface: Surface, levels: int = 12) -> np.ndarray:
    """Draw a surface of two variables from above: light is low. Returns the heights."""
    x, y, z = grid(surface)
    height = np.sqrt(z - z.min())  # so that the levels are as telling near the floor as above
    ax.contourf(x, y, height, levels=levels, cmap=DEPTH)
    ax.contour(x, y, height, levels=levels, colors="#7f9bb0", linewidths=0.5)
    ax.grid(False)
    ax.set(xlabel="$x_1$", ylabel="$x_2$")
    return z


def paths(
    surface: Surface,
    trajectories: Mapping[str, Trajectory],
    *,
    apart: bool = False,
    marks: Mapping[str, tuple[float, float]] | None = None,
) -> None:
    """Trajectories over a surface seen from above. Prints where each starts and ends.

    Args:
        apart: one small picture for each trajectory instead of one for all.
        marks: named points to show, for example a saddle.
    """
    n = len(trajectories) if apart else 1
    size = (min(7.6, 2.6 * n), 2.9) if apart else (6.4, 4.4)
    fig, axes = plt.subplots(1, n, figsize=size, sharey=True, squeeze=False)
    drawn: list[Any] = []
    looks = zip(cycle(COLOURS), cycle(MARKERS), strict=False)
    for i, ((name, way), (colour, marker)) in enumerate(
        zip(trajectories.items(), looks, strict=False)
    ):
        ax = axes[0, i if apart else 0]
        if apart or i == 0:
            drawn.append(draw_surface(ax, surface))
            if i:
                ax.set_ylabel("")
        x, y = numbers(way.points).T
        ax.plot(x, y, color=colour, marker=marker, markersize=3.5, linewidth=1.3, label=name)
        ax.plot(x[0], y[0], marker="o", markersize=8, markerfacecolor="none", color=colour)
        ax.set(xlim=surface.domain[0], ylim=surface.domain[1])
        if apart:
            ax.set_title(name, color=colour)
        drawn += [way.points]
    for name, (x, y) in (marks or {}).items():
        axes[0, 0].plot(x, y, "*", color=INK, markersize=11)
        axes[0, 0].annotate(name, (x, y), (8, 6), textcoords="offset points", color=INK)
    if not apart:
        fig.legend(loc="outside upper left", ncols=min(3, len(trajectories)), fontsize=10)
    finish(fig, drawn, {name: _journey(way) for name, way in trajectories.items()})


def profile(surface: Surface, trajectories: Mapping[str, Trajectory]) -> None:
    """A surface of one variable with the points of trajectories on it. Prints where each ends."""
    fig, ax = plt.subplots()
    (low, high), *_ = surface.domain
    x = torch.linspace(low, high, 301, dtype=torch.float64)
    y = surface.value(x[:, None])
    ax.plot(x, y, color="#8899a6", linewidth=1.5)
    drawn: list[Any] = [x, y]
    looks = zip(cycle(COLOURS), cycle(MARKERS), strict=False)
    for (name, way), (colour, marker) in zip(trajectories.items(), looks, strict=False):
        points, values = numbers(way.points)[:, 0], numbers(way.values)
        ax.plot(points, values, marker, color=colour, markersize=4.5, alpha=0.75, label=name)
        ax.plot(points[-1], values[-1], marker, color=colour, markersize=9, markeredgecolor=INK)
        drawn += [points, values]
    ax.set(xlabel="$x$", ylabel="$f(x)$", xlim=(low, high))
    fig.legend(loc="outside upper left", ncols=3, fontsize=10)
    finish(fig, drawn, {name: _journey(way) for name, way in trajectories.items()})


def _journey(way: Trajectory) -> str:
    start, end = (", ".join(number(x) for x in way.points[i]) for i in (0, -1))
    values = f"f: {number(way.values[0])} -> {number(way.values[-1])}"
    return f"({start}) -> ({end})  {values}  in {len(way.points) - 1} steps"


# --- points ---------------------------------------------------------------------------------------


def measured(
    predicted: Curve,
    found: Curve,
    *,
    xlabel: str,
    ylabel: str,
    log: str = "",
    names: tuple[str, str] = ("predicted", "measured"),
    at: Mapping[str, float] | None = None,
) -> None:
    """A predicted curve and measured points. Prints the range of what was measured."""
    fig, ax = plt.subplots()
    ax.set_xscale("log" if "x" in log else "linear")
    ax.set_yscale("log" if "y" in log else "linear")
    (px, py), (fx, fy) = ((numbers(x), numbers(y)) for x, y in (predicted, found))
    ax.plot(px, py, color=COLOURS[0], label=names[0])
    ax.plot(fx, fy, "s", color=COLOURS[1], markersize=6, label=names[1])
    reference_lines(ax, at, None)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.legend()
    low, high = number(fy.min()), number(fy.max())
    finish(fig, [px, py, fx, fy], f"{len(fx)} points {names[1]}, from {low} to {high}")


# --- the parts of an optimizer --------------------------------------------------------------------


def drawing(optimizer: Any, names: Mapping[torch.Tensor, str]) -> None:
    """Draw a live optimizer: groups, options, state, and the parameters they refer to.

    Everything in the picture is read from the object. An arrow is a reference: it ends at the very
    object, which the text beneath confirms by comparing identities.

    Args:
        names: what to call each parameter, for example the names of a model, inverted.
    """
    fig, ax = plt.subplots(figsize=(7.6, 4.8))
    ax.set(xlim=(0, 100), ylim=(0, 100))
    ax.axis("off")
    for x, text in ((15, "param_groups"), (50, "the parameters"), (85, "state")):
        ax.text(x, 96, text, ha="center", weight="bold", fontsize=11)
    params = [p for group in optimizer.param_groups for p in group["params"]]
    gap = 76 / len(params)
    heights = {id(p): 91 - gap * (i + 0.5) for i, p in enumerate(params)}  # of the middle of a box
    tall = min(14.0, 0.75 * gap)
    for p in params:
        grad = "None" if p.grad is None else "tensor"
        text = f"{names[p]} {tuple(p.shape)}\ngrad: {grad}"
        _box(ax, 36, heights[id(p)], 28, tall, text, COLOURS[0])
    given = {k: v for k, v in optimizer.defaults.items() if v not in (None, False, 0)}
    off = len(optimizer.defaults) - len(given)
    says = {"defaults": f"{_options(given, {}, everything=True)}, and {off} that are off"}
    for i, group in enumerate(optimizer.param_groups):
        options = _options(group, optimizer.defaults)
        middle = sum(heights[id(p)] for p in group["params"]) / len(group["params"])
        height = 14 + 5 * options.count("\n")
        _box(ax, 1, middle, 28, height, f"group {i}\n{options}", COLOURS[1])
        for p in group["params"]:
            _arrow(ax, (29, middle), (36, heights[id(p)]), COLOURS[1])
        says[f"group {i}"] = " ".join(names[p] for p in group["params"])
        bottom = middle - height / 2
    _box(ax, 1, 7, 28, 12, f"defaults\n{len(optimizer.defaults)} options", "#555555")
    _arrow(ax, (15, 13), (15, bottom), "#555555")
    ax.text(31, 7, "give each group, when it is added,\nthe options it does not name", va="center")
    for p in params:
        state = optimizer.state.get(p, {})
        text = "\n".join(f"{k}\n{_value(v)}" for k, v in state.items()) or "nothing"
        _box(ax, 71, heights[id(p)], 28, tall, text, COLOURS[2] if state else "#767676")
        if state:
            _arrow(ax, (71, heights[id(p)]), (64, heights[id(p)]), COLOURS[2])
    held = [int(bool(optimizer.state.get(p))) for p in params]
    says["state"] = f"{sum(held)} of {len(params)} parameters have some"
    finish(fig, [[p.numel() for p in params], held], says)


def _options(
    group: Mapping[str, Any], defaults: Mapping[str, Any], everything: bool = False
) -> str:
    """The options of a group as lines: those that are set, or differ from the defaults."""
    own = [k for k in group if k not in ("params", "param_names")]
    shown = [k for k in own if everything or k == "lr" or group[k] != defaults.get(k)]
    separator = ", " if everything else "\n"
    return separator.join(f"{k}={group[k]}" for k in shown)


def _value(value: Any) -> str:
    return f"tensor {tuple(value.shape)}" if isinstance(value, torch.Tensor) else str(value)


def _box(
    ax: Axes, x: float, middle: float, width: float, height: float, text: str, colour: str
) -> None:
    corner = (x, middle - height / 2)
    ax.add_patch(
        plt.Rectangle(corner, width, height, facecolor="white", edgecolor=colour, linewidth=1.5)
    )
    ax.text(x + width / 2, middle, text, ha="center", va="center", color=colour, fontsize=10)


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], colour: str) -> None:
    look = {"arrowstyle": "-|>", "color": colour, "linewidth": 1.5, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", end, start, arrowprops=look)
