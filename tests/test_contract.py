"""What the chapter on schedulers and optimizers observes with, observed itself."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch

import minioptim
from walkthrough import contract
from walkthrough.contract import ORDERS, SCHEDULERS, Trace, lone, resumed, used

LIBRARIES = (torch.optim, minioptim)


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda library: library.__name__)
def test_a_trace_shows_who_wrote_what(library, capsys):
    trace = Trace()
    o = trace.after("built", lone(library))
    s = trace.after("scheduler built", library.lr_scheduler.ExponentialLR(o, 0.5))
    assert trace.after("nothing", 3) == 3
    trace.after("optimizer", o.step())
    trace.after("scheduler", s.step())
    found = {
        call: dict(zip(contract.FIELDS, cells, strict=True)) for call, cells in trace.changes()
    }
    assert {k: v for k, v in found["built"].items() if v} == {"lr": "0.1"}
    assert found["scheduler built"]["initial_lr"] == "0.1"
    assert found["scheduler built"]["_step_count"] == "1"
    assert not any(found["nothing"].values())
    assert {k: v for k, v in found["optimizer"].items() if v} == {"_opt_called": "True"}
    assert found["scheduler"]["lr"] == found["scheduler"]["_last_lr"] == "0.05"
    trace.show()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + 5
    assert max(map(len, lines)) <= 84


@pytest.mark.parametrize("name", SCHEDULERS)
def test_building_first_is_right_for_every_scheduler(name):
    for library in LIBRARIES:
        for at in range(1, 15):
            for order in ("B O S", "B S O"):
                whole, again = resumed(name, order, library, at)
                assert whole == again


def test_the_other_orders_are_wrong_for_some():
    table = contract.deviations()
    for order in list(ORDERS)[2:]:
        assert any(row.get(order) for row in table.values())


class Late(minioptim.lr_scheduler.StepLR):
    def ratio(self, t):
        return 1 if t < 2 else super().ratio(t - 1)


def test_parity_sees_a_planted_error_and_misses_one_that_is_none(capsys):
    contract.parity(Late)
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 84
    with pytest.raises(AssertionError, match="not seen"):
        contract.parity(minioptim.lr_scheduler.StepLR)


def test_parity_fails_if_ours_is_another(monkeypatch):
    def odd(s, o, **e):
        return Late(o, 3, 0.5) if s is minioptim.lr_scheduler else s.StepLR(o, 3, 0.5)

    monkeypatch.setitem(SCHEDULERS, "StepLR", odd)
    with pytest.raises(AssertionError, match="StepLR: ours"):
        contract.parity(Late)


def test_values_that_are_missing_differ():
    assert contract.unequal([1, 2, 3], [1, 2, 3]) == 0
    assert contract.unequal([1, 2, 3], [1, 5]) == 2


def test_a_run_is_killed_where_it_should_be(tmp_path: Path):
    path = tmp_path / "run.pt"
    command = ["--hidden", "4", "--batch-size", "256", "--checkpoint", str(path)]
    assert contract.killed(command, after=8) == -signal.SIGKILL
    assert torch.load(path)["epoch"] == 1  # six steps


def test_warnings_are_collected_by_kind():
    with contract.warned() as kinds:
        torch.optim.lr_scheduler.StepLR(lone(), 1).step()
    assert kinds == ["UserWarning"]
    assert used(torch.optim.lr_scheduler.StepLR(lone(), 1, 0.5), 3) == [0.1, 0.05, 0.025]
