"""Learning-rate schedulers: each is first a function of the step, then an object that runs it.

**The function.** ``step_lr(t, base_lr, step_size, gamma)`` is the learning rate after ``t`` calls
of ``scheduler.step()``. It needs no optimizer, so it can be printed, plotted and tested alone.
``t`` counts epochs if you call ``scheduler.step()`` once per epoch, batches if once per batch.

**The object.** ``StepLR(optimizer, ...)`` writes ``group["lr"]`` of each parameter group. Most
schedulers here do *not* evaluate their function to do so. They multiply the rate they find by one
ratio, as PyTorch does, so that several schedulers can work on one optimizer and a rate written by
hand is kept. In exact arithmetic both ways agree; in floating point they differ in the last digits.

Names, arguments, attributes, state dictionaries and every float are those of
``torch.optim.lr_scheduler`` (2.13). The schedulers drive optimizers of either library.

The order of calls in a training loop::

    optimizer.step()    # moves the parameters with the present rate
    scheduler.step()    # then sets the next one

To resume, build optimizer and scheduler as at the start, then load *both* dictionaries: the present
rate is saved with the optimizer, the position in the schedule with the scheduler.
"""

import inspect
import math
import warnings
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import InitVar, dataclass
from types import FunctionType
from typing import Any, SupportsFloat

from torch import Tensor

from .compat import EPOCH_IS_DEPRECATED
from .optimizer import Optimizer, _squeeze

LR = float | Tensor  # a learning rate: a number, or a tensor with one element
Lambdas = Callable[[int], float] | list[Callable[[int], float]]  # functions of the step


# --- the base class ------------------------------------------------------------------------------


