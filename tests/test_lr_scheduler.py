"""Every scheduler against PyTorch's: whole traces, equal to the last bit.

A case is a line of Python in which ``o`` is an optimizer. It is evaluated once with the names of
``torch.optim.lr_scheduler`` and once with those of ``minioptim.lr_scheduler``, and everything that
can be seen after each step must be equal: rates, momentum, the state dictionary, warnings.
"""

import copy
import gc
import inspect
import io
import math
import pickle
import warnings
import weakref

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from pair import random_runs
from torch.optim import lr_scheduler as theirs

import minioptim
from minioptim import lr_scheduler as ours

SINGLE = [
    "StepLR(o, 3)",
    "StepLR(o, 1, gamma=0.5)",
    "StepLR(o, 2.5, gamma=0.5)",
    "MultiStepLR(o, [5, 12])",
    "MultiStepLR(o, None)",
    "MultiStepLR(o, [12, 5, 5, 0, -3, 2.5], gamma=0.7)",
    "ExponentialLR(o, 0.9)",
    "ExponentialLR(o, gamma=1.1)",
    "CosineAnnealingLR(o, 10)",
    "CosineAnnealingLR(o, T_max=7, eta_min=0.01)",
    "CosineAnnealingLR(o, 1)",
    "CosineAnnealingLR(o, 2**-53)",  # rounding decides which step comes after the lowest point
    "LambdaLR(o, lambda t: 0.95**t)",
    "LambdaLR(o, [lambda t: 1 / (1 + t), Decay(0.3)])",
    "MultiplicativeLR(o, lambda t: 0.95)",
    "MultiplicativeLR(o, [Decay(0.1), lambda t: 0.9])",
    "ConstantLR(o)",
    "ConstantLR(o, factor=1)",
    "ConstantLR(o, factor=0.3, total_iters=0)",
    "LinearLR(o)",
    "LinearLR(o, start_factor=0.05, end_factor=0.7, total_iters=20)",
    "LinearLR(o, start_factor=1.0, end_factor=0.0, total_iters=9)",
    "PolynomialLR(o)",
    "PolynomialLR(o, total_iters=20, power=0.9)",
    "CosineAnnealingWarmRestarts(o, 5)",
    "CosineAnnealingWarmRestarts(o, T_0=3, T_mult=2, eta_min=0.001)",
    "OneCycleLR(o, 0.5, total_steps=40)",
    "OneCycleLR(o, [0.5, 0.7], epochs=8, steps_per_epoch=5, anneal_strategy='linear')",
    "OneCycleLR(o, 0.5, 40, three_phase=True, div_factor=10, base_momentum=[0.8, 0.7])",
    "OneCycleLR(o, 0.5, 40, pct_start=0.0, cycle_momentum=False)",
    "OneCycleLR(o, 0.5, epochs=1, steps_per_epoch=30)",
    "CyclicLR(o, 0.01, 0.1, step_size_up=4)",
    "CyclicLR(o, 0.01, 0.1, '3', '5')",
    "CyclicLR(o, [0.01, 0.02], 0.1, step_size_up=3, step_size_down=5, mode='triangular2')",
    "CyclicLR(o, 0.01, 0.1, step_size_up=4, mode='exp_range', gamma=0.97, cycle_momentum=False)",
    "CyclicLR(o, 0.01, 0.1, 4, scale_fn=Decay(0.2), scale_mode='iterations', max_momentum=0.95)",
    "CyclicLR(o, 0.01, 0.1, 4, scale_fn=lambda cycle: 1 / cycle)",
    "CyclicLR(o, 0.01, 0.1, 4, mode=None, scale_fn=Decay(0.2))",
]
COMBINED = [
    "SequentialLR(o, [ConstantLR(o, 0.1, 20), ExponentialLR(o, 0.9)], [20])",
    "SequentialLR(o, [LinearLR(o, 0.1), CosineAnnealingLR(o, 20), StepLR(o, 4)], [5, 25])",
    "SequentialLR(o, [StepLR(o, 2), CosineAnnealingWarmRestarts(o, 4), StepLR(o, 3)], [7, 15])",
    "SequentialLR(o, [CosineAnnealingWarmRestarts(o, 4), StepLR(o, 3)], [9])",
    "SequentialLR(o, [MultiplicativeLR(o, Decay(1)), LambdaLR(o, Decay(1))], [7])",
    "SequentialLR(o, [StepLR(o, 2), ExponentialLR(o, 0.5)], [0])",
    "SequentialLR(o, [ConstantLR(o, 0.3), ExponentialLR(o, 0.5)], [1])",
    "SequentialLR(o, [StepLR(o, 2), LinearLR(o), StepLR(o, 3), ConstantLR(o)], [4, 9, 16])",
    "SequentialLR(o, [ExponentialLR(o, 0.9), LinearLR(o), StepLR(o, 3)], [6, 6])",
    "SequentialLR(o, [ChainedScheduler([StepLR(o, 3), ExponentialLR(o, 0.9)])], [])",
    "SequentialLR(o, [SequentialLR(o, [LinearLR(o), StepLR(o, 3)], [4]), LinearLR(o)], [9])",
    "ChainedScheduler([ConstantLR(o, 0.1, 20), ExponentialLR(o, 0.9)])",
    "ChainedScheduler([StepLR(o, 3), LambdaLR(o, Decay(1)), ExponentialLR(o, 0.9)], optimizer=o)",
    "ChainedScheduler([SequentialLR(o, [LinearLR(o), StepLR(o, 3)], [4]), ExponentialLR(o, 0.9)])",
    "ChainedScheduler((CyclicLR(o, 0.1, 0.5, 3), PolynomialLR(o, 30)))",
]
PLATEAU = [
    "ReduceLROnPlateau(o, patience=1)",
    "ReduceLROnPlateau(o, 'max', factor=0.5, patience=0, threshold=0.1)",
    "ReduceLROnPlateau(o, 'min', 0.5, 2, 0.05, 'abs', cooldown=2, min_lr=0.01)",
    "ReduceLROnPlateau(o, 'max', 0.5, 1, threshold_mode='abs', min_lr=[0.02, 0.03], eps=0.01)",
    "ReduceLROnPlateau(o, 'max', 0.5, 1, threshold=0.0)",
    "ReduceLROnPlateau(o, 'min', 0.5, 1, threshold=0.0)",
    "ReduceLROnPlateau(o, 'min', 0.5, 0, eps=0.05)",  # half of 0.1 is no more than eps
]
CASES = SINGLE + COMBINED + PLATEAU

