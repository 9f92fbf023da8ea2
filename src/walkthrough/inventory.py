"""The map of ``torch.optim``: what the installed version ships, and what we know about it.

What can be read from the installed package is read: names, files, lines of code, engines, options.
What cannot, the idea of each class, its paper and its parents, stands here once, and `differences`
says where the two disagree. The tables of the last chapter and its family tree are made of both.
"""

import ast
import inspect
import io
import tokenize
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer, lr_scheduler, swa_utils

from . import parity
from .environment import device
from .plots import COLOURS, DASHES, DEPTH, INK, finish, grid, number, numbers
from .source import SourceError, locate
from .surfaces import Surface
from .trajectories import Trajectory

SWITCHES = ("maximize", "foreach", "fused", "capturable", "differentiable")

# --- what we know ---------------------------------------------------------------------------------


class Known(NamedTuple):
    """One class: where it comes from and what it does, in our words."""

    name: str
    idea: str
    paper: str = ""  # a key of the bibliography, empty if there is none
    year: int | None = None
    parents: tuple[str, ...] = ()  # optimizers it is a variation of, the nearest first
    adds: str = ""  # what it adds to them, two short lines for the tree
    family: str = ""  # of schedulers: what kind of curve


OPTIMIZERS = (
    Known("SGD", "step against the gradient, or along a running sum of gradients",
          "robbins1951", 1951, (), "against the\ngradient"),
    Known("ASGD", "SGD with a falling step, and beside it the average of all points",
          "polyak1992", 1992, ("SGD",), "+ average\nof the points"),
    Known("Muon", "momentum of a matrix, all its singular values made alike",
          "jordan2024", 2024, ("SGD",), "momentum made\northogonal"),
    Known("Adagrad", "divide by the root of the sum of all squared gradients",
          "duchi2011", 2011, ("SGD",), "÷ root of the\nsum of g²"),
    Known("Adadelta", "multiply by the size of past steps, so that units cancel",
          "zeiler2012", 2012, ("Adagrad",), "× size of the\npast steps"),
    Known("RMSprop", "divide by the root of a running mean of squared gradients",
          "tieleman2012", 2012, ("Adagrad", "Rprop"), "sum → running\nmean"),
    Known("Adam", "RMSprop with momentum, both means corrected for their start",
          "kingma2015", 2015, ("RMSprop", "SGD"), "+ momentum,\nbias correction"),
    Known("Adamax", "Adam with the fading maximum of the gradient as denominator",
          "kingma2015", 2015, ("Adam",), "mean of g² →\nfading maximum"),
    Known("NAdam", "Adam whose step already contains the next momentum",
          "dozat2016", 2016, ("Adam",), "+ Nesterov's\nlook-ahead"),
    Known("Adafactor", "Adam's v of a matrix from the means of its rows and columns",
          "shazeer2018", 2018, ("Adam",), "v from row and\ncolumn means"),
    Known("AdamW", "Adam with weight decay apart from the gradient",
          "loshchilov2019", 2019, ("Adam",), "weight decay\napart from g"),
    Known("RAdam", "Adam that waits until its denominator can be trusted",
          "liu2020", 2020, ("Adam",), "waits for a\nreliable v"),
    Known("SparseAdam", "Adam on those rows of an embedding that have a gradient",
          "kingma2015", None, ("Adam",), "only rows with\na gradient"),
    Known("Rprop", "only the sign of the gradient, a step size for each coordinate",
          "riedmiller1993", 1993, (), "the sign, own\nstep sizes"),
    Known("LBFGS", "curvature guessed from the last gradients, one flat vector",
          "liu1989", 1989, (), "curvature from\nlast gradients"),
)  # fmt: skip

