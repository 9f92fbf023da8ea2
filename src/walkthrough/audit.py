"""What the article says, claim by claim, and where the book settles it: a Sphinx extension.

`book/claims.yml` holds the claims and the systems. Here they are read and held against the pages
that they name: the target is there, and the code cell after it has the tag of the claim and asserts
something. From the same rows the page of the audit is made, with a directive::

    ```{article-audit} tally
    ```
    ```{article-audit} claims a12-a17
    ```

and likewise ``filter`` and ``systems``. The ids on that page (``claim-a12``, ``system-s05``) are
plain HTML: a target of that name belongs to the chapter, and all links of the book lead there.
"""

from __future__ import annotations

import ast
import collections
import functools
import html
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml
from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

LOGGER = logging.getLogger(__name__)
LIST = "claims.yml"
# in the order in which the page counts them
VERDICTS = {
    "right": "true as it is said",
    "imprecise": "a true core, but misleading, incomplete, or not what PyTorch does",
    "wrong": "contradicted by the source, by mathematics or by a run",
    "unsupported": "nothing shows it, or nothing can",
    "outdated": "once true",
}
MARKS = {"right": "✓", "imprecise": "≈", "wrong": "✗", "unsupported": "?", "outdated": "†"}
CLAIMS = [f"a{n:02d}" for n in range(1, 110)]
SYSTEMS = [f"s{n:02d}" for n in range(1, 37)]

Row = dict[str, str]


# --- the list, and the pages it names -------------------------------------------------------------


def load(book: Path) -> tuple[list[Row], list[Row]]:
    """The claims and the systems, each in the order of their numbers."""
    held = yaml.safe_load((book / LIST).read_text(encoding="utf-8"))
    claims, systems = (
        sorted(held[key], key=lambda row: int(row["id"][1:])) for key in ("claims", "systems")
    )
    return claims, systems


def missing(rows: Iterable[Row], wanted: Sequence[str]) -> list[str]:
    """Which of the wanted ids have no row."""
    here = {row["id"] for row in rows}
    return [name for name in wanted if name not in here]


def cells(book: Path, page: str) -> list[dict[str, Any]]:
    """The cells of a page; a page of markdown is one cell.

    Raises:
        FileNotFoundError: there is no such page.
    """
    path = book / f"{page}.ipynb"
    if not path.is_file():
        path = path.with_suffix(".md")
    return _cells(path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=32)
