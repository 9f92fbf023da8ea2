"""Source panels: the right lines, clear errors, and a build that fails when a line is lost."""

import ast
import html
import importlib
import inspect
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from walkthrough import panels, source
from walkthrough.source import SourceError, call_arguments, digest, excerpt, locate, panels_in, show

TOY = textwrap.dedent('''
    """A package to read."""


    class Car:
        """A car."""

        @property
        def wheels(self):
            """How many."""
            # a comment
            number = 4

            return number


    if True:

        def drive(car, speed):
            distance = speed * 2
            return distance
''')


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "__init__.py").write_text("")
    (tmp_path / "toy" / "cars.py").write_text(TOY)
    return tmp_path


def test_lines_are_those_of_the_file(toy):
    found = locate("toy.cars.Car.wheels", toy)
    lines = TOY.split("\n")
    assert lines[found.first - 1].strip() == "@property"
    assert lines[found.last - 1].strip() == "return number"
    assert locate("toy.cars.drive", toy).node.name == "drive"


@pytest.mark.parametrize(
    "name",
    [
        "torch.optim.sgd.SGD.step",
        "torch.optim.optimizer.Optimizer.profile_hook_step",
        "torch.optim.lr_scheduler.LRScheduler.__init__",
        "torch.optim.adam.adam",
    ],
)
def test_torch_is_found_where_python_finds_it(name):
    """Decorated functions and patched classes included: the text decides, not the object."""
    place = locate(name)
    parts = name.split(".")
    obj = importlib.import_module(".".join(parts[:3]))
    for part in parts[3:]:
        obj = getattr(obj, part)
    lines, first = inspect.getsourcelines(inspect.unwrap(obj))
    assert place.first == first
    assert place.last == first + len(lines) - 1
    assert place.path == Path(inspect.getsourcefile(inspect.unwrap(obj)))


def test_docstrings_are_left_out_and_anchors_cut():
    whole = excerpt("torch.optim.sgd.SGD.step", docstring=True)
    short = excerpt("torch.optim.sgd.SGD.step")
    assert len(short.lines) < len(whole.lines)
    assert '"""' in whole.code
    assert '"""' not in short.code
    part = excerpt("torch.optim.sgd.SGD.step", start_at="for group", end_before="sgd(")
    assert part.lines[0][1].startswith("for group")
    assert all("sgd(" not in line for _, line in part.lines)
    upto = excerpt("torch.optim.sgd.SGD.step", start_at="for group", end_at="sgd(")
    assert upto.lines[-1][1].strip().startswith("sgd(")
    for number, line in part.lines:
        assert part.place.text.split("\n")[number - 1].strip() == line.strip()


def test_caption_names_file_lines_and_version():
    part = show("torch.optim.sgd.SGD.step", start_at="loss = None", end_at="loss = None").sides[0]
    assert source.title(part) == f"torch/optim/sgd.py:{part.lines[0][0]} (torch 2.13.0)"
    assert source.title(show("minioptim.sgd.SGD.rule").sides[0]).startswith("minioptim/sgd.py:")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (dict(name="torch.optim.sgd.SGD.leap"), "SGD.leap"),
        (dict(name="torch.optim.nothing.SGD"), "nothing"),
        (dict(name="nopackage.sgd.SGD"), "nopackage"),
        (dict(name="torch.optim.sgd.SGD.step", start_at="no such text"), "no such text"),
        (dict(name="torch.optim.sgd.SGD.step", end_before="no such text"), "no such text"),
        (dict(name="torch.optim.sgd.SGD.step", emphasize="no such text"), "no such text"),
        (dict(name="torch.optim.sgd.SGD.step", notes={"no such text": "x"}), "no such text"),
        (dict(name="torch.optim.sgd.SGD.step", end_at="loss", end_before="loss"), "not both"),
        (dict(name="torch.optim.sgd.SGD.step", beside="torch.optim.sgd.SGD.leap"), "SGD.leap"),
    ],
)
def test_what_is_lost_is_named(arguments, said):
    with pytest.raises(SourceError, match=said):
        show(**arguments)


