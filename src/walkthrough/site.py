"""What the site needs beyond the builder and its theme: a Sphinx extension.

- a change in the code or in a pinned version re-executes every notebook, two at a time;
- the picture of the first page is drawn;
- every page ends with licences, the torch that built it, the date and the third-party notices;
- faults of the theme that a reader would notice are mended in the finished pages.

Nothing here is needed to run a notebook: `import walkthrough` does not import this module.
"""

from __future__ import annotations

import datetime
import hashlib
import html
import importlib.metadata
import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import nbformat
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from jupyter_cache.executors.utils import ExecutionResult, single_nb_execution
from myst_nb.sphinx_ import NbMetadataCollector
from PIL import Image
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.environment import BuildEnvironment
from sphinx.errors import SphinxError
from sphinx.util import logging

from . import cover, formulas, icons

LOGGER = logging.getLogger(__name__)
NOTICES = "third-party-notices"
CODE_LICENCE = "MIT"
TEXT_LICENCE = "CC BY 4.0"

# --- what a change of re-executes everything ----------------------------------------------------


def code_digest(root: Path) -> str:
    """A digest of all that a notebook's output depends on besides the notebook itself."""
    digest = hashlib.sha256(sys.version.encode())
    digest.update(importlib.metadata.version("torch").encode())
    digest.update(os.environ.get("WALKTHROUGH_DEVICE", "").encode())
    pins = [root / name for name in ("requirements.txt", "constraints.txt", "pyproject.toml")]
    for path in [*pins, *sorted((root / "src").rglob("*.py"))]:
        if path.is_file():
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def cache_of(app: Sphinx, config: Config) -> Path:
    """Where the builder keeps the outputs of notebooks."""
    return Path(config.nb_execution_cache_path or Path(app.outdir).parent / ".jupyter_cache")


def forget_old_outputs(app: Sphinx, config: Config) -> None:
    """Drop the notebook cache when the code changed: its key is the notebook's text alone."""
    digest = config.walkthrough_code_digest = code_digest(Path(app.srcdir))
    cache = cache_of(app, config)
    stamp = cache / "code-digest"
    if cache.is_dir() and (not stamp.is_file() or stamp.read_text() != digest):
        LOGGER.info("src/ or a pinned version changed: every notebook is executed again")
        shutil.rmtree(cache)
    cache.mkdir(parents=True, exist_ok=True)
    stamp.write_text(digest)


# --- two notebooks at a time --------------------------------------------------------------------

AT_ONCE = 2


def execute_ahead(app: Sphinx, env: BuildEnvironment, docnames: Sequence[str]) -> None:
    """Execute what the builder would execute one by one; it finds the outputs in its cache.

    A notebook that fails is left to the builder, which runs it once more and says what is wrong.
    """
    if app.config.nb_execution_mode != "cache":
        return
    cache = get_cache(str(cache_of(app, app.config)))
    wanted: dict[str, nbformat.NotebookNode] = {}
    for path in (Path(env.doc2path(docname)) for docname in docnames):
        if path.suffix == ".ipynb":
            nb = nbformat.read(path, as_version=4)
            try:
                cache.match_cache_notebook(nb)
            except KeyError:
                wanted[str(path)] = nb
    if len(wanted) < 2:
        return
    LOGGER.info(f"Executing {len(wanted)} notebooks, {AT_ONCE} at a time ...")
    with ProcessPoolExecutor(AT_ONCE) as pool:
        run = partial(_execute, timeout=app.config.nb_execution_timeout)
        for path, done in zip(wanted, pool.map(run, wanted, wanted.values()), strict=True):
            if done.err is None:
                data = {"execution_seconds": done.time}
                bundle = CacheBundleIn(done.nb, path, data=data)
                cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)
                LOGGER.info(f"Executed {Path(path).name} in {done.time:.0f} seconds")


def _execute(path: str, nb: nbformat.NotebookNode, timeout: int) -> ExecutionResult:
    cwd = str(Path(path).parent)
    done = single_nb_execution(nb, cwd=cwd, timeout=timeout, allow_errors=False)
    done.err = done.err and RuntimeError(str(done.err))  # an error of a cell cannot be sent
    return done


# --- a failing cell fails the build -------------------------------------------------------------


class FailedCells(SphinxError):
    """Raised once all notebooks are executed; names each notebook and cell that failed."""

    category = "The notebooks do not run"


