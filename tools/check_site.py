"""Check the built site: pages, links, pictures, downloads, and that nothing comes from outside.

    python tools/check_site.py       exit 1 and one line per fault, or say how much was checked

`tools/build.py` runs this after every build, because builders have ended well with a page missing.
"""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlparse

import yaml

ROOT = Path(__file__).resolve().parent.parent
FETCHED = {
    ("script", "src"),
    ("img", "src"),
    ("link", "href"),
    ("iframe", "src"),
    ("source", "src"),
}
NOT_FETCHED = {"canonical", "prev", "next", "index", "search", "author", "license"}


class Page(HTMLParser):
    """What a page points to, what it can be pointed at, and what its pictures say."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.images: list[tuple[str, str | None]] = []
        self.headings = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.anchors.update(v for k, v in attrs if k in ("id", "name") and v)
        self.headings += tag == "h1"
        if tag in ("a", "use") and found.get("href"):  # <use>: a letter of a formula
            self.links.append(found["href"] or "")
        if tag == "img":
            self.images.append((found.get("src") or "", found.get("alt")))
        for key, value in attrs:
            if (tag, key) in FETCHED and value and found.get("rel") not in NOT_FETCHED:
                self.fetched.append(value)


def toc_pages(root: Path) -> list[str]:
    """Every page that _toc.yml names, without suffix."""
    pages: list[str] = []

    def walk(entry: object) -> None:
        if isinstance(entry, dict):
            pages.extend(entry[key] for key in ("root", "file") if key in entry)
            for value in entry.values():
                walk(value)
        elif isinstance(entry, list):
            for value in entry:
                walk(value)

    walk(yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8")))
    return pages


def check(root: Path = ROOT) -> list[str]:
    """All faults of the site under _build/html, one line each."""
    site = root / "_build" / "html"
    if not (site / "index.html").is_file():
        return ["_build/html/index.html is missing"]
    faults = []
    for name in toc_pages(root):
        if not (site / f"{name}.html").is_file():
            faults.append(f"{name} stands in _toc.yml, but the site has no {name}.html")
        if (root / f"{name}.ipynb").is_file() and not (
            site / "_sources" / f"{name}.ipynb"
        ).is_file():
            faults.append(f"{name}.ipynb is not offered as a download")
    pages = {
        path: Page(path.read_text(encoding="utf-8"))
        for path in sorted(site.rglob("*.html"))
        if "_static" not in path.relative_to(site).parts
    }
    for path, page in pages.items():
        name = path.relative_to(site)
        if page.headings == 0 and name.as_posix() not in ("index.html", "search.html"):
            faults.append(f"{name}: no heading")
        faults.extend(f"{name}: {fault}" for fault in outside(page))
        faults.extend(f"{name}: {fault}" for fault in broken(path, page, pages))
        faults.extend(f"{name}: {fault}" for fault in mute(page))
    return faults


def outside(page: Page) -> list[str]:
    """What the page would fetch from another host."""
    hosts = [link for link in page.fetched if urlparse(link).netloc]
    return [f"fetches {link} from another host" for link in hosts]


def broken(path: Path, page: Page, pages: dict[Path, Page]) -> list[str]:
    """Links within the site that lead nowhere."""
    faults = []
    for link in [*page.links, *page.fetched, *(source for source, _ in page.images)]:
        parts = urlparse(link)
        if parts.scheme or parts.netloc or link in ("", "#"):
            continue
        where, anchor = urldefrag(link)
        where = unquote(where.split("?")[0])
        target = (path.parent / where).resolve() if where else path.resolve()
        if not target.exists():
            faults.append(f"link to {link}, which does not exist")
        elif anchor and target in pages and unquote(anchor) not in pages[target].anchors:
            faults.append(f"link to {link}: the page has no such anchor")
    return faults


def mute(page: Page) -> list[str]:
    """Pictures of the book that say nothing to who cannot see them."""
    faults = []
    for source, alt in page.images:
        if "_images/" in source and (not alt or alt.endswith((".png", ".svg", ".jpg"))):
            faults.append(f"picture {source.rsplit('/', 1)[-1]} has no alternative text")
    return faults


def main() -> int:
    faults = check()
    for fault in faults:
        print(fault, file=sys.stderr)
    if not faults:
        print(f"The site is whole: {len(toc_pages(ROOT))} pages of _toc.yml and all their links.")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
