"""Which functions of PyTorch the book shows, where, and what another PyTorch did to them.

The panels are read from the pages, the functions from the text of a package: the installed one, or
a copy. `book/source-map.yml` records a digest for each function, so that a change is noticed, and
which functions differ in other releases. Only `record` and `record_release` write it.
"""

from __future__ import annotations

import ast
import collections
import datetime
import difflib
import io
import json
import re
import tokenize
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from . import source
from .source import Definition, PageReader, Place, SourceError, excerpt, locate

RECORD = "source-map.yml"
HEAD = """\
# What the panels of the book show of PyTorch: a digest of each function's code, to notice a change;
# and the functions of torch.optim that differ in another release.
# Written by `make record` and `make drift TORCH=... RECORD=1`, never by hand.
"""

# The classes that the article promised to read, and the functions without which they are not read.
PROMISED = {
    "torch.optim.optimizer.Optimizer": (
        "Optimizer.__init__",
        "Optimizer.add_param_group",
        "Optimizer.zero_grad",
        "Optimizer.state_dict",
        "Optimizer.load_state_dict",
    ),
    "torch.optim.sgd.SGD": ("SGD.__init__", "SGD._init_group", "SGD.step", "_single_tensor_sgd"),
    "torch.optim.adam.Adam": (
        "Adam.__init__",
        "Adam._init_group",
        "Adam.step",
        "_single_tensor_adam",
    ),
    "torch.optim.adamw.AdamW": ("AdamW.__init__",),
    "torch.optim.lr_scheduler.LRScheduler": (
        "LRScheduler.__init__",
        "LRScheduler._initial_step",
        "LRScheduler.step",
        "LRScheduler._update_lr",
    ),
    "torch.optim.lr_scheduler.StepLR": ("StepLR.get_lr",),
    "torch.optim.lr_scheduler.MultiStepLR": ("MultiStepLR.get_lr",),
    "torch.optim.lr_scheduler.ExponentialLR": ("ExponentialLR.get_lr",),
    "torch.optim.lr_scheduler.CosineAnnealingLR": ("CosineAnnealingLR.get_lr",),
}

# Where ours has another name and no panel shows the two side by side.
COUNTERPARTS = {
    "torch.optim.optimizer._default_to_fused_or_foreach": "minioptim.optimizer.choose_engine",
    "torch.optim.optimizer._to_scalar": "minioptim.optimizer._squeeze",
    "torch.optim.optimizer._use_grad_for_differentiable": "minioptim.optimizer.Optimizer.step",
    "torch.optim.optimizer._view_as_real": "minioptim.engines.as_pairs",
    "torch.optim.optimizer.Optimizer.profile_hook_step": "minioptim.compat.hooked",
    "torch.optim.optimizer.Optimizer._patch_step_function": "minioptim.compat.hooked",
    "torch.optim.optimizer.Optimizer._process_value_according_to_param_policy": (
        "minioptim.optimizer._moved"
    ),
    "torch.optim.optimizer.Optimizer._group_tensors_by_device_and_dtype": (
        "minioptim.engines.foreach"
    ),
    "torch.optim.sgd.SGD.step": "minioptim.optimizer.Optimizer.step",
    "torch.optim.sgd.SGD._init_group": "minioptim.optimizer.Optimizer._update",
    "torch.optim.sgd.sgd": "minioptim.optimizer.choose_engine",
    "torch.optim.sgd._single_tensor_sgd": "minioptim.sgd.SGD.rule",
    "torch.optim.sgd._multi_tensor_sgd": "minioptim.engines.foreach",
    "torch.optim.adam.Adam.step": "minioptim.optimizer.Optimizer.step",
    "torch.optim.adam.Adam._init_group": "minioptim.adam.Adam.init_state",
    "torch.optim.adam.adam": "minioptim.optimizer.choose_engine",
    "torch.optim.adam._single_tensor_adam": "minioptim.adam.Adam.rule",
    "torch.optim.adam._multi_tensor_adam": "minioptim.engines.foreach",
    "torch.optim.lr_scheduler.StepLR.get_lr": "minioptim.lr_scheduler.StepLR",
    "torch.optim.lr_scheduler.MultiStepLR.get_lr": "minioptim.lr_scheduler.MultiStepLR",
    "torch.optim.lr_scheduler.ExponentialLR.get_lr": "minioptim.lr_scheduler.ExponentialLR",
    "torch.optim.lr_scheduler.CosineAnnealingLR.get_lr": "minioptim.lr_scheduler.CosineAnnealingLR",
}