def describe(docname: str, traceback: str) -> str:
    """One line for the notebook and its cell, and the lines that say what happened."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", traceback).strip()
    cells = re.findall(r"Cell In\[(\d+)\]", plain)
    lines = [line for line in plain.splitlines() if line.strip()]
    where = f"code cell {cells[0]}: " if cells else ""
    own = [n for n, line in enumerate(lines) if "executing the following cell" in line]
    shown = "\n".join(f"    {line}" for line in lines[own[-1] + 1 if own else -12 :][-40:])
    return f"FAILED {docname}.ipynb, {where}{lines[-1][:200]}\n{shown}"


def refuse_failed_cells(app: Sphinx, env: BuildEnvironment) -> list[str]:
    """Stop before a page is written when a notebook did not run to its end."""
    failed = []
    for docname in sorted(env.found_docs):
        result = NbMetadataCollector.get_exec_data(env, docname)
        if result and not result["succeeded"]:
            failed.append(describe(docname, result["traceback"] or str(result["error"])))
    if failed:
        raise FailedCells("\n" + "\n".join(failed))
    return []


# --- the buttons of a fork ----------------------------------------------------------------------


def offer_binder(app: Sphinx, config: Config) -> None:
    """Show the repository and Binder buttons once the repository's address is filled in."""
    options = config.html_theme_options
    if options.get("repository_url"):
        options["use_repository_button"] = True
        options.setdefault("launch_buttons", {})["binderhub_url"] = "https://mybinder.org"
    else:
        options.pop("repository_url", None)
        options["launch_buttons"] = {}


# --- the picture of the first page ----------------------------------------------------------------


def draw_cover(app: Sphinx) -> None:
    try:
        cover.draw(Path(app.srcdir) / "_build" / "drawn" / "cover.png")
    except AssertionError as error:
        raise SphinxError(f"the picture of the first page: {error}") from error


# --- the footer ---------------------------------------------------------------------------------


