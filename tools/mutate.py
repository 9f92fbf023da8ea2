"""Small faults for a Python file: what `mutants.py` plants, one at a time.

`mutants_of` reads a file and lists every fault the operators below know how to make of it: another
sign, another constant, a comparison that lets one value more through, a statement left out, the
wrong key of the state, a clone that is missing. A mutant has a name that says where it is and what
changes, and no line number, so that an edit elsewhere does not rename it.

What is not touched, because no caller can be wrong by it: docstrings, annotations, imports, the
words of error messages (strings with a space, f-strings), ``strict=`` of a zip, which asserts what
holds by construction, and the order of what ``min`` and ``max`` are asked about.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BINARY = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Div,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.MatMult: ast.Add,
}
ORDERED = (ast.Sub, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow, ast.MatMult)  # a op b is not b op a
COMPARE = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
NAMES = {
    **{"zeros_like": "ones_like", "cos": "sin", "floor": "ceil", "getattr": "hasattr"},
    **{"max": "min", "min": "max", "all": "any", "any": "all"},
    **{"bisect_left": "bisect_right", "bisect_right": "bisect_left"},
    **{"maximum": "minimum", "deepcopy": "copy", "defaultdict": "dict"},
}
IN_PLACE = ("add", "mul", "div", "lerp", "addcmul", "addcdiv", "sqrt", "clamp_min")
COPIES = ("clone", "detach", "detach_", "copy", "squeeze", "item")  # x.clone() -> x
WRAPPERS = ("deepcopy", "_squeeze", "_copy", "like", "list", "tuple", "float", "sorted", "_moved")
ERRORS = (
    *("ValueError", "TypeError", "RuntimeError", "KeyError", "NotImplementedError"),
    *("ZeroDivisionError", "AssertionError"),
)
KEPT_DECORATORS = ("staticmethod", "property", "dataclass", "classmethod")
SNIPPET = 16  # a name shows at least so many characters around the change
WINDOW = 50  # and of a long statement at most this on each side


@dataclass
class Mutant:
    """One planted fault: ``place`` names the node of the tree that ``new`` takes the place of."""

    file: str
    where: str  # the function or class, as in ``Adam.rule``
    operator: str
    was: str
    now: str
    place: tuple[Any, str, int | None]
    new: Any = field(repr=False)
    is_default: bool = False  # in the defaults of a function
    count: int = 1  # of equal faults in one function, this is which

    @property
    def name(self) -> str:
        number = f" ({self.count})" if self.count > 1 else ""
        inside = f"{self.file} {self.where}".strip()
        return f"{inside}: {self.operator}: {self.was} -> {self.now}{number}"

    def put(self, new: Any) -> Any:
        """Put a node in the place; returns what was there."""
        parent, name, index = self.place
        if index is None:
            old = getattr(parent, name)
            setattr(parent, name, new)
        else:
            old = getattr(parent, name)[index]
            getattr(parent, name)[index] = new
        return old


@dataclass
class Source:
    """A file, its tree, and every mutant of it."""

    path: Path
    tree: ast.Module
    mutants: list[Mutant]

    def mutated(self, mutant: Mutant) -> ast.Module:
        """The tree with this fault. Fork first, or `Mutant.put` the old node back."""
        mutant.put(mutant.new)
        return ast.fix_missing_locations(self.tree)

    def text(self, mutant: Mutant) -> str:
        """The file with this fault, as Python writes it: without comments."""
        old = mutant.put(mutant.new)
        text = ast.unparse(ast.fix_missing_locations(self.tree))
        mutant.put(old)
        return text + "\n"


def mutants_of(path: Path) -> Source:
    """All mutants of a file, in the order of its lines."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found: list[Mutant] = []
    seen: Counter[tuple[str, ...]] = Counter()
    same: set[tuple[Any, ...]] = set()
    for mutant in _Walk(path.name).module(tree):
        key = (mutant.where, mutant.operator, mutant.was, mutant.now)
        place = (mutant.where, mutant.was, mutant.now)
        once = (*place, id(mutant.place[0]), mutant.place[1:])
        if mutant.was == mutant.now or once in same:
            continue
        same.add(once)
        seen[key] += 1
        mutant.count = seen[key]
        found.append(mutant)
    return Source(path, tree, found)


