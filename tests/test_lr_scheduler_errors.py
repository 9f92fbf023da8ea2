"""Warnings, and errors that come late: at the same moment as in PyTorch.

A case is a line of Python, as in ``test_lr_scheduler.py``, run once with the names of each library.
What is refused at once stands in ``test_bad_input.py``.
"""

import functools
import types
import warnings

import pytest
import torch
from test_lr_scheduler import advance, as_0dim, build, optimizer_of
from torch.optim import lr_scheduler as theirs

import minioptim
from minioptim import lr_scheduler as ours


def test_a_failed_step_does_not_count():
    """PyTorch goes on counting: last_epoch would be 7 after the same calls."""
    o = optimizer_of(minioptim)
    scheduler = ours.OneCycleLR(o, 1.0, total_steps=3)
    o.step()
    for _ in range(3):
        scheduler.step()
    for _ in range(4):
        with pytest.raises(ValueError, match="at most total_steps=3"):
            scheduler.step()
    assert scheduler.last_epoch == 3


@pytest.mark.parametrize(
    "case", ["StepLR(o, 1)", "CosineAnnealingLR(o, 2)", "LambdaLR(o, lambda t: 0.5**t)",
             "MultiplicativeLR(o, lambda t: 0.5)", "CyclicLR(o, 0.1, 1.0, 2)",
             "OneCycleLR(o, 1.0, 10, cycle_momentum=False)", "CosineAnnealingWarmRestarts(o, 2)",
             "ReduceLROnPlateau(o, patience=0, min_lr=0.001)",
             "ReduceLROnPlateau(o, patience=0, min_lr=[0.001, 0.002])"],
)  # fmt: skip
def test_a_group_that_is_added_later(case):
    """Recursions go on; what needs the initial rate of each group raises, and writes nothing."""
    outcomes = []
    for library, package in (theirs, torch.optim), (ours, minioptim):
        o = optimizer_of(package)
        scheduler = build(case, library, o)
        o.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))], "lr": 0.5})
        o.step()
        story = []
        for t in range(1, 6):
            before = [group["lr"] for group in o.param_groups]
            try:
                scheduler.step(1.0) if "Plateau" in case else scheduler.step()
            except (ValueError, KeyError, RuntimeError) as error:
                story.append((t, type(error)))
                if library is ours:
                    assert [group["lr"] for group in o.param_groups] == before
                break
            story.append([group["lr"] for group in o.param_groups])
        outcomes.append(story)
    assert outcomes[0] == outcomes[1]


# --- warnings ------------------------------------------------------------------------------------

SCHEDULERS = ["StepLR(o, 3)", "LambdaLR(o, lambda t: 1.0)", "CyclicLR(o, 0.1, 1.0)",
              "OneCycleLR(o, 1.0, 10)", "CosineAnnealingWarmRestarts(o, 3)", "ReduceLROnPlateau(o)",
              "SequentialLR(o, [StepLR(o, 3), ExponentialLR(o, 0.9)], [1])",
              "ChainedScheduler([StepLR(o, 3), ExponentialLR(o, 0.9)])"]  # fmt: skip


def right_order(o, make):
    s = make()
    for t in range(3):
        o.step()
        advance(s, t)


def wrong_order(o, make):
    s = make()
    for t in range(3):
        advance(s, t)
        o.step()


def wrong_order_later_on(o, make):
    s = make()
    o.step()
    for t in range(3):
        advance(s, t)


def steps_before_the_scheduler_was_built(o, make):
    o.step()
    s = make()
    advance(s, 0)
    advance(s, 1)


def second_scheduler(o, make):
    make()
    o.step()
    advance(make(), 0)


def a_step_that_fails_has_been_called(o, make):
    s = make()
    with pytest.raises(ZeroDivisionError):
        o.step(lambda: 1 / 0)
    advance(s, 0)


def replaced_step(o, make):
    s = make()
    o.step = lambda: None
    o.step()
    advance(s, 0)
    advance(s, 1)


def get_lr_by_hand(o, make):
    s = make()
    o.step()
    if not hasattr(s, "best") and not hasattr(s, "_schedulers"):
        s.get_lr()
    s.get_last_lr()


def step_with_epoch(o, make):
    s = make()
    o.step()
    if not hasattr(s, "_schedulers"):
        advance(s, 0, epoch=3)


OCCASIONS = [right_order, wrong_order, wrong_order_later_on, steps_before_the_scheduler_was_built,
             second_scheduler, a_step_that_fails_has_been_called, replaced_step, get_lr_by_hand,
             step_with_epoch]  # fmt: skip


@pytest.mark.parametrize("occasion", OCCASIONS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("case", SCHEDULERS)
def test_warnings(case, occasion):
    counts = []
    for library, package in (theirs, torch.optim), (ours, minioptim), (ours, torch.optim):
        o = optimizer_of(package)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            occasion(o, lambda library=library, o=o: build(case, library, o))
        counts.append([w.category for w in caught])
    assert counts[1] == counts[0]
    assert counts[2] == counts[0]


def test_a_wrapper_that_says_what_it_wraps_is_no_replacement():
    for library, package in (theirs, torch.optim), (ours, minioptim):
        o = optimizer_of(package)
        scheduler = library.StepLR(o, 3)
        step = o.step

        @functools.wraps(step)
        def counted(step=step):
            return step()

        o.step = counted
        o.step()
        scheduler.step()  # no warning, which would be an error here


def test_the_next_scheduler_takes_a_replaced_step_for_the_optimizers_own():
    for library, package in (theirs, torch.optim), (ours, minioptim):
        o = optimizer_of(package)
        schedulers = [library.StepLR(o, 3)]
        o.step = types.MethodType(lambda self, step=o.step: step(), o)
        schedulers.append(library.ExponentialLR(o, 0.9))
        o.step()
        for scheduler in schedulers:
            scheduler.step()  # no warning from either


def test_one_hook_serves_all_schedulers():
    o = optimizer_of(minioptim)
    for _ in range(3):
        ours.StepLR(o, 3)
    assert len(o._optimizer_step_pre_hooks) == 1


def test_both_libraries_on_one_optimizer():
    for first, second in (theirs, ours), (ours, theirs):
        o = optimizer_of(torch.optim, as_0dim)
        schedulers = [first.StepLR(o, 3), second.ExponentialLR(o, 0.9)]
        o.step()
        for scheduler in schedulers:
            scheduler.step()  # no warning from either


def test_warnings_point_at_the_line_of_the_user():
    o = optimizer_of(minioptim)
    scheduler = ours.StepLR(o, 3)
    with pytest.warns(UserWarning, match=r"call optimizer.step\(\), then scheduler.step\(\)") as w:
        scheduler.step()
    assert w[0].filename == __file__
    with pytest.warns(UserWarning, match="deprecated") as w:
        scheduler.step(3)
    assert w[0].filename == __file__
    with pytest.warns(UserWarning, match="get_last_lr") as w:
        scheduler.get_lr()
    assert w[0].filename == __file__
    with pytest.warns(UserWarning, match="deprecated") as w:
        ours.ReduceLROnPlateau(o).step(1.0, 3)
    assert w[0].filename == __file__
    scheduler, o.step = ours.StepLR(o, 3), lambda: None
    with pytest.warns(UserWarning, match="overridden") as w:
        scheduler.step()
    assert w[0].filename == __file__