def test_an_end_is_looked_for_after_the_start():
    """The line it starts at contains `buf` too, and is not the end."""
    part = excerpt("minioptim.sgd.SGD.rule", start_at="buf = momentum_buffer", end_before="buf")
    assert part.lines[0][1] == "buf = momentum_buffer"
    assert all("buf" not in line for _, line in part.lines[1:])


def test_notes_end_at_the_next_note_a_blank_line_or_the_sixth():
    rule = "torch.optim.sgd._single_tensor_sgd"
    noted = excerpt(
        rule, start_at="for i, param", notes={"grad = grads[i]": "a", "if momentum": "b"}
    )
    (first, first_count, _), (second, second_count, _) = noted.notes
    assert "grad = grads[i]" in noted.lines[first][1]
    assert first_count == 1
    assert "if momentum" in noted.lines[second][1]
    assert 1 <= second_count <= 6


def test_every_line_that_holds_the_text_is_marked():
    part = excerpt("torch.optim.sgd._single_tensor_sgd", emphasize="param.add_(grad, alpha=-lr)")
    marked = [line for number, line in part.lines if number in part.emphasized]
    assert len(marked) == 2
    assert all("param.add_(grad, alpha=-lr)" in line for line in marked)


@pytest.mark.parametrize(
    "name", ["torch.optim.sgd.SGD", "torch.optim.adam._multi_tensor_adam", "minioptim.SGD.rule"]
)
def test_the_site_shows_every_character_of_the_code(name):
    """Places where a long line may go on below, and indentation, must not change what is copied."""
    side = excerpt(name.replace("minioptim.SGD", "minioptim.sgd.SGD"))
    text = "".join(panels.highlighted(side))
    assert "<wbr>" in text
    assert '--in:4"' in text
    assert html.unescape(re.sub(r"<[^>]+>", "", text)) == side.code + "\n"


def test_a_note_may_name_its_lines():
    rule = "torch.optim.sgd._single_tensor_sgd"

    def lines(notes):
        noted = excerpt(rule, start_at="for i, param", notes=notes)
        return [(noted.lines[i][1].strip(), count) for i, count, _ in noted.notes]

    assert lines({("if buf is None", "else:"): "a"}) == [("if buf is None:", 4)]
    assert lines({("nesterov:", "nesterov:"): "a", "for i": "b"}) == [
        ("for i, param in enumerate(params):", 2),
        ("if nesterov:", 1),
    ]
    with pytest.raises(SourceError, match="share a line"):
        lines({("if buf is None", "else:"): "a", "grad.detach": "b"})
    with pytest.raises(SourceError, match="share a line"):
        lines({"if nesterov": "a", "nesterov:": "b"})
    with pytest.raises(SourceError, match="beside 20 lines, more than 6"):
        lines({("for i", "momentum_buffer_list[i] = buf"): "a"})
    with pytest.raises(SourceError, match="no line contains 'for i' after"):
        lines({("if nesterov", "for i"): "a"})


def test_what_is_lost_may_be_near():
    with pytest.raises(SourceError, match=r"no SGD\.stepp in .*; there is 'SGD\.step'"):
        locate("torch.optim.sgd.SGD.stepp")
    with pytest.raises(SourceError, match="there is 'for i, param in enumerate"):
        excerpt("torch.optim.sgd._single_tensor_sgd", "for i, par in enumerate(params)")


def test_a_panel_shows_itself_in_a_notebook():
    panel = show("torch.optim.sgd.SGD.step", start_at="for group", beside="minioptim.sgd.SGD.rule")
    assert "for group in self.param_groups" in repr(panel)
    page = panel._repr_html_()
    assert page.count("<pre") == 2
    assert "torch/optim/sgd.py" in page
    assert "&lt;" in show("torch.optim.adam.Adam.__init__")._repr_html_()  # escaped
    note = "As in {ref}`the rule <x>` of `SGD`, if $a<b$: [there](#x)."
    noted = show("minioptim.sgd.SGD.rule", notes={"p.add_": note}, emphasize="p.add_")
    page = noted._repr_html_()
    assert "As in the rule of <code>SGD</code>, if $a&lt;b$: there." in page
    assert page.count('class="mark"') == 1
    number, line = noted.sides[0].lines[noted.sides[0].notes[0][0]]
    assert f'data-line="{number}">' in page  # the number is no part of the text
    text = html.unescape(re.sub(r"<style.*?</style>|<[^>]*>", "", page))
    assert f"there.{line}\n" in text


