"""Figures to play with, as far as no browser is needed: how a block becomes one."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from walkthrough.play import FIGURES

ROOT = Path(__file__).resolve().parent.parent
STATIC = ROOT / "book" / "_static"
PAGE = """# A page

```{{code-block}} text
:class: play
:name: {name}
A sentence & more.
```
"""


def build(folder: Path, name: str) -> subprocess.CompletedProcess[str]:
    (folder / "conf.py").write_text(
        f"extensions = ['myst_parser', 'walkthrough.play']\nhtml_static_path = [{str(STATIC)!r}]\n"
    )
    (folder / "index.md").write_text(PAGE.format(name=name) + "\n```{toctree}\nother\n```\n")
    (folder / "other.md").write_text("# Other\n\n```{code-block} python\nx = 1\n```\n")
    command = [sys.executable, "-m", "sphinx", "-W", "-q", "-b", "html", ".", "out"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_a_block_becomes_a_figure(tmp_path: Path) -> None:
    done = build(tmp_path, "play-descent")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert 'id="play-descent"' in page
    assert '<noscript><img src="_static/play/descent.svg" alt="' in page
    assert "<p>A sentence &amp; more.</p>" in page
    loaded = re.findall(r'<script[^>]*src="_static/play/([\w.]+)', page)
    assert loaded == ["play.js", "descent.js"]
    assert "play/play.css" in page
    other = (tmp_path / "out" / "other.html").read_text(encoding="utf-8")
    assert "play/" not in other


@pytest.mark.parametrize("name", ["play-nothing", "descent", ""])
def test_an_unknown_figure_stops_the_build(tmp_path: Path, name: str) -> None:
    done = build(tmp_path, name)
    assert done.returncode != 0
    assert "play-descent" in done.stderr


@pytest.mark.parametrize("name", FIGURES)
def test_every_input_has_a_name_and_its_label(name: str) -> None:
    html = "".join(part.html(f"play-{name}") for part in FIGURES[name].parts)
    made = re.findall(r'<(?:input|select)[^>]* id="([^"]+)"', html)
    assert made
    assert len(set(made)) == len(made)
    assert re.findall(r'<label for="([^"]+)"', html) == [
        where for where in re.findall(r'(?:<input[^>]*|<select) id="([^"]+)"', html)
    ]
    assert len(re.findall("<svg", "".join(FIGURES[name].html(name)))) == len(FIGURES[name].drawings)


def test_every_figure_has_a_script_and_every_script_a_figure() -> None:
    scripts = {path.stem for path in (STATIC / "play").glob("*.js")}
    assert scripts == {"play", *FIGURES}
    assert {path.stem for path in (STATIC / "play").glob("*.svg")} == set(FIGURES)
    for name in FIGURES:
        text = (STATIC / "play" / f"{name}.js").read_text(encoding="utf-8")
        assert f'Play.figure("{name}"' in text


def test_scripts_are_classic_readable_and_ask_nobody() -> None:
    for path in sorted((STATIC / "play").glob("*.js")):
        text = path.read_text(encoding="utf-8")
        assert not re.search(
            r"^\s*(import|export)\b|https?://|\bfetch\(|XMLHttp|import\(", text, re.M
        )
        assert max(map(len, text.splitlines())) < 180, path.name
