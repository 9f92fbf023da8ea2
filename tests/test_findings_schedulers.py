"""What comparing every scheduler has found in PyTorch 2.13.0. Each test shows both libraries.

Where PyTorch returns numbers, this package returns the same ones, strange or not. Where PyTorch
fails, or damages something on the way, it does the right thing.
"""

import copy
import functools
import math

import pytest
import torch
from test_lr_scheduler import Decay
from torch.optim import lr_scheduler as theirs

import minioptim
from minioptim import lr_scheduler as ours

BOTH = pytest.mark.parametrize("library", [theirs, ours], ids=["torch", "minioptim"])


def sgd(lr=0.5, package=torch.optim, **group):
    params = [torch.nn.Parameter(torch.ones(1))]
    return package.SGD([{"params": params, **group}], lr=lr, momentum=0.9)


def rate(optimizer):
    return optimizer.param_groups[0]["lr"]


def rates(optimizer, scheduler, steps):
    found = [float(rate(optimizer))]
    for _ in range(steps):
        optimizer.step()
        scheduler.step()
        found.append(float(rate(optimizer)))
    return found


# --- PyTorch fails or does damage, this package does not -----------------------------------------


def test_cyclic_lr_takes_a_key_out_of_the_dictionary_it_loads():
    state = theirs.CyclicLR(sgd(), 0.1, 1.0).state_dict()
    scheduler = theirs.CyclicLR(sgd(), 0.1, 1.0)
    scheduler.load_state_dict(state)
    assert "_scale_fn_custom" not in state
    with pytest.raises(KeyError):
        scheduler.load_state_dict(state)  # the same checkpoint, a second time

    state = ours.CyclicLR(sgd(), 0.1, 1.0).state_dict()
    scheduler = ours.CyclicLR(sgd(), 0.1, 1.0)
    for _ in range(2):
        scheduler.load_state_dict(state)
    assert "_scale_fn_custom" in state


def test_cyclic_lr_with_a_tensor_bound_gets_stuck_at_the_top():
    """The group's rate *is* ``base_lrs[0]``, so each step raises the lower bound of the cycle."""
    for library, expected in [
        (theirs, [0.1, 0.55, 1.0, 1.0, 1.0, 1.0, 1.0]),
        (ours, [0.1, 0.55, 1.0, 0.55, 0.1, 0.55, 1.0]),
    ]:
        o = sgd(lr=0.1)
        low = torch.tensor(0.1, dtype=torch.float64)
        scheduler = library.CyclicLR(o, low, 1.0, step_size_up=2)
        assert rates(o, scheduler, 6) == pytest.approx(expected, abs=1e-15)
        assert (rate(o) is scheduler.base_lrs[0]) == (library is theirs)


def test_sequential_lr_can_make_the_rate_an_alias_of_the_initial_one():
    for library, shared in (theirs, True), (ours, False):
        o = sgd(lr=torch.tensor(1.0))
        parts = [library.ExponentialLR(o, 0.5), library.ExponentialLR(o, 0.9)]
        o.param_groups[0]["lr"] = 1.0  # a number in place of the tensor
        library.SequentialLR(o, parts, [3])
        assert (rate(o) is o.param_groups[0]["initial_lr"]) == shared


def test_triangular2_overflows_after_1024_cycles():
    """It computes ``1 / 2.0 ** (cycle - 1)``; ``0.5 ** (cycle - 1)`` is the same and goes to 0."""
    o = sgd()
    scheduler = theirs.CyclicLR(o, 0.01, 0.1, step_size_up=1, mode="triangular2")
    with pytest.raises(OverflowError):
        rates(o, scheduler, 2100)
    assert scheduler.last_epoch == 2048

    o = sgd()
    scheduler = ours.CyclicLR(o, 0.01, 0.1, step_size_up=1, mode="triangular2")
    assert rates(o, scheduler, 2100)[-1] == 0.01
    for cycle in range(1, 1025):
        assert scheduler.scale_fn(cycle) == 1 / 2.0 ** (cycle - 1)