SCHEDULERS = (
    Known("LambdaLR", "the first rate times a function of the step", family="a function of yours"),
    Known("MultiplicativeLR", "the last rate times a function", family="a function of yours"),
    Known("StepLR", "times gamma after every so many steps", family="stairs"),
    Known("MultiStepLR", "times gamma at each of the given steps", family="stairs"),
    Known("ConstantLR", "a fraction of the rate, then all of it", family="stairs"),
    Known("ExponentialLR", "times gamma at every step", family="slopes"),
    Known("LinearLR", "a straight line from one factor to another", "goyal2017", family="slopes"),
    Known("PolynomialLR", "a power of the time that is left", family="slopes"),
    Known("CosineAnnealingLR", "half a cosine down, and up again", "loshchilov2017",
          family="waves"),
    Known("CosineAnnealingWarmRestarts", "half a cosine down, a jump, a longer one",
          "loshchilov2017", family="waves"),
    Known("CyclicLR", "up and down between two rates", "smith2017", family="waves"),
    Known("OneCycleLR", "up once, then down to almost nothing", "smith2019", family="waves"),
    Known("ReduceLROnPlateau", "times a factor when a loss has stopped falling",
          family="feedback"),
    Known("SequentialLR", "one scheduler after the other", family="combinations"),
    Known("ChainedScheduler", "several at once, their factors multiplied", family="combinations"),
)  # fmt: skip

AVERAGING = (
    Known("AveragedModel", "a copy of the model that holds an average of its weights",
          "izmailov2018"),
    Known("SWALR", "from any rate to a constant one, along a line or a cosine", "izmailov2018",
          family="slopes"),
    Known("update_bn", "one pass over the data, so that batch norm fits the averaged weights",
          "izmailov2018"),
)  # fmt: skip


class Change(NamedTuple):
    """One change of ``torch.optim``: when, what, where it is written, and a sign of it today."""

    proposed: str  # year and month of the pull request
    release: str  # the first release that had it
    what: str
    pulls: tuple[int, ...]
    visible: Callable[[], bool]  # whether the installed version shows it


def _has(name: str, *options: str) -> bool:
    return set(options) <= set(inspect.signature(getattr(torch.optim, name)).parameters)


HISTORY = (
    Change("2017-01", "0.1", "LBFGS is carried over from Lua Torch", (539,),
           lambda: hasattr(torch.optim, "LBFGS")),
    Change("2017-09", "0.3", "`import torch.optim` brings the schedulers along", (2894,),
           lambda: hasattr(torch.optim, "lr_scheduler")),
    Change("2019-06", "1.2", "AdamW, after several attempts", (21250,),
           lambda: hasattr(torch.optim, "AdamW")),
    Change("2020-03", "1.6", "averaging of weights: `swa_utils`", (35032,),
           lambda: hasattr(swa_utils, "AveragedModel")),
    Change("2020-08", "1.7", "`zero_grad(set_to_none=True)`, at first as an option", (42754,),
           lambda: "set_to_none" in inspect.signature(Optimizer.zero_grad).parameters),
    Change("2020-09", "1.7", "foreach, in a package of its own", (45299,),
           lambda: hasattr(torch, "_foreach_add_")),
    Change("2021-05", "1.10", "NAdam and RAdam", (59009, 58968),
           lambda: _has("NAdam") and _has("RAdam")),
    Change("2022-01", "1.12", "the step count becomes a tensor; `foreach` an option",
           (71333, 70230), lambda: _has("RAdam", "foreach") and _step_is_a_tensor()),
    Change("2022-05", "1.12", "`capturable`: a step that a CUDA graph can record", (77862,),
           lambda: _has("Adam", "capturable")),
    Change("2022-07", "1.13", "`differentiable`: autograd through a step", (80938,),
           lambda: _has("SGD", "differentiable")),
    Change("2022-10", "2.0", "fused AdamW: one kernel for the whole step", (88015,),
           lambda: engines("AdamW")[-1] == "fused"),
    Change("2023-01", "2.0", "foreach is the default on CUDA; fused was tried and taken back",
           (92306, 95862, 90865, 95415), lambda: _device_decides()),
    Change("2023-01", "2.0", "`zero_grad` sets to None by default", (92731,),
           lambda: inspect.signature(Optimizer.zero_grad).parameters["set_to_none"].default),
    Change("2024-04", "2.4", "fused kernels for the CPU", (123074, 123629, 124905),
           lambda: all(_fused_on_cpu(name) for name in ("Adam", "SGD", "Adagrad"))),
    Change("2024-07", "2.5", "Adafactor; a tensor as `lr` for every optimizer", (129905, 131065),
           lambda: _has("Adafactor") and _takes_tensor_lr()),
    Change("2024-08", "2.6", "names of parameters, kept in the state dict", (134107,),
           lambda: "param_names" in _names_kept()),
    Change("2024-12", "2.7", "AdamW becomes a subclass of Adam, a year after the first attempt",
           (115983, 143710),
           lambda: issubclass(torch.optim.AdamW, torch.optim.Adam)),
    Change("2025-08", "2.9", "Muon, in the loop only", (160213,),
           lambda: engines("Muon") == ("loop",)),
)  # fmt: skip


