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
LOOKS = [(width, theme) for width in (1280, 390) for theme in ("light", "dark")]


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


@pytest.mark.parametrize("path", pages())
def test_a_page_is_accessible_and_fits(visit, file_site: str, path: str) -> None:
    """By the rules of axe, and without scrolling sideways."""
    seen = visit(file_site + path)
    page = seen.page
    page.add_script_tag(path=AXE)
    faults = []
    for width, theme in LOOKS:
        page.set_viewport_size({"width": width, "height": 900})
        page.evaluate(
            "t => { for (const k of ['theme', 'mode']) document.documentElement.dataset[k] = t }",
            theme,
        )
        page.wait_for_timeout(200)
        found = page.evaluate("() => axe.run(document, {preload: false, resultTypes: ['violations']})")
        faults += [
            f"{width} px, {theme}: {v['id']}: {v['nodes'][0]['html'][:150]}"
            for v in found["violations"]
        ]
        over = page.evaluate(
            "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        if over > 0:
            faults.append(f"{width} px, {theme}: the page is {over} px wider than the screen")
    assert faults == []


@pytest.mark.parametrize("kind", ["http_site", "file_site"])
def test_search_finds_a_word(visit, request: pytest.FixtureRequest, kind: str) -> None:
    seen = visit(request.getfixturevalue(kind) + "search.html?q=condition+number")
    results = seen.page.locator("#search-results ul.search li a")
    expect(results.first).to_be_visible(timeout=20_000)
    assert any("01-gradient-descent" in (a.get_attribute("href") or "") for a in results.all())
    assert seen.outside == []
    assert seen.errors == []