@pytest.mark.parametrize(("name", "changed"), [("CyclicLR", "lr"), ("OneCycleLR", "max_lr")])
def test_a_constructor_that_raises_has_already_written(name, changed):
    arguments = {"CyclicLR": (0.01, 0.1), "OneCycleLR": (0.1, 10)}[name]
    for library, damaged in (theirs, True), (ours, False):
        o = torch.optim.Adagrad([torch.nn.Parameter(torch.ones(1))], lr=0.5)  # has no momentum
        before = dict(o.param_groups[0])
        with pytest.raises(ValueError, match="momentum"):
            getattr(library, name)(o, *arguments)
        assert (o.param_groups[0].get(changed) != before.get(changed)) == damaged
        assert (o.param_groups[0] != before) == damaged


def test_one_cycle_lr_cannot_go_up_within_one_step():
    """``pct_start * total_steps == 1`` divides 0 by 0, and has cycled the momentum by then."""
    for library, momentum in (theirs, 0.95), (ours, 0.9):
        o = sgd()
        with pytest.raises(ZeroDivisionError) as error:
            library.OneCycleLR(o, 0.1, total_steps=10, pct_start=0.1)
        assert ("pct_start" in str(error.value)) == (library is ours)
        assert o.param_groups[0]["momentum"] == momentum


def test_a_step_that_raises_is_counted():
    for library, counted in (theirs, 7), (ours, 3):
        o = sgd()
        scheduler = library.OneCycleLR(o, 0.1, total_steps=3)
        rates(o, scheduler, 3)
        for _ in range(4):
            with pytest.raises(ValueError, match="total"):
                scheduler.step()
        assert scheduler.last_epoch == counted


def test_a_group_added_later_is_half_served():
    """``zip`` notices that a rate is missing only when it has written the others."""
    for library, first in (theirs, 0.25), (ours, 0.5):
        o = sgd()
        scheduler = library.LambdaLR(o, lambda t: 0.5**t)
        o.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))]})
        o.step()
        with pytest.raises(ValueError, match=r"zip|added"):
            scheduler.step()
        assert rate(o) == first


def test_functions_written_in_c_cannot_be_saved():
    o = sgd()
    scheduler = theirs.LambdaLR(o, math.cos)
    with pytest.raises(AttributeError, match="__dict__"):
        scheduler.state_dict()
    assert ours.LambdaLR(o, math.cos).state_dict()["lr_lambdas"] == [None]


def test_no_scheduler_for_an_optimizer_whose_step_is_replaced():
    """PyTorch's wrapper asks for ``step.__func__``, which only a method has."""
    o = sgd()
    step = o.step
    o.step = lambda *args: step(*args)
    with pytest.raises(AttributeError, match="__func__"):
        theirs.StepLR(o, 1)
    assert rates(o, ours.StepLR(o, 1), 2) == pytest.approx([0.5, 0.05, 0.005])  # and no warning

    o = sgd()
    o.step = functools.partial(o.step)
    with pytest.raises(AttributeError):
        theirs.StepLR(o, 1)
    ours.StepLR(o, 1)


# --- strange numbers, and the same ones here -----------------------------------------------------


@BOTH
def test_cyclic_lr_starts_at_an_earlier_schedulers_rate(library):
    """``initial_lr`` is kept if it is there, and step 0 uses it in place of ``base_lr``."""
    o = sgd(lr=0.5)
    library.StepLR(o, 100)
    scheduler = library.CyclicLR(o, 0.01, 0.1, step_size_up=2)
    assert rates(o, scheduler, 4) == pytest.approx([0.5, 0.055, 0.1, 0.055, 0.01])


@BOTH
def test_cyclic_lr_cannot_go_down_for_ever(library):
    """The way up is then no share of the cycle at all, and step 0 divides by that share."""
    with pytest.raises(ZeroDivisionError):
        library.CyclicLR(sgd(), 0.01, 0.1, step_size_up=3, step_size_down=math.inf)