def rewrite(path: Path, text: str) -> None:
    """Two writes may fall into one tick of the clock, by which a change of a file is noticed."""
    before = path.stat().st_mtime_ns
    path.write_text(text, encoding="utf-8")
    os.utime(path, ns=(before + 1, before + 1))


def test_digest_counts_code_and_nothing_else(toy):
    def digest_of(text: str, name: str = "toy.cars.Car.wheels") -> str:
        path = toy / "toy" / "cars.py"
        path.write_text(text)
        counted[0] += 1
        os.utime(
            path, ns=(counted[0], counted[0])
        )  # two writes may fall into one tick of the clock
        return digest(locate(name, toy))

    counted = [0]

    before = digest_of(TOY)
    assert digest_of(TOY.replace("# a comment", "# another\n\n")) == before
    assert digest_of(TOY.replace("How many.", "How many wheels.")) == before
    assert digest_of("\n\n\n" + TOY) == before
    assert digest_of(TOY.replace("number = 4", "number = 3")) != before
    assert digest_of(TOY.replace("wheels(", "rims("), "toy.cars.Car.rims") == before
    assert digest_of(TOY.replace("@property", "@staticmethod")) != before


def test_digest_of_the_code_without_its_types(toy):
    def digests(text: str) -> tuple[str, str]:
        rewrite(toy / "toy" / "cars.py", text)
        place = locate("toy.cars.drive", toy)
        return digest(place), digest(place, types=False)

    with_types, without = digests(TOY)
    typed = TOY.replace("(car, speed)", "(car: Car, speed: int) -> int").replace(
        "distance = speed * 2", "distance: int = cast(int, speed * 2)"
    )
    found = digests(typed)
    assert found[0] != with_types
    assert found[1] == without
    assert digests(TOY.replace("* 2", "* 3"))[1] != without


def test_the_digest_is_that_of_every_python():
    """Written down, so that a version of Python that would see it otherwise is noticed."""
    tree = ast.parse(
        "def f(x, *y: int, z=None, **k):\n"
        "    'Said.'\n"
        "    with a as b, c:  # said\n"
        "        return f'{x!r:>{z}} {y} {{}}' 'and' if x is None else {**k, 1: b'2', 2j: ...}\n"
    )
    place = source.Place("f", Path("f.py"), "f.py", "", tree.body[0])
    assert digest(place) == "615741ec2c6b"


def test_calls_are_read_and_not_run():
    call = 'walkthrough.show("a.b", start_at="x", beside={"name": "c.d", "end_at": "y"})'
    assert call_arguments(call) == {
        "name": "a.b",
        "start_at": "x",
        "beside": {"name": "c.d", "end_at": "y"},
    }
    for bad in ["print(1)", "walkthrough.show(name)", "walkthrough.show('a", "x", ""]:
        with pytest.raises(SourceError):
            call_arguments(bad)


PAGE = """# A page

```{code-block} python
:class: panel
:name: panel-rule
walkthrough.show("torch.optim.sgd.SGD.step", start_at="ANCHOR",
                 notes={"closure()": "Run it: $f(x)$, see {ref}`there <target>`."},
                 beside="minioptim.sgd.SGD.rule")
```

```{code-block} python
plain = 1
```

(target)=
## There

[the panel](#panel-rule)
"""


def test_panels_are_found_in_markdown():
    (panel,) = panels_in(PAGE)
    assert panel["label"] == "panel-rule"
    assert panel["name"] == "torch.optim.sgd.SGD.step"


