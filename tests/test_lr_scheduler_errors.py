"""Bad arguments and warnings: the same type of error, at the same moment, as in PyTorch.

A case is a line of Python, as in ``test_lr_scheduler.py``, run once with the names of each library.
"""

import functools
import warnings

import pytest
import torch
from test_lr_scheduler import advance, as_0dim, build, optimizer_of, plain
from torch.optim import lr_scheduler as theirs

import minioptim
from minioptim import lr_scheduler as ours

AT_ONCE = [  # the constructor raises
    "LRScheduler(o)",
    "StepLR(torch.nn.Linear(1, 1), 10)",
    "StepLR(o)",
    "StepLR(o, 10, 0.1, -1, 'too many')",
    "StepLR(o, size=3)",
    "StepLR(o, 10, last_epoch=4)",
    "ExponentialLR(o, 0.9, last_epoch=0)",
    "MultiStepLR(o, 30)",
    "MultiStepLR(o, 2.5)",
    "MultiStepLR(torch.nn.Linear(1, 1), [3])",
    "ConstantLR(o, factor=1.1)",
    "ConstantLR(o, factor=-0.1)",
    "ConstantLR(o, factor='half')",
    "LinearLR(o, start_factor=0)",
    "LinearLR(o, start_factor=1.5)",
    "LinearLR(o, end_factor=-0.5)",
    "LinearLR(o, end_factor=2)",
    "LinearLR(o, start_factor=None)",
    "LambdaLR(o, 0.5)",
    "LambdaLR(o, [lambda t: 1.0])",
    "LambdaLR(o, [lambda t: 1.0] * 3)",
    "LambdaLR(o, [lambda t: 1.0, 0.5])",
    "LambdaLR(torch.nn.Linear(1, 1), lambda t: 1.0)",
    "LambdaLR(o, lambda t: 1 / t)",
    "MultiplicativeLR(o, 0.5)",
    "MultiplicativeLR(o, [lambda t: 1.0])",
    "MultiplicativeLR(o, [lambda t: 1.0, None])",
    "CosineAnnealingWarmRestarts(o, 0)",
    "CosineAnnealingWarmRestarts(o, -3)",
    "CosineAnnealingWarmRestarts(o, 2.5)",
    "CosineAnnealingWarmRestarts(o, 'ten')",
    "CosineAnnealingWarmRestarts(o, 5, T_mult=0)",
    "CosineAnnealingWarmRestarts(o, 5, T_mult=1.5)",
    "CosineAnnealingWarmRestarts(o, 5, eta_min='small')",
    "CosineAnnealingWarmRestarts(o, 5, eta_min=torch.tensor(0.1))",
    "CyclicLR(torch.nn.Linear(1, 1), 0.1, 1.0)",
    "CyclicLR(o, 0.1, 1.0, mode='square')",
    "CyclicLR(o, 0.1, 1.0, mode=None)",
    "CyclicLR(o, [0.1], 1.0)",
    "CyclicLR(o, 0.1, [1.0, 1.0, 1.0])",
    "CyclicLR(o, 0.1, 1.0, base_momentum=[0.8])",
    "CyclicLR(o, 0.1, 1.0, max_momentum=[0.8])",
    "CyclicLR(o, 0.1, 1.0, step_size_up=0)",
    "CyclicLR(o, 0.1, 1.0, step_size_up=0, step_size_down=5)",
    "CyclicLR(o, 0.1, 1.0, step_size_up='long')",
    "CyclicLR(o, 0.1, 1.0, step_size_up=None)",
    "CyclicLR(o, 0.1, 1.0, scale_fn=3)",
    "CyclicLR(without_momentum, 0.1, 1.0)",
    "OneCycleLR(torch.nn.Linear(1, 1), 1.0, 10)",
    "OneCycleLR(o, 1.0)",
    "OneCycleLR(o, 1.0, epochs=3)",
    "OneCycleLR(o, 1.0, steps_per_epoch=3)",
    "OneCycleLR(o, 1.0, epochs=0, steps_per_epoch=3)",
    "OneCycleLR(o, 1.0, epochs=3, steps_per_epoch=2.5)",
    "OneCycleLR(o, 1.0, epochs='three', steps_per_epoch=3)",
    "OneCycleLR(o, 1.0, total_steps=0)",
    "OneCycleLR(o, 1.0, total_steps=10.0)",
    "OneCycleLR(o, 1.0, total_steps='ten')",
    "OneCycleLR(o, 1.0, 10, pct_start=1)",
    "OneCycleLR(o, 1.0, 10, pct_start=-0.1)",
    "OneCycleLR(o, 1.0, 10, pct_start=1.1)",
    "OneCycleLR(o, 1.0, 10, pct_start=None)",
    "OneCycleLR(o, 1.0, 10, pct_start='30 %')",
    "OneCycleLR(o, 1.0, 10, pct_start=0.1)",
    "OneCycleLR(o, 1.0, 10, anneal_strategy='exp')",
    "OneCycleLR(o, 1.0, 10, anneal_strategy=None)",
    "OneCycleLR(o, [1.0], 10)",
    "OneCycleLR(o, 1.0, 10, max_momentum=[0.9])",
    "OneCycleLR(o, 1.0, 10, div_factor=0)",
    "OneCycleLR(o, 1.0, 10, final_div_factor=0)",
    "OneCycleLR(without_momentum, 1.0, 10)",
    "OneCycleLR(o, 1.0, 10, last_epoch=2)",
    "ReduceLROnPlateau(torch.nn.Linear(1, 1))",
    "ReduceLROnPlateau(o, factor=1.0)",
    "ReduceLROnPlateau(o, factor='tenth')",
    "ReduceLROnPlateau(o, mode='least')",
    "ReduceLROnPlateau(o, mode=None)",
    "ReduceLROnPlateau(o, threshold_mode='percent')",
    "ReduceLROnPlateau(o, threshold_mode=3)",
    "ReduceLROnPlateau(o, min_lr=[0.1])",
    "SequentialLR(o, [], [])",
    "SequentialLR(o, [StepLR(o, 3)], [3])",
    "SequentialLR(o, [StepLR(o, 3), StepLR(o, 5)], [])",
    "SequentialLR(o, [StepLR(o, 3), o], [3])",
    "SequentialLR(o, [StepLR(o, 3), ReduceLROnPlateau(o)], [3])",
    "SequentialLR(o, [StepLR(other, 3)], [])",
    "SequentialLR(None, [StepLR(o, 3)], [])",
    "SequentialLR(o, StepLR(o, 3), [])",
    "SequentialLR(o, [StepLR(o, 3), StepLR(o, 5)], 3)",
    "ChainedScheduler([])",
    "ChainedScheduler(())",
    "ChainedScheduler([o])",
    "ChainedScheduler([o], optimizer=o)",
    "ChainedScheduler([StepLR(o, 3), StepLR(other, 3)])",
    "ChainedScheduler([StepLR(o, 3)], optimizer=other)",
    "ChainedScheduler([ReduceLROnPlateau(o)])",
    "ChainedScheduler(StepLR(o, 3))",
]
# A function of the user fails in step 0, or there is a good scheduler within the bad one.
WRITES = ["LRScheduler(o)", "lambda t: 1 / t", "scale_fn=3", "StepLR(o, 3)", "StepLR(other, 3)"]
LATER = [  # the constructor accepts it, a step raises
    "StepLR(o, 0)",
    "StepLR(o, None)",
    "StepLR(o, 1, gamma=None)",
    "ExponentialLR(o, '0.9')",
    "CosineAnnealingLR(o, 0)",
    "CosineAnnealingLR(o, 'ten')",
    "ConstantLR(o, 0.0, total_iters=2)",
    "PolynomialLR(o, total_iters=None)",
    "LambdaLR(o, lambda t: 1 / (t - 2))",
    "MultiplicativeLR(o, lambda t: 1 / (t - 2))",
    "OneCycleLR(o, 1.0, 3)",
    "OneCycleLR(o, 1.0, 3, pct_start=1.0)",
    "ReduceLROnPlateau(o)",
    "SequentialLR(o, [StepLR(o, 3), ChainedScheduler([StepLR(o, 3)])], [2])",
    "SequentialLR(o, [StepLR(o, 3), SequentialLR(o, [StepLR(o, 3)], [])], [2])",
]


