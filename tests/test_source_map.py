"""The source map: every panel is found and can be linked to, and the tables say what is there."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from walkthrough import source, sourcemap
from walkthrough.source import PageReader, SourceError

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "book"


def panel(call: str, name: str = "panel-a", fence: str = "```") -> str:
    return f"{fence}{{code-block}} python\n:class: panel\n:name: {name}\n{call}\n{fence}"


STEP = 'walkthrough.show("torch.optim.sgd.SGD.step")'


# --- the book as it is ----------------------------------------------------------------------------


def test_every_panel_has_a_name_of_its_own() -> None:
    assert sourcemap.label_faults(BOOK) == []


def test_every_panel_finds_its_lines() -> None:
    shown = sourcemap.collect(BOOK, of="")
    assert len({side.name.split(".")[0] for side in shown}) > 1  # PyTorch's code, and ours
    assert [side for side in shown if side.span is None] == []


def test_no_panel_escapes_the_reader() -> None:
    """Every call of walkthrough.show that a page writes is in a panel that was found."""
    for page in sourcemap.pages(BOOK):
        calls = sum(
            len(re.findall(r'walkthrough\.show\(\s*"', piece)) for piece in sourcemap.pieces(page)
        )
        assert calls == len(sourcemap.written(page)), page.name


def test_what_is_said_to_correspond_exists() -> None:
    for theirs, ours in sourcemap.COUNTERPARTS.items():
        source.locate(theirs)
        source.locate(ours)
    for name, heart in sourcemap.PROMISED.items():
        module = name.rsplit(".", 1)[0]
        source.locate(name)
        for function in heart:
            source.locate(f"{module}.{function}")


def test_the_promised_classes_are_those_of_the_article() -> None:
    assert [name.rsplit(".", 1)[1] for name in sourcemap.PROMISED] == [
        "Optimizer",
        "SGD",
        "Adam",
        "AdamW",
        "LRScheduler",
        "StepLR",
        "MultiStepLR",
        "ExponentialLR",
        "CosineAnnealingLR",
    ]


# --- reading pages --------------------------------------------------------------------------------


def test_a_panel_is_found_with_what_stands_around_it() -> None:
    reader = PageReader()
    (found,) = reader.read(f"# Page\n\n## Place\n\nBefore.\n\n(x)=\n{panel(STEP)}\n\nAfter.\nMore.")
    assert (found.label, found.heading) == ("panel-a", "Place")
    assert (found.before, found.after) == ("Before.", "After.")
    (other,) = reader.read(panel(STEP, "panel-b"))  # the next cell
    assert (other.heading, other.before, other.after) == ("Place", "More.", "")
    reader.read("Later.\n\n## Elsewhere")
    assert other.after == "Later."


@pytest.mark.parametrize(
    ("markdown", "count"),
    [
        (panel(STEP), 1),
        (panel(STEP, fence="````"), 1),
        (panel(STEP, fence=":::"), 1),
        (f"- item\n\n  {panel(STEP)}".replace("\n", "\n  "), 1),
        (f"````{{note}}\nText.\n\n{panel(STEP)}\n````\n\n{panel(STEP, 'panel-b')}", 2),
        (f":::{{note}}\nText.\n{panel(STEP)}\n:::\n{panel(STEP, 'panel-b')}", 2),
        (f"````md\n{panel(STEP)}\n````", 0),  # shown as text, not made
        (f"````\n{panel(STEP)}\n````\n{panel(STEP)}", 1),
        (panel(STEP).replace(":class: panel", ":class: other"), 0),
        (panel(STEP).replace(":class: panel", ":class: wide panel"), 1),
        (f"```{{solution-start}} x\n:class: a\n```\n{panel(STEP)}\n```{{solution-end}}\n```", 1),
        (f"```python\nx = 1\n```\n{panel(STEP)}", 1),
    ],
)  # fmt: skip
def test_panels_are_found_wherever_markdown_has_them(markdown: str, count: int) -> None:
    assert len(PageReader().read(markdown)) == count


def test_a_panel_that_cannot_be_read_names_its_page(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(panel("walkthrough.show(name)"))
    with pytest.raises(SourceError, match=r"page\.md: a panel holds"):
        sourcemap.collect(tmp_path)


def test_both_sides_and_notebooks_count(tmp_path: Path) -> None:
    book = tmp_path / "book"
    book.mkdir()
    (book / ".hidden").mkdir()
    (book / ".hidden" / "page.md").write_text(panel(STEP))
    two = 'walkthrough.show("minioptim.sgd.SGD.rule", beside={"name": "torch.optim.sgd.sgd"})'
    cells = [
        new_markdown_cell(f"# Title\n{panel(STEP)}"),
        new_code_cell(panel(STEP)),
        new_markdown_cell(panel(two, "panel-b")),
    ]
    nbformat.write(new_notebook(cells=cells), book / "03-page.ipynb")
    step, other = sourcemap.collect(book)
    assert (step.name, step.beside) == ("torch.optim.sgd.SGD.step", ())
    assert (other.name, other.beside) == ("torch.optim.sgd.sgd", ("minioptim.sgd.SGD.rule",))
    assert other.page == "book/03-page.ipynb"
    table = sourcemap.functions_table([step, other])
    assert "[03 Title](#panel-b)" in table
    assert "`sgd.SGD.rule`" in table


def test_a_panel_without_a_name_or_with_one_used_twice_is_a_fault(tmp_path: Path) -> None:
    book = tmp_path / "book"
    book.mkdir()
    (book / "a.md").write_text(panel(STEP) + "\n\n" + panel(STEP).replace(":name: panel-a\n", ""))
    (book / "b.md").write_text(panel(STEP))
    assert sourcemap.label_faults(book) == [
        "book/a.md: the panel of torch.optim.sgd.SGD.step has no :name:",
        "book/b.md: book/a.md has a panel 'panel-a' too",
    ]


# --- the tables -----------------------------------------------------------------------------------


def shown(*names: str, **options: object) -> list[sourcemap.Shown]:
    return [
        sourcemap.Shown(name, dict(options), (), "book/01-a.md", f"panel-{i}", "Head", "", "")
        for i, name in enumerate(names)
    ]


def test_the_same_lines_are_one_panel() -> None:
    twice = shown("torch.optim.sgd.SGD.step", "torch.optim.sgd.SGD.step")
    part = shown("torch.optim.sgd.SGD.step", start_at="loss = None")
    other = shown("torch.nn.utils.clip_grad.clip_grad_norm_")
    assert len(sourcemap.different(twice)) == 1
    assert len(sourcemap.different(twice + part + other)) == 2
    line = sourcemap.count_line(twice + part + other)
    assert line.startswith("2 different panels show parts of 1 functions and classes")


def test_a_class_is_read_function_by_function() -> None:
    def row(sides: list[sourcemap.Shown]) -> str:
        table = sourcemap.classes_table(sides)
        return next(line for line in table.splitlines() if line.startswith("| `SGD`"))

    assert row([]).endswith("| — | all of it |")
    some = row(shown("torch.optim.sgd.SGD.step"))
    assert "[`step`](#panel-0)" in some
    assert some.endswith("`__init__`, `_init_group`, `_single_tensor_sgd` |")
    whole = row(shown("torch.optim.sgd.SGD", "torch.optim.sgd._single_tensor_sgd"))
    assert "[`__init__`](#panel-0)" in whole
    assert whole.endswith("| nothing |")


def test_ours_is_what_stands_beside_it_or_has_the_same_name() -> None:
    (side,) = shown("torch.optim.optimizer.Optimizer.zero_grad")
    same = sourcemap.counterparts(side.name, [side])
    assert same == ["minioptim.optimizer.Optimizer.zero_grad"]
    assert sourcemap.counterparts("torch.optim.optimizer._get_value", []) == []
    listed = sourcemap.counterparts("torch.optim.sgd._multi_tensor_sgd", [])
    assert listed == ["minioptim.engines.foreach"]
    assert sourcemap.counterparts("torch.nn.modules.module.Module.train", []) == []


def test_a_release_is_told_with_words_and_lacking_words_are_named() -> None:
    names = ["torch.optim.sgd.sgd", "torch.optim.sgd.SGD.step", "torch.optim.adam.adam"]
    differ = {names[0]: "types", names[1]: "code", names[2]: "code"}
    release = {"compared": "2026-01-02", "against": "1.2", "functions": 9, "differ": differ}
    text, lacking = sourcemap.release_table(shown(*names[:2]), release, {names[0]: "Says more."})
    assert lacking == [names[1]]  # adam.adam is not shown, so it needs no words yet
    assert "Of 9 functions and methods of `torch.optim`, 3 differ: of 2 the code changed" in text
    assert "| `sgd.sgd` | only annotations changed | Says more. | [01 Head](#panel-0) |" in text
    whole, lacking = sourcemap.release_table(shown("torch.optim.sgd.SGD"), release, {})
    assert "`sgd.SGD.step`" in whole  # shown as a part of its class
    assert lacking == [names[1]]


# --- in the site ----------------------------------------------------------------------------------

MAP = """(map)=
# The map

