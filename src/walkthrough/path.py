"""Watch one step run: which functions it visits, what each one changes, and which lines it needs.

`record` runs a call and writes down every function of ``torch.optim`` and of `minioptim` that it
enters, in order. With each it notes what enters and leaves, what has changed while it ran (state,
parameters, learning rates, the counters of a scheduler), which tensor operations it started, and
which statements were executed. Functions of the rest of PyTorch are only counted. Nothing is timed,
so the record of a step is the same on every machine.

It uses `sys.settrace`, as a debugger does, for the thread it runs in, and a dispatch mode of
PyTorch for the tensor operations. Neither changes a number.
"""

import ast
import functools
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NamedTuple

import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import minioptim

from . import plots

TORCH = Path(torch.__file__).parent
FOLDERS = {  # whose functions are watched; those of the last are only counted
    "torch.optim": Path(torch.optim.__file__).parent,
    "minioptim": Path(minioptim.__file__).parent,
    "torch": TORCH,
}
HEALTH_CHECK = "Optimizer._accelerator_graph_capture_health_check"
# Operations that make a tensor or read one. All others compute. ``torch.tensor(0.0)`` appears as
# lift_fresh, ``x.item()`` as _local_scalar_dense.
NOT_ARITHMETIC = frozenset(
    ["lift_fresh", "zeros_like", "empty_like", "zeros", "_local_scalar_dense", "detach", "alias"]
)
# What is watched of an optimizer besides its groups and state, and of a scheduler.
FLAGS = ("_opt_called",)
COUNTERS = ("base_lrs", "last_epoch", "_step_count", "_last_lr", "_is_initial")

WIDTH = 82  # of what is printed

Facts = dict[tuple[str, int], Any]


class Change(NamedTuple):
    """One quantity that was written. A tensor has no text for its value."""

    name: str
    old: str | None  # None: it was not there
    new: str

    def __str__(self) -> str:
        if not self.new:
            return self.name if self.old is not None else f"new {self.name}"
        before = "=" if self.old is None else f"{self.old} →"
        return f"{self.name} {before} {self.new}"


@dataclass
class Call:
    """One visit to one function."""

    name: str  # as Python qualifies it, Adam.step; of a closure, its maker and itself
    package: str  # torch.optim or minioptim
    statements: frozenset[int]  # all its statements, by their first lines
    enters: str = ""
    leaves: str = ""
    raised: str = ""
    grad: bool = True  # was autograd recording at the entrance?
    changes: list[Change] = field(default_factory=list)  # made here, not further down
    operations: list[str] = field(default_factory=list)  # started here, not further down
    lines: Counter[tuple[str, int]] = field(default_factory=Counter)  # (file, line): how often
    elsewhere: int = 0  # calls from here into the rest of torch, all the way down
    calls: list["Call"] = field(default_factory=list)

    def walk(self) -> Iterator["Call"]:
        """This call and all calls below it, in order."""
        yield self
        for call in self.calls:
            yield from call.walk()