# What an optimizer's groups hold besides options a scheduler has nothing to do with.
OTHERS = {"params", "foreach", "fused", "capturable", "differentiable"}


class Decay:
    """A callable object: its attributes belong to the state of a scheduler."""

    def __init__(self, speed):
        self.speed = speed
        self.calls = 0

    def __call__(self, t):
        self.calls += 1
        return 1 / (1 + self.speed * t)


def as_float(x):
    return x


def as_0dim(x):
    return torch.tensor(x, dtype=torch.float64)


def as_1element(x):
    return torch.tensor([x])


def optimizer_of(package, kind=as_float, algorithm="SGD", lrs=(0.1, 0.03)):
    params = [torch.nn.Parameter(torch.ones(2)) for _ in lrs]
    for p in params:
        p.grad = torch.ones(2)
    groups = [{"params": [p], "lr": kind(lr)} for p, lr in zip(params, lrs, strict=True)]
    options = {"momentum": 0.9} if algorithm == "SGD" else {}
    return getattr(package, algorithm)(groups, lr=0.1, **options)


def build(case, library, optimizer):
    names = {name: getattr(library, name) for name in theirs.__all__}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # combinations of combinations warn of the call order
        return eval(case, {**names, "Decay": Decay, "o": optimizer})


def plain(x):
    """Anything a scheduler or an optimizer holds, as something ``==`` compares to the last bit."""
    if isinstance(x, torch.Tensor):
        return str(x.dtype), tuple(x.shape), x.tolist()
    if isinstance(x, dict):
        return {key: plain(value) for key, value in x.items()}
    if isinstance(x, list | tuple):
        return [plain(value) for value in x]
    return x