class _Walk:
    """Walks a tree, and remembers what is around the node it looks at."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.names: list[str] = []  # of the functions and classes around
        self.around: list[ast.AST] = []  # the nodes around, from the statement inwards
        self.in_default = False

    # --- where we are -----------------------------------------------------------------------------

    def module(self, tree: ast.Module) -> Iterator[Mutant]:
        yield from self.block(tree, "body")

    def block(self, parent: Any, name: str) -> Iterator[Mutant]:
        body = getattr(parent, name)
        for i, statement in enumerate(list(body)):
            words = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
            if words or isinstance(statement, (ast.Import, ast.ImportFrom, ast.Global)):
                continue
            outer, self.around = self.around, [statement]
            yield from self.statement(statement, (parent, name, i))
            self.around = outer

    def statement(self, node: Any, place: tuple[Any, str, int | None]) -> Iterator[Mutant]:
        yield from self.left_out(node, place)
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            for i, decorator in enumerate(node.decorator_list):
                if ast.unparse(decorator).split("(")[0] not in KEPT_DECORATORS:
                    yield self.mutant("decorator", (node, "decorator_list", i), _identity())
            self.names.append(node.name)
            if isinstance(node, ast.FunctionDef):
                yield from self.defaults(node.args)
            yield from self.block(node, "body")
            self.names.pop()
            return
        for name, value in ast.iter_fields(node):
            if name in ("body", "orelse", "finalbody", "handlers") and isinstance(value, list):
                if name == "handlers":
                    for handler in value:
                        yield from self.block(handler, "body")
                else:
                    yield from self.block(node, name)
            elif name not in ("annotation", "targets", "target") or isinstance(node, ast.AugAssign):
                yield from self.children(node, name, value)
            elif name == "targets":
                for target in value:  # the key of ``state["step"] = ...``
                    if isinstance(target, ast.Subscript):
                        yield from self.expression(target.slice, (target, "slice", None))

    def defaults(self, args: ast.arguments) -> Iterator[Mutant]:
        outer, self.around, self.in_default = self.around, [], True
        ordered = [*args.posonlyargs, *args.args]
        rows = list(zip(ordered[::-1], range(len(args.defaults) - 1, -1, -1), strict=False))
        for arg, i in rows[::-1]:
            self.around = [ast.keyword(arg.arg, args.defaults[i])]
            yield from self.expression(args.defaults[i], (args, "defaults", i))
        for i, (arg, value) in enumerate(zip(args.kwonlyargs, args.kw_defaults, strict=True)):
            if value is not None:
                self.around = [ast.keyword(arg.arg, value)]
                yield from self.expression(value, (args, "kw_defaults", i))
        self.around, self.in_default = outer, False

    def children(self, parent: Any, name: str, value: Any) -> Iterator[Mutant]:
        if isinstance(value, list):
            for i, item in enumerate(value):
                yield from self.children_of_list(parent, name, i, item)
        elif isinstance(value, ast.AST):
            yield from self.children_of_list(parent, name, None, value)

    def children_of_list(self, parent: Any, name: str, i: Any, item: Any) -> Iterator[Mutant]:
        if isinstance(item, ast.expr):
            yield from self.expression(item, (parent, name, i))
        elif _is_assertion(item):
            return
        elif isinstance(item, (ast.keyword, ast.comprehension, ast.withitem)):
            for inner, value in ast.iter_fields(item):
                yield from self.children(item, inner, value)
                if inner == "ifs":
                    for k, test in enumerate(value):
                        yield self.mutant("condition", (item, "ifs", k), _not(test))
        elif isinstance(item, ast.arguments):
            yield from self.defaults(item)

    # --- the operators ----------------------------------------------------------------------------

    def left_out(self, node: Any, place: Any) -> Iterator[Mutant]:
        """A statement less: what is dropped must be something a program can do without."""
        attribute = isinstance(node, ast.Assign) and any(
            isinstance(target, (ast.Attribute, ast.Subscript)) for target in node.targets
        )
        droppable = (ast.Expr, ast.AugAssign, ast.Raise, ast.For, ast.Continue, ast.Assert)
        if isinstance(node, droppable) or attribute:
            yield self.mutant("left out", place, ast.Pass())
        if isinstance(node, ast.Return) and node.value is not None:
            yield self.mutant("left out", place, ast.Return(ast.Constant(None)))
        if isinstance(node, (ast.If, ast.While)):
            yield self.mutant("condition", (node, "test", None), _not(node.test))
        if isinstance(node, ast.If):
            yield self.mutant("condition", (node, "test", None), ast.Constant(False))
            yield self.mutant("condition", (node, "test", None), ast.Constant(True))
        if isinstance(node, ast.With):
            for i in range(len(node.items)):
                nothing = ast.parse("__import__('contextlib').nullcontext()", mode="eval").body
                yield self.mutant("left out", (node.items[i], "context_expr", None), nothing)
        if isinstance(node, ast.AugAssign) and type(node.op) in BINARY:
            yield self.mutant("operator", (node, "op", None), BINARY[type(node.op)]())

    def expression(self, node: ast.expr, place: Any) -> Iterator[Mutant]:
        self.around.append(node)
        yield from self.here(node, place)
        if not isinstance(node, ast.JoinedStr):
            for name, value in ast.iter_fields(node):
                yield from self.children(node, name, value)
        self.around.pop()

    def here(self, node: Any, place: Any) -> Iterator[Mutant]:
        match node:
            case ast.Constant(value=bool(x)):
                yield self.mutant("constant", place, ast.Constant(not x))
            case ast.Constant(value=int(x)):
                yield self.mutant("constant", place, ast.Constant(x + 1))
                if x == 1:
                    yield self.mutant("constant", place, ast.Constant(0))
            case ast.Constant(value=float(x)):
                yield self.mutant(
                    "constant", place, ast.Constant(float(f"{x * 1.5:.6g}") if x else 1.0)
                )
            case ast.Constant(value=str(x)) if x and " " not in x:
                yield self.mutant("key", place, ast.Constant(x + "_"))
            case ast.BinOp(left=a, op=op, right=b):
                if type(op) in BINARY:
                    yield self.mutant("operator", (node, "op", None), BINARY[type(op)]())
                if isinstance(op, ORDERED) and ast.dump(a) != ast.dump(b):
                    yield self.mutant("operands", place, ast.BinOp(b, op, a))
                if isinstance(op, (ast.BitOr, ast.BitAnd)) and self.names:  # not of types
                    yield self.mutant("operands", place, a)
                    yield self.mutant("operands", place, b)
            case ast.UnaryOp(op=ast.USub() | ast.Not(), operand=x):
                yield self.mutant("sign", place, x)
            case ast.Compare(ops=ops):
                for i, op in enumerate(ops):
                    for other in COMPARE[type(op)]:
                        yield self.mutant("comparison", (node, "ops", i), other())
            case ast.BoolOp(op=op, values=values):
                other = ast.And() if isinstance(op, ast.Or) else ast.Or()
                yield self.mutant("operator", (node, "op", None), other)
                for i in range(len(values)):
                    rest = values[:i] + values[i + 1 :]
                    fewer = rest[0] if len(rest) == 1 else ast.BoolOp(op, rest)
                    yield self.mutant("operands", place, fewer)
            case ast.IfExp(test=test, body=a, orelse=b):
                yield self.mutant("condition", (node, "test", None), _not(test))
                yield self.mutant("condition", place, a)
                yield self.mutant("condition", place, b)
            case ast.Call():
                yield from self.call(node, place)
            case ast.Name(id=name) if name in ERRORS and not isinstance(place[0], ast.Tuple):
                yield self.mutant("error", place, ast.Name("ArithmeticError", ast.Load()))

    def call(self, node: ast.Call, place: Any) -> Iterator[Mutant]:
        match node.func:
            case ast.Attribute(value=x, attr=name):
                if name in COPIES and not node.args and not node.keywords:
                    yield self.mutant("copy", place, x)
                other = _in_place(name)
                if other:
                    yield self.mutant("in place", (node.func, "attr", None), other)
                if name in NAMES:
                    yield self.mutant("function", (node.func, "attr", None), NAMES[name])
            case ast.Name(id=name):
                if name in WRAPPERS and node.args:
                    yield self.mutant("copy", place, node.args[0])
                if name in NAMES and len(node.args) > (name == "deepcopy"):
                    yield self.mutant("function", (node.func, "id", None), NAMES[name])
        any_order = isinstance(node.func, ast.Name) and node.func.id in ("min", "max")
        starred = any(isinstance(a, ast.Starred) for a in node.args[:2])
        if len(node.args) > 1 and not starred and not any_order:
            a, b, *more = node.args
            swapped = ast.Call(node.func, [b, a, *more], node.keywords)
            yield self.mutant("operands", place, swapped)
        for i, keyword in enumerate(node.keywords):
            if keyword.arg is not None and not _is_assertion(keyword):
                rest = node.keywords[:i] + node.keywords[i + 1 :]
                yield self.mutant("argument", place, ast.Call(node.func, node.args, rest))

    # --- a mutant and its name --------------------------------------------------------------------

    def mutant(self, operator: str, place: Any, new: Any) -> Mutant:
        found = Mutant(
            self.file, ".".join(self.names), operator, "", "", place, new,
            self.in_default,
        )  # fmt: skip
        found.was, found.now = self.shown(found)
        return found

    def shown(self, mutant: Mutant) -> tuple[str, str]:
        """The code around the place, before and after: as much as it takes to know it again."""
        parent = mutant.place[0]
        inside = [n for n in self.around if n is not self.around[0]]
        candidates = [node for node in inside[::-1] if _holds(node, parent)]
        if mutant.operator == "left out" or parent is self.around[0]:
            candidates = []
        for node in [*candidates, self.around[0]]:
            was, now = _header(node), _header(self.copied(node, mutant))
            if len(was) >= SNIPPET:
                break
        if mutant.operator == "left out" and not isinstance(self.around[0], (ast.With, ast.Return)):
            now = "nothing"
        return _window(was, now)

    def copied(self, node: Any, mutant: Mutant) -> Any:
        """The node as it is with the fault."""
        old = mutant.put(mutant.new)
        inside = _holds(node, mutant.place[0])  # or else the statement itself is replaced
        copied = deepcopy(node) if inside else mutant.new
        mutant.put(old)
        return copied


def _holds(node: ast.AST, inner: Any) -> bool:
    return any(n is inner for n in ast.walk(node))


def _header(node: Any) -> str:
    """A statement without the block under it, on one line."""
    if hasattr(node, "body") and isinstance(node.body, list):
        node = deepcopy(node)
        node.body = [ast.Pass()]
        if hasattr(node, "orelse"):
            node.orelse = []
        text = ast.unparse(ast.fix_missing_locations(node)).removesuffix("pass").strip()
        return " ".join(text.split())
    if isinstance(node, ast.keyword):
        return f"{node.arg}={ast.unparse(node.value)}"
    return " ".join(ast.unparse(ast.fix_missing_locations(node)).split())


def _shared(a: str, b: str) -> int:
    """How many characters both begin with."""
    pairs = enumerate(zip(a, b, strict=False))
    return next((i for i, (x, y) in pairs if x != y), min(len(a), len(b)))


def _window(was: str, now: str) -> tuple[str, str]:
    """Of two long texts, what differs and a little around it."""
    if max(len(was), len(now)) <= 2 * WINDOW or now == "nothing":
        return was, now
    start = _shared(was, now)
    end = _shared(was[start:][::-1], now[start:][::-1])

    def cut(text: str) -> str:
        first, last = max(start - WINDOW, 0), min(len(text) - end + WINDOW, len(text))
        return "..." * (first > 0) + text[first:last] + "..." * (last < len(text))

    return cut(was), cut(now)


def _not(test: ast.expr) -> ast.expr:
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return test.operand
    return ast.UnaryOp(ast.Not(), test)


def _is_assertion(node: ast.AST) -> bool:
    return isinstance(node, ast.keyword) and node.arg == "strict"


def _identity() -> ast.expr:
    return ast.parse("(lambda f: f)", mode="eval").body


def _in_place(name: str) -> str | None:
    if name in IN_PLACE:
        return name + "_"
    return name[:-1] if name.endswith("_") and name[:-1] in IN_PLACE else None
