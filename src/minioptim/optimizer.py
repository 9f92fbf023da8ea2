"""The base class of every optimizer: groups of parameters, their options, their state, one step.

It knows no formula. A subclass brings two plain functions and the base class reads their
signatures, so that the signature *is* the declaration:

``rule(p, g, exp_avg, exp_avg_sq, *, step_size, betas, eps)``
    the update of one parameter. The positional names after ``p`` and ``g`` are the keys of its
    state, the keyword names are the numbers it needs. What it returns, if anything, replaces the
    first state entry.
``scalars(step, *, lr, betas, eps)``
    turns the options of a group (the keyword names) into those numbers, with plain Python
    arithmetic. If it asks for ``step``, the optimizer counts the steps of each parameter.

Source: ``torch/optim/optimizer.py``.
"""

import inspect
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable
from copy import deepcopy
from itertools import chain
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from . import blocks, compat, fused
from .compat import register_optimizer_step_post_hook, register_optimizer_step_pre_hook  # noqa: F401
from .engines import NO_PENALTY, Engine, Penalty, differentiable, foreach, loop

Params = Iterable[Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, Tensor]]

NUMBERS = ("lr", "momentum", "eps", "weight_decay")  # options that a step can be given wrong
NO_STATE = MappingProxyType({})  # what a parameter remembers that has nothing to remember yet
FOREACH_DEVICES = ("cuda", "xpu", "mtia")  # where one call for many tensors is the default