def _cells(path: Path, changed: int) -> list[dict[str, Any]]:
    """The cells of a file as it was at a time: many claims ask for the same page."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return [{"cell_type": "markdown", "source": text, "metadata": {}}]
    found = json.loads(text)["cells"]
    return [
        {
            "cell_type": cell["cell_type"],
            "source": "".join(cell["source"]),
            "metadata": cell["metadata"],
        }
        for cell in found
    ]


def title(book: Path, page: str) -> str:
    """The first heading of a page."""
    text = "\n".join(c["source"] for c in cells(book, page) if c["cell_type"] == "markdown")
    found = re.search(r"^# +(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else page


def tags(cell: dict[str, Any]) -> list[str]:
    return cell["metadata"].get("tags", [])


def asserts(source: str) -> list[str]:
    """The assertions of a cell that depend on a name: `assert True` settles nothing."""
    found = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Assert))
    return [
        ast.unparse(node)
        for node in found
        if any(isinstance(part, ast.Name) for part in ast.walk(node.test))
    ]


def faults(book: Path, home: str, tag: str = "") -> list[str]:
    """What is wrong with a home: its page, its target and, if a tag is given, its cell."""
    page, _, target = home.partition("#")
    try:
        here = cells(book, page)
    except FileNotFoundError:
        return [f"{home}: there is no such page"]
    places = [
        i
        for i, cell in enumerate(here)
        for _ in re.finditer(rf"^\({re.escape(target)}\)=$", cell["source"], re.MULTILINE)
        if cell["cell_type"] == "markdown"
    ]
    if len(places) != 1:
        return [f"{home}: the target stands there {len(places)} times"]
    if not tag:
        return []
    code = [i for i, cell in enumerate(here) if cell["cell_type"] == "code" and tag in tags(cell)]
    if len(code) != 1:
        return [f"{home}: {len(code)} code cells have the tag {tag}"]
    following = next(
        (i for i in range(places[0], len(here)) if here[i]["cell_type"] == "code"), None
    )
    if code[0] != following:
        return [f"{home}: the cell with the tag is not the one after the target"]
    if not asserts(here[code[0]]["source"]):
        return [f"{home}: the cell asserts nothing"]
    return []


def claim_faults(book: Path, row: Row) -> list[str]:
    """What a claim lacks: a verdict, a correction of one line, a cell that settles it."""
    name = row.get("id", "?")
    keys = {"id", "verdict", "claim", "correction", "home"}
    if set(row) != keys:
        return [f"{name}: the keys are {', '.join(row)}, not {', '.join(sorted(keys))}"]
    found = []
    if name not in CLAIMS:
        found.append(f"{name} is not one of a01 to a109")
    if row["verdict"] not in VERDICTS:
        found.append(f"{name}: {row['verdict']!r} is no verdict")
    for key in ("claim", "correction"):
        text = row[key]
        if "\n" in text or not 20 < len(text) < 200 or not text.endswith("."):
            found.append(f"{name}: the {key} is not one sentence of 20 to 200 characters")
    if row["home"].partition("#")[2] != f"claim-{name}":
        found.append(f"{name}: the home {row['home']} has not the id of the claim")
    return found + faults(book, row["home"], f"claim-{name}")


def system_faults(book: Path, row: Row) -> list[str]:
    """What a system lacks: a name, and a place where it works."""
    name = row.get("id", "?")
    if set(row) != {"id", "system", "home"}:
        return [f"{name}: the keys are {', '.join(row)}"]
    found = [] if name in SYSTEMS else [f"{name} is not one of s01 to s36"]
    if row["home"].partition("#")[2] != f"system-{name}":
        found.append(f"{name}: the home {row['home']} has not the id of the system")
    return found + faults(book, row["home"])


# --- the page -------------------------------------------------------------------------------------


class tag_box(nodes.General, nodes.TextElement):
    """Any HTML element: ``tag`` and ``attributes``. An id in them is no target of the book."""


def visit_tag(self: Any, node: tag_box) -> None:
    given = "".join(f' {k}="{html.escape(str(v))}"' for k, v in node["attributes"].items())
    self.body.append(f"<{node['tag']}{given}>")


def depart_tag(self: Any, node: tag_box) -> None:
    self.body.append(f"</{node['tag']}>" + "\n" * (node["tag"] not in ("span", "strong")))


def nothing(self: Any, node: tag_box) -> None:
    """In other formats the text alone is left."""


def element(tag: str, *inside: nodes.Node | str, **attributes: str) -> tag_box:
    """An HTML element with text, references or other elements inside; ``kind`` is its class."""
    named = {
        {"kind": "class"}.get(k, k.replace("_", "-").strip("-")): v for k, v in attributes.items()
    }
    box = tag_box(tag=tag, attributes=named)
    for part in inside:
        box += nodes.Text(part) if isinstance(part, str) else part
    return box


def ranges(text: str, wanted: Sequence[str]) -> list[str]:
    """The ids that ``a12-a17`` names.

    Raises:
        ValueError: it names none.
    """
    first, _, last = text.partition("-")
    if first not in wanted or (last or first) not in wanted:
        raise ValueError(f"{text!r} is no range of ids")
    return list(wanted[wanted.index(first) : wanted.index(last or first) + 1])


class ArticleAudit(SphinxDirective):
    """``{article-audit} tally``, ``filter``, ``claims a01-a11`` or ``systems``."""

    required_arguments = 1
    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        self.book = Path(self.env.srcdir) / "book"
        self.env.note_dependency(str(self.book / LIST))
        self.env.note_reread()
        self.env.metadata[self.env.docname]["article-audit"] = True
        parts = {
            "tally": self.tally,
            "filter": self.filter,
            "claims": self.claims,
            "systems": self.systems,
        }
        try:
            self.all_claims, self.all_systems = load(self.book)
            return parts[self.arguments[0]]()
        except (ValueError, KeyError, yaml.YAMLError) as error:
            self.warn(f"{type(error).__name__} {error}")
            return []

    def warn(self, message: str) -> None:
        LOGGER.warning("article-audit: %s", message, location=self.get_location())

    def link(self, home: str, text: str) -> nodes.Node:
        """A link to a target of another page."""
        target = home.partition("#")[2]
        reference = addnodes.pending_xref(
            "",
            nodes.inline("", text, classes=["std", "std-ref"]),
            refdomain="std",
            reftype="ref",
            reftarget=target,
            refexplicit=True,
            refwarn=True,
            refdoc=self.env.docname,
        )
        return reference

    def pages(self) -> dict[str, str]:
        """The pages that settle claims, in the order of the book, with their titles."""
        found = sorted({row["home"].partition("#")[0] for row in self.all_claims})
        return {page: title(self.book, page) for page in found}

    def tally(self) -> list[nodes.Node]:
        """How many claims have which verdict, on each page and in all."""
        pages = self.pages()
        count = collections.Counter(
            (row["home"].partition("#")[0], row["verdict"]) for row in self.all_claims
        )
        head = element(
            "tr", element("th", "verdict", scope="col"), element("th", "claims", scope="col")
        )
        body = []
        for verdict, words in VERDICTS.items():
            number = sum(count[page, verdict] for page in pages)
            row = element("tr", element("th", badge(verdict), scope="row"))
            row += element("td", str(number), kind="audit-number")
            row += element("td", words)
            body.append(row)
        head += element("th", "meaning", scope="col")
        settled = len(self.all_claims)
        body.append(
            element(
                "tr",
                element("th", "all", scope="row"),
                element("td", str(settled), kind="audit-number"),
                element("td", f"of {len(CLAIMS)} claims that the article makes"),
            )
        )
        table = table_of(head, body, "Claims by verdict", "audit-tally")
        rows = []
        for page, name in pages.items():
            row = element("tr", element("th", self.page_link(page, name), scope="row"))
            numbers = [count[page, verdict] for verdict in VERDICTS]
            for number in [*numbers, sum(numbers)]:
                row += element("td", str(number or "–"), kind="audit-number")
            rows.append(row)
        columns = [element("th", "settled in", scope="col")]
        columns += [
            element("th", badge(verdict), scope="col", kind="audit-number") for verdict in VERDICTS
        ]
        columns.append(element("th", "all", scope="col", kind="audit-number"))
        by_page = table_of(
            element("tr", *columns), rows, "Verdicts by the page that settles them", "audit-by-page"
        )
        return [table, by_page]

    def page_link(self, page: str, text: str) -> nodes.Node:
        return addnodes.pending_xref(
            "",
            nodes.inline("", text),
            refdomain="std",
            reftype="doc",
            reftarget=f"/book/{page}",
            refexplicit=True,
            refwarn=True,
            refdoc=self.env.docname,
        )

    def filter(self) -> list[nodes.Node]:
        """Two lists to choose from. Without a script they are not shown, and all claims are."""

        def choice(name: str, label: str, first: str, options: dict[str, str]) -> str:
            entries = {"": first} | options
            inside = "".join(
                f'<option value="{html.escape(key)}">{html.escape(text)}</option>'
                for key, text in entries.items()
            )
            return (
                f'<div><label for="audit-{name}">{label}</label> '
                f'<select id="audit-{name}" autocomplete="off">{inside}</select></div>'
            )

        count = collections.Counter(row["verdict"] for row in self.all_claims)
        verdicts = {verdict: f"{verdict} ({count[verdict]})" for verdict in VERDICTS}
        text = (
            '<form class="audit-filter" id="audit-filter" hidden>'
            + choice("verdict", "Verdict", "all verdicts", verdicts)
            + choice("page", "Settled in", "all pages", self.pages())
            + '<button type="reset">Show all</button>'
            + '<p role="status" id="audit-status"></p></form>'
        )
        return [nodes.raw("", text, format="html")]

    def claims(self) -> list[nodes.Node]:
        """Some claims, each with its verdict, what is correct, and the way to the cell."""
        if len(self.arguments) != 2:
            raise ValueError("which claims? For example: claims a12-a17")
        wanted = ranges(self.arguments[1], CLAIMS)
        rows = [row for row in self.all_claims if row["id"] in wanted]
        for row in rows:
            for fault in claim_faults(self.book, row):
                self.warn(fault)
        out: list[nodes.Node] = []
        if rows:
            out.append(element("ul", *(self.claim(row) for row in rows), kind="audit", role="list"))
        lacking = missing(rows, wanted)
        if lacking:
            names = ", ".join(name.upper() for name in lacking)
            out.append(nodes.paragraph("", f"Not settled yet: {names}."))
        return out

    def claim(self, row: Row) -> tag_box:
        page, _, target = row["home"].partition("#")
        number = row["id"].upper()
        return element(
            "li",
            element(
                "p",
                element("a", number, href=f"#{target}", kind="audit-id"),
                " ",
                badge(row["verdict"]),
                " ",
                element("strong", row["claim"]),
                kind="audit-claim",
            ),
            element("p", row["correction"]),
            element(
                "p",
                "Settled in ",
                self.link(row["home"], f"{title(self.book, page)}, {number}"),
                kind="audit-home",
            ),
            id=target,
            kind="audit-row",
            data_verdict=row["verdict"],
            data_page=page,
        )

    def systems(self) -> list[nodes.Node]:
        """What the article covers, and where it works."""
        rows = []
        for row in self.all_systems:
            for fault in system_faults(self.book, row):
                self.warn(fault)
            page, _, target = row["home"].partition("#")
            rows.append(
                element(
                    "tr",
                    element("th", row["id"].upper(), scope="row"),
                    element("td", row["system"]),
                    element("td", self.link(row["home"], title(self.book, page))),
                    id=target,
                )
            )
        head = element(
            "tr", *(element("th", text, scope="col") for text in ("id", "system", "works in"))
        )
        out: list[nodes.Node] = [
            table_of(head, rows, "The systems of the article", "audit-systems")
        ]
        lacking = missing(self.all_systems, SYSTEMS)
        if lacking:
            names = ", ".join(name.upper() for name in lacking)
            out.append(nodes.paragraph("", f"Not in the book yet: {names}."))
        return out


def badge(verdict: str) -> tag_box:
    """A verdict as a word with a mark, so that it does not depend on colour."""
    mark = element("span", MARKS[verdict], aria_hidden="true")
    return element("span", mark, f" {verdict}", kind=f"audit-verdict audit-{verdict}")


def table_of(head: tag_box, rows: Sequence[nodes.Node], caption: str, kind: str) -> tag_box:
    table = element(
        "table",
        element("caption", caption, kind="sr-only"),
        element("thead", head),
        element("tbody", *rows),
        kind=f"table {kind}",
    )
    return element("div", table, kind="pst-scrollable-table-container")


def add_script(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    if app.env.metadata.get(pagename, {}).get("article-audit"):
        app.add_css_file("audit.css")
        app.add_js_file("audit.js", loading_method="defer")


def chinese(
    name: str, rawtext: str, text: str, lineno: int, inliner: Any, **kwargs: Any
) -> tuple[list[nodes.Node], list[nodes.system_message]]:
    """``{zh}`text```: a word of the article, marked as Chinese for who has it read aloud."""
    return [element("span", text, lang="zh")], []


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_node(
        tag_box,
        html=(visit_tag, depart_tag),
        **{name: (nothing, nothing) for name in ("latex", "text", "man", "texinfo", "gettext")},
    )
    app.add_directive("article-audit", ArticleAudit)
    app.add_role("zh", chinese)
    app.connect("html-page-context", add_script)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


__all__ = ["setup"]