def outcome(case, library, package, steps):
    """The type of the error, the step it came at, and the groups afterwards."""
    o, other = optimizer_of(package), optimizer_of(package)
    without_momentum = torch.optim.Adagrad(optimizer_of(torch.optim).param_groups[0]["params"])
    names = {name: getattr(library, name) for name in theirs.__all__}
    names |= {"o": o, "other": other, "without_momentum": without_momentum, "torch": torch}
    groups = [group for x in (o, other, without_momentum) for group in x.param_groups]
    before = plain([{**group} for group in groups])
    t = 0
    try:
        scheduler = eval(case, names)
        o.step()
        while t < steps:
            t += 1
            before = plain([group["lr"] for group in groups])
            scheduler.step()
    except Exception as error:
        after = groups if t == 0 else [group["lr"] for group in groups]
        return type(error), t, str(error), before, plain(after)
    pytest.fail(f"{case} raises nothing")


@pytest.mark.parametrize("case", AT_ONCE)
def test_the_constructor_raises(case):
    expected = outcome(case, theirs, torch.optim, steps=0)[0]
    for package in (minioptim, torch.optim):
        error, _, message, before, after = outcome(case, ours, package, steps=0)
        assert error is expected
        assert message
        if not any(part in case for part in WRITES):
            assert after == before  # nothing is half-changed


@pytest.mark.parametrize("case", LATER)
def test_a_step_raises(case):
    expected, at, *_ = outcome(case, theirs, torch.optim, steps=8)
    error, t, message, before, after = outcome(case, ours, minioptim, steps=8)
    assert (error, t) == (expected, at)
    assert message
    assert after == before


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
    ("state", "error"),
    [("LambdaLR(o, lambda t: 1.0)", KeyError), ("ChainedScheduler([StepLR(o, 3)])", KeyError),
     ("CyclicLR(o, 0.1, 1.0)", KeyError)],
)  # fmt: skip
def test_a_dictionary_of_another_scheduler(state, error):
    wrong = ours.StepLR(optimizer_of(minioptim), 3).state_dict()
    for library in (theirs, ours):
        scheduler = build(state, library, optimizer_of(torch.optim))
        with pytest.raises(error):
            scheduler.load_state_dict(dict(wrong))


def test_epochs_of_warm_restarts_are_not_negative():
    for library in (theirs, ours):
        scheduler = library.CosineAnnealingWarmRestarts(optimizer_of(torch.optim), 3)
        with pytest.raises(ValueError, match="negative"):
            scheduler.step(-1)


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