def _weight(**kwargs: Any) -> Tensor:
    weight = torch.ones(2, 3, **kwargs)
    weight.grad = torch.ones_like(weight)
    return weight


def _step_is_a_tensor() -> bool:
    weight = _weight()
    optimizer = torch.optim.RAdam([weight])
    optimizer.step()
    return isinstance(optimizer.state[weight]["step"], Tensor)


def _device_decides() -> bool:
    from torch.utils._foreach_utils import _get_foreach_kernels_supported_devices as devices

    return "cuda" in devices() and "cpu" not in devices()


def _fused_on_cpu(name: str) -> bool:
    weight = _weight()
    getattr(torch.optim, name)([weight], fused=True).step()
    return not torch.equal(weight, torch.ones(2, 3))


def _takes_tensor_lr() -> bool:
    for known in OPTIMIZERS:
        getattr(torch.optim, known.name)([_weight()], lr=torch.tensor(0.1))
    return True


def _names_kept() -> dict[str, Any]:
    optimizer = torch.optim.SGD([("weight", _weight())])
    return optimizer.state_dict()["param_groups"][0]


# --- what the installed version ships -------------------------------------------------------------


def shipped(kind: str) -> list[str]:
    """Names of what ``torch.optim`` offers: ``"optimizers"``, ``"schedulers"`` or ``"averaging"``.

    Optimizers and schedulers are the public subclasses of the base classes, found by asking the
    installed package; averaging is what ``swa_utils`` offers besides its helper functions.
    """
    if kind == "averaging":
        return sorted(name for name in swa_utils.__all__ if not name.startswith("get_"))
    module, base = {
        "optimizers": (torch.optim, Optimizer),
        "schedulers": (lr_scheduler, lr_scheduler.LRScheduler),
    }[kind]
    found = {name: getattr(module, name) for name in module.__all__}
    return sorted(
        name
        for name, value in found.items()
        if inspect.isclass(value) and issubclass(value, base) and value is not base
    )


def differences() -> dict[str, set[str]]:
    """By kind, the names that only PyTorch or only this module knows: all empty if they agree."""
    known = {"optimizers": OPTIMIZERS, "schedulers": SCHEDULERS, "averaging": AVERAGING}
    return {kind: {k.name for k in rows} ^ set(shipped(kind)) for kind, rows in known.items()}


def home(name: str) -> str:
    """The module in which an optimizer stands, as text: ``torch.optim.sgd``."""
    cls = getattr(torch.optim, name)
    for candidate in (name.lower(), f"_{name.lower()}", "sparse_adam"):
        try:
            locate(f"torch.optim.{candidate}.{name}")
        except SourceError:
            continue
        return f"torch.optim.{candidate}"
    raise SourceError(f"no module of torch.optim defines {cls.__name__}")


def engines(name: str) -> tuple[str, ...]:
    """The engines an optimizer has, found by the functions that PyTorch names after them.

    A class that inherits its step has the engines of its parent. One that has none of these
    functions, because its rule is not written for a single tensor, has no engine.
    """
    cls = getattr(torch.optim, name)
    # Not by `"step" in vars(cls)`: the first object of a class puts a wrapper there.
    owner = inspect.unwrap(cls.step).__qualname__.split(".")[0]
    module, rule = home(owner), owner.lower()
    parts = {"loop": "_single_tensor_", "foreach": "_multi_tensor_", "fused": "_fused_"}
    found = []
    for engine, prefix in parts.items():
        try:
            locate(f"{module}.{prefix}{rule}")
        except SourceError:
            continue
        found.append(engine)
    return tuple(found)


