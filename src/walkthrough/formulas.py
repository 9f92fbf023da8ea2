"""Formulas, set when the book is built: a Sphinx extension.

MathJax draws them, in a JavaScript engine inside Python, so that a reader's browser loads and runs
nothing for them. A formula becomes a drawing (SVG) in the colour of the text, and beside it, for
those who listen, the same formula as MathML. A page carries the outline of each letter once.
A formula that MathJax cannot read is a warning, and so fails the build.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number

LOGGER = logging.getLogger(__name__)
COMPONENTS = ("adaptors/liteDOM", "input/tex-full", "output/svg")
# MathJax measures in units of its font's x-height; a formula is a tenth larger than the text,
# whose letters have the larger eyes
EM_PER_EX = 0.442 * 1.1
PHONE = 18  # a wider formula, in em, scrolls on a phone, and must do so by keyboard too
SCROLLS = {"tabindex": "0", "role": "group", "aria-label": "Formula"}

START = """
globalThis.global = globalThis;
globalThis.MathJax = {
  loader: {
    load: dukpy.components,
    paths: {mathjax: "."},
    require: (name) => (0, eval)(call_python("component", name)),
  },
  startup: {typeset: false},
  tex: {packages: {"[-]": ["noundefined", "noerrors"]}},  // an unknown command is an error
  svg: {fontCache: "global"},
};
"""
SET = """
(() => {
  const tree = MathJax.tex2svg(dukpy.tex, {display: dukpy.display});
  return [MathJax.startup.adaptor.innerHTML(tree),
    MathJax.tex2mml(dukpy.tex, {display: dukpy.display})];
})()
"""
GLYPHS = """
MathJax.startup.adaptor.innerHTML(MathJax.startup.document.outputJax.fontCache.getCache())
"""
LIGHTER = [
    (re.compile(r' (data-[\w-]+|xmlns|xmlns:xlink)="[^"]*"'), ""),
    (re.compile(r"\bxlink:href="), "href="),
    (re.compile(r"<g(?: transform=\"[^\"]*\")?></g>"), ""),
    (re.compile(r' role="img" focusable="false"'), ' aria-hidden="true" focusable="false"'),
    (re.compile(r"(-?[\d.]+)ex\b"), lambda m: f"{float(m.group(1)) * EM_PER_EX:.3f}em"),
]


class FormulaError(ValueError):
    """A formula that MathJax cannot read; the message is MathJax's."""


@dataclass(frozen=True)
class Formula:
    """A formula, drawn and told."""

    svg: str
    mathml: str

    def html(self) -> str:
        return f'{self.svg}<span class="formula-told">{self.mathml}</span>'


def mathjax_folder() -> Path:
    """Where the installed package keeps MathJax."""
    files = importlib.metadata.files("sphinx-mathjax-offline") or []
    for file in files:
        if file.name == "tex-chtml.js":
            return Path(str(file.locate())).parent
    raise FileNotFoundError("sphinx-mathjax-offline holds no tex-chtml.js")


class Typesetter:
    """MathJax, started once: TeX in, drawing and MathML out."""

    def __init__(self) -> None:
        import dukpy

        folder = mathjax_folder()
        self.engine = dukpy.JSInterpreter()
        self.engine.export_function(
            "component", lambda name: (folder / name).read_text(encoding="utf-8")
        )
        self.engine.evaljs(START + "0", components=COMPONENTS)
        self.engine.evaljs((folder / "startup.js").read_text(encoding="utf-8") + "; 0")
        self.known: dict[tuple[str, bool], Formula] = {}

    def set(self, tex: str, display: bool = False) -> Formula:
        """Set one formula.

        Args:
            tex: the formula, without dollar signs.
            display: on a line of its own.

        Raises:
            FormulaError: MathJax cannot read it.
        """
        if (tex, display) not in self.known:
            svg, mathml = self.engine.evaljs(SET, tex=tex, display=display)
            error = re.search(r'data-mjx-error="([^"]*)"', svg)
            if error:
                raise FormulaError(error.group(1))
            for pattern, new in LIGHTER:
                svg = pattern.sub(new, svg)
            mathml = re.sub(r' data-[\w-]+="[^"]*"', "", re.sub(r">\s+<", "><", mathml))
            self.known[tex, display] = Formula(svg, mathml)
        return self.known[tex, display]

    def glyphs(self) -> dict[str, str]:
        """The outline of each letter that was used so far, by its id."""
        found = re.findall(r'(<path id="([^"]+)".*?</path>)', self.engine.evaljs(GLYPHS))
        return {name: path for path, name in found}


