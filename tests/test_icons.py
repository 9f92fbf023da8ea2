"""Of two thousand icons the site keeps those that a page names."""

import re
import shutil
from pathlib import Path

import pydata_sphinx_theme
from fontTools.ttLib import TTFont

from walkthrough import icons

THEME = Path(pydata_sphinx_theme.__file__).parent / "theme" / "pydata_sphinx_theme" / "static"
XMARK, MOON = 0xF00D, 0xF186
WARNING, GITHUB = 0xF071, 0xF09B  # what the theme's own rules show, by character


def site(folder: Path, page: str) -> Path:
    shutil.copytree(THEME / "styles", folder / "_static" / "styles")
    shutil.copytree(THEME / "vendor", folder / "_static" / "vendor")
    (folder / "index.html").write_text(page)
    return folder


def test_icons_that_a_page_names_are_kept(tmp_path):
    folder = site(tmp_path, '<i class="fa-solid fa-xmark"></i>')
    sheet = folder / "_static" / "styles" / "pydata-sphinx-theme.css"
    before = sheet.stat().st_size
    kept = icons.thin_out(folder)
    text = sheet.read_text(encoding="utf-8")
    assert re.search(r"\.fa-xmark:before", text)
    assert not re.search(r"\.fa-moon:before", text)
    assert sheet.stat().st_size < 0.8 * before
    font = folder / "_static" / "vendor" / "fontawesome" / "webfonts" / "fa-solid-900.woff"
    glyphs = TTFont(font).getBestCmap()
    assert {XMARK, WARNING} <= set(glyphs)
    assert MOON not in glyphs
    assert len(glyphs) == kept["fa-solid-900"] < 60
    assert font.stat().st_size < 10_000


def test_every_font_that_a_rule_names_is_there(tmp_path):
    folder = site(tmp_path, '<i class="fa-solid fa-moon"></i><i class="fa-brands fa-github"></i>')
    kept = icons.thin_out(folder)
    sheet = folder / "_static" / "styles" / "pydata-sphinx-theme.css"
    named = set(re.findall(r"url\(([^)]*fontawesome[^)]*)\)", sheet.read_text(encoding="utf-8")))
    assert {name.rsplit(".", 1)[1] for name in named} == {"woff"}
    for name in named:
        path = sheet.parent / name
        assert path.is_file() == (kept[path.stem] > 0)
    brands = folder / "_static" / "vendor" / "fontawesome" / "webfonts" / "fa-brands-400.woff"
    assert GITHUB in TTFont(brands).getBestCmap()
