"""Source panels: the right lines, clear errors, and a build that fails when a line is lost."""

import html
import importlib
import inspect
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
    source._parsed.cache_clear()
    return tmp_path


def test_lines_are_those_of_the_file(toy):
    found = (
        excerpt("toy.cars.Car.wheels", root=toy) if False else locate("toy.cars.Car.wheels", toy)
    )
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


def test_a_panel_shows_itself_in_a_notebook():
    panel = show("torch.optim.sgd.SGD.step", start_at="for group", beside="minioptim.sgd.SGD.rule")
    assert "for group in self.param_groups" in repr(panel)
    page = panel._repr_html_()
    assert page.count("<pre") == 2
    assert "torch/optim/sgd.py" in page
    assert "&lt;" in show("torch.optim.adam.Adam.__init__")._repr_html_()  # escaped


def test_digest_counts_code_and_nothing_else(toy):
    def digest_of(text: str, name: str = "toy.cars.Car.wheels") -> str:
        (toy / "toy" / "cars.py").write_text(text)
        source._parsed.cache_clear()
        return digest(locate(name, toy))

    before = digest_of(TOY)
    assert digest_of(TOY.replace("# a comment", "# another\n\n")) == before
    assert digest_of(TOY.replace("How many.", "How many wheels.")) == before
    assert digest_of("\n\n\n" + TOY) == before
    assert digest_of(TOY.replace("number = 4", "number = 3")) != before


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
    page = (tmp_path / "out" / "index.html").read_text()
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


def test_a_lost_line_stops_the_build(tmp_path):
    done = build(tmp_path, PAGE.replace("ANCHOR", "this line is gone"))
    assert done.returncode != 0
    for word in ("index.md", "torch.optim.sgd.SGD.step", "this line is gone"):
        assert word in done.stderr
