"""What the site says to those who have not come yet: a Sphinx extension.

Every page has a description, for search engines, and a preview, for the places where a link to it
is pasted; and there is a page for addresses that lead nowhere. Addresses in a preview must be
whole, so it has a picture only where the site's own address is known: ``html_baseurl``, or else
the GitHub pages of the repository that ``_config.yml`` names.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util.nodes import clean_astext

from . import cover

LONGEST = 200  # characters of a description that are shown somewhere
PICTURE = "_static/preview.png"
PICTURE_SIZE = (1200, 630)  # pixels, the shape that previews have
PICTURE_ALT = (
    "Paths of three optimizers from one start into an oval bowl; circles, PyTorch's steps, lie on"
    " every line."
)
# pages that are not written by hand
DESCRIPTIONS = {
    "404": "There is no page at this address: search the book, or go to one of its pages.",
    "genindex": "Every name of the packages that this book documents, from A to Z.",
    "py-modindex": "The modules that this book documents.",
    "search": "Search all pages of this book, in the browser, with or without a network.",
    "third-party-notices": "The licences of everything that these pages show or carry.",
}


def base_url(given: str, repository: str) -> str:
    """The address of the site, with a slash at its end, or ``""`` if nobody said it.

    Args:
        given: ``html_baseurl``.
        repository: the address of the repository, for example https://github.com/you/your-fork.
    """
    if given:
        return given.rstrip("/") + "/"
    found = re.fullmatch(r"https://github\.com/([\w-]+)/([\w.-]+?)(\.git)?/?", repository)
    if not found:
        return ""
    owner, name = found.group(1).lower(), found.group(2)
    host = f"{owner}.github.io"
    return f"https://{host}/" if name.lower() == host else f"https://{host}/{name}/"


def know_the_address(app: Sphinx, config: Config) -> None:
    repository = config.html_theme_options.get("repository_url", "")
    config.html_baseurl = base_url(config.html_baseurl, repository)


def shorten(text: str, longest: int = LONGEST) -> str:
    """As many whole sentences as fit; of one that is too long, whole words."""
    text = " ".join(text.split())
    if len(text) <= longest:
        return text
    ends = [found.end() for found in re.finditer(r"[.?!](?= )", text[: longest + 1])]
    return text[: ends[-1]] if ends else text[: longest - 1].rsplit(" ", 1)[0] + "…"


def description(doctree: nodes.document) -> str:
    """The first paragraph of a page: each begins with what it is about."""
    for paragraph in doctree.findall(nodes.paragraph):
        if isinstance(paragraph.parent, nodes.section):
            return shorten(clean_astext(paragraph))
    return ""


def tags(page: dict[str, str]) -> Iterator[str]:
    """The elements for the head of a page.

    Args:
        page: ``title``, ``description``, ``site``, and, if it is known, the ``base`` address of
            the site and the ``path`` of the page below it.
    """
    yield f'<meta name="description" content="{html.escape(page["description"])}">'
    graph = {
        "type": "website" if page["path"].endswith("index.html") else "article",
        "site_name": page["site"],
        "title": page["title"],
        "description": page["description"],
    }
    if page["base"]:
        graph["url"] = page["base"] + page["path"]
        graph["image"] = page["base"] + PICTURE
        graph["image:width"], graph["image:height"] = map(str, PICTURE_SIZE)
        graph["image:alt"] = PICTURE_ALT
    for name, value in graph.items():
        yield f'<meta property="og:{name}" content="{html.escape(value)}">'
    card = "summary_large_image" if page["base"] else "summary"
    yield f'<meta name="twitter:card" content="{card}">'


def add_tags(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    title = (
        html.unescape(re.sub("<[^>]*>", "", context.get("title") or "")) or app.config.html_title
    )
    page = {
        "title": title,
        "description": description(doctree) if doctree else DESCRIPTIONS.get(pagename, title),
        "site": app.config.html_title,
        "base": app.config.html_baseurl,
        "path": app.builder.get_target_uri(pagename),
    }
    context["metatags"] = context.get("metatags", "") + "\n    ".join(["", *tags(page)]) + "\n"


def draw_picture(app: Sphinx, exception: Exception | None) -> None:
    if exception is None and app.builder.format == "html":
        width, height = PICTURE_SIZE
        cover.draw(Path(app.outdir) / PICTURE, size=(width / 200, height / 200))


# --- the page for an address that is none ---------------------------------------------------------

# It is shown at any address, so it carries all that it needs, and finds the root of the site by
# itself: it is written into it, or is that of the host; a project's GitHub pages have a folder.
MISSING = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<link rel="icon" href="data:,">
<title>No such page — {site}</title>
{base}{tags}
<style>
:root {{ color-scheme: light dark; --text: #1d2428; --back: #fff; --accent: #0a6c74; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --text: #dfe5e8; --back: #13181b; --accent: #6ccdd2; }}
}}
body {{ margin: 0; color: var(--text); background: var(--back);
  font: 1.06rem/1.65 system-ui, -apple-system, "Segoe UI", "Noto Sans", sans-serif; }}
main {{ max-width: 40rem; margin: 12vh auto; padding: 0 1.2rem; }}
h1 {{ font-size: 2.2rem; line-height: 1.2; letter-spacing: -0.015em; }}
a {{ color: var(--accent); text-underline-offset: 0.18em; }}
input, button {{ font: inherit; color: inherit; padding: 0.4rem 0.7rem; border-radius: 6px;
  border: 1px solid currentColor; background: var(--back);
  max-width: 100%; box-sizing: border-box; }}
:focus-visible {{ outline: 2px solid var(--accent); outline-offset: 2px; }}
</style>
</head>
<body>
<main>
<h1>There is no page here</h1>
<p>The address is wrong, or the page has moved. These are all pages of
<a href="{home}">{site}</a>:</p>
<ul>
{links}
</ul>
<form action="search.html" role="search">
<label for="q">Or look for a word:</label><br>
<input id="q" name="q" type="search"> <button>Search</button>
</form>
</main>
</body>
</html>
"""
FIND_BASE = """<script>
if (location.protocol !== "file:") {
  const base = document.createElement("base");
  const folder = location.hostname.endsWith(".github.io") && location.pathname.split("/")[1];
  base.href = folder ? `/${folder}/` : "/";
  document.head.append(base);
}
</script>"""


