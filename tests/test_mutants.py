"""The tools that test the tests: mutants of minioptim, wrong books, random runs."""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import mutants  # noqa: E402
import search  # noqa: E402
import wrong_books  # noqa: E402
from mutate import mutants_of  # noqa: E402

CODE = '''
"""Words."""
LIMIT = 1

class Rule:
    def step(self, p, g, lr=0.1, *, climb=False):
        """Words."""
        buf = self.state["buffer"].clone()
        if climb and lr > 0:
            raise ValueError("some words")
        self.count += 1
        p.add_(g - buf, alpha=-lr)
        return max(p, g, *zip(p, g, strict=True))
'''
EXPECTED = [
    "a.py: constant: LIMIT = 1 -> LIMIT = 2",
    "a.py Rule.step: constant: lr=0.1 -> 0.15",
    "a.py Rule.step: constant: climb=False -> True",
    "a.py Rule.step: key: self.state['buffer'] -> self.state['buffer_']",
    "a.py Rule.step: copy: buf = self.state['buffer'].clone() -> buf = self.state['buffer']",
    "a.py Rule.step: operator: climb and lr > 0 -> climb or lr > 0",
    "a.py Rule.step: condition: if climb and lr > 0: -> if not (climb and lr > 0):",
    "a.py Rule.step: left out: self.count += 1 -> nothing",
    "a.py Rule.step: operands: p.add_(g - buf, alpha=-lr) -> p.add_(buf - g, alpha=-lr)",
    "a.py Rule.step: in place: p.add_(g - buf, alpha=-lr) -> p.add(g - buf, alpha=-lr)",
    "a.py Rule.step: argument: p.add_(g - buf, alpha=-lr) -> p.add_(g - buf)",
    "a.py Rule.step: sign: p.add_(g - buf, alpha=-lr) -> p.add_(g - buf, alpha=lr)",
    "a.py Rule.step: function: max(p, g, *zip(p, g, strict=True)) -> "
    "min(p, g, *zip(p, g, strict=True))",
    "a.py Rule.step: left out: return max(p, g, *zip(p, g, strict=True)) -> return None",
]


@pytest.fixture
def source(tmp_path: Path) -> Any:
    path = tmp_path / "a.py"
    path.write_text(CODE)
    return mutants_of(path)


def test_every_operator_finds_its_place(source: Any) -> None:
    names = [mutant.name for mutant in source.mutants]
    assert [name for name in EXPECTED if name not in names] == []
    assert len(names) == len(set(names))
    assert not any("strict=False" in name or "max(g, p" in name for name in names)
    assert not any("Words" in name or "some words_" in name for name in names)


def test_each_mutant_is_another_program_and_leaves_the_tree_as_it_was(source: Any) -> None:
    before = ast.unparse(source.tree)
    texts = {source.text(mutant) for mutant in source.mutants}
    assert before + "\n" not in texts
    assert len(texts) == len(source.mutants)
    assert ast.unparse(source.tree) == before


def test_a_name_does_not_depend_on_the_lines_above(source: Any, tmp_path: Path) -> None:
    path = tmp_path / "b" / "a.py"
    path.parent.mkdir()
    path.write_text("# a line\n\nNEW = ()\n" + CODE)
    assert [m.name for m in mutants_of(path).mutants] == [m.name for m in source.mutants]


def test_what_is_listed_exists_and_has_a_reason() -> None:
    names = {m.name for path in mutants.PACKAGE.glob("*.py") for m in mutants_of(path).mutants}
    gone = [name for name in mutants.listed() if name not in names]
    assert gone == []
    assert all(len(why) > 20 for why in mutants.listed().values())


def test_the_verdict_of_a_run() -> None:
    names, excused = {"a", "b", "c"}, {"b": "why", "c": "why", "d": "why"}
    verdicts = [
        {"name": "a", "end": "survived", "by": None},
        {"name": "b", "end": "survived", "by": None},
        {"name": "c", "end": "killed", "by": "tests/x.py::y"},
    ]
    said = mutants.judge(verdicts, excused, names)
    assert len(said) == 3
    assert [line.rsplit(": ", 1)[1] for line in said] == ["a", "c", "d"]
    assert mutants.judge(verdicts[1:2], {"b": "why"}, names) == []


