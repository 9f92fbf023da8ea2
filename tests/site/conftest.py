"""Pages in a real browser: Chromium from the system's packages, driven by Playwright.

`tools/test_site.py` builds the site, finds the browser and runs what is in this folder. A test asks
for `visit` and gets a page that is watched: what it asks for is noted, and refused if another host
is asked, and so are errors that the page logs.
"""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).resolve().parent.parent.parent
HTML = ROOT / "_build" / "html"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
OPTIONS = ["--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
OPTIONS += ["--disable-component-update", "--force-color-profile=srgb"]
OPTIONS += ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]  # nobody outside is reached
HERE = ("file:", "data:", "blob:", "http://127.0.0.1:")

# Before a page's own scripts: note what moves by itself, and how far. Two things may while the page
# arrives: the row of buttons above the text, and the columns of a table as rows are added. The last
# rows may move them in the first frame that is drawn of the whole page, but not in the second.
WATCH_SHIFTS = """
window.shifts = [];
let whole = Infinity;
document.addEventListener("DOMContentLoaded", () =>
  requestAnimationFrame(() => requestAnimationFrame((second) => (whole = second))));
new PerformanceObserver((list) => {
  for (const entry of list.getEntries())
    for (const { node, previousRect: a, currentRect: b } of entry.sources) {
      const free = ".header-article-items" + (entry.startTime < whole ? ", table" : "");
      const element = node instanceof Element ? node : node && node.parentElement;
      const [from, to] = [a, b].map((r) => [r.x, r.y, r.width, r.height].map(Math.round).join());
      if (element && !entry.hadRecentInput && !element.closest(free))
        window.shifts.push(`${from} → ${to}: ${element.outerHTML.slice(0, 150)}`);
    }
}).observe({ type: "layout-shift", buffered: true });
"""


def find_browser() -> str:
    """The browser to use: the one that CHROMIUM names, or the first that is installed."""
    named = os.environ.get("CHROMIUM", "")
    found = [path for name in (named, *BROWSERS) if name and (path := shutil.which(name))]
    if not found:
        raise FileNotFoundError(f"no browser: none of {', '.join(BROWSERS)} is installed")
    return found[0]


def pages() -> list[str]:
    """Every page of the site, as a path below _build/html; the redirect at its root is none."""
    found = (path.relative_to(HTML).as_posix() for path in HTML.rglob("*.html"))
    return sorted(p for p in found if not p.startswith("_static/") and p != "index.html")


@dataclass
class Visit:
    """An open page, and what it did that it should not."""

    page: Page
    requests: list[tuple[str, str]] = field(default_factory=list)  # address, kind
    outside: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Shows 404.html at an address that leads nowhere, as the hosts of such sites do."""

    protocol_version = "HTTP/1.1"

    def send_error(self, code: int, *args: object) -> None:
        missing = Path(self.directory) / "404.html"
        if code != 404 or not missing.is_file():
            return super().send_error(code, *args)
        body = missing.read_bytes()
        self.send_response(404)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a server on this machine that serves a folder."""
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(
            executable_path=find_browser(), args=OPTIONS, chromium_sandbox=False
        )
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def http_site() -> Iterator[str]:
    with served(HTML) as address:
        yield address


@pytest.fixture(scope="session")
def file_site() -> str:
    return HTML.as_uri() + "/"


@pytest.fixture
def visit(browser: Browser):
    """Opens an address: visit(url, width=1280, theme="light", motion=True, scripts=True)."""
    with visitor(browser) as open_page:
        yield open_page


@contextmanager
def visitor(browser: Browser) -> Iterator[Callable[..., Visit]]:
    contexts = []

    def open_page(
        url: str,
        width: int = 1280,
        theme: str = "light",
        motion: bool = True,
        scripts: bool = True,
    ) -> Visit:
        context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme=theme,
            reduced_motion="no-preference" if motion else "reduce",
            java_script_enabled=scripts,
            has_touch=True,
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(120_000)  # a machine may be busy; nothing waits for nothing
        seen = Visit(page)

        def note(request):
            seen.requests.append((request.url, request.resource_type))
            if not request.url.startswith(HERE):
                seen.outside.append(request.url)

        page.on("request", note)
        page.on("pageerror", lambda error: seen.errors.append(str(error)))
        page.on("console", lambda m: seen.errors.append(m.text) if m.type == "error" else None)
        if scripts:
            page.add_init_script(WATCH_SHIFTS)
        page.goto(url)
        page.wait_for_load_state("load")
        return seen

    yield open_page
    for context in contexts:
        context.close()


def build_play_page(folder: Path) -> str:
    """The address of a small page with every figure to play with, in the theme of the book."""
    from walkthrough.play import FIGURES

    (folder / "conf.py").write_text(
        "extensions = ['myst_parser', 'walkthrough.play']\n"
        "html_theme = 'sphinx_book_theme'\n"
        f"html_static_path = [{str(ROOT / 'book' / '_static')!r}]\n"
        "html_css_files = ['book.css']\n"
    )
    blocks = "".join(
        f"```{{code-block}} text\n:class: play\n:name: play-{name}\nInstead of {name}.\n```\n\n"
        for name in FIGURES
    )
    (folder / "index.md").write_text(f"# Figures\n\n{blocks}")
    command = [sys.executable, "-m", "sphinx", "-q", "-b", "html", ".", "out"]
    subprocess.run(command, cwd=folder, check=True)
    return (folder / "out" / "index.html").as_uri()


@pytest.fixture(scope="session")
def play_page(tmp_path_factory: pytest.TempPathFactory) -> str:
    return build_play_page(tmp_path_factory.mktemp("play"))
