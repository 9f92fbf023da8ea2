"""Find lines of an installed package by name and by what they say, and show them.

The same code serves the site (`walkthrough.panels`) and a running notebook (`walkthrough.show`).
A name such as ``torch.optim.adam._single_tensor_adam`` is looked up in the *text* of the package,
without importing it. So decorators and patches cannot hide it, and a copy of another version can be
read in the same way.
"""

from __future__ import annotations

import ast
import difflib
import functools
import hashlib
import html
import importlib.metadata
import importlib.util
import itertools
import re
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NOTE_LINES = 6  # a note stands beside at most so many lines
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
Notes = dict[str | tuple[str, str], str]  # a line, or the first and the last of some: its text
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
        """The number of its first line, decorators included."""
        return min([self.node.lineno, *(d.lineno for d in self.node.decorator_list)])

    @property
    def last(self) -> int:
        """The number of its last line."""
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
        """File and line numbers."""
        first, last = self.lines[0][0], self.lines[-1][0]
        return f"{self.place.file}:{first}" + ("" if first == last else f"-{last}")

    @property
    def code(self) -> str:
        """The lines as text."""
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
def _parsed(path: Path, changed: int) -> tuple[str, ast.Module]:
    text = path.read_text(encoding="utf-8")
    return text, ast.parse(text)


def parsed(path: Path) -> tuple[str, ast.Module]:
    """The text of a file and its syntax tree, kept until the file changes."""
    return _parsed(path, path.stat().st_mtime_ns)


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
                text, tree = parsed(path)
                node = _definition(tree, parts[count:])
                if node is None:
                    inside = path.relative_to(folder).as_posix()
                    wanted = ".".join(parts[count:])
                    hint = _hint(wanted, [inner for inner, _ in definitions(tree)])
                    raise SourceError(f"{name}: no {wanted} in {inside}{hint}")
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