def seen(optimizer, scheduler):
    """All that can be seen of both."""
    groups = [{k: v for k, v in g.items() if k not in OTHERS} for g in optimizer.param_groups]
    return plain([groups, scheduler.state_dict(), scheduler.get_last_lr()])


def advance(scheduler, t, epoch=None):
    """One step; plateau schedulers look at a metric that falls, sticks and jumps."""
    arguments = [] if epoch is None else [epoch]
    if isinstance(scheduler, theirs.ReduceLROnPlateau | ours.ReduceLROnPlateau):
        arguments = [round(math.cos(t / 3) + 1.5, 1), *arguments]
    scheduler.step(*arguments)


def run(case, library, optimizer, steps=25, by_hand=(), start=0, scheduler=None):
    """What is seen after building the scheduler and after each step, warnings included."""
    scheduler = scheduler or build(case, library, optimizer)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trace = [seen(optimizer, scheduler)]
        optimizer.step()
        for t in range(start + 1, start + steps + 1):
            if t in by_hand:
                for group in optimizer.param_groups:
                    group["lr"] *= 0.5
            advance(scheduler, t)
            trace.append([*seen(optimizer, scheduler), [w.category for w in caught]])
    return trace, scheduler


@pytest.mark.parametrize("kind", [as_float, as_0dim, as_1element])
@pytest.mark.parametrize("case", CASES)
def test_whole_trace(case, kind):
    expected, _ = run(case, theirs, optimizer_of(torch.optim, kind))
    assert run(case, ours, optimizer_of(minioptim, kind))[0] == expected
    assert run(case, ours, optimizer_of(torch.optim, kind))[0] == expected


@pytest.mark.parametrize("case", SINGLE)
def test_adam_has_betas_to_cycle(case):
    expected, _ = run(case, theirs, optimizer_of(torch.optim, algorithm="AdamW"), 12)
    assert run(case, ours, optimizer_of(minioptim, algorithm="AdamW"), 12)[0] == expected


@pytest.mark.parametrize("case", CASES)
def test_a_rate_written_by_hand(case):
    by_hand = {3, 11, 12}
    expected, _ = run(case, theirs, optimizer_of(torch.optim), 20, by_hand)
    assert run(case, ours, optimizer_of(minioptim), 20, by_hand)[0] == expected


@pytest.mark.parametrize("first", [minioptim, torch.optim], ids=["to torch", "from torch"])
@pytest.mark.parametrize("case", CASES)
def test_continues_in_the_other_library(case, first):
    second = torch.optim if first is minioptim else minioptim
    libraries = {minioptim: ours, torch.optim: theirs}
    expected, _ = run(case, theirs, optimizer_of(torch.optim))

    o = optimizer_of(first)
    trace, scheduler = run(case, libraries[first], o, 13)
    saved = copy.deepcopy((o.state_dict(), scheduler.state_dict()))
    before = plain(saved)

    o = optimizer_of(second)
    scheduler = build(case, libraries[second], o)
    o.load_state_dict(saved[0])
    scheduler.load_state_dict(saved[1])
    if second is minioptim:
        assert plain(saved) == before  # loading leaves the dictionary as it was
    trace += run(case, libraries[second], o, 12, start=13, scheduler=scheduler)[0][1:]
    assert [x[:3] for x in trace] == [x[:3] for x in expected]