def test_a_run_that_asks_nothing_is_not_green() -> None:
    assert mutants.judge([], {}, {"a"}) == ["no mutant was asked about: that says nothing"]


def run_of(only: str, tmp_path: Path, seconds: str = "200") -> tuple[int, str]:
    """`tools/mutants.py` in a process of its own; what it says."""
    import subprocess

    command = [sys.executable, str(ROOT / "tools" / "mutants.py"), "--seconds", seconds]
    ended = subprocess.run([*command, "--only", only], capture_output=True, text=True, cwd=tmp_path)
    return ended.returncode, ended.stdout + ended.stderr


@pytest.mark.long
def test_a_fault_is_killed_where_it_lives_and_where_it_is_imported(tmp_path: Path) -> None:
    """The sign of SGD's step, in a live function; a table of compat.py, read while importing."""
    code, said = run_of("alpha=-lr) -> p.add_(g, alpha=lr)", tmp_path)
    assert code == 0, said
    assert "1 mutants, 1 killed" in said
    code, said = run_of("compat.py: constant: amsgrad=False", tmp_path)
    assert code == 0, said


@pytest.mark.long
def test_a_sample_asks_something_on_a_slow_machine_too(tmp_path: Path) -> None:
    """Its time is over before the tests are imported."""
    code, said = run_of("alpha=-lr) -> p.add_(g, alpha=lr)", tmp_path, seconds="0.1")
    assert code == 0, said
    assert "1 mutants, 1 killed" in said


# --- wrong books and random runs ------------------------------------------------------------------


@pytest.mark.parametrize("fault", wrong_books.FAULTS, ids=lambda fault: fault.name)
def test_each_fault_can_be_planted(fault: Any, tmp_path: Path) -> None:
    """The text that a fault changes is still in the book."""
    path = tmp_path / Path(fault.file).name
    old = (ROOT / "book" / fault.file).read_bytes()
    path.write_bytes(old)
    fault.plant(path)
    assert path.read_bytes() != old or len(list(tmp_path.iterdir())) == 2


def test_a_check_that_misses_or_sees_too_much_is_an_error() -> None:
    fault, blind = (
        next(f for f in wrong_books.FAULTS if f.seen_by == by)
        for by in (wrong_books.NBVAL, wrong_books.NOBODY)
    )
    assert wrong_books.judge(fault, {wrong_books.NBVAL: "Cell 3", wrong_books.PYTEST: ""}) == ""
    assert "nbval did not see it" in wrong_books.judge(fault, {wrong_books.PYTEST: "`tests/x.py`"})
    assert wrong_books.judge(blind, {wrong_books.NBVAL: "", wrong_books.PYTEST: ""}) == ""
    assert "saw it" in wrong_books.judge(blind, {wrong_books.PYTEST: "`tests/x.py`"})


def test_the_rounds_of_a_search_are_all_different_and_add_up() -> None:
    parts = [list(search.rounds(1230, part)) for part in range(search.PROCESSES)]
    both = [row for part in parts for row in part]
    assert sum(size for _, _, size in both) == 1230
    assert len({i for i, _, _ in both}) == len(both)
    assert {name for _, name, _ in both} == set(search.SEARCHES)


@pytest.mark.long
def test_the_same_seed_searches_the_same_and_a_difference_is_said(monkeypatch: Any) -> None:
    seen: list[Any] = []
    import test_random_runs

    def compare(libraries: Any, configuration: Any, story: Any, difference: Any = None) -> None:
        seen.append((configuration, story))
        assert "AdamW" not in configuration[0]

    monkeypatch.setattr(test_random_runs, "compare", compare)
    monkeypatch.syspath_prepend(str(ROOT / "tests"))
    name = "test_random_runs.test_any_run"
    count, said = search.search(name, 5, 30)
    first = json.dumps(seen[:20], default=str)
    assert count > 0
    assert "AdamW(" in said
    seen.clear()
    search.search(name, 5, 30)
    assert json.dumps(seen[:20], default=str) == first
    seen.clear()
    search.search(name, 6, 30)
    assert json.dumps(seen[:20], default=str) != first
