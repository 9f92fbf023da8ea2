"""Find lines of an installed package by name and by what they say, and show them.

The same code serves the site (`walkthrough.panels`) and a running notebook (`walkthrough.show`).
A name such as ``torch.optim.adam._single_tensor_adam`` is looked up in the *text* of the package,
without importing it. So decorators and patches cannot hide it, and a copy of another version can be
read in the same way.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import html
import importlib.metadata
import importlib.util
import re
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NOTE_LINES = 6  # a note stands beside at most so many lines
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


class SourceError(LookupError):
    """A name or an anchor that is not in the source: the message says which."""


@dataclass(frozen=True)
class Place:
    """Where a definition stands: its file, the text of that file, and the definition in it."""

    name: str  # the dotted name it was asked for by
    path: Path
    file: str  # the path inside the package, torch/optim/sgd.py
    text: str
    node: Definition

    @property
    def first(self) -> int:
        return min([self.node.lineno, *(d.lineno for d in self.node.decorator_list)])

    @property
    def last(self) -> int:
        return self.node.end_lineno or self.node.lineno

    @property
    def docstring(self) -> range:
        """The line numbers of its docstring, none if it has none."""
        if ast.get_docstring(self.node, clean=False) is None:
            return range(0)
        expression = self.node.body[0]
        return range(expression.lineno, (expression.end_lineno or expression.lineno) + 1)


@dataclass(frozen=True)
class Excerpt:
    """The lines of a panel: numbered as in the file, without common indentation or docstring."""

    place: Place
    lines: list[tuple[int, str]]
    version: str
    emphasized: frozenset[int] = frozenset()
    notes: list[tuple[int, int, str]] = field(default_factory=list)  # first index, count, text

    @property
    def caption(self) -> str:
        first, last = self.lines[0][0], self.lines[-1][0]
        return f"{self.place.file}:{first}" + ("" if first == last else f"-{last}")

    @property
    def code(self) -> str:
        return "\n".join(line for _, line in self.lines)


@functools.cache
def package_root(package: str) -> Path:
    """The folder that holds the installed package."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SourceError(f"no package {package!r} is installed")
    return Path(next(iter(spec.submodule_search_locations))).parent


def version_of(package: str) -> str:
    """The version of an installed package without its build, 2.13.0; empty for our own packages."""
    if package in ("minioptim", "walkthrough"):
        return ""
    return importlib.metadata.version(package).split("+")[0]


@functools.cache
def _parsed(path: Path) -> tuple[str, ast.Module]:
    text = path.read_text(encoding="utf-8")
    return text, ast.parse(text)


def locate(name: str, root: Path | None = None) -> Place:
    """The definition with this dotted name.

    Args:
        name: package, module, then class or function, ``torch.optim.sgd.SGD.step``.
        root: the folder that holds the package, by default the installed one.

    Raises:
        SourceError: there is no such module, or no such definition in it.
    """
    parts = name.split(".")
    folder = root if root is not None else package_root(parts[0])
    for count in range(len(parts) - 1, 0, -1):
        stem = folder.joinpath(*parts[:count])
        for path in (stem.with_suffix(".py"), stem / "__init__.py"):
            if path.is_file():
                text, tree = _parsed(path)
                node = _definition(tree, parts[count:])
                if node is None:
                    inside = path.relative_to(folder).as_posix()
                    raise SourceError(f"{name}: no {'.'.join(parts[count:])} in {inside}")
                return Place(name, path, path.relative_to(folder).as_posix(), text, node)
    raise SourceError(f"{name}: no such module")


def _definition(tree: ast.AST, names: list[str]) -> Definition | None:
    """The definition of ``names`` inside a tree; of several with one name (overloads), the last."""
    found = None
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, Definition) and node.name == names[0]:
            found = node if len(names) == 1 else _definition(node, names[1:]) or found
        elif isinstance(node, (ast.If, ast.Try)):
            found = _definition(node, names) or found
    return found


def excerpt(
    name: str,
    start_at: str | None = None,
    end_before: str | None = None,
    end_at: str | None = None,
    emphasize: str | list[str] | None = None,
    notes: dict[str, str] | None = None,
    docstring: bool = False,
    root: Path | None = None,
) -> Excerpt:
    """The lines of a definition from one text to another.

    Args:
        name: as for `locate`.
        start_at: the first line that contains this text, by default the first of all.
        end_before: stop before the next line that contains this text.
        end_at: stop after it. At most one of the two.
        emphasize: all lines that contain this text, or one of these, are marked.
        notes: a text for the line that contains the key, and those that follow it up to the next
            note, the next blank line, or the sixth.
        docstring: show the docstring too.
        root: as for `locate`.

    Raises:
        SourceError: a name or a text that is not there.
    """
    place = locate(name, root)
    all_lines = place.text.split("\n")
    numbers = [
        n for n in range(place.first, place.last + 1) if docstring or n not in place.docstring
    ]

    def find(anchor: str, start: int = 0) -> int:
        for i in range(start, len(numbers)):
            if anchor in all_lines[numbers[i] - 1]:
                return i
        after = f" after line {numbers[start - 1]}" if start else ""
        raise SourceError(f"{name}: no line contains {anchor!r}{after}")

    if end_before is not None and end_at is not None:
        raise SourceError(f"{name}: give end_before or end_at, not both")
    begin = find(start_at) if start_at is not None else 0
    end = len(numbers)
    if end_before is not None:
        end = find(end_before, begin + 1)
    elif end_at is not None:
        end = find(end_at, begin) + 1
    numbers = numbers[begin:end]
    while numbers and not all_lines[numbers[-1] - 1].strip():
        numbers.pop()
    shown = textwrap.dedent("\n".join(all_lines[n - 1] for n in numbers)).split("\n")

    wanted = [emphasize] if isinstance(emphasize, str) else emphasize or []
    for text in wanted:
        find(text)
    marked = frozenset(n for n in numbers if any(text in all_lines[n - 1] for text in wanted))
    starts = sorted((find(text), note) for text, note in (notes or {}).items())
    placed = []
    for k, (i, note) in enumerate(starts):
        stop = min(starts[k + 1][0] if k + 1 < len(starts) else len(shown), i + NOTE_LINES)
        while stop > i + 1 and any(not line.strip() for line in shown[i:stop]):
            stop -= 1
        placed.append((i, stop - i, note))
    version = version_of(name.split(".")[0])
    return Excerpt(place, list(zip(numbers, shown, strict=True)), version, marked, placed)