def missing_page(pages: list[tuple[str, str]], site: str, base: str) -> str:
    """The page for addresses that lead nowhere, whole.

    Args:
        pages: address below the root, and title, of each page of the book; the first is the first.
        site: the title of the book.
        base: see `base_url`.
    """
    links = "\n".join(f'<li><a href="{html.escape(to)}">{title}</a></li>' for to, title in pages)
    page = {"title": "No such page", "description": DESCRIPTIONS["404"], "site": site}
    return MISSING.format(
        site=html.escape(site),
        base=f'<base href="{html.escape(urlparse(base).path)}">\n' if base else f"{FIND_BASE}\n",
        tags="\n".join(tags(page | {"base": base, "path": "404.html"})),
        home=html.escape(pages[0][0]),
        links=links,
    )


def write_missing_page(app: Sphinx, exception: Exception | None) -> None:
    if exception is not None or app.builder.format != "html":
        return
    env, first = app.builder.env, app.config.root_doc
    names = [first, *(name for name in env.toctree_includes.get(first, []) if name != first)]
    pages = [
        (app.builder.get_target_uri(name), html.escape(clean_astext(env.titles[name])))
        for name in names
    ]
    text = missing_page(pages, app.config.html_title, app.config.html_baseurl)
    (Path(app.outdir) / "404.html").write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("config-inited", know_the_address)
    app.connect("html-page-context", add_tags)
    app.connect("build-finished", draw_picture)
    app.connect("build-finished", write_missing_page)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
