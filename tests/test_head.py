"""What pages say to search engines and previews, and the page for an address that is none."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from docutils import nodes

from walkthrough import head

HERE = "https://you.github.io/fork/"


@pytest.mark.parametrize(
    ("given", "repository", "base"),
    [
        ("", "", ""),
        (
            "https://optim.example/book",
            "https://github.com/you/fork",
            "https://optim.example/book/",
        ),
        ("", "https://github.com/You/fork", HERE),
        ("", "https://github.com/you/fork.git", HERE),
        ("", "https://github.com/you/fork/", HERE),
        ("", "https://github.com/you/you.github.io", "https://you.github.io/"),
        ("", "https://forge.example/you/fork", ""),
    ],
)
def test_the_address_of_the_site(given: str, repository: str, base: str) -> None:
    assert head.base_url(given, repository) == base


def test_a_description_is_the_first_paragraph() -> None:
    note, first, second = (nodes.paragraph(text=text) for text in ("No.", "It is\nthis.", "More."))
    section = nodes.section("", nodes.title(text="T"), nodes.note("", note), first, second)
    document = nodes.document(None, None)
    document += section
    assert head.description(document) == "It is this."


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("One. Two.", "One. Two."),
        ("One sentence. Another one.", "One sentence."),
        ("Version 2.13 of it is long", "Version 2.13 of it…"),
    ],
)
def test_a_long_description_ends_where_one_can_stop(text: str, short: str) -> None:
    assert head.shorten(text, 20) == short


PAGE = {"title": 'A "B"', "description": "It is this.", "site": "S", "path": "book/a.html"}


def test_a_preview_has_whole_addresses_or_none() -> None:
    known = "".join(head.tags(PAGE | {"base": HERE}))
    assert f'property="og:image" content="{HERE}_static/preview.png"' in known
    assert f'property="og:url" content="{HERE}book/a.html"' in known
    assert 'content="summary_large_image"' in known
    unknown = "".join(head.tags(PAGE | {"base": ""}))
    assert "og:image" not in unknown
    assert "og:url" not in unknown
    for tags in (known, unknown):
        assert 'name="description" content="It is this."' in tags
        assert 'property="og:title" content="A &quot;B&quot;"' in tags


class Loads(HTMLParser):
    """What a page would fetch for itself."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("link", "img", "iframe", "script"):
            self.found += [v for k, v in attrs if k in ("src", "href") and v]


@pytest.mark.parametrize("base", ["", HERE])
def test_the_missing_page_carries_all_that_it_needs(base: str) -> None:
    text = head.missing_page(
        [("book/index.html", "First"), ("book/a.html", "A &amp; B")], "S", base
    )
    assert [link for link in Loads(text).found if not link.startswith("data:")] == []
    assert re.findall(r'<a href="([^"]+)">([^<]+)</a>', text) == [
        ("book/index.html", "S"),
        ("book/index.html", "First"),
        ("book/a.html", "A &amp; B"),
    ]
    assert ('<base href="/fork/">' in text) == bool(base)
    assert ("github.io" in text.replace(HERE, "")) == (not base)