@pytest.mark.parametrize("pair", [("StepLR(o, 2)", "ExponentialLR(o, 0.9)"),
                                  ("CosineAnnealingLR(o, 5)", "ReduceLROnPlateau(o, patience=0)"),
                                  ("LambdaLR(o, lambda t: 0.9**t)", "LinearLR(o)")])  # fmt: skip
def test_two_schedulers_on_one_optimizer(pair):
    traces = []
    for library, package in (theirs, torch.optim), (ours, minioptim):
        o = optimizer_of(package)
        schedulers = [build(case, library, o) for case in pair]
        trace = []
        for t in range(1, 25):
            o.step()
            for scheduler in schedulers:
                advance(scheduler, t)
                trace.append(seen(o, scheduler))
        traces.append(trace)
    assert traces[0] == traces[1]


@pytest.mark.parametrize("case", [case for case in SINGLE if "One" not in case] + PLATEAU)
def test_step_with_an_epoch(case):
    traces = []
    for library, package in (theirs, torch.optim), (ours, minioptim):
        o = optimizer_of(package)
        scheduler = build(case, library, o)
        o.step()
        trace = []
        for t, epoch in enumerate([None, 7, None, 3, None, None, 0, 12, None]):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                advance(scheduler, t, epoch)
            trace.append((seen(o, scheduler), [w.category for w in caught]))
        traces.append(trace)
    assert traces[0] == traces[1]


def test_warm_restarts_take_a_fraction_of_an_epoch():
    traces = []
    for library in (theirs, ours):
        o = optimizer_of(torch.optim)
        scheduler = library.CosineAnnealingWarmRestarts(o, T_0=3, T_mult=2)
        traces.append([])
        for i in range(100):
            scheduler.step(i * 0.23)
            traces[-1].append(seen(o, scheduler))
    assert traces[0] == traces[1]


@pytest.mark.parametrize("last_epoch", [0, 4, 11])
@pytest.mark.parametrize("case", [*SINGLE, COMBINED[0]])
def test_resuming_by_last_epoch(case, last_epoch):
    """Not a good way to resume, and PyTorch's surprises on this way are the same here."""
    outcomes = []
    for library, package in (theirs, torch.optim), (ours, minioptim):
        o = optimizer_of(package)
        run(case, library, o, last_epoch)
        try:
            trace, scheduler = run(f"{case[:-1]}, last_epoch={last_epoch})", library, o, 10)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                by_hand = scheduler.get_lr() if hasattr(scheduler, "base_lrs") else None
            outcomes.append((trace, by_hand, len(caught)))
        except ZeroDivisionError as error:
            outcomes.append(type(error))
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("case", ["PolynomialLR(o, 1, power=0.0)", "StepLR(o, 2, gamma=1.0)",
                                  "LinearLR(o, 1.0, 1.0)", "MultiStepLR(o, [1], 1)",
                                  "MultiStepLR(o, [3], 0.5)"])  # fmt: skip
def test_an_integer_rate_becomes_a_float_when_pytorchs_does(case):
    stories = []
    for library, package in (theirs, torch.optim), (ours, minioptim):
        o = optimizer_of(package, lrs=(1, 2))
        trace, _ = run(case, library, o, 4)
        stories.append([[(type(lr), lr) for lr in x[2]] for x in trace])
    assert stories[0] == stories[1]


def test_one_cycle_needs_no_way_up_where_it_goes_on_after_it():
    traces = []
    for library, package in (theirs, torch.optim), (ours, minioptim):
        o = optimizer_of(package)
        run("OneCycleLR(o, 0.5, 10)", library, o, 4)
        case = "OneCycleLR(o, 0.5, 10, pct_start=0.1, last_epoch=4)"  # refused at the beginning
        traces.append(run(case, library, o, 5)[0])
    assert traces[0] == traces[1]