# --- what the pages show --------------------------------------------------------------------------


@dataclass(frozen=True)
class Shown:
    """One side of a panel that shows something of PyTorch."""

    name: str  # of the function or class
    options: dict[str, Any]  # which part of it: the arguments of `excerpt`
    beside: tuple[str, ...]  # what the other side shows
    page: str  # the path of the page, from the folder above book/
    label: str  # the panel's name, to link to
    heading: str
    before: str  # the line of text before the panel
    after: str  # the line of text after it

    def lines(self, root: Path | None = None) -> list[tuple[int, str]]:
        return excerpt(self.name, **self.options, root=root).lines

    def code(self, root: Path | None = None) -> list[str] | None:
        """The lines it shows without comments; None if a text that it looks for is gone."""
        try:
            lines = self.lines(root)
        except SourceError:
            return None
        return code_lines(locate(self.name, root), lines[0][0], lines[-1][0])

    @property
    def span(self) -> tuple[str, int, int] | None:
        """File, first and last line in the installed package; None if that is lost."""
        try:
            lines = self.lines()
        except SourceError:
            return None
        return locate(self.name).file, lines[0][0], lines[-1][0]


def pages(book: Path) -> list[Path]:
    """Every page of the book, in order."""
    found = [path for kind in ("*.md", "*.ipynb") for path in book.rglob(kind)]
    return sorted(p for p in found if not any(x[0] in "._" for x in p.relative_to(book).parts))