class LRScheduler:
    """Counts steps, and after each one writes the new learning rate into every parameter group.

    A subclass says what the new rates are, in ``next_lrs`` (or, as in PyTorch, in ``get_lr``).

    Args:
        optimizer: the optimizer whose ``param_groups`` are written.
        last_epoch: -1 starts the schedule. Another number is for resuming without a state
            dictionary, which is easily done wrong; prefer ``load_state_dict``.

    Attributes:
        last_epoch: steps taken so far, the ``t`` of the formulas.
        base_lrs: per group, the rate the schedule started from; also in ``group["initial_lr"]``.

    Raises:
        TypeError: ``optimizer`` is not an optimizer.
        KeyError: ``last_epoch`` is given, but a group has no ``"initial_lr"`` to resume from.

    Tensor rates are written in place and never shared: ``initial_lr``, ``base_lrs`` and
    ``get_last_lr()`` hold copies. The constructor takes step 0 itself, so building a scheduler
    writes ``lr``: load an optimizer's state after it, not before.
    Source: ``torch.optim.lr_scheduler.LRScheduler``.
    """

    _is_initial = False  # while step 0 is taken
    _get_lr_called_within_step = False
    last_epoch = -1
    _stateful: tuple[str, ...] = ()  # attributes that are objects, saved by what is in them

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        self.optimizer = _checked(optimizer)
        for i, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", _copy(group["lr"]))
            rule = f"last_epoch needs initial_lr in group {i} (better: use load_state_dict)"
            _require("initial_lr" in group, rule, sorted(group), KeyError)
        self.base_lrs: list[LR] = [_copy(group["initial_lr"]) for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        if not hasattr(optimizer, "_scheduled_step"):  # let it note its steps from now on
            optimizer.register_step_pre_hook(_note_step)  # holds no scheduler: no cycle
        optimizer._scheduled_step = vars(optimizer).get("step")
        self._initial_step()

    def _initial_step(self) -> None:
        self._step_count, self._is_initial = 0, True
        self.step()
        self._is_initial = False

    def next_lrs(self) -> list[LR]:
        """The new rate of each group, after ``last_epoch`` moved on: the formula of a subclass."""
        raise NotImplementedError(f"{type(self).__name__} must define next_lrs or get_lr")

    def get_lr(self) -> list[LR]:
        """The rates ``step()`` is about to write. To read the present ones, use ``get_last_lr()``.

        Called by hand it applies the recursion once more to the present rates, hence a warning.
        """
        lrs = self.next_lrs()
        if not self._get_lr_called_within_step:
            warnings.warn("to read the present rates, use get_last_lr()", UserWarning, stacklevel=2)
        return lrs

    def get_last_lr(self) -> list[LR]:
        """The rates that were last written, one per group."""
        return self._last_lr

    def step(self, epoch: int | None = None) -> None:
        """Move on by one step and write the new rates. Call it after ``optimizer.step()``.

        Args:
            epoch: deprecated. Jumps to this epoch, by the closed form where the class has one.

        Warns:
            UserWarning: at the first call, if the optimizer has not stepped since the scheduler
                was built (the first rate would never be used); later calls are not checked.
                Also if ``epoch`` is given.
        """
        if self._step_count == 1:
            _warn_about_order(self.optimizer)
        self._step_count += 1
        if epoch is not None:
            warnings.warn(EPOCH_IS_DEPRECATED, UserWarning, stacklevel=2)
        self._update_lr(epoch)

    def _update_lr(self, epoch: int | None = None) -> None:
        """Write the rates of the next epoch, or of ``epoch``. Change nothing if that fails."""
        groups, epoch_before = self.optimizer.param_groups, self.last_epoch
        self.last_epoch = epoch_before + 1 if epoch is None else epoch
        closed_form = epoch is not None and hasattr(self, "_get_closed_form_lr")
        self._get_lr_called_within_step = True
        try:
            lrs = list(self._get_closed_form_lr() if closed_form else self.get_lr())
            if len(lrs) != len(groups):
                raise ValueError(f"{lrs} has no rate for a group that was added after building")
        except Exception as error:
            error.add_note(f"in step {self.last_epoch} of {type(self).__name__}")
            self.last_epoch = epoch_before
            raise
        finally:
            self._get_lr_called_within_step = False
        for group, lr in zip(groups, lrs, strict=True):
            _set_lr(group, lr)
        self._last_lr = _present_lrs(self.optimizer)

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer, as a dict that ``torch.optim`` can load as well.

        The present rates are in the optimizer's own ``state_dict``: save both. Functions and
        lambdas are not saved; of callable objects and of inner schedulers the attributes are.
        """
        state = {key: value for key, value in vars(self).items() if key != "optimizer"}
        return state | {key: _state_of(state[key]) for key in self._stateful}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue where ``state_dict`` was written, by this library or by ``torch.optim``."""
        for key in self._stateful:
            _load_into(getattr(self, key), state_dict[key])
        vars(self).update({k: v for k, v in dict(state_dict).items() if k not in self._stateful})


def _require(condition: bool, rule: str, got: Any, error: type[Exception] = ValueError) -> None:
    if not condition:
        raise error(f"{rule}, not {got!r:.120}")


def _require_number(name: str, value: Any) -> None:
    _require(isinstance(value, SupportsFloat), f"{name} must be a number", value, TypeError)


def _require_positive_int(name: str, value: Any) -> None:
    _require_number(name, value)
    _require(value >= 1 and isinstance(value, int), f"{name} must be an int greater than 0", value)


def _checked(optimizer: Any) -> Any:
    # PyTorch's optimizers are welcome too: what has these two will do.
    good = all(hasattr(optimizer, name) for name in ("param_groups", "register_step_pre_hook"))
    _require(good, "expected an optimizer", optimizer, TypeError)
    return optimizer


def _copy(x: Any) -> Any:
    return x.clone() if isinstance(x, Tensor) else x


def _present_lrs(optimizer: Optimizer) -> list[LR]:
    return [_copy(group["lr"]) for group in optimizer.param_groups]


def _set_lr(group: dict[str, Any], lr: LR) -> None:
    """Write a rate. A tensor is filled in place, because compiled steps hold on to it."""
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(_squeeze(lr))
    else:
        group["lr"] = lr


def _per_group(name: str, value: Any, optimizer: Optimizer) -> list[Any]:
    """One value for each parameter group: a list as it is, or else copies of the one value."""
    count = len(optimizer.param_groups)
    values = value if isinstance(value, (list, tuple)) else [value] * count
    _require(len(values) == count, f"{name} must be one value, or one per group", value)
    return [_copy(x) for x in values]


def _note_step(optimizer: Any, args: Any, kwargs: Any) -> None:
    optimizer._opt_called = True


def _warn_about_order(optimizer: Any) -> None:
    advice = "call optimizer.step(), then scheduler.step(), or the first rate is never used"
    own_step = vars(optimizer).get("step")  # only there if someone replaced the method
    as_built = own_step is getattr(optimizer, "_scheduled_step", "not watched")
    if not (as_built or hasattr(own_step, "__wrapped__")):
        warnings.warn(f"optimizer.step has been overridden: {advice}", UserWarning, stacklevel=3)
    elif not getattr(optimizer, "_opt_called", False):
        warnings.warn(f"the optimizer has not stepped yet: {advice}", UserWarning, stacklevel=3)


def _state_of(x: Any) -> Any:
    """What can be saved of callables and schedulers, by themselves or in a list."""
    if isinstance(x, (list, tuple)):
        return [_state_of(item) for item in x]
    if hasattr(x, "get_last_lr"):
        return x.state_dict()
    return None if isinstance(x, FunctionType) or not hasattr(x, "__dict__") else x.__dict__.copy()


def _load_into(x: Any, state: Any) -> None:
    if isinstance(state, list):
        for item, state_of_item in zip(x, state, strict=False):
            _load_into(item, state_of_item)
    elif hasattr(x, "get_last_lr"):
        x.load_state_dict(state)
    elif state is not None:
        x.__dict__.update(state)


# --- schedules with a closed form, which run as a recursion --------------------------------------


class _Declared(LRScheduler):
    """A schedule whose closed form is a function of ``(t, base_lr, ...)``.

    The signature of that function is the declaration: its options become the arguments of the
    constructor, ``(optimizer, ..., last_epoch=-1)``, and attributes of the scheduler.
    """

    closed_form: Callable[..., LR]

    def __init_subclass__(cls) -> None:
        if "closed_form" in vars(cls):
            _, optimizer, last_epoch = inspect.signature(LRScheduler.__init__).parameters.values()
            _, _, *options = inspect.signature(cls.closed_form).parameters.values()
            cls.__signature__ = inspect.Signature([optimizer, *options, last_epoch])

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        bound = self.__signature__.bind(*args, **kwargs)
        bound.apply_defaults()
        vars(self).update(bound.arguments)
        self.check()
        super().__init__(self.optimizer, self.last_epoch)

    def check(self) -> None:
        """Raise an error if an argument is bad."""


class _Recursive(_Declared):
    """A schedule that has two forms.

    ``step()`` runs the recursion, ``new rate = present rate * ratio(t)``. It keeps whatever others
    did to the rate. ``closed_form(t, base_lr, ...)`` computes the rate from the initial one and
    forgets all that; it serves ``step(epoch)``, and a ``SequentialLR`` when it switches schedules.
    """

    def next_lrs(self) -> list[LR]:
        ratio = self.ratio(self.last_epoch)
        return [group["lr"] * ratio for group in self.optimizer.param_groups]

    def _get_closed_form_lr(self) -> list[LR]:
        _, *names, _ = self.__signature__.parameters
        options = {name: getattr(self, name) for name in names}
        return [self.closed_form(self.last_epoch, base_lr, **options) for base_lr in self.base_lrs]


def step_lr(t: float, base_lr: LR, step_size: int, gamma: float = 0.1) -> LR:
    """Multiply the rate by ``gamma`` every ``step_size`` steps: a staircase.

    Args:
        t: steps taken.
        base_lr: the rate at ``t = 0``.
        step_size: length of a stair, in steps.
        gamma: ratio of one stair to the one before.
    """
    return base_lr * gamma ** (t // step_size)


class StepLR(_Recursive):
    """Multiply the rate by ``gamma`` every ``step_size`` steps, see `step_lr`.

    Args:
        optimizer, last_epoch: see `LRScheduler`.
        step_size: length of a stair, in steps. 0 raises ZeroDivisionError at the first step.
        gamma: ratio of one stair to the one before.

    Note:
        Resuming with ``last_epoch=`` decays twice if the next step is a multiple of ``step_size``,
        here as in PyTorch. ``load_state_dict`` does not.
    Source: ``torch.optim.lr_scheduler.StepLR``.
    """

    closed_form = staticmethod(step_lr)

    def ratio(self, t: int) -> float:
        return 1 if t == 0 or t % self.step_size else self.gamma


def multi_step_lr(t: float, base_lr: LR, milestones: Iterable[int], gamma: float = 0.1) -> LR:
    """Multiply the rate by ``gamma`` at each of the ``milestones``.

    Args:
        t: steps taken.
        base_lr: the rate before the first milestone.
        milestones: steps, in any order; one that is listed twice counts twice.
        gamma: ratio of the rates after and before a milestone.
    """
    return base_lr * gamma ** sum(milestone <= t for milestone in Counter(milestones).elements())


class MultiStepLR(_Recursive):
    """Multiply the rate by ``gamma`` at each of the ``milestones``, see `multi_step_lr`.

    Args:
        optimizer, last_epoch: see `LRScheduler`.
        milestones: steps, in any order; one that is listed twice counts twice.
        gamma: ratio of the rates after and before a milestone.

    Raises:
        TypeError: ``milestones`` is a number. For a fixed period, take `StepLR`.

    Note:
        A milestone is met when the count is *equal* to it. Negative and fractional ones are never
        met by ``step()``, but count in the closed form. Milestone 0 already decays the first rate.
        Resuming with ``last_epoch=`` just before a milestone decays twice, as for `StepLR`.
    Source: ``torch.optim.lr_scheduler.MultiStepLR``.
    """

    closed_form = staticmethod(multi_step_lr)

    def check(self) -> None:
        good = self.milestones is None or hasattr(self.milestones, "__iter__")
        _require(good, "milestones must be a list of steps", self.milestones, TypeError)
        self.milestones = Counter(self.milestones)

    def ratio(self, t: int) -> float:
        return self.gamma ** self.milestones[t] if t in self.milestones else 1


def exponential_lr(t: float, base_lr: LR, gamma: float) -> LR:
    """Multiply the rate by ``gamma`` at every step.

    Args:
        t: steps taken.
        base_lr: the rate at ``t = 0``.
        gamma: ratio of two consecutive rates.
    """
    return base_lr * gamma**t


class ExponentialLR(_Recursive):
    """Multiply the rate by ``gamma`` at every step, see `exponential_lr`.

    Args:
        optimizer, last_epoch: see `LRScheduler`.
        gamma: ratio of two consecutive rates.

    Source: ``torch.optim.lr_scheduler.ExponentialLR``.
    """

    closed_form = staticmethod(exponential_lr)

    def ratio(self, t: int) -> float:
        return 1 if self._is_initial else self.gamma


def cosine_annealing_lr(t: float, base_lr: LR, T_max: int, eta_min: float = 0.0) -> LR:
    """Go from ``base_lr`` down to ``eta_min`` along half a cosine, in ``T_max`` steps.

    Args:
        t: steps taken. Beyond ``T_max`` the cosine climbs again, to ``base_lr`` at ``2 * T_max``.
        base_lr: the rate at ``t = 0``.
        T_max: steps from the highest to the lowest rate.
        eta_min: the lowest rate.

    Source: Loshchilov and Hutter, "SGDR", 2017, equation 5.
    """
    return eta_min + (base_lr - eta_min) * (1 + math.cos(math.pi * t / T_max)) / 2


class CosineAnnealingLR(_Recursive):
    """Go down to ``eta_min`` along half a cosine, see `cosine_annealing_lr`.

    Args:
        optimizer, last_epoch: see `LRScheduler`.
        T_max: steps from the highest to the lowest rate. 0 raises ZeroDivisionError at step 1.
        eta_min: the lowest rate.

    Note:
        There is no restart and no stop: after ``T_max`` the rate climbs back along the cosine. At
        the lowest point the recursion would stay for ever, so the climb begins from ``base_lrs``:
        a rate written by hand is kept until then, and forgotten there.
    Source: ``torch.optim.lr_scheduler.CosineAnnealingLR``; Loshchilov and Hutter, "SGDR", 2017.
    """

    closed_form = staticmethod(cosine_annealing_lr)

    def next_lrs(self) -> list[LR]:
        t, T_max, eta_min = self.last_epoch, self.T_max, self.eta_min
        groups = self.optimizer.param_groups
        if self._is_initial:
            return _present_lrs(self.optimizer)
        if self._step_count == 1 and t > 0:  # get_lr() called by hand on a resumed scheduler
            return self._get_closed_form_lr()
        if (t - 1 - T_max) % (2 * T_max) == 0:  # one step after the lowest point
            pairs = zip(groups, self.base_lrs, strict=True)
            turn = 1 - math.cos(math.pi / T_max)
            return [group["lr"] + (base_lr - eta_min) * turn / 2 for group, base_lr in pairs]
        ratio = (1 + math.cos(math.pi * t / T_max)) / (1 + math.cos(math.pi * (t - 1) / T_max))
        return [ratio * (group["lr"] - eta_min) + eta_min for group in groups]


def constant_lr(t: float, base_lr: LR, factor: float = 1.0 / 3, total_iters: int = 5) -> LR:
    """``factor * base_lr`` for the first ``total_iters`` steps, ``base_lr`` from then on.

    Args:
        t: steps taken.
        base_lr: the rate after ``total_iters`` steps.
        factor: what the rate is multiplied by before that.
        total_iters: how many steps have the reduced rate.
    """
    return base_lr * (factor + (t >= total_iters) * (1 - factor))


class ConstantLR(_Recursive):
    """Reduce the rate to ``factor`` of itself for ``total_iters`` steps, see `constant_lr`.

    Args:
        optimizer, last_epoch: see `LRScheduler`.
        factor: what the rate is multiplied by, in [0, 1]. 0 is accepted, as in PyTorch, but cannot
            be undone: step ``total_iters`` raises ZeroDivisionError.
        total_iters: how many steps have the reduced rate. With 0 it is reduced and stays so, as in
            PyTorch, since the step that undoes the reduction is never reached.

    Raises:
        ValueError: ``factor`` is not in [0, 1].
    Source: ``torch.optim.lr_scheduler.ConstantLR``.
    """

    closed_form = staticmethod(constant_lr)

    def check(self) -> None:
        _require_number("factor", self.factor)
        _require(0 <= self.factor <= 1, "factor must be in [0, 1]", self.factor)

    def ratio(self, t: int) -> float:
        if t == 0:
            return self.factor
        return 1.0 / self.factor if t == self.total_iters else 1


def linear_lr(
    t: int, base_lr: LR, start_factor: float = 1 / 3, end_factor: float = 1.0, total_iters: int = 5
) -> LR:
    """Go in a straight line from ``start_factor * base_lr`` to ``end_factor * base_lr``.

    Args:
        t: steps taken.
        base_lr: the rate both factors refer to.
        start_factor, end_factor: multiples of ``base_lr`` at the start and at the end.
        total_iters: how many steps the line takes; afterwards the rate is constant.
    """
    rise = end_factor - start_factor
    return base_lr * (start_factor + rise * min(total_iters, t) / total_iters)


class LinearLR(_Recursive):
    """Go in a straight line between two multiples of the rate, see `linear_lr`.

    Args:
        optimizer, last_epoch: see `LRScheduler`.
        start_factor: multiple of the rate at the start, in (0, 1].
        end_factor: multiple at the end, in [0, 1].
        total_iters: how many steps the line takes.

    Raises:
        ValueError: a factor is outside its interval.

    Note:
        The first rate is ``start_factor * lr``: .0025 for ``lr=0.05, start_factor=0.05``, not the
        .003687 of the example in PyTorch's documentation.
    Source: ``torch.optim.lr_scheduler.LinearLR``.
    """

    closed_form = staticmethod(linear_lr)

    def check(self) -> None:
        _require_number("start_factor", self.start_factor)
        _require_number("end_factor", self.end_factor)
        _require(0 < self.start_factor <= 1, "start_factor must be in (0, 1]", self.start_factor)
        _require(0 <= self.end_factor <= 1, "end_factor must be in [0, 1]", self.end_factor)

    def ratio(self, t: int) -> float:
        if t == 0:
            return self.start_factor
        if self._is_initial or t > self.total_iters:
            return 1
        rise = self.end_factor - self.start_factor
        return 1.0 + rise / (self.total_iters * self.start_factor + (t - 1) * rise)


def polynomial_lr(t: float, base_lr: LR, total_iters: int = 5, power: float = 1.0) -> LR:
    """Go from ``base_lr`` to 0 in ``total_iters`` steps along ``(1 - t / total_iters) ** power``.

    Args:
        t: steps taken.
        base_lr: the rate at ``t = 0``.
        total_iters: steps until the rate is 0, where it stays.
        power: 1 is a straight line; a larger power falls faster first.
    """
    return base_lr * (1.0 - min(total_iters, t) / total_iters) ** power


class PolynomialLR(_Recursive):
    """Go to 0 along a power of the remaining share of steps, see `polynomial_lr`.

    Args:
        optimizer, last_epoch: see `LRScheduler`.
        total_iters: steps until the rate is 0, where it stays.
        power: 1 is a straight line; a larger power falls faster first.

    Note:
        The first rate is the optimizer's own. The example in PyTorch's documentation is one step
        ahead: its .0490 comes at step 1.
    Source: ``torch.optim.lr_scheduler.PolynomialLR``.
    """

    closed_form = staticmethod(polynomial_lr)

    def ratio(self, t: int) -> float:
        if self._is_initial or t > self.total_iters:
            return 1
        left, left_before = 1.0 - t / self.total_iters, 1.0 - (t - 1) / self.total_iters
        return (left / left_before) ** self.power


# --- schedules given by a function of the user ---------------------------------------------------


class _Lambdas(LRScheduler):
    """A schedule with one function per parameter group."""

    _stateful = ("lr_lambdas",)

    def __init__(self, optimizer: Optimizer, lr_lambda: Lambdas, last_epoch: int = -1) -> None:
        self.lr_lambdas = _per_group("lr_lambda", lr_lambda, optimizer)
        for fn in self.lr_lambdas:
            _require(callable(fn), "lr_lambda must be a function of the step", fn, TypeError)
        super().__init__(optimizer, last_epoch)


class LambdaLR(_Lambdas):
    """Set the rate to the initial one times a function of the step: ``base_lr * lr_lambda(t)``.

    Args:
        optimizer, last_epoch: see `LRScheduler`.
        lr_lambda: a function of the step, or a list with one for each group.

    Raises:
        ValueError: a list whose length is not the number of groups.
        TypeError: something in it cannot be called.

    Note:
        Not a recursion: it overwrites what other schedulers, or you, did to the rate.
    Source: ``torch.optim.lr_scheduler.LambdaLR``.
    """

    def next_lrs(self) -> list[LR]:
        pairs = zip(self.base_lrs, self.lr_lambdas, strict=True)
        return [base_lr * fn(self.last_epoch) for base_lr, fn in pairs]


class MultiplicativeLR(_Lambdas):
    """Multiply the present rate by a function of the step.

    Args:
        optimizer, last_epoch: see `LRScheduler`.
        lr_lambda: a function of the step, or a list with one for each group. It is not called
            for step 0.

    Raises:
        ValueError: a list whose length is not the number of groups.
        TypeError: something in it cannot be called.
    Source: ``torch.optim.lr_scheduler.MultiplicativeLR``.
    """

    def next_lrs(self) -> list[LR]:
        if self._is_initial:
            return _present_lrs(self.optimizer)
        pairs = zip(self.optimizer.param_groups, self.lr_lambdas, strict=True)
        return [group["lr"] * fn(self.last_epoch) for group, fn in pairs]


# --- schedules that come round again -------------------------------------------------------------


def warm_restarts_lr(t: float, base_lr: LR, T_0: int, T_mult: int = 1, eta_min: float = 0.0) -> LR:
    """Go down half a cosine again and again, each time ``T_mult`` times as long.

    Args:
        t: steps taken; may be a fraction.
        base_lr: the rate at the start of each period.
        T_0: steps of the first period.
        T_mult: how many times longer each period is than the one before.
        eta_min: what the rate would reach at the end of each period, where it restarts instead.

    Source: Loshchilov and Hutter, "SGDR", 2017.
    """
    start, T_i = 0, T_0
    while t >= start + T_i:
        start, T_i = start + T_i, T_i * T_mult
    return cosine_annealing_lr(t - start, base_lr, T_i, eta_min)


class CosineAnnealingWarmRestarts(_Declared):
    """Cosine annealing with restarts, see `warm_restarts_lr`.

    Args:
        optimizer, last_epoch: see `LRScheduler`.
        T_0: steps of the first period.
        T_mult: how many times longer each period is than the one before.
        eta_min: what the rate would reach at the end of each period, where it restarts instead.

    Attributes:
        T_cur: steps since the last restart.
        T_i: steps of the present period.

    Raises:
        ValueError: ``T_0`` or ``T_mult`` is not a positive integer, or ``eta_min`` not a number.
    Source: ``torch.optim.lr_scheduler.CosineAnnealingWarmRestarts``.
    """

    closed_form = staticmethod(warm_restarts_lr)

    def check(self) -> None:
        _require_positive_int("T_0", self.T_0)
        _require_positive_int("T_mult", self.T_mult)
        _require(isinstance(self.eta_min, (float, int)), "eta_min must be a number", self.eta_min)
        self.T_i, self.T_cur = self.T_0, self.last_epoch

    def next_lrs(self) -> list[LR]:
        T_cur, T_i, eta_min = self.T_cur, self.T_i, self.eta_min
        return [cosine_annealing_lr(T_cur, base_lr, T_i, eta_min) for base_lr in self.base_lrs]

    def step(self, epoch: float | None = None) -> None:
        """Move on by one step, or to ``epoch``, and write the new rates. No call order is checked.

        Args:
            epoch: may be a fraction, as in ``step(epoch + batch / batches)``. Not deprecated here.

        Raises:
            ValueError: ``epoch`` is negative.

        Note:
            At a restart whose logarithm is rounded down (``T_0=1, T_mult=3, epoch=121``),
            ``step(epoch)`` gives ``eta_min`` instead of the restarted rate, as in PyTorch.
            ``step()`` counts and has no such gap.
        """
        if epoch is None and self.last_epoch < 0:
            epoch = 0
        if epoch is None:
            epoch = self.last_epoch + 1
            self.T_cur += 1
            if self.T_cur >= self.T_i:
                self.T_cur, self.T_i = self.T_cur % self.T_i, self.T_i * self.T_mult
        elif epoch < self.T_0 or self.T_mult == 1:
            _require(epoch >= 0, "epoch must not be negative", epoch)
            self.T_cur, self.T_i = epoch % self.T_0, self.T_0
        else:
            periods = int(math.log(epoch / self.T_0 * (self.T_mult - 1) + 1, self.T_mult))
            self.T_cur = epoch - self.T_0 * (self.T_mult**periods - 1) / (self.T_mult - 1)
            self.T_i = self.T_0 * self.T_mult**periods
        self._update_lr(math.floor(epoch))


class _Cycling(LRScheduler):
    """A schedule that may also cycle the momentum, against the rate."""

    def _plan(self, cycle_momentum: bool, base_momentum: Any, max_momentum: Any) -> dict[str, list]:
        """The momentum ranges to write into the groups, after a look whether they have any."""
        self.cycle_momentum = cycle_momentum
        if not cycle_momentum:
            return {}
        defaults = self.optimizer.defaults
        rule = "cycle_momentum=True needs an option momentum or betas"
        _require("momentum" in defaults or "betas" in defaults, rule, list(defaults))
        self.use_beta1 = "betas" in defaults  # Adam's momentum is called betas[0]
        ranges = {"base_momentum": base_momentum, "max_momentum": max_momentum}
        return {name: _per_group(name, value, self.optimizer) for name, value in ranges.items()}

    def _start(self, news: dict[str, list], last_epoch: int) -> None:
        """Write what is new into the groups, now that all arguments are known to be good."""
        if last_epoch == -1:
            for i, group in enumerate(self.optimizer.param_groups):
                new = {name: values[i] for name, values in news.items()}
                _set_lr(group, _copy(new.pop("lr", group["lr"])))
                group.update(new)
        super().__init__(self.optimizer, last_epoch)

    def _write_momentums(self, momentums: list[float]) -> None:
        for group, momentum in zip(self.optimizer.param_groups, momentums, strict=True):
            if self.use_beta1:
                group["betas"] = (momentum, *group["betas"][1:])
            else:
                group["momentum"] = momentum


def triangle(t: float, total_size: float, step_ratio: float) -> float:
    """A triangular wave: from 0 up to 1 in a share ``step_ratio`` of ``total_size``, down to 0."""
    x = 1 + t / total_size - math.floor(1 + t / total_size)  # the share of the wave that is over
    return x / step_ratio if x <= step_ratio else (x - 1) / (step_ratio - 1)


def cyclic_lr(
    t: float, base_lr: LR, max_lr: LR, total_size: float, step_ratio: float, scale: float = 1.0
) -> LR:
    """Go up from ``base_lr`` to ``max_lr`` and down again, in straight lines, for ever.

    Args:
        t: steps taken.
        base_lr, max_lr: where a cycle starts and ends, and where it turns.
        total_size: steps of a whole cycle.
        step_ratio: share of them spent on the way up.
        scale: height of the present cycle as a share of ``max_lr - base_lr``.

    Source: Smith, "Cyclical Learning Rates for Training Neural Networks", 2017.
    """
    return base_lr + (max_lr - base_lr) * triangle(t, total_size, step_ratio) * scale


CYCLE_MODES = {"triangular": "cycle", "triangular2": "cycle", "exp_range": "iterations"}


class CyclicLR(_Cycling):
    """Go up and down between two rates, see `cyclic_lr`. Step it after every batch.

    Args:
        optimizer, last_epoch: see `LRScheduler`.
        base_lr, max_lr: the lowest and the highest rate; one number, or a list with one per group.
            ``base_lr`` replaces the optimizer's rate.
        step_size_up, step_size_down: steps of the rising and of the falling half (None: the same).
        mode: "triangular", "triangular2" (each cycle half as high as the one before) or
            "exp_range" (the height is multiplied by ``gamma`` at every step).
        gamma: for "exp_range".
        scale_fn: takes the place of ``mode``: the height as a function of the cycle or of the step.
        scale_mode: "cycle" if ``scale_fn`` is to be called with the cycle (1, 2, ...), "iterations"
            if with the step.
        cycle_momentum: also move the momentum (SGD) or the first beta (Adam), from
            ``max_momentum`` at the lowest rate to ``base_momentum`` at the highest.
        base_momentum, max_momentum: one number, or a list with one per group.

    Raises:
        ValueError: an unknown mode, a list of the wrong length, or an optimizer without momentum.
        ZeroDivisionError: ``step_size_up`` is 0. Nothing has been written after any of these.

    Note:
        If a scheduler was on this optimizer before, its ``initial_lr`` is the first rate, not
        ``base_lr``; from step 1 on ``base_lr`` counts. PyTorch does so too.
    Source: ``torch.optim.lr_scheduler.CyclicLR``; Smith, "Cyclical Learning Rates", 2017.
    """

    _stateful = ("_scale_fn_custom",)

    def __init__(
        self,
        optimizer: Optimizer,
        base_lr: float | list[float],
        max_lr: float | list[float],
        step_size_up: int = 2000,
        step_size_down: int | None = None,
        mode: str = "triangular",
        gamma: float = 1.0,
        scale_fn: Callable[[float], float] | None = None,
        scale_mode: str = "cycle",
        cycle_momentum: bool = True,
        base_momentum: float | list[float] = 0.8,
        max_momentum: float | list[float] = 0.9,
        last_epoch: int = -1,
    ) -> None:
        self.optimizer = _checked(optimizer)
        up = float(step_size_up)
        _require(up != 0, "step_size_up must be at least 1", step_size_up, ZeroDivisionError)
        self.total_size = up + (up if step_size_down is None else float(step_size_down))
        self.step_ratio = up / self.total_size
        known = mode in list(CYCLE_MODES) or scale_fn is not None
        _require(known, f"without a scale_fn, mode must be one of {list(CYCLE_MODES)}", mode)
        self.mode, self.gamma, self._scale_fn_custom = mode, gamma, scale_fn
        self.scale_mode = scale_mode if scale_fn is not None else CYCLE_MODES[mode]
        base_lrs = _per_group("base_lr", base_lr, optimizer)
        self.max_lrs = _per_group("max_lr", max_lr, optimizer)
        news = self._plan(cycle_momentum, base_momentum, max_momentum)
        if cycle_momentum:
            self.base_momentums, self.max_momentums = news.values()
        self._start({"lr": base_lrs, **news}, last_epoch)
        self.base_lrs = base_lrs

    def scale_fn(self, x: float) -> float:
        """Height of cycle ``x``, or at step ``x``, as a share of ``max_lr - base_lr``."""
        if self._scale_fn_custom is not None:
            return self._scale_fn_custom(x)
        if self.mode == "exp_range":
            return self.gamma**x
        return 0.5 ** (x - 1) if self.mode == "triangular2" else 1.0

    def next_lrs(self) -> list[LR]:
        t = self.last_epoch
        height = triangle(t, self.total_size, self.step_ratio)
        x = math.floor(1 + t / self.total_size) if self.scale_mode == "cycle" else t

        def at(start: Any, turn: Any) -> Any:
            return start + (turn - start) * height * self.scale_fn(x)

        lrs = list(map(at, self.base_lrs, self.max_lrs))
        if self.cycle_momentum:
            self._write_momentums(list(map(at, self.max_momentums, self.base_momentums)))
        return lrs


def anneal_cos(start: Any, end: Any, share: float) -> Any:
    """A point on half a cosine from ``start`` to ``end``: ``share`` goes from 0 to 1."""
    return end + (start - end) / 2.0 * (math.cos(math.pi * share) + 1)


def anneal_linear(start: Any, end: Any, share: float) -> Any:
    """A point on the straight line from ``start`` to ``end``: ``share`` goes from 0 to 1."""
    return (end - start) * share + start


ANNEAL = {"cos": anneal_cos, "linear": anneal_linear}


def one_cycle_lr(t: float, lrs: Sequence[LR], ends: Sequence[float], anneal_strategy: str) -> LR:
    """Go through ``lrs``, one after the other: up to the highest rate, down to a far smaller one.

    Args:
        t: steps taken.
        lrs: the rate at the start, and that at the end of each phase, such as ``[.004, .1, 4e-7]``.
        ends: the steps at which the phases end, such as ``[29, 99]``.
        anneal_strategy: "cos" or "linear", the shape of every phase.

    Source: Smith and Topin, "Super-Convergence", 2018.
    """
    i, share = _phase(t, ends)
    return ANNEAL[anneal_strategy](lrs[i], lrs[i + 1], share)


def _phase(t: float, ends: Sequence[float]) -> tuple[int, float]:
    """Which phase step ``t`` lies in, and the share of it that is over."""
    i = min(bisect_left(ends, t), len(ends) - 1)
    start = ends[i - 1] if i > 0 else 0.0
    return i, (t - start) / (ends[i] - start)


class OneCycleLR(_Cycling):
    """Go up to ``max_lr`` and down again, once, see `one_cycle_lr`. Step it after every batch.

    Args:
        optimizer, last_epoch: see `LRScheduler`.
        max_lr: the highest rate; one number, or a list with one per group.
        total_steps: length of the schedule.
        epochs, steps_per_epoch: instead of ``total_steps``, which is then their product.
        pct_start: share of the steps spent going up (a share, in spite of its name).
        anneal_strategy: "cos" or "linear", the shape of the ways up and down.
        cycle_momentum: also move the momentum (SGD) or the first beta (Adam), from
            ``max_momentum`` at the lowest rate to ``base_momentum`` at the highest.
        base_momentum, max_momentum: one number, or a list with one per group.
        div_factor: ``max_lr / div_factor`` is the first rate.
        final_div_factor: the first rate over ``final_div_factor`` is the last one.
        three_phase: go down to the first rate as fast as up, and only then to the last.

    Raises:
        ValueError: an argument is out of range, or the optimizer has no momentum; or ``step()``
            was called more than ``total_steps`` times.
        ZeroDivisionError: ``pct_start * total_steps`` is 1, so that the way up takes no time, or a
            divisor is 0. Nothing has been written after any error of the constructor.

    Note:
        The last rate is reached at step ``total_steps - 1``. One more step is allowed, as in
        PyTorch; with ``anneal_strategy="linear"`` it makes the rate negative.
    Source: ``torch.optim.lr_scheduler.OneCycleLR``; Smith and Topin, "Super-Convergence", 2018.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | list[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float | list[float] = 0.85,
        max_momentum: float | list[float] = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ) -> None:
        self.optimizer = _checked(optimizer)
        if total_steps is None:
            counts = [epochs, steps_per_epoch]
            good = all(isinstance(count, int) and count > 0 for count in counts)
            _require(good, "give total_steps, or epochs and steps_per_epoch as ints > 0", counts)
            total_steps = epochs * steps_per_epoch
        _require_positive_int("total_steps", total_steps)
        self.total_steps = total_steps
        self._schedule_phases = _schedule_phases(total_steps, pct_start, three_phase)
        good = isinstance(pct_start, float) and 0 <= pct_start <= 1
        _require(good, "pct_start must be a float in [0, 1]", pct_start)
        _require(anneal_strategy in [*ANNEAL], f"choose one of {[*ANNEAL]}", anneal_strategy)
        self._anneal_func_type = anneal_strategy
        news = self._plan(cycle_momentum, base_momentum, max_momentum)
        news["max_lr"] = _per_group("max_lr", max_lr, optimizer)
        news["initial_lr"] = [lr / div_factor for lr in news["max_lr"]]
        news["min_lr"] = [lr / final_div_factor for lr in news["initial_lr"]]
        good = self._schedule_phases[0]["end_step"] != 0 or last_epoch != -1
        _require(good, "pct_start * total_steps must differ from 1", pct_start, ZeroDivisionError)
        self._start(news, last_epoch)

    def next_lrs(self) -> list[LR]:
        t, groups = self.last_epoch, self.optimizer.param_groups
        if t > self.total_steps:
            raise ValueError(f"step at most total_steps={self.total_steps} times, not {t}")
        i, share = _phase(t, [phase["end_step"] for phase in self._schedule_phases])
        phase, anneal = self._schedule_phases[i], ANNEAL[self._anneal_func_type]
        if self.cycle_momentum:
            start, end = phase["start_momentum"], phase["end_momentum"]
            self._write_momentums([anneal(group[start], group[end], share) for group in groups])
        start, end = phase["start_lr"], phase["end_lr"]
        return [anneal(group[start], group[end], share) for group in groups]


def _schedule_phases(total_steps: int, pct_start: float, three_phase: bool) -> list[dict[str, Any]]:
    """The step each phase ends at, and the names of the values it leads from and to."""
    top = float(pct_start * total_steps) - 1
    ends = [top, 2 * top, total_steps - 1] if three_phase else [top, total_steps - 1]
    lrs = ["initial_lr", "max_lr", *["initial_lr"] * bool(three_phase), "min_lr"]
    momentums = ["max_momentum", "base_momentum", "max_momentum", "max_momentum"]
    keys = ("end_step", "start_lr", "end_lr", "start_momentum", "end_momentum")
    rows = zip(ends, lrs, lrs[1:], momentums, momentums[1:], strict=False)
    return [dict(zip(keys, row, strict=True)) for row in rows]


# --- a schedule that looks at a metric -----------------------------------------------------------


@dataclass(eq=False, repr=False)
class ReduceLROnPlateau(LRScheduler):
    """Multiply the rate by ``factor`` when a metric has not improved for ``patience`` steps.

    Not a function of the step: ``step(metric)`` decides by what it has seen.

    Args:
        optimizer: see `LRScheduler`.
        mode: "min" if the metric should fall, "max" if it should rise.
        factor: what the rate is multiplied by, less than 1.
        patience: how many steps in a row without improvement are tolerated.
        threshold, threshold_mode: how much better than the best a metric must be to count: by this
            share of the best ("rel"), or by this amount ("abs").
        cooldown: steps after a reduction in which nothing is counted.
        min_lr: lower bound of the rate; one number, or a list with one per group.
        eps: a reduction by no more than this is not made.

    Attributes:
        best: the best metric so far. num_bad_epochs: steps since without improvement.

    Raises:
        ValueError: ``factor`` is 1 or more, ``min_lr`` has the wrong length, or an unknown mode.
        TypeError: not an optimizer, or a mode that is not a string.
        RuntimeError: at a reduction, if groups were added after ``min_lr`` was given as a list.

    Note:
        "rel" presumes a positive metric: with a negative best, slightly worse counts as better.
    Source: ``torch.optim.lr_scheduler.ReduceLROnPlateau``.
    """

    optimizer: Optimizer
    mode: str = "min"
    factor: float = 0.1
    patience: int = 10
    threshold: float = 1e-4
    threshold_mode: str = "rel"
    cooldown: int = 0
    min_lr: InitVar[float | list[float]] = 0
    eps: float = 1e-8

    def __post_init__(self, min_lr: float | list[float]) -> None:
        _require_number("factor", self.factor)
        _require(not self.factor >= 1.0, "factor must be less than 1", self.factor)
        self.min_lrs = _per_group("min_lr", min_lr, _checked(self.optimizer))
        self.default_min_lr = None if isinstance(min_lr, (list, tuple)) else min_lr
        for value, allowed in (self.mode, ["min", "max"]), (self.threshold_mode, ["rel", "abs"]):
            error = ValueError if isinstance(value, str) else TypeError
            _require(value in allowed, f"a mode must be one of {allowed}", value, error)
        self.mode_worse = math.inf if self.mode == "min" else -math.inf
        self.last_epoch = 0
        self._last_lr = _present_lrs(self.optimizer)
        self._reset()

    def _reset(self) -> None:
        self.best = self.mode_worse
        self.cooldown_counter = self.num_bad_epochs = 0

    def step(self, metrics: SupportsFloat, epoch: int | None = None) -> None:  # type: ignore[override]
        """Look at the metric of this epoch, and reduce the rate if patience has run out.

        Args:
            metrics: a number or a 0-dim tensor, usually the validation loss.
            epoch: deprecated; only sets ``last_epoch``, with a UserWarning.
        """
        current = float(metrics)
        if epoch is not None:
            warnings.warn(EPOCH_IS_DEPRECATED, UserWarning, stacklevel=2)
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch

        better = self._is_better(current, self.best)
        self.best = current if better else self.best
        cooling = self.in_cooldown
        self.num_bad_epochs = 0 if better or cooling else self.num_bad_epochs + 1
        self.cooldown_counter -= cooling
        if self.num_bad_epochs > self.patience:
            self._reduce_lr()
            self.cooldown_counter = self.cooldown
            self.num_bad_epochs = 0
        self._last_lr = _present_lrs(self.optimizer)

    @property
    def in_cooldown(self) -> bool:
        """True while a recent reduction is given time to work."""
        return self.cooldown_counter > 0

    def _is_better(self, metric: float, best: float) -> bool:
        margin = self.threshold if self.mode == "max" else -self.threshold
        bar = best * (1.0 + margin) if self.threshold_mode == "rel" else best + margin
        return metric > bar if self.mode == "max" else metric < bar

    def _reduce_lr(self) -> None:
        groups = self.optimizer.param_groups
        if len(groups) != len(self.min_lrs):
            rule = f"append to min_lrs when adding a group: it must have {len(groups)} entries"
            _require(self.default_min_lr is not None, rule, self.min_lrs, RuntimeError)
            self.min_lrs = [self.default_min_lr] * len(groups)
        for group, min_lr in zip(groups, self.min_lrs, strict=True):
            lr = float(group["lr"])
            reduced = max(lr * self.factor, min_lr)
            if lr - reduced > self.eps:
                _set_lr(group, reduced)


# --- several schedulers as one -------------------------------------------------------------------


class _Combined(LRScheduler):
    """Schedulers of one optimizer, stepped through this one."""

    _stateful = ("_schedulers",)

    def _adopt(self, optimizer: Optimizer, schedulers: Sequence[LRScheduler]) -> None:
        _require(len(schedulers) > 0, "expected at least one scheduler", schedulers)
        for scheduler in schedulers:
            _require(hasattr(scheduler, "optimizer"), "expected a scheduler", scheduler, TypeError)
            needs_metric = isinstance(scheduler, ReduceLROnPlateau)
            _require(not needs_metric, "expected one whose step() needs no metric", scheduler)
            _require(optimizer == scheduler.optimizer, "expected one optimizer for all", scheduler)
        self.optimizer = optimizer
        self._schedulers = schedulers


class SequentialLR(_Combined):
    """Run one scheduler until a milestone, then the next.

    Args:
        optimizer: the one all the schedulers belong to.
        schedulers: in the order in which they run. At its milestone each starts from step 0.
        milestones: the steps at which the second, third, ... scheduler takes over, increasing.
        last_epoch: see `LRScheduler`.

    Raises:
        ValueError: no scheduler, not one milestone less than schedulers, a ``ReduceLROnPlateau``
            among them, or one that belongs to another optimizer.
        TypeError: something among them is no scheduler.

    Note:
        At a milestone the rate is set by the closed form of the scheduler that takes over: what
        happened to the rate before is forgotten. A `ChainedScheduler` or `SequentialLR` cannot
        take over (NotImplementedError), as in PyTorch.
    Source: ``torch.optim.lr_scheduler.SequentialLR``.
    """

    def __init__(
        self, optimizer: Optimizer, schedulers: list, milestones: list[int], last_epoch: int = -1
    ) -> None:
        self._adopt(optimizer, schedulers)
        rule = f"expected {len(schedulers) - 1} milestones, one before each scheduler but the first"
        _require(len(milestones) == len(schedulers) - 1, rule, milestones)
        self._milestones = milestones
        self.last_epoch = last_epoch + 1
        first = schedulers[bisect_right(milestones, 0)]
        # Each scheduler took step 0 when it was built: undo that, and let only the first redo it.
        for group in optimizer.param_groups:
            _set_lr(group, _copy(group["initial_lr"]))
        self.recursive_undo()
        first._initial_step()
        self._last_lr = first.get_last_lr()

    def recursive_undo(self, sched: Any = None) -> None:
        """Take back one step of every scheduler in this one, also in those that hold others."""
        for inner in (sched or self)._schedulers:
            if hasattr(inner, "_schedulers"):
                self.recursive_undo(inner)
            else:
                inner.last_epoch -= 1

    def step(self) -> None:  # type: ignore[override]
        """Step the scheduler whose turn it is, or start it if this is its milestone."""
        self.last_epoch += 1
        i = bisect_right(self._milestones, self.last_epoch)
        scheduler = self._schedulers[i]
        if i > 0 and self._milestones[i - 1] == self.last_epoch:
            scheduler._update_lr(0)
        else:
            scheduler.step()
        self._last_lr = scheduler.get_last_lr()


class ChainedScheduler(_Combined):
    """Step several schedulers at once: their ratios multiply.

    Args:
        schedulers: in the order in which they are stepped. One that is not a recursion, such as
            `LambdaLR`, overwrites what those before it did.
        optimizer: the one all the schedulers belong to; by default that of the first.

    Raises:
        ValueError: no scheduler, a ``ReduceLROnPlateau`` among them, or one that belongs to
            another optimizer.
        TypeError: something among them is no scheduler.

    Note:
        The first rate is what building the schedulers made of it, .005 in the example of PyTorch's
        documentation, which prints .05.
    Source: ``torch.optim.lr_scheduler.ChainedScheduler``.
    """

    def __init__(self, schedulers: Sequence, optimizer: Optimizer | None = None) -> None:
        self._adopt(optimizer or (schedulers and schedulers[0].optimizer), schedulers)
        self._last_lr = _present_lrs(self.optimizer)

    def step(self) -> None:  # type: ignore[override]
        """Step each scheduler, in order."""
        for scheduler in self._schedulers:
            scheduler.step()
        self._last_lr = _present_lrs(self.optimizer)


# --- what exists only because programs lean on it ------------------------------------------------


class _LRScheduler(LRScheduler):
    """The name of the base class before PyTorch 2.0; programs still subclass it."""