def digest(place: Place) -> str:
    """A short code for what a definition does: comments, docstrings and layout do not count."""
    tree = ast.parse(ast.unparse(place.node))
    for node in ast.walk(tree):
        if isinstance(node, Definition) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return hashlib.sha256(ast.unparse(tree).encode()).hexdigest()[:16]


# --- a panel ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Panel:
    """One excerpt, or two side by side. In a running notebook it displays itself."""

    sides: list[Excerpt]

    def __repr__(self) -> str:
        blocks = []
        for side in self.sides:
            numbered = [f"{n:5d}  {line}" for n, line in side.lines]
            for i, _, note in reversed(side.notes):
                numbered.insert(i, f"       # {note}")
            blocks.append("\n".join([title(side), *numbered]))
        return "\n\n".join(blocks)

    def _repr_html_(self) -> str:
        sides = "".join(
            f'<div style="flex:1 1 28em;min-width:0"><div><code>{title(side)}</code></div>'
            f'<pre style="overflow-x:auto;margin:0">{"".join(self._rows(side))}</pre></div>'
            for side in self.sides
        )
        return f'<div style="display:flex;flex-wrap:wrap;gap:1em">{sides}</div>'

    @staticmethod
    def _rows(side: Excerpt) -> list[str]:
        notes = {i: text for i, _, text in side.notes}
        rows = []
        for i, (n, line) in enumerate(side.lines):
            if i in notes:
                rows.append(f'<em style="white-space:normal">{html.escape(notes[i])}</em>\n')
            weight = ";font-weight:bold" if n in side.emphasized else ""
            number = f'<span style="opacity:.6;user-select:none">{n:5d}  </span>'
            rows.append(f'<span style="{weight}">{number}{html.escape(line)}</span>\n')
        return rows


def title(side: Excerpt) -> str:
    """``torch/optim/sgd.py:340-352 (torch 2.13.0)``, or without version for our own code."""
    package = side.place.name.split(".")[0]
    return side.caption + (f" ({package} {side.version})" if side.version else "")


def show(
    name: str,
    *,
    start_at: str | None = None,
    end_before: str | None = None,
    end_at: str | None = None,
    emphasize: str | list[str] | None = None,
    notes: dict[str, str] | None = None,
    docstring: bool = False,
    beside: str | dict[str, Any] | None = None,
) -> Panel:
    """Show lines of an installed package, as the panels of the site do.

    Args:
        beside: a second name to show on the right, or a dict with ``name`` and the options above.
        name, start_at, end_before, end_at, emphasize, notes, docstring: see `excerpt`.

    Raises:
        SourceError: a name or a text that is not there.
    """
    left = excerpt(name, start_at, end_before, end_at, emphasize, notes, docstring)
    if beside is None:
        return Panel([left])
    return Panel([left, excerpt(**({"name": beside} if isinstance(beside, str) else beside))])


# --- panels written in pages ----------------------------------------------------------------------

_BLOCK = re.compile(r"^(`{3,}|:{3,})\{code-block\}[^\n]*\n(.*?)^\1\s*$", re.MULTILINE | re.DOTALL)


def call_arguments(text: str) -> dict[str, Any]:
    """The arguments of a written call ``walkthrough.show("name", start_at="text", ...)``.

    Raises:
        SourceError: it is not such a call, or an argument is not a literal.
    """
    try:
        call = ast.parse(textwrap.dedent(text).strip(), mode="eval").body
        if not isinstance(call, ast.Call) or ast.unparse(call.func) != "walkthrough.show":
            raise ValueError("it is not a call of walkthrough.show")
        names = [ast.literal_eval(argument) for argument in call.args]
        given = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
        return {**dict(zip(["name"], names, strict=True)), **given} if names else given
    except (SyntaxError, ValueError) as error:
        raise SourceError(f"a panel holds walkthrough.show(...) with literals: {error}") from None


def panels_in(markdown: str) -> list[dict[str, Any]]:
    """The panels of a page's markdown, each with the arguments of its call and its ``label``."""
    found = []
    for _, body in _BLOCK.findall(markdown):
        options = dict(re.findall(r"^:(\w[\w-]*):[ \t]*(.*?)[ \t]*$", body, re.MULTILINE))
        if "panel" in options.get("class", "").split():
            text = re.sub(r"^:\w[\w-]*:.*\n", "", body, flags=re.MULTILINE)
            found.append({"label": options.get("name", ""), **call_arguments(text)})
    return found