def options(name: str) -> tuple[list[str], list[str]]:
    """The options of an optimizer: those of its formula, and the switches that say how it runs."""
    own = list(inspect.signature(getattr(torch.optim, name)).parameters)[1:]
    return [o for o in own if o not in SWITCHES], [o for o in own if o in SWITCHES]


@cache
def _code_lines(text: str) -> frozenset[int]:
    """Numbers of the lines that hold code. Documentation, docstrings too, is not code."""
    covered: set[int] = set()
    layout = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in layout | {tokenize.ENDMARKER}:
            covered |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if _is_documentation(node):
            covered -= set(range(node.lineno, node.end_lineno + 1))
    return frozenset(covered)


def _is_documentation(node: ast.AST) -> bool:
    if isinstance(node, ast.Assign):
        return any(isinstance(t, ast.Attribute) and t.attr == "__doc__" for t in node.targets)
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def lines_of_code(name: str) -> int:
    """Lines of code of a definition."""
    place = locate(name)
    return len(_code_lines(place.text) & set(range(place.first, place.last + 1)))


def lines_of_file(module: str, definition: str) -> int:
    """Lines of code of the file that holds a definition."""
    return len(_code_lines(locate(f"{module}.{definition}").text))


# --- tables ---------------------------------------------------------------------------------------


def optimizer_table() -> None:
    """Print the map of the optimizers: file, lines of code, engines, and three switches."""
    switches = {"max.": "maximize", "capt.": "capturable", "diff.": "differentiable"}
    columns = ["loop", "foreach", "fused", *switches]
    print(f"{'class':<12}{'file':<16}{'lines':>5}  {'  '.join(columns)}")
    for name in shipped("optimizers"):
        module = home(name)
        has = {*engines(name), *(short for short, o in switches.items() if o in options(name)[1])}
        marks = "  ".join(f"{'x' if c in has else '-':^{len(c)}}" for c in columns)
        file = f"{module.split('.')[-1]}.py"
        print(f"{name:<12}{file:<16}{lines_of_file(module, name):>5}  {marks}".rstrip())
    print(f"{len(shipped('optimizers'))} optimizers")


def scheduler_table() -> None:
    """Print the map of the schedulers: lines of code, arguments, whether a closed form is there."""
    print(f"{'class':<28}{'lines':>5}  closed form  arguments")
    for name in shipped("schedulers"):
        cls = getattr(lr_scheduler, name)
        own = [p for p in inspect.signature(cls).parameters if p not in ("optimizer", "last_epoch")]
        closed = "yes" if hasattr(cls, "_get_closed_form_lr") else "-"
        lines = lines_of_code(f"torch.optim.lr_scheduler.{name}")
        first = ", ".join(own[:3]) + (", ..." if len(own) > 3 else "")
        print(f"{name:<28}{lines:>5}  {closed:<11}  {first}")
    print(f"{len(shipped('schedulers'))} schedulers, all in lr_scheduler.py")


def rows(known: Iterable[Known]) -> list[str]:
    """Rows of a table for a page: name, idea, source."""
    found = []
    for k in known:
        source = f"{{cite:t}}`{k.paper}`" if k.paper else "PyTorch"
        found.append(f"| `{k.name}` | {k.idea} | {source} |")
    return found


def history_rows() -> list[str]:
    """Rows of a table for a page: the changes of ``torch.optim``, oldest first."""
    return [
        f"| {c.proposed} | {c.release} | {c.what} | "
        + ", ".join(f"pytorch#{number}" for number in c.pulls)
        + " |"
        for c in HISTORY
    ]


