"""The helpers of the chapter on schedulers: traces, the table, the documentation, noise."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch.optim import lr_scheduler as theirs

import minioptim
from minioptim import lr_scheduler as ours
from walkthrough import schedules


class Late(ours.StepLR):
    """Decays one step late."""

    def ratio(self, t: int) -> float:
        return super().ratio(t - 1)


def test_a_trace_holds_the_first_rate_and_one_for_each_step() -> None:
    rates = schedules.trace(lambda o: ours.StepLR(o, 2, gamma=0.5), steps=5, lr=1.0)
    assert rates == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]


def test_a_rate_touched_by_hand_goes_on_from_there() -> None:
    def make(o):
        return ours.StepLR(o, 2, gamma=0.5)

    rates = schedules.trace(make, 4, lr=1.0, by_hand={1: 8.0}, package=torch.optim)
    assert rates == [1.0, 8.0, 4.0, 4.0, 2.0]


def test_a_metric_is_handed_over() -> None:
    rates = schedules.trace(
        lambda o: ours.ReduceLROnPlateau(o, patience=0, factor=0.5), 3, 1.0, metric=lambda t: 1.0
    )
    assert rates == [1.0, 1.0, 0.5, 0.25]


def test_the_table_prints_equal_rows(capsys) -> None:
    schedules.table(ours, theirs, ["StepLR(o, 3)"], planted={"StepLR": Late}, steps=10)
    text = capsys.readouterr().out
    assert text.splitlines()[1].split() == ["StepLR(3)", "0", "0", "0", "0", "264"]
    assert "all equal. Planted error: seen." in text


def test_the_table_sees_a_difference() -> None:
    class Module:
        StepLR = Late

    with pytest.raises(AssertionError, match="ours and PyTorch's differ"):
        schedules.table(Module, theirs, ["StepLR(o, 3)"], planted={"StepLR": Late}, steps=10)
    with pytest.raises(AssertionError, match="not seen"):
        schedules.table(ours, theirs, ["StepLR(o, 3)"], planted={}, steps=10)


def test_the_table_sees_the_last_bit() -> None:
    class Nearly(ours.ExponentialLR):
        def ratio(self, t: int) -> float:
            return math.nextafter(super().ratio(t), 2.0)

    class Module:
        ExponentialLR = Nearly

    with pytest.raises(AssertionError, match="differ"):
        schedules.table(Module, theirs, ["ExponentialLR(o, 0.9)"], planted={}, steps=5)


def test_rates_in_a_docstring() -> None:
    rows = {"epoch < 30": "0.05", "30 <= epoch < 60": "0.005", "epoch == 70": "0.1"}
    rows["epoch >= 90"] = "0.0"
    text = "\n".join(f"# lr = {rate}     if {when}" for when, rate in rows.items())
    Example = type("Example", (), {"__doc__": text})

    assert schedules.documented(Example) == [
        (range(30), 0.05, 2),
        (range(30, 60), 0.005, 3),
        (range(70, 71), 0.1, 1),
        (range(90, 100), 0.0, 1),
    ]


def test_a_docstring_is_no_program() -> None:
    class Example:
        """# lr = 0.05 if exit() == epoch"""

    with pytest.raises(AssertionError):
        schedules.documented(Example)


def test_every_rate_in_pytorchs_docstrings_is_read() -> None:
    source = Path(theirs.__file__).read_text(encoding="utf-8")
    found = sum(len(schedules.documented(getattr(theirs, name))) for name in theirs.__all__)
    assert found == source.count(">>> # lr = ") > 20


def test_hovering_is_what_is_expected() -> None:
    rates = schedules.trace(lambda o: ours.StepLR(o, 20, gamma=0.5), 99, lr=0.5)
    measured, predicted = schedules.hover(rates), schedules.expected(rates)
    assert measured.shape == predicted.shape == (101,)
    assert measured[0] == predicted[0] == 9.0
    assert (measured / predicted - 1).abs().max() < 0.05


def test_walks_see_the_same_noise() -> None:
    from walkthrough import surfaces

    bowl = surfaces.Quadratic((1.0, 10.0))
    for noise, alike in (0.0, False), (1.0, True):
        still = [
            schedules.wander(lambda o: ours.StepLR(o, 100), bowl, (1, 1), 5, 0.1, noise)
            for _ in range(2)
        ]
        assert torch.equal(still[0].points, still[1].points)
        assert (still[0].points[1, 0] != 0.9) == alike


def test_adams_first_step_is_the_learning_rate() -> None:
    lengths = schedules.lengths(lambda o: ours.LambdaLR(o, lambda t: 1.0), steps=3, runs=100)
    assert math.isclose(lengths[0], 1.0, rel_tol=1e-5)
    assert lengths[2] < lengths[1] < lengths[0]


def test_a_regression_that_fits() -> None:
    x = torch.eye(3, dtype=torch.float64)
    y = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    w = schedules.regress(lambda o: ours.LambdaLR(o, lambda t: 1.0), x, y, lr=1.0, steps=500)
    assert torch.allclose(w, y)


def test_the_scheduler_is_stepped_after_each_batch() -> None:
    from walkthrough import data

    train, _ = data.digits()
    model = schedules.network()
    optimizer = minioptim.SGD(model.parameters(), lr=0.5)
    scheduler = ours.StepLR(optimizer, 1, gamma=0.5)
    losses = schedules.fit(model, optimizer, scheduler, train, data.batches(64, 32), steps=4)
    assert len(losses) == 4
    assert optimizer.param_groups[0]["lr"] == 0.5**5


def test_rounding_that_is_too_large_is_an_error() -> None:
    with pytest.raises(AssertionError):
        schedules.rounding({"a": torch.tensor([0.0, 1e-13])}, limit=1e-14)