@BOTH
def test_one_cycle_lr_goes_below_zero(library):
    """A loop over all batches makes ``total_steps`` steps; the last rate is one step earlier."""
    o = sgd()
    scheduler = library.OneCycleLR(o, 0.1, total_steps=10, anneal_strategy="linear")
    found = rates(o, scheduler, 10)
    assert found[9] == pytest.approx(4e-7)
    assert found[10] == -0.014285257142857138


@BOTH
def test_one_cycle_lr_without_a_way_up_never_has_its_highest_rate(library):
    o = sgd()
    scheduler = library.OneCycleLR(o, 0.1, total_steps=5, pct_start=0.0)
    assert max(rates(o, scheduler, 4)) == pytest.approx(0.0904508879)


@BOTH
def test_warm_restarts_miss_a_restart_when_the_logarithm_is_rounded_down(library):
    """``math.log(243, 3)`` is 4.999999999999999, so epoch 121 counts as the end of a period."""
    o = sgd(lr=0.5)
    scheduler = library.CosineAnnealingWarmRestarts(o, T_0=1, T_mult=3)
    assert rates(o, scheduler, 121)[-1] == 0.5  # step() has restarted
    scheduler.step(121)
    assert rate(o) == 0.0  # step(121) has not
    assert ours.warm_restarts_lr(121, 0.5, T_0=1, T_mult=3) == 0.5


@BOTH
def test_warm_restarts_resumed_by_last_epoch_have_the_wrong_period(library):
    """Epoch 10 of periods 2, 4, 8 lies 4 into the third; PyTorch begins the second."""
    o = sgd(lr=1.0, initial_lr=1.0)
    scheduler = library.CosineAnnealingWarmRestarts(o, T_0=2, T_mult=2, last_epoch=9)
    assert (scheduler.T_cur, scheduler.T_i, rate(o)) == (0, 4, 1.0)
    assert ours.warm_restarts_lr(10, 1.0, T_0=2, T_mult=2) == 0.5


@BOTH
def test_multi_step_lr_counts_a_milestone_twice_if_it_is_listed_twice(library):
    o = sgd(lr=1.0)
    found = rates(o, library.MultiStepLR(o, [2, 2, 3], gamma=0.5), 4)
    assert found == [1.0, 1.0, 0.25, 0.125, 0.125]


@BOTH
def test_cosine_annealing_climbs_again_and_forgets_a_rate_written_by_hand(library):
    """It keeps such a rate down to the lowest point, and climbs from there to the initial one."""
    o = sgd(lr=1.0)
    scheduler = library.CosineAnnealingLR(o, T_max=4)
    assert rates(o, scheduler, 8)[4:] == pytest.approx([0, 0.1464466, 0.5, 0.8535534, 1.0])

    o = sgd(lr=1.0)
    scheduler = library.CosineAnnealingLR(o, T_max=4)
    rates(o, scheduler, 1)
    o.param_groups[0]["lr"] *= 0.1
    found = rates(o, scheduler, 7)
    assert found[1] == pytest.approx(0.05)  # a tenth of 0.5
    assert found[5] == pytest.approx(0.5)  # after the turn, as if nothing had been written


@BOTH
def test_step_lr_resumed_by_last_epoch_decays_twice(library):
    o = sgd(lr=0.01, initial_lr=0.1)  # saved after 30 steps, in which 0.1 became 0.01
    library.StepLR(o, 30, last_epoch=29)
    assert rate(o) == pytest.approx(0.001)
    o = sgd(lr=0.01, initial_lr=0.1)
    library.MultiStepLR(o, [30], last_epoch=29)
    assert rate(o) == pytest.approx(0.001)
    o = sgd(lr=0.01, initial_lr=0.1)
    library.ExponentialLR(o, 0.1, last_epoch=29)
    assert rate(o) == 0.01  # this one knows that it is being built