def test_a_scheduler_that_waits_in_another_one_can_be_sent_to_an_epoch():
    found = []
    for library in (theirs, ours):
        o = optimizer_of(torch.optim)
        waiting = library.CosineAnnealingWarmRestarts(o, 4)
        library.SequentialLR(o, [library.StepLR(o, 2), waiting], [5])
        waiting.step(3)
        found.append(seen(o, waiting))
    assert found[0] == found[1]


@pytest.mark.parametrize("case", ["CyclicLR(o, 0.1, top, 2)", "CyclicLR(o, 0.1, [top, top], 2)"])
def test_tensors_among_the_arguments_are_copied(case):
    highest = []
    for library in (theirs, ours):
        o, top = optimizer_of(torch.optim), as_0dim(1.0)
        scheduler = eval(case, {"CyclicLR": library.CyclicLR, "o": o, "top": top})
        top.fill_(9.0)
        o.step()
        scheduler.step()
        scheduler.step()
        highest.append([float(lr) for lr in scheduler.get_last_lr()])
    assert highest[0] == highest[1] == [1.0, 1.0]


@pytest.mark.parametrize("case", SINGLE)
def test_get_lr_by_hand_before_the_first_step(case):
    found = []
    for library in (theirs, ours):
        scheduler = build(case, library, optimizer_of(torch.optim))
        with pytest.warns(UserWarning, match="get_last_lr"):
            found.append(plain(scheduler.get_lr()))
    assert found[0] == found[1]


@pytest.mark.parametrize("t", [1, 4])
def test_get_lr_by_hand_on_a_resumed_scheduler(t):
    """The one place where ``CosineAnnealingLR`` of PyTorch looks at its ``_step_count``."""
    found = []
    for library in (theirs, ours):
        o = optimizer_of(torch.optim)
        for group in o.param_groups:
            group["initial_lr"] = 1.0
        scheduler = library.CosineAnnealingLR(o, 10, last_epoch=t - 1)
        with pytest.warns(UserWarning, match="get_last_lr"):
            found.append(scheduler.get_lr())
    assert found[0] == found[1] == [ours.cosine_annealing_lr(t, 1.0, 10)] * 2


def test_the_comparison_can_fail(monkeypatch):
    """A sign, a missing branch, an off-by-one: each must show."""
    case = "CosineAnnealingLR(o, 10)"
    expected, _ = run(case, theirs, optimizer_of(torch.optim))
    monkeypatch.setattr(ours.CosineAnnealingLR, "next_lrs", ours._Recursive._get_closed_form_lr)
    closed, _ = run(case, ours, optimizer_of(torch.optim))
    assert closed != expected  # rounding alone is a difference
    for right, wrong in zip(expected, closed, strict=True):
        assert right[2] == pytest.approx(wrong[2], rel=1e-12, abs=1e-15)


# --- functions of the step -----------------------------------------------------------------------

CLOSED_FORMS = [
    ("StepLR(o, 3, 0.5)", lambda t, lr: ours.step_lr(t, lr, 3, 0.5)),
    ("MultiStepLR(o, [9, 4, 4])", lambda t, lr: ours.multi_step_lr(t, lr, [9, 4, 4])),
    ("ExponentialLR(o, 0.9)", lambda t, lr: ours.exponential_lr(t, lr, 0.9)),
    ("CosineAnnealingLR(o, 8, 0.01)", lambda t, lr: ours.cosine_annealing_lr(t, lr, 8, 0.01)),
    ("ConstantLR(o, 0.5, 7)", lambda t, lr: ours.constant_lr(t, lr, 0.5, 7)),
    ("LinearLR(o, 0.1, 0.8, 9)", lambda t, lr: ours.linear_lr(t, lr, 0.1, 0.8, 9)),
    ("PolynomialLR(o, 12, 2.0)", lambda t, lr: ours.polynomial_lr(t, lr, 12, 2.0)),
]


