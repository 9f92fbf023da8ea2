"""Every page of the site in a browser: from a server and from disk, wide, narrow, light, dark."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from conftest import pages
from playwright.sync_api import expect

AXE = Path(importlib.util.find_spec("axe_playwright_python").origin).parent / "axe.min.js"
ALL_SET = """() => [...document.querySelectorAll(".math")]
  .filter((e) => !e.querySelector("mjx-container, .katex")).length === 0"""


@pytest.mark.parametrize("kind", ["http_site", "file_site"])
@pytest.mark.parametrize("path", pages())
def test_a_page_asks_nobody_and_sets_its_mathematics(
    visit, request: pytest.FixtureRequest, path: str, kind: str
) -> None:
    seen = visit(request.getfixturevalue(kind) + path)
    seen.page.wait_for_function(ALL_SET, timeout=60_000)
    assert seen.page.locator("mjx-merror, .katex-error").count() == 0
    assert seen.outside == []
    assert seen.errors == []


# Of pieces of code that look alike, and of formulas, ten are enough: the rules take a second for
# every thousand elements.
THIN = """() => {
  const seen = {};
  const often = (key) => (seen[key] = (seen[key] || 0) + 1) > 10;
  for (const token of document.querySelectorAll("pre span, dt :is(span, em)")) {
    const around = [token, token.parentElement, token.parentElement.parentElement];
    if (often(around.map((e) => e.className).join("|"))) token.replaceWith(...token.childNodes);
  }
  for (const formula of document.querySelectorAll("mjx-container"))
    if (often("formula")) formula.replaceChildren("x");
}"""
TURN = "t => { for (const k of ['theme', 'mode']) document.documentElement.dataset[k] = t }"


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("path", pages())
def test_a_page_is_accessible_and_fits(visit, file_site: str, path: str, width: int) -> None:
    """By the rules of axe; in the dark only colours are others. And without sideways scrolling."""
    seen = visit(file_site + path, width=width, motion=False)
    page = seen.page
    page.wait_for_function(ALL_SET, timeout=60_000)
    over = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(over) <= 0, "the page is wider than the screen"
    page.evaluate(THIN)
    page.add_script_tag(path=AXE)
    faults = []
    for theme, rules in (("light", "undefined"), ("dark", "['color-contrast']")):
        page.evaluate(TURN, theme)
        page.wait_for_timeout(150)
        page.wait_for_function("() => document.getAnimations().length === 0")  # colours fade
        found = page.evaluate(f"() => axe.run(document, {{preload: false, runOnly: {rules}}})")
        faults += [
            f"{theme}: {v['id']}, {len(v['nodes'])} times: {v['nodes'][0]['html'][:200]}"
            for v in found["violations"]
        ]
    assert faults == []


@pytest.mark.parametrize("kind", ["http_site", "file_site"])
def test_search_finds_a_word(visit, request: pytest.FixtureRequest, kind: str) -> None:
    seen = visit(request.getfixturevalue(kind) + "search.html?q=condition+number")
    results = seen.page.locator("#search-results ul.search li a")
    expect(results.first).to_be_visible(timeout=20_000)
    assert any("01-gradient-descent" in (a.get_attribute("href") or "") for a in results.all())
    assert seen.outside == []
    assert seen.errors == []
