"""Formulas are drawn and told when the book is built, and a page carries what they need."""

from __future__ import annotations

import html
import re

import pytest
from docutils import nodes

from walkthrough import formulas
from walkthrough.formulas import FormulaError, Typesetter


@pytest.fixture(scope="module")
def setter() -> Typesetter:
    return formulas.typesetter()


def test_a_formula_is_drawn_and_told(setter: Typesetter) -> None:
    found = setter.set(r"\frac{\hat m}{\sqrt{\hat v} + \epsilon}", display=True)
    letters = re.findall(r'href="#([\w-]+)"', found.svg)
    assert len(letters) == 7  # m, v, two hats, a root, plus, epsilon
    assert set(letters) <= set(setter.glyphs())
    assert 'aria-hidden="true"' in found.svg
    told = html.unescape(re.sub("<[^>]*>", " ", found.mathml))
    assert told.split() == ["m", "^", "v", "^", "+", "ϵ"]
    assert "<mfrac>" in found.mathml


def test_sizes_follow_the_text(setter: Typesetter) -> None:
    """A plus is 0.778 em wide in its font, and formulas are a tenth larger than the text."""
    assert formulas.width(setter.set("+").svg) == pytest.approx(0.778 * 1.1, abs=2e-3)
    assert "ex" not in re.findall(r'[\d.]+([a-z]+)[";]', setter.set("x_1").svg)


@pytest.mark.parametrize(
    ("tex", "error"), [(r"\frac{1}{", "Missing close brace"), (r"\unheard x", "Undefined control")]
)
def test_what_cannot_be_read_is_an_error(setter: Typesetter, tex: str, error: str) -> None:
    with pytest.raises(FormulaError, match=error):
        setter.set(tex)


def test_a_page_carries_each_letter_once_and_only_its_own(setter: Typesetter) -> None:
    page = f"<body class='x'>{setter.set('a + a').html()}{setter.set('a').html()}</body>"
    setter.set("b")
    whole = formulas.add_outlines(page, setter.glyphs())
    assert whole.startswith("<body class='x'><svg")
    assert sorted(re.findall(r'<path id="([^"]+)"', whole)) == ["MJX-TEX-I-1D44E", "MJX-TEX-N-2B"]
    assert formulas.add_outlines("<body>x</body>", setter.glyphs()) == "<body>x</body>"


@pytest.mark.parametrize(
    ("text", "set_as"),
    [
        ("a = b", "a = b"),
        (r"a &= b \\ c &= d", r"\begin{split}a &= b \\ c &= d\end{split}"),
        (r"\begin{pmatrix} a \\ b \end{pmatrix}", r"\begin{pmatrix} a \\ b \end{pmatrix}"),
    ],
)
def test_rows_are_aligned(text: str, set_as: str) -> None:
    assert formulas.source(nodes.math_block(text, text)) == set_as