@BOTH
def test_constant_lr_over_no_steps_is_never_undone(library):
    """The recursion would undo it at step 0, where it reduces the rate; the closed form knows."""
    o = sgd(lr=0.5)
    scheduler = library.ConstantLR(o, factor=0.1, total_iters=0)
    assert rates(o, scheduler, 3) == [0.05] * 4
    assert scheduler._get_closed_form_lr() == [0.5]


@BOTH
def test_constant_lr_accepts_a_factor_it_cannot_undo(library):
    o = sgd()
    scheduler = library.ConstantLR(o, factor=0.0, total_iters=3)
    with pytest.raises(ZeroDivisionError):
        rates(o, scheduler, 3)


@BOTH
def test_cosine_annealing_fails_late_for_a_group_added_later(library):
    """Only the step after the lowest point looks at ``base_lrs``, which has no such group."""
    o = sgd()
    scheduler = library.CosineAnnealingLR(o, T_max=3)
    o.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))], "lr": 0.1})
    rates(o, scheduler, 3)
    with pytest.raises(ValueError, match="zip"):
        scheduler.step()


@BOTH
def test_a_chained_scheduler_within_a_sequential_one_decays_before_the_first_step(library):
    o = sgd(lr=1.0)
    chained = library.ChainedScheduler([library.ExponentialLR(o, 0.5)])
    with pytest.warns(UserWarning, match="step"):  # of the call order, while being built
        library.SequentialLR(o, [chained], [])
    assert rate(o) == 0.5  # an ExponentialLR alone in the SequentialLR would leave 1.0


@BOTH
def test_a_chained_scheduler_cannot_take_over_in_a_sequential_one(library):
    o = sgd(lr=1.0)
    chained = library.ChainedScheduler([library.ExponentialLR(o, 0.5)])
    scheduler = library.SequentialLR(o, [library.StepLR(o, 3), chained], [2])
    with pytest.raises(NotImplementedError):
        rates(o, scheduler, 2)
    assert chained.last_epoch == (0 if library is theirs else -1)  # not started, in ours


@BOTH
def test_plateau_takes_worse_for_better_when_the_best_is_negative(library):
    """In mode "rel" the bar is ``best * (1 - threshold)``, which lies above a negative best."""
    scheduler = library.ReduceLROnPlateau(sgd(), "min", patience=0)
    scheduler.step(-1.0)
    scheduler.step(-0.99995)
    assert scheduler.best == -0.99995
    assert scheduler.num_bad_epochs == 0


@BOTH
def test_a_copy_of_a_new_scheduler_warns_of_a_step_nobody_replaced(library):
    """Copies of an optimizer lose what tells a scheduler of its steps."""
    scheduler = copy.deepcopy(library.StepLR(sgd(package=torch.optim), 3))
    scheduler.optimizer.step()
    with pytest.warns(UserWarning, match="overridden"):
        scheduler.step()


@BOTH
def test_examples_of_the_documentation(library):
    """First rates that PyTorch's docstrings print differently: .003687, .0490 and .05."""
    o = sgd(lr=0.05)
    scheduler = library.LinearLR(o, start_factor=0.05, total_iters=40)
    assert rates(o, scheduler, 1) == pytest.approx([0.0025, 0.0036875])
    o = sgd(lr=0.05)
    scheduler = library.PolynomialLR(o, total_iters=50, power=0.9)
    assert rates(o, scheduler, 1) == pytest.approx([0.05, 0.0490987], rel=1e-5)
    o = sgd(lr=0.05)
    parts = [library.ConstantLR(o, factor=0.1, total_iters=20), library.ExponentialLR(o, 0.9)]
    scheduler = library.ChainedScheduler(parts)
    assert rates(o, scheduler, 1) == pytest.approx([0.005, 0.0045])


@BOTH
def test_objects_with_a_state_are_called_once_more_than_there_are_steps(library):
    """Step 0 is a call, too: a callable that counts its calls is one ahead of the steps."""
    schedule = Decay(0.1)
    o = sgd(package=minioptim if library is ours else torch.optim)
    rates(o, library.LambdaLR(o, schedule), 5)
    assert schedule.calls == 6