```{source-map} count
```

```{source-map} classes
```

```{source-map} functions
```

```{source-changes} 9.9.9
torch.optim.sgd.sgd: Says what it does.
```
"""
RELEASE = """
releases:
  9.9.9:
    compared: '2026-01-02'
    against: 2.13.0
    functions: 9
    differ: {torch.optim.sgd.sgd: code}
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    book = tmp_path / "book"
    book.mkdir()
    (tmp_path / "conf.py").write_text(
        "extensions = ['myst_parser', 'walkthrough.panels']\nroot_doc = 'book/index'\n"
        "myst_enable_extensions = ['dollarmath', 'colon_fence']\nmyst_heading_anchors = 3\n"
    )
    (book / "index.md").write_text("# Book\n\n```{toctree}\npage\nmap\n```\n")
    (book / "page.md").write_text(
        "# Page\n\nText.\n\n" + panel('walkthrough.show("torch.optim.sgd.sgd")')
    )
    (book / "map.md").write_text(MAP)
    (book / sourcemap.RECORD).write_text(RELEASE)
    return tmp_path


def build(site: Path) -> subprocess.CompletedProcess[str]:
    shutil.rmtree(site / "out", ignore_errors=True)
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", ".", "out"]
    return subprocess.run(command, cwd=site, capture_output=True, text=True)