def definitions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, Definition]]:
    """The functions and classes of a module, and those inside its classes, by dotted name."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, Definition):
            yield prefix + node.name, node
        if isinstance(node, ast.ClassDef):
            yield from definitions(node, f"{prefix}{node.name}.")
        elif isinstance(node, (ast.If, ast.Try)):
            yield from definitions(node, prefix)


def _hint(lost: str, present: Iterable[str]) -> str:
    """Where a name or a line is lost: the one that resembles it most."""
    close = difflib.get_close_matches(lost, present, n=1, cutoff=0.7)
    return f"; there is {close[0]!r}" if close else ""


def excerpt(
    name: str,
    start_at: str | None = None,
    end_before: str | None = None,
    end_at: str | None = None,
    emphasize: str | list[str] | None = None,
    notes: Notes | None = None,
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
            note, the next blank line, or the sixth. A key that is a pair of texts names the first
            and the last line.
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
        lines = [all_lines[n - 1].strip() for n in numbers[start:]]
        raise SourceError(f"{name}: no line contains {anchor!r}{after}{_hint(anchor, lines)}")

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
    places = []
    for key, note in (notes or {}).items():
        first, last = (key, None) if isinstance(key, str) else key
        start = find(first)
        places.append((start, None if last is None else find(last, start), first, note))
    placed: list[tuple[int, int, str]] = []
    places.sort(key=lambda place: place[0])
    for k, (start, last, first, note) in enumerate(places):
        following = places[k + 1][0] if k + 1 < len(places) else len(shown)
        if last is None:
            stop = min(following, start + NOTE_LINES)
            while stop > start + 1 and any(not line.strip() for line in shown[start:stop]):
                stop -= 1
        else:
            stop = last + 1
        if not start < stop <= following:
            raise SourceError(f"{name}: the note at {first!r} and the next one share a line")
        if stop - start > NOTE_LINES:
            raise SourceError(
                f"{name}: the note at {first!r} stands beside {stop - start} lines, "
                f"more than {NOTE_LINES}"
            )
        placed.append((start, stop - start, note))
    version = version_of(name.split(".")[0])
    return Excerpt(place, list(zip(numbers, shown, strict=True)), version, marked, placed)


def digest(place: Place, types: bool = True) -> str:
    """A short code for what a definition does.

    Comments, docstrings, blank lines, layout and the definition's own name do not count. It is the
    same under every version of Python.

    Args:
        place: the definition.
        types: whether annotations and ``cast`` count, which do nothing when the code runs.
    """
    text = "".join(_skeleton(place.node, types, top=True))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _skeleton(node: Any, types: bool, top: bool = False) -> Iterator[str]:
    """A syntax tree as text. `ast.dump` and `ast.unparse` differ between versions of Python."""
    if isinstance(node, list):
        for entry in node:
            yield from _skeleton(entry, types)
            yield ","
    elif not isinstance(node, ast.AST):
        yield repr(node)
    elif isinstance(node, ast.Call) and not types and ast.unparse(node.func) == "cast":
        yield from _skeleton(node.args[-1], types)
    elif isinstance(node, ast.AnnAssign) and not types:
        if node.value is not None:
            yield from _skeleton(ast.Assign([node.target], node.value), types)
    else:
        yield type(node).__name__ + "("
        for name, value in ast.iter_fields(node):
            absent = value is None and not isinstance(node, ast.Constant)
            if (
                absent
                or value == []
                or name in ("kind", "type_comment")
                or (top and name == "name")
            ):
                continue
            if not types and name in ("annotation", "returns"):
                continue
            if isinstance(node, ast.JoinedStr):
                value = _merged(value)
            if name == "body" and isinstance(node, Definition) and ast.get_docstring(node, False):
                value = value[1:]
            yield f"{name}="
            yield from _skeleton(value, types)
        yield ")"


def _merged(parts: list[ast.expr]) -> list[ast.expr]:
    """The parts of an f-string; some versions of Python cut its text in more pieces."""
    out: list[ast.expr] = []
    for part in parts:
        last = out[-1] if out else None
        if isinstance(part, ast.Constant) and isinstance(last, ast.Constant):
            out[-1] = ast.Constant(last.value + part.value)
        elif not isinstance(part, ast.Constant) or part.value:
            out.append(part)
    return out


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
        sides = "".join(_notebook_side(side) for side in self.sides)
        return f'<style>{_STYLE}</style><div class="walkthrough">{sides}</div>'


# Colours are those of JupyterLab's theme, light or dark; elsewhere those after the comma.
_STYLE = """
.walkthrough { display: flex; flex-wrap: wrap; gap: 12px; align-items: flex-start }
.walkthrough > div { flex: 1 1 30em; min-width: 0; border: 1px solid #8886; border-top: 3px solid
  #0a6c74; border-radius: 6px }
.walkthrough > div.torch { border-top-color: #c05a2b }
.walkthrough p { margin: 0; padding: 4px 10px; border-bottom: 1px solid #8886 }
.walkthrough p.note { border-top: 1px solid #8886; border-bottom: 0; white-space: normal }
.walkthrough pre { margin: 0; padding: 4px 0; overflow-x: auto; line-height: 1.5; font-size: 12px }
.walkthrough pre > span { display: block; width: max-content; min-width: 100% }
.walkthrough pre > span::before { content: attr(data-line); display: inline-block; width: 3em;
  padding-right: 1em; text-align: right; opacity: .65 }
.walkthrough pre > .mark { background: #f5c54230 }
.walkthrough :is(.k, .kc, .kn, .ow) { color: var(--jp-mirror-editor-keyword-color, #00700b) }
.walkthrough :is(.s1, .s2, .sd, .sa, .si) { color: var(--jp-mirror-editor-string-color, #b02020) }
.walkthrough :is(.c1, .ch) { color: var(--jp-mirror-editor-comment-color, #5a6a7a) }
.walkthrough :is(.mi, .mf) { color: var(--jp-mirror-editor-number-color, #075a2b) }
.walkthrough :is(.nf, .nc, .fm) { color: var(--jp-mirror-editor-def-color, #1548b8) }
"""


def highlighted(side: Excerpt) -> list[str]:
    """Each line as HTML: names of the classes are those of Pygments, where it is installed."""
    try:
        from pygments import highlight
        from pygments.formatters import HtmlFormatter
        from pygments.lexers import PythonLexer
    except ImportError:
        return [html.escape(line) for _, line in side.lines]
    text = highlight(side.code, PythonLexer(stripnl=False), HtmlFormatter(nowrap=True))
    lines = text.removesuffix("\n").split("\n")
    return lines + [""] * (len(side.lines) - len(lines))


def _notebook_side(side: Excerpt) -> str:
    notes = {i: (count, text) for i, count, text in side.notes}
    parts = [f"<p><code>{html.escape(title(side))}</code></p><pre>"]
    for i, ((number, _), line) in enumerate(zip(side.lines, highlighted(side), strict=True)):
        if i in notes:
            parts.append(f'</pre><p class="note">{_note(notes[i][1])}</p><pre>')
        mark = ' class="mark"' if number in side.emphasized else ""
        parts.append(f'<span{mark} data-line="{number}">{line}\n</span>')
    kind = side.place.name.split(".")[0]
    return f'<div class="{kind}">{"".join(parts)}</pre></div>'.replace("<pre></pre>", "")


def _note(text: str) -> str:
    """A note's markdown, the little of it that notes use; formulas are typeset by the notebook."""
    text = re.sub(r"\{[\w:]+\}`([^`<]*?)\s*(<[^`]*>)?`", r"\1", text)  # a role: what it says
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)  # a link: its text
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))


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

_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,}|:{3,})[ \t]*(\{[\w:-]+\})?[ \t]*([^`]*)$")
_OPTION = re.compile(r"^[ \t]*:(\w[\w-]*):[ \t]*(.*?)[ \t]*$")
_VERBATIM = ("", "{code-block}", "{code}", "{code-cell}", "{eval-rst}", "{math}", "{raw}")


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


@dataclass
class Written:
    """A panel as a page writes it, and what stands around it."""

    label: str  # its :name:, to link to
    arguments: dict[str, Any]  # of the call
    heading: str = ""
    before: str = ""  # the line of text before it
    after: str = ""  # the line of text after it


class PageReader:
    """Finds the panels in the markdown of one page, which may come in pieces (cells)."""

    def __init__(self) -> None:
        self.heading = ""
        self.before = ""
        self.waiting: list[Written] = []  # panels after which no text has come yet

    def read(self, markdown: str) -> list[Written]:
        """The panels of the next piece.

        Raises:
            SourceError: a panel holds no call of ``walkthrough.show`` with literals.
        """
        found = []
        opened: list[str] = []  # the fences of directives that hold markdown themselves
        lines = iter(markdown.splitlines())
        for line in lines:
            fence = _FENCE.match(line)
            if fence is None:
                self._text(line)
                continue
            marker, directive, rest = fence[1], fence[2] or "", fence[3].strip()
            if not directive and not rest and opened and marker.startswith(opened[-1]):
                opened.pop()
            elif directive and directive not in _VERBATIM:
                opened.append(marker)
            else:
                body = list(itertools.takewhile(lambda x, m=marker: x.strip() != m, lines))
                if directive == "{code-block}":
                    found += self._panel(body)
        return found

    def _text(self, line: str) -> None:
        line = line.strip()
        if re.match(r"#{1,6} ", line):
            self.heading, self.before = line.lstrip("# "), ""
            self.waiting.clear()
        elif line and not re.match(r"\(.*\)=$|:\w[\w-]*:|\$\$", line):
            self.before = line
            for panel in self.waiting:
                panel.after = line
            self.waiting.clear()

    def _panel(self, body: list[str]) -> list[Written]:
        options = dict(match.groups() for line in body if (match := _OPTION.match(line)))
        if "panel" not in options.get("class", "").split():
            return []
        text = "\n".join(line for line in body if not _OPTION.match(line))
        panel = Written(options.get("name", ""), call_arguments(text), self.heading, self.before)
        self.waiting.append(panel)
        return [panel]


def panels_in(markdown: str) -> list[dict[str, Any]]:
    """The panels of a piece of markdown, each with its call's arguments and its ``label``."""
    return [{"label": p.label, **p.arguments} for p in PageReader().read(markdown)]