def pieces(page: Path) -> list[str]:
    """The markdown of a page; of a notebook, that of each cell."""
    text = page.read_text(encoding="utf-8")
    if page.suffix != ".ipynb":
        return [text]
    cells = json.loads(text)["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]


def written(page: Path) -> list[source.Written]:
    """The panels of a page."""
    reader = PageReader()
    try:
        return [panel for piece in pieces(page) for panel in reader.read(piece)]
    except SourceError as error:
        raise SourceError(f"{page.name}: {error}") from None


def collect(book: Path, of: str = "torch.") -> list[Shown]:
    """Every side of every panel that shows something of PyTorch, page by page.

    Args:
        book: the folder of the pages.
        of: what the shown names begin with; with "" what the panels show of the book's own code
            is there too.

    Raises:
        SourceError: a panel that cannot be read; the message names the page.
    """
    found = []
    for page in pages(book):
        for panel in written(page):
            arguments = dict(panel.arguments)
            beside = arguments.pop("beside", None) or {}
            sides = [arguments, {"name": beside} if isinstance(beside, str) else dict(beside)]
            names = [side.pop("name", "") for side in sides]
            for i, (name, options) in enumerate(zip(names, sides, strict=True)):
                if name and name.startswith(of):
                    others = tuple(filter(None, names[:i] + names[i + 1 :]))
                    where = page.relative_to(book.parent).as_posix()
                    around = (panel.label, panel.heading, panel.before, panel.after)
                    found.append(Shown(name, options, others, where, *around))
    return found


def by_name(shown: Iterable[Shown]) -> dict[str, list[Shown]]:
    found: dict[str, list[Shown]] = {}
    for side in shown:
        found.setdefault(side.name, []).append(side)
    return dict(sorted(found.items()))


def label_faults(book: Path) -> list[str]:
    """Panels that cannot be linked to: without a name, or with one that is used twice."""
    faults = []
    homes: dict[str, str] = {}
    for page in pages(book):
        where = page.relative_to(book.parent).as_posix()
        for panel in written(page):
            if not panel.label:
                faults.append(f"{where}: the panel of {panel.arguments['name']} has no :name:")
            elif panel.label in homes:
                faults.append(f"{where}: {homes[panel.label]} has a panel {panel.label!r} too")
            homes.setdefault(panel.label, where)
    return faults


def different(shown: Iterable[Shown]) -> set[tuple[str, int, int]]:
    """The different excerpts of torch.optim: file, first line, last line."""
    spans = (side.span for side in shown if side.name.startswith("torch.optim."))
    return {span for span in spans if span is not None}


# --- what a package holds -------------------------------------------------------------------------


def functions_in(root: Path) -> dict[str, Place]:
    """Every function and method of torch.optim in a folder that holds torch."""
    found = {}
    for path in sorted((root / "torch" / "optim").rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        text, tree = source.parsed(path)
        for name, node in source.definitions(tree):
            if not isinstance(node, ast.ClassDef):  # of several with one name, the last
                full = f"{module}.{name}"
                found[full] = Place(full, path, path.relative_to(root).as_posix(), text, node)
    return found


def installed() -> Path:
    return source.package_root("torch")


def code_lines(place: Place, first: int = 0, last: int = 0) -> list[str]:
    """The lines of a definition, or some of them, without comments, docstrings and blank lines."""
    first, last = first or place.first, last or place.last
    lines = place.text.split("\n")[:last]
    for token in tokenize.generate_tokens(io.StringIO(place.text).readline):
        row, column = token.start
        if token.type == tokenize.COMMENT and row <= last:
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(place.node):
        if isinstance(node, Definition):
            for row in Place("", place.path, "", "", node).docstring:
                if row <= last:
                    lines[row - 1] = ""
    return [line.rstrip() for line in lines[first - 1 :] if line.strip()]


# --- what became of it ----------------------------------------------------------------------------

KINDS = {
    "code": "the code changed",
    "types": "only annotations changed",
    "moved": "it moved",
    "renamed": "it was renamed",
    "gone": "it is gone",
    "text": "a text that a panel looks for is gone",
    "unrecorded": "it is not recorded yet",
}


@dataclass
class Change:
    """What became of one function, and what is to be read again."""

    name: str
    kind: str  # one of KINDS
    said: str = ""
    again: list[Shown] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)  # what differs, if both versions are here
    spared: list[Shown] = field(default_factory=list)  # panels whose own lines are the same


def compare(
    shown: Iterable[Shown],
    digests: Mapping[str, str],
    root: Path | None = None,
    before: Path | None = None,
) -> list[Change]:
    """What differs from the recorded digests in a package, by default in the installed one.

    Args:
        shown: what the book shows.
        digests: the recorded ones, by name.
        root: the folder that holds the package.
        before: a folder with the package as it was recorded, to show the lines that differ; by
            default the installed one, if ``root`` is another.
    """
    before = installed() if before is None and root is not None else before
    changes = []
    others: dict[str, list[str]] | None = None
    for name, sides in by_name(shown).items():
        if name not in digests:
            changes.append(Change(name, "unrecorded", again=sides))
            continue
        try:
            place = locate(name, root)
        except SourceError as error:
            if others is None:
                others = _by_digest(root or installed())
            changes.append(_lost(name, str(error), others.get(digests[name], []), sides))
            continue
        if source.digest(place) != digests[name]:
            changes.append(_changed(name, place, digests[name], sides, root, before))
        for side in sides:
            try:
                side.lines(root)
            except SourceError as error:
                changes.append(Change(name, "text", str(error), [side]))
    return changes


def _by_digest(root: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, place in functions_in(root).items():
        found.setdefault(source.digest(place), []).append(name)
    return found


def _lost(name: str, error: str, same: list[str], sides: list[Shown]) -> Change:
    """A name that is not there any more: was it moved or renamed, or is it gone?"""
    last = name.split(".")[-1]
    moved = [other for other in same if other.split(".")[-1] == last]
    if moved:
        return Change(name, "moved", f"to {moved[0]}", sides)
    if same:
        return Change(name, "renamed", f"to {same[0]}", sides)
    return Change(name, "gone", error.removeprefix(f"{name}: "), sides)


def _changed(
    name: str,
    place: Place,
    recorded: str,
    sides: list[Shown],
    root: Path | None,
    before: Path | None,
) -> Change:
    change = Change(name, "code", f"{place.file}:{place.first}-{place.last}", sides)
    try:
        old = None if before is None else locate(name, before)
    except SourceError:
        old = None
    if old is not None and source.digest(old) == recorded:
        if source.digest(old, types=False) == source.digest(place, types=False):
            change.kind = "types"
        lines = difflib.unified_diff(code_lines(old), code_lines(place), n=0, lineterm="")
        change.lines = [line for line in lines if not line.startswith(("---", "+++", "@@"))]
        change.spared = [side for side in sides if side.code(before) == side.code(root)]
    return change


def release_differences(root: Path) -> dict[str, str]:
    """Every function of torch.optim that is not the installed one, and what became of it."""
    ours, theirs = functions_in(installed()), functions_in(root)
    digests = _by_digest(root)
    found = {}
    for name, place in ours.items():
        if name not in theirs:
            found[name] = _lost(name, "", digests.get(source.digest(place), []), []).kind
        elif source.digest(place) != source.digest(theirs[name]):
            bare = {source.digest(p, types=False) for p in (place, theirs[name])}
            found[name] = "types" if len(bare) == 1 else "code"
    return found


# --- the record -----------------------------------------------------------------------------------


def load(book: Path) -> dict[str, Any]:
    path = book / RECORD
    held = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None
    return {"torch": "", "digests": {}, "releases": {}} | (held or {})


def save(book: Path, held: Mapping[str, Any]) -> bool:
    """Write the record; whether that changed the file."""
    path = book / RECORD
    text = HEAD + yaml.safe_dump(dict(held), sort_keys=False, allow_unicode=True, width=100)
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return False
    path.write_text(text, encoding="utf-8")
    return True


def current_digests(shown: Iterable[Shown], root: Path | None = None) -> dict[str, str]:
    return {name: source.digest(locate(name, root)) for name in by_name(shown)}


def record(book: Path) -> bool:
    """Record what the book shows of the installed PyTorch; whether that changed the file."""
    held = load(book)
    held["torch"] = source.version_of("torch")
    held["digests"] = current_digests(collect(book))
    return save(book, held)


def record_release(book: Path, version: str, root: Path) -> bool:
    """Record which functions differ in another release; whether that changed the file."""
    held = load(book)
    found = {
        "against": source.version_of("torch"),
        "functions": len(functions_in(installed())),
        "differ": release_differences(root),
    }
    before = held["releases"].get(version, {})
    day = before.get("compared", "")
    if not day or {"compared": day, **found} != before:
        day = datetime.date.today().isoformat()
    held["releases"] = dict(
        sorted({**held["releases"], version: {"compared": day, **found}}.items())
    )
    return save(book, held)


# --- tables for the pages -------------------------------------------------------------------------


def _text(heading: str) -> str:
    """A heading as the text of a link in a table."""
    plain = re.sub(r"\{[\w:]+\}`([^`<]*?)\s*(<[^`]*>)?`", r"\1", heading)
    return re.sub(r"[|\[\]`*]", "", re.sub(r"\$[^$]*\$", "…", plain)).strip()


def _link(side: Shown, text: str = "") -> str:
    page = Path(side.page).stem
    number = re.match(r"\d+", page)
    chapter = number[0] if number else f"{page}:"
    return f"[{text or f'{chapter} {_text(side.heading)}'}](#{side.label})"


def _links(sides: Iterable[Shown]) -> str:
    """Links to panels; those under one heading after the first are only numbered."""
    texts: dict[str, list[Shown]] = {}
    for side in sides:
        texts.setdefault(side.page + side.heading, []).append(side)
    return ", ".join(
        " ".join(_link(side, str(n) if n > 1 else "") for n, side in enumerate(group, 1))
        for group in texts.values()
    )


def _module(name: str) -> str:
    """The part of a dotted name that is a module."""
    return locate(name).file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def counterparts(name: str, sides: Iterable[Shown]) -> list[str]:
    """What of ours does the same: shown beside it, else listed here, else of the same name."""
    found = [other for s in sides for other in s.beside if other.startswith("minioptim.")]
    if not found and name.startswith("torch.optim."):
        same = COUNTERPARTS.get(name, name.replace("torch.optim", "minioptim", 1))
        try:
            locate(same)
            found = [same]
        except SourceError:
            pass
    return list(dict.fromkeys(found))


def count_line(shown: list[Shown]) -> str:
    """How much of torch.optim the book shows, in one sentence."""
    excerpts = different(shown)
    names = {side.name for side in shown if side.name.startswith("torch.optim.")}
    files = sorted({file.removeprefix("torch/optim/") for file, _, _ in excerpts})
    return (
        f"{len(excerpts)} different panels show parts of {len(names)} functions and classes "
        f"of `torch.optim` {source.version_of('torch')}, from "
        + ", ".join(f"`{file}`" for file in files)
        + "."
    )


def parts_shown(shown: Iterable[Shown]) -> dict[str, list[tuple[int, int, Shown]]]:
    """The lines that panels show, by file."""
    found: dict[str, list[tuple[int, int, Shown]]] = {}
    for side in shown:
        if side.span is not None:
            file, first, last = side.span
            found.setdefault(file, []).append((first, last, side))
    return found


def showing(name: str, parts: Mapping[str, list[tuple[int, int, Shown]]]) -> Shown | None:
    """The first panel that shows lines of a function, as itself or as part of its class."""
    place = locate(name)
    for first, last, side in parts.get(place.file, []):
        if first <= place.last and last >= place.first:
            return side
    return None


def classes_table(shown: list[Shown]) -> str:
    """The promised classes: what of them has been read where, and what is to come."""
    parts = parts_shown(shown)
    rows = ["| class | file and lines | read | still to come |", "|---|---|---|---|"]
    for name, heart in PROMISED.items():
        place = locate(name)
        read, to_come = [], []
        for function in heart:
            short = function.split(".")[-1]
            side = showing(f"{_module(name)}.{function}", parts)
            if side is None:
                to_come.append(f"`{short}`")
            else:
                read.append(_link(side, f"`{short}`"))
        missing = ", ".join(to_come) if read else "all of it"
        rows.append(
            f"| `{name.split('.')[-1]}` | `{Path(place.file).name}:{place.first}-{place.last}` "
            f"| {', '.join(read) or '—'} | {missing if to_come else 'nothing'} |"
        )
    return "\n".join(rows)


def functions_table(shown: list[Shown]) -> str:
    """Every function that a panel shows, file by file."""
    files: dict[str, list[str]] = {}
    for name, sides in by_name(side for side in shown if side.span is not None).items():
        place = locate(name)
        ours = ", ".join(
            f"`{other.removeprefix('minioptim.')}`" for other in counterparts(name, sides)
        )
        short = name.removeprefix(_module(name) + ".")
        files.setdefault(place.file, []).append(
            f"| {place.first:06d} | `{short}` | {place.first}\u2060–\u2060{place.last} "
            f"| {_links(sides)} | {ours or '—'} | `{source.digest(place)}` |"
        )
    head = "| function | lines | shown in | in `minioptim` | digest |\n|---|---|---|---|---|"
    return "\n\n".join(
        f"**`{file}`**\n\n{head}\n" + "\n".join(re.sub(r"^\| \d+ ", "", r) for r in sorted(rows))
        for file, rows in sorted(files.items())
    )


def release_table(
    shown: list[Shown], release: Mapping[str, Any], words: Mapping[str, str]
) -> tuple[str, list[str]]:
    """What another release changed in what the book shows; and the functions that lack words."""
    rows = ["| function | what became of it | in words | shown in |", "|---|---|---|---|"]
    lacking = []
    named = by_name(shown)
    differ = dict(release["differ"])
    for name in sorted(differ):
        sides = [  # of the function itself, of its class, of a function inside it
            side
            for other, group in named.items()
            if f"{name}.".startswith(f"{other}.") or other.startswith(f"{name}.")
            for side in group
        ]
        if not sides:
            continue
        kind = differ.pop(name)
        if name not in words and kind != "types":
            lacking.append(name)
        what = words.get(name, "").strip()
        short = f"`{name.removeprefix('torch.optim.')}`"
        rows.append(f"| {short} | {KINDS[kind]} | {what} | {_links(sides)} |")
    read = [name for name in named if name.startswith("torch.optim.")]
    kinds = collections.Counter(release["differ"].values())
    found = ", ".join(f"of {kinds[kind]} {words}" for kind, words in KINDS.items() if kinds[kind])
    said = (
        f"Compared on {release['compared']} with torch {release['against']}. "
        f"Of {release['functions']} functions and methods of `torch.optim`, "
        f"{sum(kinds.values())} differ{': ' + found if found else ''}. "
        f"This book shows {len(read)} functions and classes; {len(rows) - 2} of them differ."
    )
    return said + ("\n\n" + "\n".join(rows) if len(rows) > 2 else ""), lacking