def test_the_tables_link_to_the_panels(site: Path) -> None:
    run = build(site)
    assert run.returncode == 0, run.stderr
    html = (site / "out" / "book" / "map.html").read_text(encoding="utf-8")
    digest = source.digest(source.locate("torch.optim.sgd.sgd"))
    assert html.count('href="page.html#panel-a"') == 2  # in the map, and among the changes
    assert digest in html
    assert "1 different panels show parts of 1 functions" in html
    assert "Says what it does." in html
    place = source.locate("torch.optim.lr_scheduler.StepLR")
    assert f"lr_scheduler.py:{place.first}-{place.last}" in html


def test_what_is_out_of_step_stops_the_build(site: Path) -> None:
    """Five faults, one build: each is named with its page."""
    lost = panel("walkthrough.show('torch.optim.sgd.lost')", "panel-b")
    faults = [
        ("map.md", "9.9.9\n", "9.9.8\n", "map.md:13: WARNING: source-changes: not recorded: run"),
        ("map.md", "} count", "} colour", "'colour' is none of count, classes, functions"),
        ("page.md", ":name: panel-a\n", "", "the panel of torch.optim.sgd.sgd has no :name:"),
        ("page.md", "Text.", lost, "page.md:3: WARNING: panel: torch.optim.sgd.lost: no lost in"),
    ]
    for file, before, after, _ in faults:
        page = site / "book" / file
        assert before in page.read_text(encoding="utf-8")
        page.write_text(page.read_text(encoding="utf-8").replace(before, after))
    (site / "book" / "map.md").write_text(
        (site / "book" / "map.md").read_text(encoding="utf-8")
        + "\n```{source-changes} 9.9.9\n```\n"
    )
    run = build(site)
    assert run.returncode != 0
    said = re.sub(r"\s+", " ", run.stderr)
    for words in [
        *(fault[3] for fault in faults),
        "torch.optim.sgd.sgd changed in 9.9.9, and no words say how",
    ]:
        assert words in said