def table_within(
    ours: Callable[..., Any],
    theirs: Callable[..., Any],
    cases: Sequence[Mapping[str, Any]],
    planted: Callable[..., Any],
    bound: float,
    steps: int = 20,
) -> None:
    """Print for each case, in float64, whether ours and PyTorch's stay within a bound.

    For optimizers that compute in another order than PyTorch's. The last row is the first case with
    ``planted`` in place of ``ours``, and has to leave the bound.

    Raises:
        AssertionError: a row leaves the bound, or the last one does not.
    """
    width = max(len(parity.describe(case)) for case in [*cases, {"one planted error": True}])
    rows = [(parity.describe(case), ours, case, True) for case in cases]
    for label, make, case, wanted in [*rows, ("one planted error", planted, cases[0], False)]:
        outcome = parity.compare(make, theirs, case, torch.float64, steps)
        inside = outcome.largest <= bound
        print(f"{label or 'defaults':{width}}  {'within' if inside else 'outside'} {bound:.0e}")
        assert inside == wanted, f"{label}: {outcome.largest}"


# --- one step, many steps -------------------------------------------------------------------------

Make = Callable[[list[Tensor]], Any]


def one_step(optimizer: Any, x: Tensor, surface: Surface) -> float:
    """One step of any optimizer on a surface: returns the loss before it.

    Every optimizer is given a closure, which LBFGS needs and the others may have; SparseAdam is
    given a sparse gradient.
    """

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = surface.value(x.flatten())
        loss.backward()
        if type(optimizer).__name__ == "SparseAdam":
            x.grad = x.grad.to_sparse()
        return loss

    return float(optimizer.step(closure).detach())


def walk(make: Make, surface: Surface, start: Sequence[float], steps: int) -> Trajectory:
    """Many steps. The point is a matrix of one row, so that Muon, too, has what it needs."""
    x = torch.tensor([start], dtype=torch.float64, device=device(), requires_grad=True)
    optimizer = make([x])
    points = [x.detach().flatten().clone()]
    values = []
    for _ in range(steps):
        values.append(one_step(optimizer, x, surface))
        points.append(x.detach().flatten().clone())
    values.append(float(surface.value(points[-1])))
    return Trajectory(torch.stack(points).cpu(), torch.tensor(values, dtype=torch.float64))


# --- drawings -------------------------------------------------------------------------------------


def family_tree() -> None:
    """The optimizers as a tree, from parents to children; second parents are dashed."""
    by_name = {k.name: k for k in OPTIMIZERS}
    depth: dict[str, int] = {}

    def depth_of(name: str) -> int:
        if name not in depth:
            parents = by_name[name].parents
            depth[name] = 1 + depth_of(parents[0]) if parents else 0
        return depth[name]

    children = {k.name: [c for c in OPTIMIZERS if c.parents[:1] == (k.name,)] for k in OPTIMIZERS}
    height: dict[str, float] = {}

    def place(name: str, free: float) -> float:
        """Give a subtree its heights from ``free`` upwards; return the next free height."""
        below = children[name]
        if not below:
            height[name] = free
            return free + 1
        for child in below:
            free = place(child.name, free)
        height[name] = float(np.mean([height[child.name] for child in below]))
        return free

    free = 0.0
    for k in OPTIMIZERS:
        if not k.parents:
            free = place(k.name, free)
    fig, ax = plt.subplots(figsize=(7.6, 0.66 * free + 0.3))
    ax.set(xlim=(-0.1, 4.98), ylim=(free - 0.45, -0.6))
    ax.axis("off")
    edges = []
    for k in OPTIMIZERS:
        x, y = depth_of(k.name), height[k.name]
        colour = COLOURS[x % len(COLOURS)]
        for order, parent in enumerate(k.parents):
            start = (depth_of(parent) + 0.83, height[parent])
            style = {"linestyle": DASHES[order], "color": "#666666", "linewidth": 1.2}
            bend = f"arc3,rad={0.0 if order == 0 else -0.15}"
            look = {"arrowstyle": "-|>", "connectionstyle": bend, "shrinkA": 0, "shrinkB": 0}
            ax.annotate("", (x - 0.03, y), start, arrowprops=look | style)
            edges.append((parent, k.name))
        ax.add_patch(
            plt.Rectangle((x - 0.02, y - 0.4), 0.85, 0.8, facecolor="white", edgecolor=colour)
        )
        year = f" {k.year}" if k.year else ""
        ax.text(x + 0.4, y - 0.21, k.name + year, ha="center", va="center", weight="bold",
                color=colour, fontsize=9)  # fmt: skip
        ax.text(x + 0.4, y + 0.14, k.adds, ha="center", va="center", color=INK, fontsize=8,
                linespacing=1.0)  # fmt: skip
    places = [[depth_of(k.name), height[k.name], k.year or 0] for k in OPTIMIZERS]
    roots = [k.name for k in OPTIMIZERS if not k.parents]
    direct = sum(k.parents[:1] == ("Adam",) for k in OPTIMIZERS)
    says = {
        "roots": ", ".join(roots),
        "edges": f"{len(edges)} between {len(OPTIMIZERS)} classes",
        "children of Adam": str(direct),
    }
    finish(fig, [places], says)