def build_date() -> str:
    """Today, or the day that SOURCE_DATE_EPOCH names, for a reproducible build."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.datetime.fromtimestamp(int(epoch), datetime.UTC) if epoch else now
    return f"{day.day} {day:%B %Y}"


def torch_version() -> str:
    return importlib.metadata.version("torch").split("+")[0]


def add_footer(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    status = "book/reference/build-status"
    known = status in app.env.found_docs
    links = {"Build status": status} if known else {}
    links["Third-party notices"] = NOTICES
    config = app.config
    context["theme_extra_footer"] = (
        f"<p>© {config.copyright} {html.escape(config.author)}."
        f" Text {TEXT_LICENCE}, code {CODE_LICENCE}.</p>"
        f"<p>Built with torch {torch_version()} on {build_date()}. "
        + " · ".join(f'<a href="{context["pathto"](to)}">{word}</a>' for word, to in links.items())
        + "</p>"
    )


# --- third-party notices ------------------------------------------------------------------------

# distribution -> what of it a reader of the site gets
SHIPPED = {
    "torch": "excerpts of its source, shown in the source panels",
    "sphinx-mathjax-offline": "MathJax, which drew the formulas: the outlines of its letters",
    "sphinx-book-theme": "the layout of the pages: style sheet and script",
    "pydata-sphinx-theme": "the theme beneath it, with Bootstrap, Popper and Font Awesome Free",
    "jupyter-book": "style sheet",
    "Sphinx": "search and navigation scripts, style sheet",
    "snowballstemmer": "the word stemmer of the search, as a script",
    "Pygments": "the colours of the code",
    "myst-nb": "style sheet of notebook cells",
    "sphinx-copybutton": "the copy button of code blocks, with clipboard.js",
    "sphinx-togglebutton": "the script that unfolds hidden parts",
    "sphinx-design": "style sheet and script of grids and cards",
    "sphinx-exercise": "style sheet of exercises",
    "scikit-learn": "the 8×8 digits of the examples, which the figures show",
    "matplotlib": "the fonts drawn in the figures",
}
LICENCE_FILE = re.compile(r"(^|/)(licen[cs]e|copying|notice|authors)[^/]*$", re.IGNORECASE)


def licence_texts(name: str) -> Iterator[tuple[str, str]]:
    """The licence files that a distribution installed, those of its own top level first."""
    found = []
    for file in importlib.metadata.files(name) or []:
        path = file.as_posix()
        inside = re.sub(r"^[^/]+\.dist-info/(licenses/)?", "", path)
        vendored = "third_party/" in path or "/vendor" in path or "external" in path
        if LICENCE_FILE.search(path) and not path.endswith((".py", ".pyc")) and not vendored:
            found.append((inside.count("/"), inside, Path(str(file.locate()))))
    for _, inside, path in sorted(found):
        yield inside, path.read_text(encoding="utf-8", errors="replace")


# Licences that several of the files name without carrying them: how a text of each begins and ends.
# The texts are taken from packages that carry them.
COMMON = {
    "Apache License 2.0": (
        r"^\s*Apache License\s+Version 2\.0,",
        r"identification within third-party archives\.|limitations under the License\.",
    ),
    "SIL Open Font License 1.1": (
        r"^SIL OPEN FONT LICENSE Version 1\.1",
        r"OTHER DEALINGS IN THE FONT SOFTWARE\.",
    ),
    "MIT License": (r"^Permission is hereby granted", r"OTHER DEALINGS IN THE\s+SOFTWARE\."),
}
# said nowhere in the files themselves
UNSAID = {
    "scripts/bootstrap.js": "Popper, inside it: Copyright (c) 2019 Federico Zivolo. MIT License.",
    "the formulas": "MathJax: Copyright (c) The MathJax Consortium. Apache License 2.0.",
}


def common_text(name: str) -> tuple[str, str]:
    """A licence that packages share, and the name of the installed package it is copied from.

    Raises:
        SphinxError: no installed package carries it.
    """
    begin, end = COMMON[name]
    whole = re.compile(f"{begin}.*?(?:{end})", re.DOTALL | re.MULTILINE)
    for dist in sorted(importlib.metadata.distributions(), key=lambda d: d.name.lower()):
        for file in dist.files or []:
            if not LICENCE_FILE.search(file.as_posix()) or ".dist-info/" not in file.as_posix():
                continue
            try:
                text = Path(str(file.locate())).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError):
                continue
            found = whole.search(text)
            if found:
                return dist.name, found.group()
    raise SphinxError(f"no installed package carries the text of the {name}")


def banners(folder: Path) -> Iterator[tuple[str, str]]:
    """What scripts and style sheets say about themselves in their first lines or beside them."""
    said: dict[str, list[str]] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.name.endswith((".LICENSE.txt", ".min.js", ".css", ".js")):
            text = path.read_text(encoding="utf-8", errors="replace")
            notes = (
                [text] if path.suffix == ".txt" else re.findall(r"/\*!.{20,2000}?\*/", text, re.S)
            )
            for note in notes:
                if "LICENSE.txt" not in note and name not in said.setdefault(note.strip(), []):
                    said[note.strip()].append(name)
    for note, files in said.items():
        if files:
            yield ", ".join(files), note


def font_notes() -> Iterator[tuple[str, str]]:
    """Copyright and licence as the mathematics fonts themselves state them."""
    from fontTools.ttLib import TTFont

    said: dict[str, list[str]] = {}
    for path in sorted((formulas.mathjax_folder() / "output" / "chtml" / "fonts").rglob("*.woff")):
        names = TTFont(path)["name"]
        note = "\n".join(str(names.getDebugName(i) or "").strip() for i in (0, 13, 14)).strip()
        said.setdefault(note or "(the font file states nothing)", []).append(path.name)
    for note, files in said.items():
        yield ", ".join(files), note


def notices(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    """One page with the licence of everything that the site shows or ships."""

    def block(title: str, text: str) -> str:
        return (
            f"<details><summary>{html.escape(title)}</summary>"
            f"<pre class='licence'>{html.escape(text.strip())}</pre></details>"
        )

    parts = [
        "<section><h1>Third-party notices</h1>",
        "<p>These pages show or carry parts of other people's work. This list is made when the "
        "book is built, from the licence files of the packages that were installed.</p>",
    ]
    for name, use in sorted(SHIPPED.items(), key=lambda item: item[0].lower()):
        data = importlib.metadata.metadata(name)
        licence = data.get("License-Expression") or data.get("License") or ""
        licence = f" ({html.escape(licence)})" if licence and len(licence) < 60 else ""
        version = html.escape(data["Version"].split("+")[0])
        parts.append(
            f"<h2>{html.escape(name)} {version}</h2><p>Here: {html.escape(use)}{licence}.</p>"
        )
        texts = list(licence_texts(name))
        if name == "sphinx-mathjax-offline":  # it carries no licence file
            texts = [(f"fonts: {files}", note) for files, note in font_notes()]
        if not texts:
            LOGGER.warning("no licence file found for %s", name)
        parts.extend(block(title, text) for title, text in texts)
    parts.append("<h2>What the files say themselves</h2>")
    parts.extend(block(files, note) for files, note in banners(Path(app.outdir) / "_static"))
    parts.extend(block(files, note) for files, note in UNSAID.items())
    parts.append("<h2>Licences that are named above</h2>")
    for name in COMMON:
        package, text = common_text(name)
        parts.append(block(f"{name}, as {package} carries it", text))
    parts.append("</section>")
    yield NOTICES, {"title": "Third-party notices", "body": "\n".join(parts)}, "page.html"


# --- mending the finished pages -----------------------------------------------------------------

NOT_SHIPPED = (
    "readme.png",
    "scripts/fontawesome.js",
    "scripts/fontawesome.js.LICENSE.txt",
    "**/*.map",
)
MENDS = [
    # the colours were set by a script at the end of the page, and the page drawn without before
    (
        re.compile(r'(document\.documentElement\.dataset\.)theme = localStorage[^;]*"auto";'),
        r'\1theme = \1mode !== "auto" ? \1mode :'
        r' matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";',
    ),
    # the index of the search, the largest script, held up the drawing of every page
    (
        re.compile(r'<script (src="[^"]*(?:searchtools|language_data|searchindex)\.js[^"]*")>'),
        r"<script defer \1>",
    ),
    # 1.4 MB of script that serves custom icons only; the icons in use come from a web font
    (re.compile(r"<script[^>]*fontawesome[^>]*></script>\s*"), ""),
    (re.compile(r'<link rel="preload" as="script" href="[^"]*fontawesome[^"]*"\s*/?>\s*'), ""),
    # its name must contain what is written on it, "Search Ctrl+K"
    (re.compile(r'(<button class="btn search-button-field[^>]*) aria-label="Search"'), r"\1"),
    # a table that scrolls sideways must scroll by keyboard too
    (
        re.compile(r'<div class="pst-scrollable-table-container">'),
        '<div class="pst-scrollable-table-container" tabindex="0" role="group" aria-label="Table">',
    ),
    # the title above the side bar belongs to no landmark
    (
        re.compile(
            r'<div class="sidebar-primary-item">(\s*<a class="navbar-brand logo".*?</a>)</div>',
            re.S,
        ),
        r'<nav class="sidebar-primary-item" aria-label="Book">\1</nav>',
    ),
    # every exercise has the same id
    (re.compile(r'<section id="(exercise|solution)-content">'), r'<section class="\1-content">'),
    # opened from disk, the search cannot fetch the pages it found, to show a few lines of each
    (
        re.compile(r'(<script (?:defer )?src="_static/searchtools\.js[^"]*"></script>)'),
        r'<script>if (location.protocol === "file:")'
        r" DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;</script>\n    \1",
    ),
    # entries of a bibliography have a role that is no longer allowed there
    (re.compile(r'role="doc-biblioentry"'), 'role="listitem"'),
]


# a page with one of these is wider, and the browser must know before it has come to them
WIDE = re.compile(r'<div class="[^"]*\b(panel-pair|source-table)\b')


FIGURE = re.compile(r'<img ([^>]*)src="([^"]*_images/[^"]+\.png)"([^>]*)>')


def keep_place(page: Path, text: str) -> str:
    """Say how large each picture is, so that nothing moves when it comes, and load it when needed.

    Args:
        page: where the page stands; pictures are found from there.
        text: the page.
    """

    def sized(found: re.Match[str]) -> str:
        before, source, after = found.groups()
        with Image.open(page.parent / unquote(source)) as picture:
            wide, high = picture.size
        said = re.search(r'width: ?(\d+)px|width="(\d+)"', before + after)
        width = int(said.group(1) or said.group(2)) if said else wide
        lazy = "" if "cover" in before + after else ' loading="lazy" decoding="async"'
        size = f' width="{width}" height="{round(width * high / wide)}"'
        rest = re.sub(r' (style="width: ?\d+px;"|(?:width|height)="\d+")', "", f"{before}{after}")
        return f'<img src="{source}"{size}{lazy} {rest.strip(" /")}>'

    return FIGURE.sub(sized, text)


def mend_pages(app: Sphinx) -> None:
    for path in Path(app.outdir).rglob("*.html"):
        before = path.read_text(encoding="utf-8")
        after = before
        for pattern, new in MENDS:
            after = pattern.sub(new, after)
        after = keep_place(path, after)
        if WIDE.search(after):
            after = after.replace("<body ", '<body class="wide" ', 1)
        if after != before:
            path.write_text(after, encoding="utf-8")


def finish(app: Sphinx, exception: Exception | None) -> None:
    if exception is None and app.builder.format == "html":
        mend_pages(app)
        static = Path(app.outdir) / "_static"
        for name in NOT_SHIPPED:
            for path in static.glob(name):
                path.unlink()
        kept = icons.thin_out(Path(app.outdir))
        LOGGER.info("icons kept: %s", kept)


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_config_value("walkthrough_code_digest", "", "env")
    app.connect("config-inited", forget_old_outputs)
    app.connect("config-inited", offer_binder)
    app.connect("builder-inited", draw_cover)
    app.connect("env-before-read-docs", execute_ahead)
    app.connect("env-updated", refuse_failed_cells)
    app.connect("html-page-context", add_footer)
    app.connect("html-collect-pages", notices)
    app.connect("build-finished", finish)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