@dataclass
class Walk:
    """What one recorded step did."""

    roots: list[Call]
    log: list[Change]  # all changes, in the order in which they were made
    operations: list[str]  # all tensor operations, in the order in which they were started
    result: Any = None
    error: str = ""  # the type of the exception that ended it

    def all(self) -> Iterator[Call]:
        """Every recorded call, in the order of entrance."""
        for root in self.roots:
            yield from root.walk()

    @property
    def names(self) -> list[str]:
        """The names of all calls, in order."""
        return [call.name for call in self.all()]

    @property
    def arithmetic(self) -> list[str]:
        """The operations that compute something, in order."""
        return [name for name in self.operations if name not in NOT_ARITHMETIC]

    @property
    def lines(self) -> Counter[tuple[str, int]]:
        """The statements that ran, ``(file, line)``, and how often each did."""
        return sum((call.lines for call in self.all()), Counter())

    @property
    def functions(self) -> int:
        """How many different functions were entered."""
        return len(set(self.names))

    def find(self, name: str) -> Call:
        """The first call of this function.

        Raises:
            LookupError: the step did not pass there.
        """
        for call in self.all():
            if call.name == name:
                return call
        raise LookupError(f"{name} is not on this path: {', '.join(dict.fromkeys(self.names))}")

    def table(self) -> None:
        """Print the calls, indented; equal calls in a row are one line with their number.

        Columns: statements that ran in the function itself, tensor operations it started itself,
        and what it changed itself.
        """
        rows = list(_rows(self.roots))
        width = max(len(row.label) for row in rows)
        print(f"{'call':{width}} lines  ops  changes")
        for row in rows:
            start = f"{row.label:{width}} {row.lines:5} {row.operations or '':4}  "
            changes = _wrapped(row.changes, ", ", WIDTH - len(start))
            print(f"{start}{changes[0]}".rstrip())
            for more in changes[1:]:
                print(f"{'':{len(start)}}{more}")
        said = f"{self.functions} functions, {len(self.lines)} lines of code"
        print(f"{said}, {len(self.operations)} operations", end="")
        print(f", ended by {self.error}" if self.error else "")

    def stop(self, name: str) -> None:
        """Print what enters a function, what leaves it, and what it changes and starts itself.

        What there is none of is left out.
        """
        call = self.find(name)
        says = {
            "enters": [call.enters] if call.enters else [],
            "leaves": [f"raises {call.raised}" if call.raised else call.leaves],
            "changes": _together(map(str, call.changes)),
            "runs": _together(call.operations),
        }
        lines = [
            f"  {key if k == 0 else '':8} {text}"
            for key, texts in says.items()
            for k, text in enumerate(_wrapped(texts, ", ", WIDTH - 11))
            if text
        ]
        print("\n".join([name, *(lines or ["  passes on what it got"])]))


# --- recording ------------------------------------------------------------------------------------


def record(
    call: Callable[[], Any],
    *watch: Any,
    operations: bool = True,
    expect: type[Exception] | None = None,
) -> Walk:
    """Run ``call()`` and return what it did.

    Args:
        call: for example ``optimizer.step``.
        watch: optimizers whose parameters, state and groups are compared before and after each
            function. Schedulers are found by themselves.
        operations: record the tensor operations too. PyTorch enters some functions more to do so.
        expect: an exception that may end the call; the record then says so.
    """
    tracer = _Tracer(list(watch))
    walk = Walk(tracer.root.calls, tracer.log, tracer.started)
    before = sys.gettrace()
    with tracer if operations else nullcontext():
        sys.settrace(tracer.enter)
        try:
            walk.result = call()
        except Exception as error:
            if expect is None or not isinstance(error, expect):
                raise
            walk.error = type(error).__name__
        finally:
            sys.settrace(before)
    if not walk.error:
        for visited in walk.all():
            visited.raised = ""  # an exception that somebody caught on the way
    return walk


def python_calls(call: Callable[[], Any]) -> int:
    """Run ``call()``; how many functions of PyTorch's and `minioptim`'s Python code it entered.

    What the health check asks the rest of PyTorch is left out: that depends on how it was built.
    """
    visits = record(call, operations=False).all()
    return sum(1 + visit.elsewhere * (visit.name != HEALTH_CHECK) for visit in visits)


