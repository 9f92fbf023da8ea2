"""Source panels for the site: a Sphinx extension.

On a page a panel is an ordinary code block of the class ``panel`` that holds a call::

    ```{code-block} python
    :class: panel
    :name: panel-sgd-step
    walkthrough.show("torch.optim.sgd.SGD.step", start_at="for group",
                     beside="minioptim.sgd.SGD.rule")
    ```

In JupyterLab it stays a box with that call, to be pasted into a cell. In the site it becomes the
lines themselves, taken from the installed package. A name or a text that is not there is a warning
with page, name and text, so a build with ``-W`` fails.

A panel is linked to by its name, and its notes by that name and their number, counted over both
columns: ``[](#panel-sgd-step)``, ``[](#panel-sgd-step-note-1)``. Without a text of its own such a
link says file and lines.

Two more directives, ``{source-map}`` and ``{source-changes}``, make tables from all panels of the
book: see `walkthrough.sourcemap`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import yaml
from docutils import nodes
from docutils.nodes import make_id
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.directives.code import CodeBlock
from sphinx.domains.std import StandardDomain
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from . import source, sourcemap
from .source import Excerpt, SourceError, call_arguments, show

LOGGER = logging.getLogger(__name__)
OPENING = re.compile(r'<span class="p">[^<]*[(\[{]</span>')  # a long line may go on below after it


FOLD = 40  # what comes after so many lines is folded away ...
NEAR = 6  # ... except so many lines before and after a line that is marked or has a note ...
SPARED = 8  # ... and runs of so few lines


class panel_box(nodes.General, nodes.Element):
    """A ``<div>`` with classes, and an id if it has one."""


class panel_says(nodes.caption):
    """What a link to a panel or a note says if it has no text of its own; not shown itself."""


def skip(self: Any, node: nodes.Node) -> None:
    raise nodes.SkipNode


def visit_box(self: Any, node: panel_box) -> None:
    self.body.append(self.starttag(node, "div", CLASS=" ".join(node.get("kind", []))))


def depart_box(self: Any, node: panel_box) -> None:
    self.body.append("</div>\n")


def pass_box(self: Any, node: panel_box) -> None:
    """In other formats a panel is its code, one block after the other."""


class PanelBlock(CodeBlock):
    """``{code-block}``, which becomes a panel if it has the class ``panel``."""

    def run(self) -> list[nodes.Node]:
        if "panel" not in self.options.get("class", []):
            return super().run()
        made = self.env.metadata[self.env.docname].setdefault("panels", [])
        made.append(self.options.get("name", ""))
        try:
            arguments = call_arguments("\n".join(self.content))
            panel = show(**arguments)
        except (SourceError, TypeError) as error:
            LOGGER.warning("panel: %s", error, location=self.get_location(), type="panel")
            return []
        box = panel_box(kind=["panel", "panel-pair" if len(panel.sides) == 2 else "panel-single"])
        self.add_name(box)
        if not box["ids"]:
            count = self.env.new_serialno("panel")
            box["ids"].append(f"panel-{make_id(arguments['name'])}-{count}")
            self.state.document.note_explicit_target(box, box)
        box += panel_says("", panel.sides[0].caption)
        self.notes = 0
        for side in panel.sides:
            self.env.note_dependency(str(side.place.path))
            box += self.side(side, box["ids"][0])
        self.set_source_info(box)
        return [box]

    def side(self, side: Excerpt, panel_id: str) -> nodes.Node:
        package = side.place.name.split(".")[0]
        version = f" ({package} {side.version})" if side.version else ""
        file = side.place.file if side.version else f"src/{side.place.file}"
        caption = file + side.caption.removeprefix(side.place.file)
        link = f'<a class="headerlink" href="#{panel_id}" title="Link to this panel">#</a>'
        box = panel_box(
            kind=["panel-side", f"panel-{package}", *(["panel-noted"] * bool(side.notes))]
        )
        box += raw(
            f'<div class="panel-caption"><span><code>{caption}</code>{version}</span>{link}</div>'
        )
        rows = panel_box(kind=["panel-rows"])
        noted = {start: (count, text) for start, count, text in side.notes}
        lines = highlighted(side)
        for start, stop, folded in runs(side):
            block = code_block(lines[start:stop], side)
            if start in noted:
                rows += self.note(side, range(start, stop), *noted[start], panel_id)
            elif folded:
                first, last = side.lines[start][0], side.lines[stop - 1][0]
                rows += raw(
                    f'<details class="panel-fold"><summary>{stop - start} lines, '
                    f"{first}–{last}</summary>{block}</details>"
                )
            else:
                rows += raw(block)
        box += rows
        return box

    def note(self, side: Excerpt, lines: range, count: int, text: str, panel_id: str) -> panel_box:
        """A row: some lines and what there is to say about the first ``count`` of them."""
        self.notes += 1
        name = f"{panel_id}-note-{self.notes}"
        row = panel_box(kind=["panel-row"], ids=[name], names=[name])
        first, last = side.lines[lines[0]][0], side.lines[lines[0] + count - 1][0]
        row += panel_says("", f"{side.place.file}:{first}" + (f"-{last}" if last > first else ""))
        self.state.document.note_explicit_target(row, row)
        box = panel_box(kind=["panel-note"])
        box += self.parse_text_to_nodes(text)
        row += box
        link = f'<a class="headerlink" href="#{name}" title="Link to this note">#</a>'
        row += raw(code_block(highlighted(side)[lines.start : lines.stop], side, link))
        return row


def runs(side: Excerpt) -> Iterator[tuple[int, int, bool]]:
    """The lines of a side in runs: those with one note, those shown, those folded away."""
    of: dict[int, int] = {}  # the line that a line has its note in common with
    starts = [start for start, _, _ in side.notes] + [len(side.lines)]
    for (start, count, _), following in zip(side.notes, starts[1:], strict=True):
        stop = start + count
        if not any(line.strip() for _, line in side.lines[stop:following]):
            stop = following  # blank lines alone make no block of their own
        of.update(dict.fromkeys(range(start, stop), start))
    needed = [*of, *(i for i, (number, _) in enumerate(side.lines) if number in side.emphasized)]
    shown = set(range(FOLD)).union(*(range(i - NEAR, i + NEAR + 1) for i in needed))
    hidden: set[int] = set()
    for seen, run in itertools.groupby(range(len(side.lines)), lambda i: i in shown):
        lines = list(run)
        if not seen and len(lines) > SPARED:
            hidden.update(lines)
    indices = range(len(side.lines))
    for (_, folded), run in itertools.groupby(indices, lambda i: (of.get(i), i in hidden)):
        lines = list(run)
        yield lines[0], lines[-1] + 1, folded


def raw(text: str) -> nodes.raw:
    return nodes.raw("", text, format="html")


def highlighted(side: Excerpt) -> list[str]:
    """One string of HTML for each line, its number in an attribute so that it is not copied."""
    out = []
    before = None
    highlit = [OPENING.sub(r"\g<0><wbr>", line) for line in source.highlighted(side)]
    for (number, plain), line in zip(side.lines, highlit, strict=True):
        kinds = ["panel-line"]
        if number in side.emphasized:
            kinds.append("panel-mark")
        if before is not None and number != before + 1:
            kinds.append("panel-gap")  # a docstring was left out
        before = number
        indent = len(plain) - len(plain.lstrip())
        look = f' style="--in:{indent}"' if indent else ""
        out.append(f'<span class="{" ".join(kinds)}" data-line="{number}"{look}>{line}\n</span>')
    return out


def code_block(lines: list[str], side: Excerpt, link: str = "") -> str:
    label = f"{side.place.name}, {side.caption}"
    return (
        f'<div class="highlight panel-code"><pre role="group" aria-label="{label}">'
        f"{''.join(lines)}</pre>{link}</div>"
    )


def give_labels(app: Sphinx, doctree: nodes.document) -> None:
    """Make the names of panels and notes labels, as those of figures are, with a text to show."""
    domain = cast(StandardDomain, app.env.get_domain("std"))
    here = app.env.docname
    for box in doctree.findall(panel_box):
        said = next((node for node in box if isinstance(node, panel_says)), None)
        for name in box["names"] if said is not None else []:
            domain.labels[name] = here, box["ids"][0], said.astext()


# --- tables made from all panels ----------------------------------------------------------------


class BookDirective(SphinxDirective):
    """A table made from the panels of the whole book; its source is markdown, made afresh."""

    has_content = True
    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        book = Path(self.env.srcdir) / "book"
        self.env.note_reread()
        try:
            text = self.text(book, sourcemap.collect(book))
        except (SourceError, ValueError, yaml.YAMLError) as error:
            self.warn(str(error))
            return []
        box = panel_box(kind=["source-table"])
        box += self.parse_text_to_nodes(text)
        return [box]

    def text(self, book: Path, shown: list[sourcemap.Shown]) -> str:
        raise NotImplementedError

    def warn(self, message: str) -> None:
        LOGGER.warning("%s: %s", self.name, message, location=self.get_location(), type="panel")


class SourceMap(BookDirective):
    """``{source-map} count``, ``classes`` or ``functions``."""

    def text(self, book: Path, shown: list[sourcemap.Shown]) -> str:
        for fault in sourcemap.label_faults(book):
            self.warn(fault)
        tables = {
            "count": sourcemap.count_line,
            "classes": sourcemap.classes_table,
            "functions": sourcemap.functions_table,
        }
        if self.arguments[0] not in tables:
            raise ValueError(f"{self.arguments[0]!r} is none of {', '.join(tables)}")
        text = tables[self.arguments[0]](shown)
        if self.arguments[0] == "count":
            LOGGER.info(text.replace("`", ""))
        return text


class SourceChanges(BookDirective):
    """``{source-changes} VERSION``: what another release did to what the book shows.

    The content says it in words, one line ``name: words`` for each function.
    """

    def text(self, book: Path, shown: list[sourcemap.Shown]) -> str:
        version = self.arguments[0]
        self.env.note_dependency(str(book / sourcemap.RECORD))
        releases = sourcemap.load(book)["releases"]
        if version not in releases:
            raise ValueError(f"not recorded: run `make drift TORCH={version} RECORD=1`")
        words = yaml.safe_load("\n".join(self.content)) or {}
        text, lacking = sourcemap.release_table(shown, releases[version], words)
        for name in lacking:
            self.warn(f"{name} changed in {version}, and no words say how")
        return text


def missed_panels(app: Sphinx, env: BuildEnvironment) -> None:
    """The tables read the pages themselves: they must have seen what the builder saw."""
    for docname in env.found_docs:
        page = Path(env.doc2path(docname))
        if page.suffix in (".md", ".ipynb"):
            try:
                seen = [panel.label for panel in sourcemap.written(page)]
            except SourceError:
                continue  # a warning of the panel itself says so
            made = env.metadata[docname].get("panels", [])
            if seen != made:
                LOGGER.warning("panels made: %s; found: %s", made, seen, location=docname)


def configure(app: Sphinx, config: Config) -> None:
    # A panel has one copy button for all its lines (panels.js), not one for each block.
    config.copybutton_selector = "div.highlight:not(.panel-code) pre"


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_node(
        panel_box,
        html=(visit_box, depart_box),
        **{name: (pass_box, pass_box) for name in ("latex", "text", "man", "texinfo", "gettext")},
    )
    app.add_node(
        panel_says,
        **{name: (skip, None) for name in ("html", "latex", "text", "man", "texinfo", "gettext")},
    )
    app.add_directive("code-block", PanelBlock, override=True)
    app.add_directive("source-map", SourceMap)
    app.add_directive("source-changes", SourceChanges)
    app.connect("config-inited", configure)
    app.connect("env-check-consistency", missed_panels)
    app.connect("doctree-read", give_labels)
    app.add_css_file("panels.css")
    app.add_js_file("panels.js", loading_method="defer")
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


__all__ = ["setup"]