class Optimizer(compat.Hooks):
    """Holds parameters in groups, and updates them from their gradients.

    Args:
        params: tensors, ``(name, tensor)`` pairs, or dicts ``{"params": ..., "lr": ...}``.
            Any shape, dtype and device. Order matters: state is saved by position.
        defaults: the options of every group that does not say otherwise.

    Attributes:
        param_groups: list of dicts; ``group["params"]`` is a list of tensors, the rest are options.
            Options may be changed between steps, and schedulers do.
        state: for each parameter a dict of what its rule remembers, made when first needed.
        defaults: the dict given to the constructor.

    Raises:
        TypeError: ``params`` is one tensor or a set, or holds something that is not a tensor.
        ValueError: no parameter, a tensor that is not a leaf, a parameter in two groups, or
            some parameters with names and some without.
        RuntimeError: ``fused`` with ``foreach`` or ``differentiable``, or without a compiler; see
            `fused.check`.
        NotImplementedError: an option this package does not support (``capturable``).

    Source: ``torch.optim.Optimizer``.
    """

    complex_as_pairs = False  # show complex parameters to the rule as pairs of real numbers
    elementwise = False  # the loop may run the rule on a part of a tensor at a time: see `blocks`
    state_keys: tuple[str, ...] = ()
    option_keys: tuple[str, ...] = ()
    counts_steps = False

    # A subclass brings these two, unless it has a `step` of its own.
    rule: Callable[..., Any]

    def scalars(self, *args: Any, **options: Any) -> dict[str, Any]:
        raise NotImplementedError(f"{type(self).__name__} needs scalars and rule, or its own step")

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "rule" in vars(cls):
            parameters = inspect.signature(cls.rule).parameters.values()
            keys = (p.name for p in parameters if p.kind <= p.POSITIONAL_OR_KEYWORD)
            cls.state_keys = tuple(keys)[2:]
            cls.elementwise = vars(cls).get("elementwise", False)  # said of this rule alone
        if "scalars" in vars(cls):
            parameters = inspect.signature(cls.scalars).parameters.values()
            cls.option_keys = tuple(p.name for p in parameters if p.kind == p.KEYWORD_ONLY)
            cls.counts_steps = len(cls.option_keys) < len(parameters)
        if "step" in vars(cls):
            cls.step = compat.hooked(cls.step)

    def __init__(self, params: Params, defaults: dict[str, Any]) -> None:
        self.defaults = defaults
        self._init_hooks()
        if isinstance(params, Tensor) or not isinstance(params, Iterable):
            raise TypeError(f"params must be an iterable of tensors, not {torch.typename(params)}")
        self.state: defaultdict[Tensor, dict[str, Any]] = defaultdict(dict)
        self.param_groups: list[dict[str, Any]] = []
        groups = list(params)
        if len(groups) == 0:
            raise ValueError("there is nothing to optimize: the list of parameters is empty")
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        for group in groups:
            self.add_param_group(group)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group ``{"params": tensors, option: value, ...}``. The dict becomes the group.

        Nothing is changed, not even the dict, if an error is raised. Errors as for the class.
        Source: ``torch.optim.Optimizer.add_param_group``.
        """
        if not isinstance(param_group, dict):
            raise TypeError(f"a parameter group is a dict, not {torch.typename(param_group)}")
        if "params" not in param_group:
            raise KeyError(f"a parameter group needs 'params', and has {[*param_group]}")
        names, tensors = _names_and_tensors(param_group["params"])
        for p in tensors:
            if not isinstance(p, Tensor):
                raise TypeError(f"an optimizer can only optimize tensors, not {torch.typename(p)}")
            if not (self.defaults.get("differentiable") or p.is_leaf or p.retains_grad):
                raise ValueError("can't optimize a tensor computed from others: pass its leaves")
        if len(tensors) != len(set(tensors)):
            warnings.warn("a parameter appears twice: a step will update it twice", stacklevel=3)
        for group in self.param_groups:
            if ("param_names" in group) != ("param_names" in param_group or bool(names)):
                raise ValueError("either all parameter groups have names or none has")
        if not set(tensors).isdisjoint(chain(*(group["params"] for group in self.param_groups))):
            raise ValueError("a parameter of this group is already in another group")
        _refuse_unsupported({**self.defaults, **param_group}, tensors)

        param_group["params"] = tensors
        if names:
            param_group["param_names"] = names
        param_group.update({**self.defaults, **param_group})  # new keys come last
        self.param_groups.append(param_group)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients: by default they become None, else tensors of zeros.

        The two differ: a step skips a parameter without gradient, but moves one whose gradient is
        zero if it has momentum or weight decay. Source: ``torch.optim.Optimizer.zero_grad``.
        """
        for p in chain(*(group["params"] for group in self.param_groups)):
            if set_to_none:
                p.grad = None
            elif p.grad is not None:
                if p.grad.grad_fn is None:
                    p.grad.requires_grad_(False)
                else:
                    p.grad.detach_()
                p.grad.zero_()

    # --- one step --------------------------------------------------------------------------------

    @compat.hooked
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient, in place.

        Args:
            closure: computes the loss and its gradients anew; called once, before the update.

        Returns:
            What the closure returned, or None.

        Raises:
            RuntimeError: a gradient this optimizer cannot use (sparse ones, for Adam). It is raised
                before anything has changed.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with torch.set_grad_enabled(self.defaults.get("differentiable", False)):
            # A list, not a generator: all groups are checked before one is changed.
            for work in [(group, *self._plan(group)) for group in self.param_groups]:
                self._update(*work)
        return loss

    def _plan(self, group: dict[str, Any]) -> tuple[Engine, list[Tensor]]:
        """The engine, and the parameters that have a gradient; all checked before any update."""
        _refuse_unsupported(group, group["params"])
        _require_numbers(TypeError, **{key: group[key] for key in NUMBERS if key in self.defaults})
        params = [p for p in group["params"] if p.grad is not None]
        compat.refuse_recording(self.counts_steps)
        self.check(group, params)
        engine = choose_engine(group, params)
        return (blocks.loop if engine is loop and self.elementwise else engine), params

    def _update(self, group: dict[str, Any], engine: Engine, params: list[Tensor]) -> None:
        """Let the engine run the rule over the parameters of one group."""
        values = {key: _squeeze(group[key]) for key in self.option_keys}
        penalty = self.penalty(group)
        states = [self.init_state(p, group) for p in params]
        columns = ([state.get(key) for state in states] for key in self.state_keys)
        rows = list(zip(params, [p.grad for p in params], *columns, strict=True))
        # Parameters that missed a gradient lag behind. All in a batch have made the same number of
        # steps, so one set of numbers serves the whole batch.
        batches: dict[tuple[float, ...], list[tuple[Any, ...]]] = {(): rows}
        if self.counts_steps:
            batches = defaultdict(list)
            for count, row in zip([state["step"] for state in states], rows, strict=True):
                # takes less time than count.add_(1)
                batches[(count.fill_(count.item() + 1).item(),)].append(row)

        for step, rows in batches.items():
            numbers = self.scalars(*step, **values)
            results = engine(self.rule, rows, penalty, numbers, self.complex_as_pairs)
            for row, result in zip(rows, results, strict=True):
                if result is not None and result is not row[2]:
                    self.state[row[0]][self.state_keys[0]] = result

    def check(self, group: dict[str, Any], params: list[Tensor]) -> None:
        """Raise an error if ``params``, all with a gradient, cannot be updated with these options.

        Called for every group before anything is changed.
        """

    def init_state(self, p: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        """The state of ``p``, made first if it has none. The rule may add to it."""
        return self.state.get(p, NO_STATE)

    def penalty(self, group: dict[str, Any]) -> Penalty:
        """Sign and weight decay of a group: they come before the rule, and are the same for all."""
        weight_decay, maximize = group.get("weight_decay", 0), group.get("maximize", False)
        if weight_decay == 0:
            return Penalty(maximize) if maximize else NO_PENALTY
        if group.get("decoupled_weight_decay"):
            return Penalty(maximize, shrink=1 - _squeeze(group["lr"]) * weight_decay)
        return Penalty(maximize, l2=weight_decay)

    # --- saving and loading ----------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """All a step depends on besides parameters and gradients, with parameters as numbers.

        Returns:
            ``{"state": {0: {...}, ...}, "param_groups": [{"lr": ..., "params": [0, 1]}, ...]}``.
            Tensors are not copied. ``torch.optim`` reads it, and this package reads PyTorch's.
        """
        for hook in self._optimizer_state_dict_pre_hooks.values():
            hook(self)
        params = chain(*(group["params"] for group in self.param_groups))
        number = {p: i for i, p in enumerate(params)}
        state_dict = {
            "state": {number[p] if isinstance(p, Tensor) else p: s for p, s in self.state.items()},
            "param_groups": [
                {k: v for k, v in group.items() if k != "params"}
                | {"params": [number[p] for p in group["params"]]}
                for group in self.param_groups
            ],
        }
        for hook in self._optimizer_state_dict_post_hooks.values():
            state_dict = _or(hook(self, state_dict), state_dict)
        return state_dict

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue where a `state_dict` was written, by this package or by ``torch.optim``.

        Options of the groups, ``lr`` among them, become the saved ones; state goes to the device
        and dtype of its parameter (``step`` stays as it is). Load after building a scheduler: its
        constructor writes ``lr``. Tensors that need no conversion are shared with the dictionary,
        as PyTorch does; pass a ``deepcopy`` to keep both runs apart.

        Raises:
            ValueError: another number of groups, or groups of other sizes. Nothing is changed.
        """
        state_dict = state_dict.copy()
        for hook in self._optimizer_load_state_dict_pre_hooks.values():
            state_dict = _or(hook(self, state_dict), state_dict)
        saved_groups = deepcopy(state_dict["param_groups"])
        sizes = [len(group["params"]) for group in self.param_groups]
        saved_sizes = [len(group["params"]) for group in saved_groups]
        if sizes != saved_sizes:
            raise ValueError(
                f"the saved groups hold {saved_sizes} parameters and this optimizer's {sizes}: "
                "build it with the same parameter groups as the one that was saved"
            )
        for group, saved_group in zip(self.param_groups, saved_groups, strict=True):
            _refuse_unsupported(saved_group, group["params"])

        saved_params = chain(*(group["params"] for group in saved_groups))
        params = chain(*(group["params"] for group in self.param_groups))
        param_of = dict(zip(saved_params, params, strict=True))
        state: defaultdict[Any, Any] = defaultdict(dict)
        for number, saved in state_dict["state"].items():
            p = param_of.get(number)  # None: an entry that belongs to no parameter
            state[number if p is None else p] = saved if p is None else _moved(saved, p)
        for group, saved_group in zip(self.param_groups, saved_groups, strict=True):
            saved_group["params"] = group["params"]
            if "param_names" in group:
                saved_group.setdefault("param_names", group["param_names"])
        self.__setstate__({"state": state, "param_groups": saved_groups})
        for hook in self._optimizer_load_state_dict_post_hooks.values():
            hook(self)

    def __getstate__(self) -> dict[str, Any]:
        # Hooks stay behind, as in PyTorch: they may hold anything.
        return {key: getattr(self, key) for key in ("defaults", "state", "param_groups")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._init_hooks()
        for group in self.param_groups:
            compat.fill_later_options(group, self.defaults)
            for p in group["params"] if self.counts_steps else ():
                compat.step_as_tensor(self.state.get(p, {}))

    def __repr__(self) -> str:
        text = f"{type(self).__name__} ("
        for i, group in enumerate(self.param_groups):
            options = (f"    {key}: {group[key]}\n" for key in sorted(group) if key != "params")
            text += f"\nParameter Group {i}\n{''.join(options)}"
        return text + ")"


def choose_engine(group: dict[str, Any], params: list[Tensor]) -> Engine:
    """The engine for the parameters of one group: what the user asked for, else PyTorch's default.

    The default is the loop on CPU and foreach where every launch of a kernel costs, on CUDA.
    Source: ``torch.optim.optimizer._default_to_fused_or_foreach``.
    """
    use_foreach = group.get("foreach")
    if group.get("fused"):
        return fused.engine_for(params)
    if group.get("differentiable"):
        if use_foreach:
            raise AssertionError("foreach=True cannot be differentiable: leave foreach unset")
        return differentiable
    if use_foreach is None and group.get("fused") is None:
        # A subclass of Parameter may mean something by its methods that a list call would skip, and
        # the numbers of Adam have to be numbers there.
        numbers = (group["lr"], *group["betas"]) if "betas" in group else ()
        use_foreach = not any(isinstance(x, Tensor) for x in numbers) and all(
            type(p) in (Tensor, nn.Parameter) and p.device.type in FOREACH_DEVICES for p in params
        )
    return foreach if use_foreach else loop


def _require_numbers(if_many: type[Exception], **numbers: Any) -> None:
    for name, value in numbers.items():
        if not hasattr(value, "__float__"):
            raise TypeError(f"{name} must be a number, not {value!r}")
        if isinstance(value, Tensor) and value.numel() != 1:
            raise if_many(f"{name} must be one number, and not {value.numel()} in a tensor")


def _refuse_unsupported(group: dict[str, Any], params: list[Tensor]) -> None:
    if group.get("capturable"):
        raise NotImplementedError("capturable=True is not supported: leave it unset")
    if group.get("fused"):
        fused.check(group, params)


def _names_and_tensors(params: Any) -> tuple[list[str], list[Tensor]]:
    if isinstance(params, set) or not isinstance(params, Iterable):
        raise TypeError(f"params must be a list: state is saved by position, got {params!r:.60}")
    items = [params] if isinstance(params, Tensor) else list(params)
    names = [item[0] for item in items if isinstance(item, tuple)]
    if names and len(names) < len(items):
        raise ValueError("either all parameters of a group have names or none has")
    return names, [item[1] if isinstance(item, tuple) else item for item in items]


def _moved(value: Any, p: Tensor, key: Any = None) -> Any:
    """A saved value on the device of ``p``, and in its dtype where that is a floating one."""
    if isinstance(value, Tensor) and key != "step":
        return value.to(p.device, p.dtype if p.is_floating_point() else None)
    if isinstance(value, dict):
        return {k: _moved(v, p, k) for k, v in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, (str, Tensor)):
        return type(value)(_moved(v, p) for v in value)
    return value


def _squeeze(x: Any) -> Any:
    """A one-element tensor as a 0-dim one, as arithmetic with numbers wants it."""
    return x.squeeze() if isinstance(x, Tensor) else x


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value