class _Tracer(TorchDispatchMode):
    """Listens to Python's calls, lines and returns, and to PyTorch's operations."""

    def __init__(self, watch: list[Any]) -> None:
        super().__init__()
        self.watch = watch
        self.root = Call("", "", frozenset())
        self.stack = [self.root]
        self.paused = False
        self.facts = _facts(watch)
        self.log: list[Change] = []
        self.started: list[str] = []

    # operations

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        paused, self.paused = self.paused, True
        try:
            if not paused and func.namespace == "aten":
                name = func._schema.name.split("::")[1]
                self.stack[-1].operations.append(name)
                self.started.append(name)
            return func(*args, **(kwargs or {}))
        finally:
            self.paused = paused

    # calls

    def enter(self, frame: FrameType, event: str, arg: Any) -> Any:
        code = frame.f_code
        package = _package(code.co_filename)
        if self.paused or event != "call" or not package:
            return None
        inner = code.co_name.startswith("<") and code.co_name != "<lambda>"
        if inner:  # a comprehension is part of its function
            if package == "torch" or self.stack[-1] is self.root:
                return None
            return functools.partial(self.inside, self.stack[-1], None)
        if package == "torch":
            self.stack[-1].elsewhere += 1
            return None
        self.settle()
        known = dict(frame.f_locals)
        if hasattr(known.get("self"), "get_last_lr") and known["self"] not in self.watch:
            self.watch.append(known["self"])  # a scheduler
            self.facts = self.look()
        arguments = [known[name] for name in _argument_names(code) if name in known]
        made = Call(_name(code), package, _statements_of(code))
        made.enters, made.grad = ", ".join(_describe(arguments)), torch.is_grad_enabled()
        self.stack[-1].calls.append(made)
        self.stack.append(made)
        return functools.partial(self.inside, made, arguments)

    def inside(
        self, call: Call, arguments: list[Any] | None, frame: FrameType, event: str, arg: Any
    ) -> Any:
        if event == "line":
            statement = _statements(frame.f_code.co_filename).get(frame.f_lineno)
            if statement in call.statements:
                call.lines[frame.f_code.co_filename, statement] += 1
        elif event == "exception" and arguments is not None:
            call.raised = arg[0].__name__
        elif event == "return" and arguments is not None:
            self.settle()
            now = _describe(arguments)
            changed = [text for text in now if text not in call.enters]
            call.leaves = ", ".join(changed + _returned(arg))
            self.stack.pop()
        return functools.partial(self.inside, call, arguments)

    def settle(self) -> None:
        """Credit what has changed since the last entrance or exit to the function that ran."""
        facts = self.look()
        changes = _changes(self.facts, facts)
        self.stack[-1].changes += changes
        self.log += changes
        self.facts = facts

    def look(self) -> Facts:
        """The facts now; reading them is not recorded."""
        paused, self.paused = self.paused, True
        try:
            return _facts(self.watch)
        finally:
            self.paused = paused


@functools.cache
def _package(file: str) -> str:
    for package, folder in FOLDERS.items():
        if file.startswith(f"{folder}/") or file.startswith(f"{folder}\\"):
            return package
    return ""


def _name(code: CodeType) -> str:
    *_, last = parts = code.co_qualname.split(".<locals>.")
    return f"{parts[-2].split('.')[-1]}.{last}" if len(parts) > 1 else last


def _argument_names(code: CodeType) -> list[str]:
    count = code.co_argcount + code.co_kwonlyargcount
    return [name for name in code.co_varnames[:count] if name not in ("self", "cls")]


# --- statements -----------------------------------------------------------------------------------


@functools.cache
def _statements(file: str) -> dict[int, int]:
    """For each line of a file the first line of its innermost statement.

    A statement broken over several lines is one; ``try:`` and docstrings do nothing and are none.
    """
    found: dict[int, int] = {}
    tree = ast.parse(Path(file).read_text(encoding="utf-8"))
    for node in ast.walk(tree):  # outer statements come before the ones in them
        if isinstance(node, ast.stmt):
            idle = isinstance(node, ast.Try) or _is_text(node)
            for line in range(node.lineno, (node.end_lineno or node.lineno) + 1):
                if idle:
                    found.pop(line, None)
                else:
                    found[line] = node.lineno
    return found


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


