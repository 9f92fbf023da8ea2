"""Source panels for the site: a Sphinx extension.

On a page a panel is an ordinary code block of the class ``panel`` that holds a call::

    ```{code-block} python
    :class: panel
    :name: panel-sgd-step
    walkthrough.show("torch.optim.sgd.SGD.step", start_at="for group", beside="minioptim.SGD.rule")
    ```

In JupyterLab it stays a box with that call, to be pasted into a cell. In the site it becomes the
lines themselves, taken from the installed package. A name or a text that is not there is a warning
with page, name and text, so a build with ``-W`` fails.
"""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from docutils.nodes import make_id
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.directives.code import CodeBlock
from sphinx.util import logging

from .source import Excerpt, SourceError, call_arguments, show

LOGGER = logging.getLogger(__name__)
OPENING = re.compile(r'<span class="p">[^<]*[(\[{]</span>')  # a long line may go on below after it


class panel_box(nodes.General, nodes.Element):
    """A ``<div>`` with classes, and an id if it has one."""


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
        html_lines = highlighted(side)
        done = 0
        starts = [start for start, _, _ in side.notes] + [len(html_lines)]
        for k, (start, count, note) in enumerate(side.notes):
            after = starts[k + 1]
            if not any(line.strip() for _, line in side.lines[start + count : after]):
                count = after - start  # blank lines alone make no block of their own
            if start > done:
                rows += raw(code_block(html_lines[done:start], side))
            row = panel_box(kind=["panel-row"], ids=[f"{panel_id}-note-{k + 1}"])
            text = panel_box(kind=["panel-note"])
            text += self.parse_text_to_nodes(note)
            row += text
            row += raw(code_block(html_lines[start : start + count], side))
            rows += row
            done = start + count
        if done < len(html_lines):
            rows += raw(code_block(html_lines[done:], side))
        box += rows
        return box


def raw(text: str) -> nodes.raw:
    return nodes.raw("", text, format="html")


def highlighted(side: Excerpt) -> list[str]:
    """One string of HTML for each line, its number in an attribute so that it is not copied."""
    text = highlight(side.code, PythonLexer(stripnl=False), HtmlFormatter(nowrap=True))
    text = OPENING.sub(r"\g<0><wbr>", text)
    lines = text.rstrip("\n").split("\n")
    out = []
    before = None
    for (number, plain), line in zip(side.lines, lines, strict=True):
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


def code_block(lines: list[str], side: Excerpt) -> str:
    label = f"{side.place.name}, {side.caption}"
    return (
        f'<div class="highlight panel-code"><pre role="group" aria-label="{label}">'
        f"{''.join(lines)}</pre></div>"
    )


def configure(app: Sphinx, config: Config) -> None:
    # A panel has one copy button for all its lines (panels.js), not one for each block.
    config.copybutton_selector = "div.highlight:not(.panel-code) pre"


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_node(
        panel_box,
        html=(visit_box, depart_box),
        **{name: (pass_box, pass_box) for name in ("latex", "text", "man", "texinfo", "gettext")},
    )
    app.add_directive("code-block", PanelBlock, override=True)
    app.connect("config-inited", configure)
    app.add_css_file("panels.css")
    app.add_js_file("panels.js", loading_method="defer")
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


__all__ = ["setup"]
