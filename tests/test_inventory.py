"""The map of `torch.optim` is complete, and the pages say what it says."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest
import torch
from torch.optim import lr_scheduler

from walkthrough import inventory, surfaces
from walkthrough.source import SourceError

BOOK = Path(__file__).resolve().parent.parent / "book"
PAGE = "\n".join(
    "".join(cell["source"])
    for cell in json.loads((BOOK / "08-outlook.ipynb").read_text(encoding="utf-8"))["cells"]
    if cell["cell_type"] == "markdown"
)
KNOWN = [*inventory.OPTIMIZERS, *inventory.SCHEDULERS, *inventory.AVERAGING]


def test_pytorch_ships_what_the_inventory_knows_and_the_reverse():
    assert inventory.differences() == {k: set() for k in ("optimizers", "schedulers", "averaging")}


@pytest.mark.parametrize("kind", ["OPTIMIZERS", "SCHEDULERS", "AVERAGING"])
def test_a_class_that_only_one_side_knows_is_seen(monkeypatch, kind):
    rows = getattr(inventory, kind)
    monkeypatch.setattr(inventory, kind, rows[1:])
    assert inventory.differences()[kind.lower()] == {rows[0].name}
    monkeypatch.setattr(inventory, kind, (*rows, inventory.Known("Invented", "")))
    assert inventory.differences()[kind.lower()] == {"Invented"}


def test_a_class_that_pytorch_adds_is_seen(monkeypatch):
    class Newer(torch.optim.SGD):
        pass

    class NewerLR(lr_scheduler.StepLR):
        pass

    monkeypatch.setattr(torch.optim, "Newer", Newer, raising=False)
    monkeypatch.setattr(torch.optim, "__all__", [*torch.optim.__all__, "Newer"])
    monkeypatch.setattr(lr_scheduler, "NewerLR", NewerLR, raising=False)
    monkeypatch.setattr(lr_scheduler, "__all__", [*lr_scheduler.__all__, "NewerLR"])
    found = inventory.differences()
    assert found["optimizers"] == {"Newer"}
    assert found["schedulers"] == {"NewerLR"}


def test_names_ideas_and_papers():
    names = [known.name for known in KNOWN]
    assert len(set(names)) == len(names) == 33
    keys = set(
        re.findall(
            r"^@\w+\{(\w+),", (BOOK / "references.bib").read_text(encoding="utf-8"), re.MULTILINE
        )
    )
    for known in KNOWN:
        assert 20 < len(known.idea) < 80
        assert not known.paper or known.paper in keys
    assert all(known.paper for known in inventory.OPTIMIZERS)


def test_the_tree_has_no_loop_and_no_stranger():
    by_name = {known.name: known for known in inventory.OPTIMIZERS}
    for known in inventory.OPTIMIZERS:
        line = [known.name]
        while by_name[line[-1]].parents:
            line.append(by_name[line[-1]].parents[0])
            assert len(line) <= 15
        assert set(known.parents) <= set(by_name)
        for parent in known.parents:  # a parent is not younger than its child
            assert (by_name[parent].year or 0) <= (known.year or 9999)


def test_the_page_has_every_row():
    for rows in (inventory.OPTIMIZERS, inventory.SCHEDULERS, inventory.AVERAGING):
        for row in inventory.rows(rows):
            assert row in PAGE, row
    for row in inventory.history_rows():
        assert row in PAGE, row


@pytest.mark.parametrize("change", inventory.HISTORY, ids=lambda change: change.proposed)
def test_a_change_of_the_past_is_visible_today(change):
    assert change.visible()


def test_the_changes_stand_in_order():
    proposed = [change.proposed for change in inventory.HISTORY]
    assert proposed == sorted(proposed)
    assert all(re.fullmatch(r"20\d\d-[01]\d", date) for date in proposed)
    releases = [tuple(map(int, change.release.split("."))) for change in inventory.HISTORY]
    assert releases == sorted(releases)


# --- what is read from the source -----------------------------------------------------------------


def test_engines_agree_with_what_the_constructor_takes():
    for name in inventory.shipped("optimizers"):
        switches = inventory.options(name)[1]
        engines = inventory.engines(name)
        assert ("foreach" in engines) == ("foreach" in switches), name
        assert ("fused" in engines) == ("fused" in switches), name
    assert inventory.engines("LBFGS") == inventory.engines("SparseAdam") == ()
    torch.optim.AdamW([torch.zeros(1)])  # from now on AdamW has a step of its own, a wrapper
    assert inventory.engines("AdamW") == inventory.engines("Adam") != ()


def test_home():
    assert inventory.home("SGD") == "torch.optim.sgd"
    assert inventory.home("Muon") == "torch.optim._muon"
    assert inventory.home("SparseAdam") == "torch.optim.sparse_adam"
    with pytest.raises(SourceError):
        inventory.lines_of_code("torch.optim.sgd.nobody")


def test_lines_of_code_do_not_count_documentation():
    text = '"""About."""\n\nimport math  # a remark\n\n# only a remark\n\n'
    text += 'def f(x):\n    """Doc\n    string."""\n    return (\n        x\n    )\n\n\n'
    text += 'f.__doc__ = (\n    """much\n    text"""\n)\n'
    ast.parse(text)
    assert sorted(inventory._code_lines(text)) == [3, 7, 10, 11, 12]


# --- steps ----------------------------------------------------------------------------------------


def test_one_step_serves_the_three_that_need_something_special():
    bowl = surfaces.Quadratic((1.0, 4.0))
    for make in (torch.optim.SparseAdam, torch.optim.LBFGS, torch.optim.Muon):
        way = inventory.walk(lambda p, make=make: make(p, lr=0.1), bowl, (2.0, 1.0), 3)
        assert way.points.shape == (4, 2)
        assert way.values.shape == (4,)
        assert way.values[-1] < way.values[0]


def test_a_bound_is_a_bound(capsys):
    def slower(params):
        return torch.optim.SGD(params, lr=0.1 * (1 + 1e-9))

    def plain(params):
        return torch.optim.SGD(params, lr=0.1)

    inventory.table_within(plain, plain, [{}], slower, bound=1e-12)
    assert capsys.readouterr().out.count("within") == 1
    with pytest.raises(AssertionError):
        inventory.table_within(slower, plain, [{}], slower, bound=1e-12)
    with pytest.raises(AssertionError):
        inventory.table_within(plain, plain, [{}], slower, bound=1e-3)
