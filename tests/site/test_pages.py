"""Every page of the site in a browser: from a server and from disk, wide, narrow, light, dark.

A page is opened twice: wide from the server, where what it loads is weighed, and narrow from disk.
Everything that is asked of all pages is asked there.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
import sys
from pathlib import Path
from urllib.parse import unquote, urljoin, urlparse

import pytest
from conftest import HTML, ROOT, Visit, pages
from playwright.sync_api import Page, expect

sys.path.insert(0, str(ROOT / "tools"))

from check_site import toc_pages

AXE = Path(importlib.util.find_spec("axe_playwright_python").origin).parent / "axe.min.js"
KB = 1000
WEIGHT, WITH_FORMULAS, BLOCKING = 280 * KB, 350 * KB, 100 * KB

# --- one visit, wide, from the server -------------------------------------------------------------


def weight(seen: Visit) -> dict[str, int]:
    """What a first visit loads, in bytes as a server sends them, pictures apart."""
    sent = {}
    for url, kind in seen.requests:
        if kind != "image" and own(url).is_file():
            sent[url] = len(gzip.compress(own(url).read_bytes(), 6))
    return sent


def own(url: str) -> Path:
    """The file of the site that is served at an address."""
    return HTML / unquote(urlparse(url).path).lstrip("/")


BLOCKERS = """() => [...document.querySelectorAll("head script[src]")]
  .filter((e) => !e.defer && !e.async).map((e) => e.src)"""


def too_heavy(seen: Visit, limit: int) -> list[str]:
    """Says so when a page weighs more than it may, or waits for a large script."""
    sent = weight(seen)
    heaviest = sorted(sent.items(), key=lambda item: -item[1])[:6]
    faults = [f"{sum(sent.values())} bytes: {heaviest}"] * (sum(sent.values()) > limit)
    for url in seen.page.evaluate(BLOCKERS):
        size = own(url).stat().st_size if own(url).is_file() else 0  # others have a test of theirs
        faults += [f"waits for {url}, {size} bytes"] * (size > BLOCKING)
    return faults


# of text that can be linked to or copied, what cannot; a block is as good as its outermost box
UNLINKED = """() => [...document.querySelectorAll(
    "article :is(div.math, figure:has(figcaption), .panel, [data-play])")]
  .filter((e) => {
    const link = e.querySelector("a.headerlink");
    const to = link && document.getElementById(decodeURIComponent(link.hash.slice(1)));
    return !(to && (to.contains(link)));
  }).map((e) => e.outerHTML.slice(0, 200))"""
UNCOPIED = """() => [...document.querySelectorAll("article div.highlight > pre")]
  .filter((e) => !e.closest(".cell_output") && e.textContent.trim())
  .filter((e) => !e.parentElement.querySelector("button.copybtn"))
  .map((e) => e.outerHTML.slice(0, 200))"""
HEAD = """() => Object.fromEntries([...document.head.querySelectorAll("meta[content]")]
  .map((e) => [e.name || e.getAttribute("property"), e.content]))"""


def says_too_little(page: Page) -> list[str]:
    """What the head of a page fails to say to search engines and previews."""
    head = page.evaluate(HEAD)
    faults = []
    if not 15 <= len(page.title()) <= 90:
        faults.append(f"the title is {page.title()!r}")
    if not 30 <= len(head.get("description", "")) <= 200:
        faults.append(f"the description is {head.get('description')!r}")
    if page.evaluate("document.documentElement.lang") != "en":
        faults.append("no language")
    wanted = {
        "og:description": head.get("description"),
        "og:site_name": "torch.optim, line by line",
        "twitter:card": head.get("twitter:card") or "a card",
    }
    faults += [f"{k} is {head.get(k)!r}" for k, v in wanted.items() if head.get(k) != v]
    if not head.get("og:title") or head["og:title"] not in page.title():
        faults.append(f"og:title is {head.get('og:title')!r}")
    return faults


# and a little later
SHIFTS = "() => new Promise((done) => setTimeout(() => done(shifts), 250))"
OUT_OF_LINE = """() => [...document.querySelectorAll("span.math:not(.formula-wide)")]
  .filter((e) => getComputedStyle(e).display !== "inline").length"""


def common_faults(seen: Visit) -> dict[str, object]:
    page = seen.page
    return {
        "asks another host": seen.outside,
        "errors": seen.errors,
        "formulas that are not drawn": page.locator(".math:not(:has(svg use))").count(),
        "formulas that are not on the line": page.evaluate(OUT_OF_LINE),
        "moves while it loads": page.evaluate(SHIFTS),
    }


@pytest.mark.parametrize("path", pages())
def test_a_page_is_light_still_findable_and_accessible(visit, http_site: str, path: str) -> None:
    seen = visit(http_site + path, motion=False)
    page = seen.page
    formulas = page.locator(".math").count()
    faults = common_faults(seen) | {
        "too heavy": too_heavy(seen, WITH_FORMULAS if formulas else WEIGHT),
        "says too little of itself": says_too_little(page),
        "cannot be linked to": page.evaluate(UNLINKED),
        "cannot be copied": page.evaluate(UNCOPIED),
        "not accessible": inaccessible(page),
    }
    assert {name: fault for name, fault in faults.items() if fault} == {}


# --- one visit, narrow, from disk -----------------------------------------------------------------

# Of pieces of code that look alike, and of formulas, ten are enough, and no rule asks what an icon
# is drawn with: the rules take a second for every thousand elements.
THIN = """() => {
  const seen = {};
  const often = (key) => (seen[key] = (seen[key] || 0) + 1) > 10;
  for (const token of document.querySelectorAll("pre span, dt :is(span, em)")) {
    const around = [token, token.parentElement, token.parentElement.parentElement];
    if (often(around.map((e) => e.className).join("|"))) token.replaceWith(...token.childNodes);
  }
  for (const drawn of document.querySelectorAll("button svg path, .formula-letters, wbr"))
    drawn.remove();
  for (const formula of document.querySelectorAll(".math, .formula"))
    if (!formula.querySelector(".formula") && often("formula")) formula.textContent = "x";
}"""
TURN = "t => { for (const k of ['theme', 'mode']) document.documentElement.dataset[k] = t }"


def inaccessible(page: Page) -> list[str]:
    """What axe finds, in light; and in dark, where only colours are others."""
    page.evaluate(THIN)
    page.add_script_tag(path=AXE)
    faults = []
    for theme, rules in (("light", "undefined"), ("dark", "['color-contrast']")):
        page.evaluate(TURN, theme)
        page.wait_for_function("() => document.getAnimations().length === 0")  # colours fade
        found = page.evaluate(
            f"() => axe.run(document, {{preload: false, resultTypes: ['violations'],"
            f" runOnly: {rules}}})"
        )
        faults += [
            f"{theme}: {v['id']}, {len(v['nodes'])} times: {v['nodes'][0]['html'][:200]}"
            for v in found["violations"]
        ]
    return faults


SIDEWAYS = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.mark.parametrize("path", pages())
def test_a_page_from_disk_fits_a_phone_and_is_accessible(visit, file_site: str, path: str) -> None:
    seen = visit(file_site + path, width=390, motion=False)
    faults = common_faults(seen) | {
        "wider than the screen by": max(seen.page.evaluate(SIDEWAYS), 0),
        "not accessible": inaccessible(seen.page),
    }
    assert {name: fault for name, fault in faults.items() if fault} == {}


# --- what a visitor does --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["http_site", "file_site"])
def test_search_finds_a_word(visit, request: pytest.FixtureRequest, kind: str) -> None:
    seen = visit(request.getfixturevalue(kind) + "search.html?q=condition+number")
    results = seen.page.locator("#search-results ul.search li a")
    expect(results.first).to_be_visible(timeout=20_000)
    assert any("01-gradient-descent" in (a.get_attribute("href") or "") for a in results.all())
    assert seen.outside == []
    assert seen.errors == []


@pytest.mark.parametrize("name", [p for p in toc_pages(ROOT) if (ROOT / f"{p}.ipynb").is_file()])
def test_every_notebook_can_be_downloaded(visit, http_site: str, name: str) -> None:
    """By the button above its page; what comes is the notebook that stands in the repository."""
    page = visit(f"{http_site}{name}.html", scripts=False).page
    button = page.locator("a.btn-download-source-button")
    assert button.count() == 1
    href = urljoin(page.url, button.get_attribute("href"))
    answer = page.request.get(href)
    assert answer.ok
    assert answer.json() == json.loads((ROOT / f"{name}.ipynb").read_text(encoding="utf-8"))


@pytest.mark.parametrize("where", ["nowhere.html", "book/reference/no/such/page.html"])
def test_an_address_that_is_none_leads_back(visit, http_site: str, where: str) -> None:
    seen = visit(http_site + where)
    page = seen.page
    expect(page.get_by_role("heading", level=1)).to_have_text("There is no page here")
    assert [url for url, _ in seen.requests if url.startswith("http")] == [http_site + where]
    links = page.locator("main a")
    assert links.count() == len(toc_pages(ROOT)) + 1
    for link in {a.evaluate("e => e.href") for a in links.all()}:
        assert page.request.get(link).ok, link
    page.get_by_label("look for a word").fill("momentum")
    page.keyboard.press("Enter")
    page.wait_for_url(f"{http_site}search.html?q=momentum")
    expect(page.locator("#search-results ul.search li a").first).to_be_visible(timeout=20_000)