@functools.cache
def _statements_of(code: CodeType) -> frozenset[int]:
    """The statements of a function, without those of functions that are defined in it."""
    tree = ast.parse(Path(code.co_filename).read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        first = getattr(node, "lineno", 0), *(d.lineno for d in getattr(node, "decorator_list", []))
        if isinstance(node, kinds) and min(first) == code.co_firstlineno:
            break
    else:
        return frozenset()  # a lambda
    found, todo = set(), list(node.body)
    while todo:
        statement = todo.pop()
        if not isinstance(statement, ast.Try) and not _is_text(statement):
            found.add(statement.lineno)
        if not isinstance(statement, (*kinds, ast.ClassDef)):
            for name in ("body", "orelse", "finalbody"):
                todo += getattr(statement, name, [])
            todo += [s for handler in getattr(statement, "handlers", []) for s in handler.body]
    return frozenset(found)


# --- what is compared -----------------------------------------------------------------------------


def _facts(watch: Sequence[Any]) -> Facts:
    """Everything of the watched objects that a step may change, as plain values."""
    facts: Facts = {}
    for n, thing in enumerate(watch):
        if hasattr(thing, "get_last_lr"):
            for name in COUNTERS:
                if hasattr(thing, name):
                    facts[name, n] = _plain(getattr(thing, name))
            continue
        facts["grad", n] = "on" if torch.is_grad_enabled() else "off"
        facts["optimizer.step", n] = "replaced" if "step" in vars(thing) else "the method"
        facts["pre-hooks", n] = len(thing._optimizer_step_pre_hooks)
        for name in FLAGS:
            if hasattr(thing, name):
                facts[name, n] = getattr(thing, name)
        params = [p for group in thing.param_groups for p in group["params"]]
        for i, group in enumerate(thing.param_groups):
            for name in ("lr", "initial_lr"):
                if name in group:
                    facts[name, 100 * n + i] = _plain(group[name])
        for i, p in enumerate(params):
            facts["p", i] = _Contents(p)
            for key, value in thing.state.get(p, {}).items():
                if isinstance(value, Tensor):
                    value = value.item() if value.dim() == 0 and key == "step" else _Contents(value)
                facts[key, i] = value
    return facts


class _Contents(str):
    """The values of a tensor, to be compared and not to be printed."""

    def __new__(cls, tensor: Tensor) -> "_Contents":
        return super().__new__(cls, tensor.detach().tolist())


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value.item() if isinstance(value, Tensor) else value


def _changes(before: Facts, after: Facts) -> list[Change]:
    found = []
    for key, value in after.items():
        if key not in before or before[key] != value:
            old = _number(before[key]) if key in before else None
            found.append(Change(key[0], old, _number(value)))
    return found


def _number(value: Any) -> str:
    if isinstance(value, _Contents) or value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    return f"[{', '.join(map(_number, value))}]" if isinstance(value, list) else str(value)


def _describe(arguments: Sequence[Any]) -> list[str]:
    """What is among the arguments of a function, in a few words."""
    found = []
    lengths: list[int] = []
    tensors = 0
    for value in arguments:
        if isinstance(value, dict) and "params" in value:
            found.append(f"group of {len(value['params'])} (lr {_number(_plain(value['lr']))})")
        elif isinstance(value, Tensor):
            tensors += 1
        elif isinstance(value, list) and all(isinstance(x, list) for x in value) and value:
            lengths += map(len, value)
        elif isinstance(value, list) and all(isinstance(x, tuple) for x in value) and value:
            found.append(f"{len(value)} rows")
        elif isinstance(value, list) and all(x is None or isinstance(x, Tensor) for x in value):
            lengths.append(len(value))
    if lengths and len(set(lengths)) == 1:
        lists = f"{len(lengths)} lists of" if len(lengths) > 1 else "list of"
        found.append(f"{lists} {lengths[0]}")
    elif lengths:
        found.append(f"lists of {' '.join(map(str, lengths))}")
    if tensors:
        found.append(f"{tensors} tensor{'s' * (tensors > 1)}")
    return found


def _returned(value: Any) -> list[str]:
    if value is None:
        return []
    if isinstance(value, (bool, int, float, str)):
        return [f"returns {_number(value)}"]
    if isinstance(value, tuple) and type(value) is not tuple:
        return [f"returns {type(value).__name__}"]
    if isinstance(value, dict):
        keyed = all(isinstance(key, str) for key in value)
        return [f"returns {', '.join(value)}" if keyed else f"returns {len(value)} buckets"]
    if isinstance(value, (tuple, list)) and all(isinstance(x, (bool, float)) for x in value):
        return [f"returns {', '.join(map(_number, value))}"]
    if isinstance(value, tuple):
        return [f"returns {'; '.join(text for x in value for text in _inner(x))}"]
    return _inner(value) and [f"returns {'; '.join(_inner(value))}"]


def _inner(value: Any) -> list[str]:
    if isinstance(value, (Tensor, list)):
        return _describe([value])
    return [value.__name__] if hasattr(value, "__name__") else []


# --- rows of a table or a figure ------------------------------------------------------------------


@dataclass
class _Row:
    depth: int
    name: str
    times: int
    lines: int
    operations: int
    changes: list[str]

    @property
    def label(self) -> str:
        times = f" ×{self.times}" if self.times > 1 else ""
        return f"{' ' * self.depth}{self.name.removeprefix('Optimizer.')}{times}"


def _rows(calls: Sequence[Call], depth: int = 0) -> Iterator[_Row]:
    """The calls as rows; calls in a row that did the same are one, and so are repeated turns."""
    i = 0
    while i < len(calls):
        turn = next((k for k in range(1, 5) if _repeats(calls, i, k) > 1), 1)  # how many by turns
        times = _repeats(calls, i, turn)
        for k in range(turn):
            same = calls[i + k : i + turn * times : turn]
            operations = sum(len(call.operations) for call in same)
            changes = _together([str(change) for call in same for change in call.changes])
            lines = len(sum((call.lines for call in same), Counter()))
            yield _Row(depth, same[0].name, times, lines, operations, changes)
            yield from _rows(same[0].calls, depth + 1)
        i += turn * times


def _repeats(calls: Sequence[Call], start: int, turn: int) -> int:
    """How often in a row the first ``turn`` calls come, themselves included."""
    end = start + turn
    while end < len(calls) and _alike(calls[end - turn], calls[end]):
        end += 1
    return (end - start) // turn


def _alike(a: Call, b: Call) -> bool:
    if a.name != b.name or len(a.calls) != len(b.calls):
        return False
    return not a.calls or (a.operations == b.operations and all(map(_alike, a.calls, b.calls)))


def _together(texts: Iterable[str]) -> list[str]:
    """Equal texts once, with their number: ``step 0 → 1 ×4``."""
    return [f"{text} ×{n}" if n > 1 else text for text, n in Counter(texts).items()]


def _wrapped(texts: Sequence[str], separator: str, width: int) -> list[str]:
    """Texts in lines of at most this width; none is broken."""
    lines = [""]
    for text in texts:
        if lines[-1] and len(lines[-1] + separator + text) > width:
            lines[-1] += separator.rstrip()
            lines.append("")
        lines[-1] += (separator if lines[-1] else "") + text
    return lines


# --- figures --------------------------------------------------------------------------------------


def tree(walks: Mapping[str, Walk], summary: bool = True) -> None:
    """Draw call trees side by side, with the lines each function ran and the arithmetic it started.

    Args:
        summary: write under each tree the operations that compute, for all parameters together.
    """
    sides = {title: list(_rows(walk.roots)) for title, walk in walks.items()}
    deepest = max(map(len, sides.values()))
    height = deepest + 1.4 + (3.4 if summary else 0.6)
    fig, ax = plt.subplots(figsize=(7.6, 0.215 * height + 0.2))
    ax.set(xlim=(0, 100), ylim=(height, 0))
    ax.axis("off")
    most = max(row.lines for rows in sides.values() for row in rows)
    drawn, says = [], {}
    for n, (title, rows) in enumerate(sides.items()):
        left, colour = 51 * n, plots.COLOURS[n]
        ax.text(left, 0.4, title, weight="bold", color=colour, fontsize=10, va="center")
        ax.text(left + 49, 0.4, "lines", color="#555555", fontsize=8, va="center", ha="right")
        for y, row in enumerate(rows, 1):
            _draw_row(ax, left, y + 0.5, row, colour, most)
        drawn += [[row.depth, row.lines, row.operations] for row in rows]
        walk = walks[title]
        says[title] = f"{walk.functions} functions, {len(walk.lines)} lines of code"
        if summary:
            words = [
                f"{len(walk.arithmetic)} operations that compute:",
                *_wrapped(_together(walk.arithmetic), "   ", 52),
            ]
            ax.text(left, deepest + 1.9, "\n".join(words), fontsize=8.4, va="top", linespacing=1.35)
    plots.finish(fig, drawn, says)


def _draw_row(ax: Axes, left: float, y: float, row: _Row, colour: str, most: int) -> None:
    name = row.name.removeprefix("Optimizer.") + (f" ×{row.times}" if row.times > 1 else "")
    look = {"weight": "bold", "color": colour} if row.operations else {"color": plots.INK}
    start = left + 1.3 * row.depth
    if row.depth:
        ax.plot([start - 1.0, start - 0.3], [y, y], color="#999999", linewidth=0.8)
    ax.text(start, y, name, fontsize=8.4, va="center", **look)
    width = 7.0 * row.lines / most
    box = plt.Rectangle((left + 46 - width, y - 0.32), width, 0.64, color=colour, alpha=0.35)
    ax.add_patch(box)
    ax.text(left + 49, y, str(row.lines), fontsize=8.4, va="center", ha="right", color="#444444")


def forks(walks: Mapping[str, Walk]) -> None:
    """Draw which functions each of several steps visits, and how often. Columns are the steps."""
    names = _merged([list(dict.fromkeys(walk.names)) for walk in walks.values()])
    counts = [[walk.names.count(name) for walk in walks.values()] for name in names]
    fig, ax = plt.subplots(figsize=(7.6, 0.21 * len(names) + 0.6))
    for x, (title, walk) in enumerate(walks.items()):
        colour, marker = plots.COLOURS[x], plots.MARKERS[x]
        way = [y for y, row in enumerate(counts) if row[x]]
        ax.plot([x] * len(way), way, color=colour, marker=marker, markersize=7, linewidth=1.2)
        for y in way:
            times = f"×{counts[y][x]}" if counts[y][x] > 1 else ""
            ax.annotate(times, (x, y), (7, 0), textcoords="offset points", va="center", fontsize=8)
        ax.text(x, -1, title, ha="center", va="bottom", color=colour, weight="bold", fontsize=9)
        if walk.error:
            ax.text(x, way[-1] + 0.9, walk.error, ha="center", color=colour, fontsize=8.5)
    short = [name.removeprefix("Optimizer.") for name in names]
    ax.set(xlim=(-0.4, len(walks) - 0.4), ylim=(len(names) - 0.5, -0.8), xticks=[])
    ax.set_yticks(range(len(names)), short, fontsize=8.5)
    ax.spines[["left", "bottom"]].set_visible(False)
    ax.tick_params(length=0)
    says = {
        title: f"{walk.functions} functions, {len(walk.arithmetic)} operations that compute"
        + (f", {walk.error}" if walk.error else "")
        for title, walk in walks.items()
    }
    plots.finish(fig, counts, says)


def _merged(orders: Sequence[Sequence[str]]) -> list[str]:
    """One order out of several, each name after the one it follows."""
    merged: list[str] = []
    for order in orders:
        place = 0
        for name in order:
            if name in merged:
                place = merged.index(name) + 1
            else:
                merged.insert(place, name)
                place += 1
    return merged


def stages(walks: Sequence[Walk]) -> None:
    """Draw for each function how many of its lines run in every step, in the first only, or never.

    Args:
        walks: successive steps of one optimizer.
    """
    rows: dict[str, tuple[int, int, int]] = {}
    for name in dict.fromkeys(walks[0].names):
        seen = [_lines_of(walk, name) for walk in walks]
        every, first = set.intersection(*seen), seen[0].difference(*seen[1:])
        never = len(walks[0].find(name).statements) - len(set().union(*seen))
        if len(seen[0]) > 2 or never > 2:
            rows[name] = (len(every), len(first), never)
    fig, ax = plt.subplots(figsize=(7.2, 0.32 * len(rows) + 0.9))
    kinds = ("every step", "first step only", "not on this path")
    colours = (plots.COLOURS[0], plots.COLOURS[1], "#cfd4d8")
    totals = [sum(row[k] for row in rows.values()) for k in range(3)]
    left = [0] * len(rows)
    for k, (kind, colour, hatch) in enumerate(zip(kinds, colours, ("", "///", ""), strict=True)):
        sizes = [row[k] for row in rows.values()]
        label = f"{kind}: {totals[k]}"
        look = {"edgecolor": "white", "linewidth": 0.6, "hatch": hatch}
        ax.barh(range(len(rows)), sizes, left=left, color=colour, label=label, **look)
        left = [a + b for a, b in zip(left, sizes, strict=True)]
    ax.set_yticks(range(len(rows)), [name.removeprefix("Optimizer.") for name in rows], fontsize=9)
    ax.invert_yaxis()
    ax.set(xlabel="lines of code in the function")
    ax.grid(axis="y", visible=False)
    fig.legend(loc="outside upper left", ncols=3, fontsize=9)
    plots.finish(fig, list(rows.values()), dict(zip(kinds, map(str, totals), strict=True)))


def _lines_of(walk: Walk, name: str) -> set[tuple[str, int]]:
    return {line for call in walk.all() if call.name == name for line in call.lines}


def writes(walks: Mapping[str, Walk], quantities: Sequence[str]) -> None:
    """Draw who writes what: a column for each call of a training loop, a row for each quantity.

    A cell holds the value that the call has written, the last one if it wrote several.
    """
    columns = [written(walk) for walk in walks.values()]
    fig, ax = plt.subplots(figsize=(7.6, 0.3 * len(quantities) + 0.8))
    for x, column in enumerate(columns):
        for y, name in enumerate(quantities):
            text = column.get(name, "")
            colour = plots.COLOURS[0] if "scheduler" in list(walks)[x] else plots.COLOURS[1]
            face = colour if text else "#f3f5f6"
            box = plt.Rectangle((x - 0.48, y - 0.44), 0.96, 0.88, color=face, linewidth=0)
            ax.add_patch(box)
            ax.text(x, y, text, ha="center", va="center", color="white", fontsize=8.5)
    ax.set(xlim=(-0.5, len(walks) - 0.5), ylim=(len(quantities) - 0.5, -0.5))
    ax.set_yticks(range(len(quantities)), quantities, fontsize=9)
    ax.set_xticks(range(len(walks)), list(walks), fontsize=8)
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    ax.grid(visible=False)
    ax.spines[["left", "bottom"]].set_visible(False)
    says = {name: " | ".join(column.get(name, "-") for column in columns) for name in quantities}
    plots.finish(fig, [[name in column for name in quantities] for column in columns], says)


def written(walk: Walk) -> dict[str, str]:
    """What a walk has written, by name, and the last value of each: ``{"lr": "0.05"}``.

    Of a tensor it says ``new`` or ``written``.
    """
    found: dict[str, str] = {}
    for change in walk.log:
        kind = "new" if change.old is None or found.get(change.name) == "new" else "written"
        found[change.name] = change.new or kind
    return found
