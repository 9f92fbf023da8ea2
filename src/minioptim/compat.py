"""What exists only because programs lean on it: hooks, old dictionaries, deprecated calls.

Nothing here changes a number. A reader who wants to know how an optimizer works can skip this file.
"""

import functools
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.hooks import RemovableHandle as Handle

_step_pre_hooks: OrderedDict[int, Callable] = OrderedDict()
_step_post_hooks: OrderedDict[int, Callable] = OrderedDict()

CALLS = ("step", "state_dict", "load_state_dict")  # each has hooks before it and after it
INSTANCE_HOOKS = [f"_optimizer_{call}_{when}_hooks" for call in CALLS for when in ("pre", "post")]

EPOCH_IS_DEPRECATED = "step(epoch) is deprecated: call step(), which keeps what others did to lr"

# Options that came later than the first release, with the value that means "as before".
LATER_OPTIONS = dict(nesterov=False, amsgrad=False, maximize=False, foreach=None, capturable=False)
LATER_OPTIONS |= dict(differentiable=False, decoupled_weight_decay=False)


def _register(hooks: OrderedDict, hook: Callable, prepend: bool = False) -> Handle:
    handle = Handle(hooks)
    hooks[handle.id] = hook
    if prepend:
        hooks.move_to_end(handle.id, last=False)
    return handle


def register_optimizer_step_pre_hook(hook: Callable) -> Handle:
    """Call ``hook(optimizer, args, kwargs)`` before every step of every minioptim optimizer.

    Returns a handle whose ``remove()`` takes the hook away again.
    Source: ``torch.optim.optimizer.register_optimizer_step_pre_hook``.
    """
    return _register(_step_pre_hooks, hook)


def register_optimizer_step_post_hook(hook: Callable) -> Handle:
    """Call ``hook(optimizer, args, kwargs)`` after every step of every minioptim optimizer.

    Returns a handle whose ``remove()`` takes the hook away again.
    Source: ``torch.optim.optimizer.register_optimizer_step_post_hook``.
    """
    return _register(_step_post_hooks, hook)


def hooked(step: Callable) -> Callable:
    """Wrap ``step`` so that the hooks run around it.

    Only the outermost ``step`` does: one reached through ``super().step()`` runs bare.
    """

    @functools.wraps(step)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        optimizer = args[0]
        if type(optimizer).step is not wrapper:
            return step(*args, **kwargs)
        for hook in [*_step_pre_hooks.values(), *optimizer._optimizer_step_pre_hooks.values()]:
            changed = hook(optimizer, args, kwargs)
            if changed is None:
                continue
            if not (isinstance(changed, tuple) and len(changed) == 2):
                raise RuntimeError(f"a pre-hook returns None or (args, kwargs), not {changed!r}")
            args, kwargs = changed
        result = step(*args, **kwargs)
        for hook in [*optimizer._optimizer_step_post_hooks.values(), *_step_post_hooks.values()]:
            hook(optimizer, args, kwargs)
        return result

    return wrapper


class Hooks:
    """The six places where an optimizer lets others listen in. Each returns a removable handle."""

    def _init_hooks(self) -> None:
        for name in INSTANCE_HOOKS:
            self.__dict__.setdefault(name, OrderedDict())

    def register_step_pre_hook(self, hook: Callable) -> Handle:
        """Call ``hook(optimizer, args, kwargs)`` before a step; it may return new ones."""
        return _register(self._optimizer_step_pre_hooks, hook)

    def register_step_post_hook(self, hook: Callable) -> Handle:
        """Call ``hook(optimizer, args, kwargs)`` after a step."""
        return _register(self._optimizer_step_post_hooks, hook)

    def register_state_dict_pre_hook(self, hook: Callable, prepend: bool = False) -> Handle:
        """Call ``hook(optimizer)`` before ``state_dict()``, ahead of the others if ``prepend``."""
        return _register(self._optimizer_state_dict_pre_hooks, hook, prepend)

    def register_state_dict_post_hook(self, hook: Callable, prepend: bool = False) -> Handle:
        """Call ``hook(optimizer, state_dict)`` after saving; it may return another dict."""
        return _register(self._optimizer_state_dict_post_hooks, hook, prepend)

    def register_load_state_dict_pre_hook(self, hook: Callable, prepend: bool = False) -> Handle:
        """Call ``hook(optimizer, state_dict)`` before loading; it may return another dict."""
        return _register(self._optimizer_load_state_dict_pre_hooks, hook, prepend)

    def register_load_state_dict_post_hook(self, hook: Callable, prepend: bool = False) -> Handle:
        """Call ``hook(optimizer)`` after ``load_state_dict()``."""
        return _register(self._optimizer_load_state_dict_post_hooks, hook, prepend)


def fill_later_options(group: dict[str, Any], defaults: dict[str, Any]) -> None:
    """Give a group from an older dictionary the options it does not know, set to "as before"."""
    for name, as_before in LATER_OPTIONS.items():
        if name in defaults:
            group.setdefault(name, as_before)
    if "fused" in defaults:
        group.setdefault("fused", None if "capturable" in defaults else False)


def step_as_tensor(state: dict[str, Any]) -> None:
    """Older versions counted steps with a plain number; since torch 1.12 the count is a tensor."""
    if "step" in state and not isinstance(state["step"], torch.Tensor):
        state["step"] = torch.tensor(float(state["step"]), dtype=step_dtype())


def step_dtype() -> torch.dtype:
    """The dtype of a step count: float64 if that is the default dtype, else float32."""
    return torch.float64 if torch.get_default_dtype() == torch.float64 else torch.float32