@pytest.mark.parametrize(("case", "closed_form"), CLOSED_FORMS)
def test_closed_form(case, closed_form):
    """Equal to the recursion up to rounding, and to PyTorch's closed form exactly."""
    recursion, exact = optimizer_of(minioptim), optimizer_of(torch.optim)
    stepped, jumped = build(case, ours, recursion), build(case, theirs, exact)
    for t in range(1, 40):
        recursion.step()
        stepped.step()
        jumped.last_epoch = t
        expected = [closed_form(t, lr) for lr in stepped.base_lrs]
        assert stepped.get_last_lr() == pytest.approx(expected, rel=1e-12, abs=1e-16)
        assert jumped._get_closed_form_lr() == expected


@pytest.mark.parametrize(
    ("case", "function"),
    [
        (
            "CosineAnnealingWarmRestarts(o, 2, 3, 0.01)",
            lambda t: ours.warm_restarts_lr(t, 0.1, 2, 3, 0.01),
        ),
        (
            "CyclicLR(o, 0.1, 1.0, 3, 5)",
            lambda t: ours.cyclic_lr(t, 0.1, 1.0, total_size=8, step_ratio=3 / 8),
        ),
        (
            "CyclicLR(o, 0.1, 1.0, 4, mode='triangular2')",
            lambda t: ours.cyclic_lr(t, 0.1, 1.0, 8, 0.5, scale=0.5 ** (t // 8)),
        ),
        (
            "OneCycleLR(o, 1.0, 40)",
            lambda t: ours.one_cycle_lr(t, [0.04, 1.0, 4e-6], [11.0, 39], "cos"),
        ),
        (
            "OneCycleLR(o, 1.0, 40, three_phase=True, anneal_strategy='linear')",
            lambda t: ours.one_cycle_lr(t, [0.04, 1.0, 0.04, 4e-6], [11.0, 22.0, 39], "linear"),
        ),
    ],
)
def test_schedules_that_are_functions_of_the_step(case, function):
    o = optimizer_of(minioptim, lrs=(0.1,))
    scheduler = build(case, ours, o)
    for t in range(40):
        assert scheduler.get_last_lr() == [function(t)]
        o.step()
        scheduler.step()


# --- random configurations -----------------------------------------------------------------------

unit = st.floats(0.01, 1, allow_subnormal=False)
steps = st.integers(1, 12)


def case_of(name, **strategies):
    """Random lines such as ``StepLR(o, step_size=3, gamma=0.5)``."""
    arguments = st.fixed_dictionaries(strategies)
    return arguments.map(lambda kw: f"{name}(o, {', '.join(f'{k}={v!r}' for k, v in kw.items())})")


singles = st.one_of(
    case_of("StepLR", step_size=steps, gamma=unit),
    case_of("MultiStepLR", milestones=st.lists(st.integers(-1, 20), max_size=5), gamma=unit),
    case_of("ExponentialLR", gamma=unit),
    case_of("CosineAnnealingLR", T_max=steps, eta_min=unit),
    unit.map(lambda x: f"LambdaLR(o, Decay({x!r}))"),
    unit.map(lambda x: f"MultiplicativeLR(o, lambda t: {x!r} + 0.1 * t)"),
    case_of("ConstantLR", factor=unit, total_iters=st.integers(0, 12)),
    case_of("LinearLR", start_factor=unit, end_factor=st.floats(0, 1), total_iters=steps),
    case_of("PolynomialLR", total_iters=steps, power=st.floats(0, 3)),
    case_of("CosineAnnealingWarmRestarts", T_0=steps, T_mult=st.integers(1, 3), eta_min=unit),
    case_of(
        "OneCycleLR",
        max_lr=unit,
        total_steps=st.integers(30, 40),
        pct_start=st.floats(0.1, 0.9),
        anneal_strategy=st.sampled_from(["cos", "linear"]),
        three_phase=st.booleans(),
        cycle_momentum=st.booleans(),
    ),
    case_of(
        "CyclicLR",
        base_lr=unit,
        max_lr=unit,
        step_size_up=steps,
        step_size_down=st.none() | steps,
        mode=st.sampled_from(["triangular", "triangular2", "exp_range"]),
        gamma=unit,
        cycle_momentum=st.booleans(),
    ),
)


@st.composite
def combined(draw):
    parts = draw(st.lists(singles, min_size=1, max_size=3))
    if draw(st.booleans()):
        return f"ChainedScheduler([{', '.join(parts)}])"
    milestones = sorted(draw(st.integers(0, 20)) for _ in parts[1:])
    return f"SequentialLR(o, [{', '.join(parts)}], {milestones})"


events = st.lists(st.sampled_from(["step"] * 12 + ["by hand", "save", "epoch"]), max_size=25)
kinds = st.sampled_from([as_float, as_0dim, as_1element])


@random_runs(300)
@given(st.lists(st.one_of(singles, combined()), min_size=1, max_size=2), kinds, events)
def test_random_runs(cases, kind, events):
    """Any schedulers, rates written by hand, jumps, and a change of library at every save."""

    def story(sides):
        library, package = sides[0]
        o = optimizer_of(package, kind)
        schedulers = [build(case, library, o) for case in cases]
        yield [seen(o, s) for s in schedulers]
        for t, event in enumerate(events):
            o.step()
            if event == "by hand":
                for group in o.param_groups:
                    group["lr"] *= 0.7
            if event == "save":
                sides = sides[::-1]
                library, package = sides[0]
                saved = copy.deepcopy([x.state_dict() for x in (o, *schedulers)])
                o = optimizer_of(package, kind)
                schedulers = [build(case, library, o) for case in cases]
                for x, state in zip((o, *schedulers), saved, strict=True):
                    x.load_state_dict(state)
            for s in schedulers:
                jump = event == "epoch" and not hasattr(s, "_schedulers")
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    try:
                        s.step(t // 2) if jump else s.step()
                    except (ValueError, ZeroDivisionError) as error:
                        yield type(error)
                        return
                yield seen(o, s), [w.category for w in caught]

    expected = list(story([(theirs, torch.optim)]))
    assert list(story([(ours, torch.optim)])) == expected
    assert list(story([(ours, minioptim), (theirs, torch.optim)])) == expected


# --- what else a user leans on -------------------------------------------------------------------


@pytest.mark.parametrize("name", theirs.__all__)
def test_same_names_and_signatures(name):
    expected = inspect.signature(getattr(theirs, name)).parameters.values()
    found = inspect.signature(getattr(ours, name)).parameters.values()
    assert [(p.name, p.kind, p.default) for p in found] == [
        (p.name, p.kind, p.default) for p in expected
    ]


@pytest.mark.parametrize("kind", [as_0dim, as_1element])
@pytest.mark.parametrize("case", CASES)
def test_tensor_rates_are_filled_and_never_shared(case, kind):
    o = optimizer_of(minioptim, kind)
    rates = [group["lr"] for group in o.param_groups]
    scheduler = build(case, ours, o)
    for t in range(8):
        o.step()
        advance(scheduler, t)
        for group, rate, last in zip(o.param_groups, rates, scheduler.get_last_lr(), strict=True):
            assert group["lr"] is rate
            copies = [rate, last, group.get("initial_lr"), *getattr(scheduler, "base_lrs", [])]
            memory = [x.data_ptr() for x in copies if isinstance(x, torch.Tensor)]
            assert len(set(memory)) == len(memory)


@pytest.mark.parametrize("case", CASES)
def test_state_survives_a_file(case):
    o = optimizer_of(minioptim)
    scheduler = build(case, ours, o)
    o.step()
    advance(scheduler, 1)
    file = io.BytesIO()
    torch.save(scheduler.state_dict(), file)
    file.seek(0)
    assert plain(torch.load(file, weights_only=True)) == plain(scheduler.state_dict())


@pytest.mark.parametrize("case", [case for case in CASES if "lambda" not in case])
@pytest.mark.parametrize("clone", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_go_on_alone(case, clone):
    o = optimizer_of(minioptim)
    _, scheduler = run(case, ours, o, 4)
    copied = clone(scheduler)
    before = seen(o, scheduler)
    optimizer = copied.optimizer
    assert optimizer is not o
    assert seen(optimizer, copied) == before
    trace, _ = run(case, ours, optimizer, 5, start=4, scheduler=copied)
    assert seen(o, scheduler) == before
    expected, _ = run(case, ours, o, 5, start=4, scheduler=scheduler)
    assert [x[:3] for x in trace] == [x[:3] for x in expected]


def test_functions_are_not_saved_but_callable_objects_are():
    o = optimizer_of(minioptim)
    scheduler = ours.LambdaLR(o, [lambda t: 1.0, Decay(0.5)])
    assert scheduler.state_dict()["lr_lambdas"] == [None, {"speed": 0.5, "calls": 1}]
    other = ours.LambdaLR(optimizer_of(minioptim), [lambda t: 2.0, Decay(0.7)])
    saved = scheduler.state_dict()
    o.step()
    scheduler.step()  # counts a call more, which is not in what was saved before
    other.load_state_dict(saved)
    assert other.lr_lambdas[0](3) == 2.0
    assert vars(other.lr_lambdas[1]) == {"speed": 0.5, "calls": 1}


@pytest.mark.parametrize("package", [minioptim, torch.optim], ids=["minioptim", "torch.optim"])
def test_no_reference_cycle(package):
    """What nobody holds any more is gone at once, without the garbage collector."""
    gc.collect()
    gc.disable()
    try:
        for case in CASES:
            o = optimizer_of(package)
            _, scheduler = run(case, ours, o, 2)
            scheduler, o = weakref.ref(scheduler), weakref.ref(o)
            assert scheduler() is None, case
            assert o() is None, case
    finally:
        gc.enable()


def test_a_subclass_may_define_get_lr_as_in_pytorch():
    class Halving(ours.LRScheduler):
        def get_lr(self):
            return [base_lr * 0.5**self.last_epoch for base_lr in self.base_lrs]

    o = optimizer_of(minioptim)
    scheduler = Halving(o)
    o.step()
    scheduler.step()
    assert scheduler.get_last_lr() == [0.05, 0.015]

    class Lazy(ours.LRScheduler):
        def get_lr(self):
            yield from (2 * base_lr for base_lr in self.base_lrs)

    assert Lazy(optimizer_of(minioptim)).get_last_lr() == [0.2, 0.06]

    class Doubled(ours.StepLR):
        def __init__(self, optimizer):
            super().__init__(optimizer, 1, gamma=0.5)

        def get_lr(self):
            return [2 * lr for lr in super().get_lr()]

    assert Doubled(optimizer_of(minioptim)).get_last_lr() == [0.2, 0.06]


@pytest.mark.parametrize("schedulers", [ours, theirs])
def test_a_subclass_may_have_a_first_step_of_its_own(schedulers):
    """What the base class does there is left out, so step 1 is as any other."""

    class Later(schedulers.ExponentialLR):
        def _initial_step(self):
            self._step_count = 1

    o = optimizer_of(minioptim if schedulers is ours else torch.optim)
    rates = [group["lr"] for group in o.param_groups]
    scheduler = Later(o, gamma=0.5)
    o.step()
    scheduler.step()
    assert [group["lr"] for group in o.param_groups] == [rate / 2 for rate in rates]


def test_old_name_of_the_base_class():
    assert issubclass(ours._LRScheduler, ours.LRScheduler)


def test_a_class_says_that_no_step_is_under_way():
    assert not minioptim.lr_scheduler.LRScheduler._get_lr_called_within_step
    assert not theirs.LRScheduler._get_lr_called_within_step