def build(folder: Path, page: str) -> subprocess.CompletedProcess:
    (folder / "conf.py").write_text(
        "extensions = ['myst_parser', 'walkthrough.panels']\n"
        "myst_enable_extensions = ['dollarmath']\n"
    )
    (folder / "index.md").write_text(page)
    command = [sys.executable, "-m", "sphinx", "-W", "-q", "-b", "html", ".", "out"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_the_site_shows_the_lines(tmp_path):
    done = build(tmp_path, PAGE.replace("ANCHOR", "loss = None"))
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    number = excerpt("torch.optim.sgd.SGD.step", start_at="loss = None").lines[0][0]
    assert f'data-line="{number}"' in page
    assert "(torch 2.13.0)" in page
    assert "src/minioptim/sgd.py" in page
    assert 'id="panel-rule"' in page
    assert 'id="panel-rule-note-1"' in page
    assert 'href="#panel-rule"' in page
    assert "walkthrough.show" not in page
    assert 'class="math' in page
    assert 'href="#target"' in page
    assert "plain" in page


LINKS = """
[](#panel-rule), {ref}`panel-rule`, [](#panel-rule-note-1), [its note](#panel-rule-note-1),
[far](#panel-long), [](#panel-long-note-2).
"""
SECOND = """# Another

```{code-block} python
:class: panel
:name: panel-long
walkthrough.show("torch.optim.adam._single_tensor_adam",
                 emphasize="denom = (exp_avg_sq.sqrt()",
                 notes={("exp_avg.lerp_", "exp_avg.lerp_"): "$$m = 1$$"},
                 beside={"name": "minioptim.adam.Adam.rule", "notes": {"exp_avg.lerp_": "Same."}})
```

[back](#panel-rule)
"""


def test_panels_and_notes_are_linked_to_and_long_ones_fold(tmp_path):
    (tmp_path / "second.md").write_text(SECOND)
    toctree = "\n```{toctree}\nsecond\n```\n"
    done = build(tmp_path, PAGE.replace("ANCHOR", "loss = None") + LINKS + toctree)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    lines = excerpt("torch.optim.sgd.SGD.step", start_at="loss = None").lines
    span = f"torch/optim/sgd.py:{lines[0][0]}-{lines[-1][0]}"
    links = dict(re.findall(r'href="([^"]*panel[^"]*)"><span[^>]*>([^<]*)<', page))
    assert links["#panel-rule"] == span
    assert links["second.html#panel-long"] == "far"
    assert links["second.html#panel-long-note-2"].startswith("minioptim/adam.py:")
    assert page.count(f">{span}<") == 3  # the caption, and two links without words of their own

    page = (tmp_path / "out" / "second.html").read_text(encoding="utf-8")
    ids = re.findall(r' id="(panel-[^"]*)"', page)
    assert ids == ["panel-long", "panel-long-note-1", "panel-long-note-2"]
    left = excerpt("torch.optim.adam._single_tensor_adam")
    shown = [int(n) for n in re.findall(r'data-line="(\d+)"', page)][: len(left.lines)]
    assert shown == [n for n, _ in left.lines]  # all are there, in order
    folds = re.findall(r"<summary>(\d+) lines, (\d+)–(\d+)</summary>", page)
    assert len(folds) == 2  # before the note, and between it and the marked line
    for count, first, last in folds:
        assert int(count) == int(last) - int(first) + 1 > 8
    marked = excerpt("torch.optim.adam._single_tensor_adam", emphasize="denom = (exp_avg_sq.sqrt()")
    (number,) = marked.emphasized
    assert not any(int(first) - 6 <= number <= int(last) + 6 for _, first, last in folds)


def test_one_name_on_two_pages_stops_the_build(tmp_path):
    (tmp_path / "second.md").write_text(SECOND.replace("panel-long", "panel-rule"))
    toctree = "\n```{toctree}\nsecond\n```\n"
    done = build(tmp_path, PAGE.replace("ANCHOR", "loss = None") + toctree)
    assert done.returncode != 0
    # Sphinx says "duplicate label" in the language of the machine
    assert re.search(r"second\.md:3:[^\n]*\bpanel-rule\b[^\n]*\bindex\.md\b", done.stderr)


def test_a_lost_line_stops_the_build(tmp_path):
    done = build(tmp_path, PAGE.replace("ANCHOR", "this line is gone"))
    assert done.returncode != 0
    for word in ("index.md:3:", "torch.optim.sgd.SGD.step", "this line is gone"):
        assert word in done.stderr