def portraits(
    ways: Mapping[str, Trajectory], surface: Surface, left_out: Sequence[str] = ()
) -> None:
    """One small picture for each trajectory over the same surface.

    Args:
        left_out: names that are drawn but not part of the digest, because they compute in 16 bits
            and the last digits differ from one processor to another.
    """
    columns = 5
    lines = -(-len(ways) // columns)
    fig, axes = plt.subplots(
        lines, columns, figsize=(7.6, 1.62 * lines), sharex=True, sharey=True, squeeze=False
    )
    x, y, z = grid(surface, 61)
    height = np.sqrt(z - z.min())
    for ax in axes.flat[len(ways) :]:
        ax.axis("off")
    for ax, (name, way) in zip(axes.flat, ways.items(), strict=False):
        ax.contourf(x, y, height, levels=8, cmap=DEPTH)
        ax.plot(*numbers(way.points).T, color=COLOURS[0], marker="o", markersize=2, linewidth=0.9)
        ax.plot(*numbers(way.points[0]), "o", markersize=6, markerfacecolor="none", color=INK)
        ax.plot(0, 0, "+", color=COLOURS[1], markersize=7)
        ax.set(xlim=surface.domain[0], ylim=surface.domain[1])
        ax.set_title(name, fontsize=10)
        ax.grid(False)
        ax.tick_params(labelsize=8)
    compared = {name: way for name, way in ways.items() if name not in left_out}
    lower = sum(bool(way.values[-1] < way.values[0]) for way in ways.values())
    steps = len(next(iter(ways.values())).points) - 1
    says = {"steps": str(steps), "lower than at the start": f"{lower} of {len(ways)}"}
    finish(fig, [way.points for way in compared.values()], says)


def curves_apart(curves: Mapping[str, Any], families: Mapping[str, str]) -> None:
    """One small picture for each curve, coloured by family. Prints first, lowest, last value."""
    columns = 5
    lines = -(-len(curves) // columns)
    fig, axes = plt.subplots(
        lines, columns, figsize=(7.6, 1.55 * lines), sharex=True, sharey=True, squeeze=False
    )
    order = list(dict.fromkeys(families.values()))
    for ax in axes.flat[len(curves) :]:
        ax.axis("off")
    for ax, (name, curve) in zip(axes.flat, curves.items(), strict=False):
        k = order.index(families[name])
        values = numbers(curve)
        ax.plot(values, color=COLOURS[k % len(COLOURS)], linestyle=DASHES[k % len(DASHES)])
        short = name.replace("CosineAnnealing", "Cosine").removesuffix("LR")
        ax.set_title(short.replace("Scheduler", ""), fontsize=8.5)
        ax.text(0.97, 0.93, families[name], transform=ax.transAxes, ha="right", va="top",
                fontsize=7.5, color=COLOURS[k % len(COLOURS)])  # fmt: skip
        ax.tick_params(labelsize=8)
        ax.set_ylim(-0.005, 0.135)
    says = {
        name: f"{number(c[0])} -> {number(min(c))} .. {number(max(c))} -> {number(c[-1])}"
        for name, c in curves.items()
    }
    finish(fig, [numbers(c) for c in curves.values()], says)