@functools.cache
def typesetter() -> Typesetter:
    return Typesetter()


# --- into the pages -------------------------------------------------------------------------------


def html_of(node: nodes.Node, tex: str, display: bool) -> str:
    try:
        return typesetter().set(tex, display).html()
    except FormulaError as error:
        LOGGER.warning("formula: %s in %r", error, tex, location=node, type="formula")
        return ""


def width(drawn: str) -> float:
    """How wide a drawing is, in em."""
    found = re.search(r'<svg[^>]* width="([\d.]+)em"', drawn)
    return float(found.group(1)) if found else 0.0


def source(node: nodes.math_block) -> str:
    """The TeX of a displayed formula: rows without an environment are aligned."""
    text = node.astext().strip()
    if node.get("nowrap") or r"\\" not in text or text.startswith(r"\begin{"):
        return text
    return rf"\begin{{split}}{text}\end{{split}}"


def visit_math(self: Any, node: nodes.math) -> None:
    drawn = html_of(node, node.astext(), display=False)
    wide = width(drawn) > PHONE
    kinds = "math notranslate nohighlight" + " formula-wide" * wide
    self.body.append(self.starttag(node, "span", "", CLASS=kinds, **(SCROLLS if wide else {})))
    self.body.append(f"{drawn}</span>")
    raise nodes.SkipNode


def visit_displaymath(self: Any, node: nodes.math_block) -> None:
    if not node["ids"]:  # one without a name is linked to by what it says
        node["ids"].append(f"formula-{hashlib.sha256(node.astext().encode()).hexdigest()[:8]}")
    self.body.append(self.starttag(node, "div", "", CLASS="math notranslate nohighlight"))
    drawn = html_of(node, source(node), display=True)
    scrolls = SCROLLS if width(drawn) > PHONE else {}
    self.body.append(self.starttag({}, "div", "", CLASS="formula", **scrolls) + f"{drawn}</div>")
    number = f"({get_node_equation_number(self, node)})" if node.get("number") else ""
    self.body.append(f'<span class="eqno">{number}')
    self.add_permalink_ref(node, "Link to this formula")
    self.body.append("</span></div>\n")
    raise nodes.SkipNode


USED = re.compile(r'href="#(MJX-[^"]+)"')


def add_outlines(page: str, glyphs: dict[str, str]) -> str:
    """A finished page, with the outlines of the letters that its formulas use."""
    used = sorted(set(USED.findall(page)))
    if not used:
        return page
    outlines = "".join(glyphs[name] for name in used)
    drawing = f'<svg class="formula-letters" aria-hidden="true"><defs>{outlines}</defs></svg>'
    return re.sub(r"<body[^>]*>", lambda found: found.group() + drawing, page, count=1)


def finish(app: Sphinx, exception: Exception | None) -> None:
    if exception is not None or app.builder.format != "html":
        return
    glyphs = typesetter().glyphs()
    for path in Path(app.outdir).rglob("*.html"):
        before = path.read_text(encoding="utf-8")
        after = add_outlines(before, glyphs)
        if after != before:
            path.write_text(after, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_html_math_renderer("drawn", (visit_math, None), (visit_displaymath, None))
    app.connect("build-finished", finish)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": False}
