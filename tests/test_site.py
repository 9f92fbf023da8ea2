"""What the site adds to the pages: the first picture, licences, mended pages, cached outputs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
import torch
from jupyter_cache import get_cache
from PIL import Image
from sphinx.errors import SphinxError

import minioptim
from walkthrough import cover, site

ROOT = Path(__file__).resolve().parent.parent


# --- the picture of the first page ----------------------------------------------------------------


def test_the_first_picture_shows_two_libraries_that_agree(tmp_path: Path) -> None:
    ours, theirs = cover.runs(minioptim), cover.runs(torch.optim)
    for name in cover.RUNS:
        assert torch.equal(ours[name].points, theirs[name].points), name
    cover.draw(tmp_path / "a" / "cover.png")
    with Image.open(tmp_path / "a" / "cover.png") as picture:
        assert picture.size == (1600, 620)


def test_there_is_no_first_picture_when_they_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Planted(minioptim.SGD):
        @staticmethod
        def rule(p, g, momentum_buffer, *, lr, momentum, dampening, nesterov):
            p.add_(g, alpha=-1.0000001 * lr)

    monkeypatch.setattr(minioptim, "SGD", Planted)
    with pytest.raises(AssertionError, match="SGD: ours is not PyTorch's"):
        cover.draw(tmp_path / "cover.png")
    assert not (tmp_path / "cover.png").exists()


# --- licences -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", site.COMMON)
def test_the_text_of_a_common_licence_is_whole(name: str) -> None:
    package, text = site.common_text(name)
    assert package
    assert len(text) > 900
    assert text.count("\n") > 10


def test_a_licence_that_nobody_carries_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(site.COMMON, "None", ("^There is no such licence", "end"))
    with pytest.raises(SphinxError, match="no installed package"):
        site.common_text("None")


@pytest.mark.parametrize("name", sorted(set(site.SHIPPED) - {"sphinx-mathjax-offline"}))
def test_what_is_shipped_carries_its_licence(name: str) -> None:
    texts = list(site.licence_texts(name))
    assert texts
    assert all(len(text) > 400 for title, text in texts if "AUTHORS" not in title)


# --- mended pages ---------------------------------------------------------------------------------


class App:
    """As much of a Sphinx application as the functions ask for."""

    def __init__(self, outdir: Path) -> None:
        self.outdir = outdir


def test_the_search_button_is_called_what_is_written_on_it(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text('<button class="btn search-button-field x" title="Search" aria-label="Search">')
    site.mend_pages(App(tmp_path))
    assert (
        page.read_text(encoding="utf-8")
        == '<button class="btn search-button-field x" title="Search">'
    )


def test_the_theme_is_known_before_anything_is_drawn(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    root = "document.documentElement.dataset"
    page.write_text(f'{root}.theme = localStorage.getItem("theme") || "auto";')
    site.mend_pages(App(tmp_path))
    assert page.read_text(encoding="utf-8") == (
        f'{root}.theme = {root}.mode !== "auto" ? {root}.mode :'
        ' matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";'
    )


@pytest.mark.parametrize(
    ("given", "size"),
    [
        ('style="width: 40px;" />', 'width="40" height="20"'),
        ("/>", 'width="80" height="40"'),
        ('width="60" height="7">', 'width="60" height="30"'),
    ],
)
def test_a_picture_keeps_its_place_before_it_comes(tmp_path: Path, given: str, size: str) -> None:
    (tmp_path / "_images").mkdir()
    Image.new("RGB", (80, 40)).save(tmp_path / "_images" / "a.png")
    text = f'<img alt="A > b" src="_images/a.png" {given}'
    lazy = 'loading="lazy" decoding="async"'
    assert site.keep_place(tmp_path / "x.html", text.replace(">", "&gt;", 1)) == (
        f'<img src="_images/a.png" {size} {lazy} alt="A &gt; b">'
    )


@pytest.mark.parametrize(("kind", "wide"), [("panel panel-pair", True), ("panel", False)])
def test_a_page_with_two_columns_of_code_is_wide(tmp_path: Path, kind: str, wide: bool) -> None:
    page = tmp_path / "page.html"
    page.write_text(f'<body id="x"><div class="{kind}"></div></body>')
    site.mend_pages(App(tmp_path))
    assert ('<body class="wide" id="x">' in page.read_text(encoding="utf-8")) == wide


def test_the_index_of_the_search_holds_up_nothing(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text('<script src="../searchindex.js"></script><script src="a.js"></script>')
    site.mend_pages(App(tmp_path))
    assert page.read_text(encoding="utf-8") == (
        '<script defer src="../searchindex.js"></script><script src="a.js"></script>'
    )


def test_from_disk_the_search_fetches_nothing(tmp_path: Path) -> None:
    page = tmp_path / "search.html"
    page.write_text('<script src="_static/searchtools.js?v=1"></script>')
    site.mend_pages(App(tmp_path))
    assert page.read_text(encoding="utf-8").startswith("<script>if (location.protocol === ")
    assert "SHOW_SEARCH_SUMMARY = false" in page.read_text(encoding="utf-8")


# --- what a change re-executes --------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["requirements.txt", "constraints.txt", "pyproject.toml", "src/minioptim/sgd.py"]
)
def test_a_change_in_code_or_pins_changes_the_digest(tmp_path: Path, name: str) -> None:
    for file in ("requirements.txt", "constraints.txt", "pyproject.toml", "src/minioptim/sgd.py"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("1")
    before = site.code_digest(tmp_path)
    assert site.code_digest(tmp_path) == before
    (tmp_path / name).write_text("2")
    assert site.code_digest(tmp_path) != before


@pytest.mark.parametrize("name", ["book/01.ipynb", "book/index.md", "tests/test_x.py"])
def test_a_change_elsewhere_does_not(tmp_path: Path, name: str) -> None:
    before = site.code_digest(tmp_path)
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_text("1")
    assert site.code_digest(tmp_path) == before


# --- notebooks, executed two at a time ------------------------------------------------------------


def test_outputs_of_good_notebooks_wait_in_the_cache(tmp_path: Path) -> None:
    sources = {"good": "print(6 * 7)", "bad": "print(6 / 0)", "also": "print(open('here').read())"}
    (tmp_path / "here").write_text("in its folder")
    for name, source in sources.items():
        cell = nbformat.v4.new_code_cell(source)
        nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / f"{name}.ipynb")
    config = SimpleNamespace(
        nb_execution_mode="cache", nb_execution_cache_path=str(tmp_path / "c"),
        nb_execution_timeout=60,
    )  # fmt: skip
    app = SimpleNamespace(config=config)
    env = SimpleNamespace(doc2path=lambda name: str(tmp_path / f"{name}.ipynb"))
    site.execute_ahead(app, env, list(sources))
    cache = get_cache(str(tmp_path / "c"))
    found = {}
    for name in sources:
        nb = nbformat.read(tmp_path / f"{name}.ipynb", as_version=4)
        try:
            found[name] = cache.merge_match_into_notebook(nb)[1].cells[0].outputs[0].text
        except KeyError:
            found[name] = None
    assert found == {"good": "42\n", "bad": None, "also": "in its folder\n"}
