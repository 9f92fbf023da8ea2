"""Flat parameters: all parameters of a module, and their gradients, as views of one long buffer.

A step over 400 small tensors spends most of its time on starting 400 computations. `flatten` moves
the parameters of a module into one buffer for each dtype and device, and hands out that buffer as
one long parameter. An optimizer, of this package or of ``torch.optim``, then does in one piece what
it did in 400; the module does not notice::

    flats = flatten(model)
    optimizer = Adam(flats, fused=True)      # or torch.optim.Adam(flats, fused=True)

For every rule that treats each element by itself (SGD, Adam, AdamW, ...) the training is the same,
in float32 and float64 to the last bit. In half precision and in fused kernels PyTorch rounds the
last few elements of a tensor differently from the others, and here other elements are the last. A
rule that looks at a parameter as a whole, such as Muon, would see another one.

Three things differ from ordinary parameters. A missing gradient counts as zero: weight decay and
momentum still move the parameter. ``zero_grad`` has to write zeros, and ``backward`` adds to them.
And the parameters must stay where they are: what moves them (``.to``, ``.double``,
``load_state_dict(assign=True)``) is refused, at once or at the next step.

Whether all are in place is looked up once a step, after ``backward``, ``zero_grad`` or an update.
PyTorch's own fused kernels do not tell that they have updated a tensor (its version stays). With
them a gradient that is assigned by hand, ``p.grad = g``, is seen only if ``zero_grad`` of the
optimizer came before it, or ``backward`` after it; written into, ``p.grad.copy_(g)``, it always is.
"""

from collections.abc import Iterable
from functools import partial
from itertools import chain
from operator import attrgetter, is_
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from .blocks import PLAIN

ALIGNMENT = (
    64  # bytes: where PyTorch lets a tensor of its own begin, and vector instructions like it
)
COUNTS = {"step", "mu_product", "eta", "mu"}  # state that is one number for a whole parameter
HOW = ("params", "param_names", "foreach", "fused", "capturable", "differentiable")
_at_home = WeakIdKeyDictionary()  # the parameters that lie in a flat buffer now


class FlatParameter(nn.Parameter):
    """One long parameter, shape ``(n,)``, whose memory is that of many parameters.

    Made by `flatten`. Between two parameters there may be a few unused elements, always zero.

    Attributes:
        parts: the parameters of the module, in order. Their data and their gradients are views.
        names: their names in the module.

    Raises:
        RuntimeError: when ``grad`` is read, that is in the next step: a part was moved, cast or
            frozen, its gradient is a view of somebody else's buffer, or `unflatten` was called.
            Also when it is copied or pickled: copy the module and flatten the copy.
    """

    parts: list[nn.Parameter]
    names: list[str]

    def __new__(cls, parts: list[nn.Parameter], names: list[str]) -> "FlatParameter":
        unit = ALIGNMENT // parts[0].element_size()
        length = sum(-(-p.numel() // unit) * unit for p in parts)
        return super().__new__(cls, parts[0].new_zeros(length))

    def __init__(self, parts: list[nn.Parameter], names: list[str]) -> None:
        self.parts, self.names = parts, names
        self._row = torch.zeros_like(self)  # the gradient
        self._grads = self.views(self._row)
        homes = self.views(self.detach())
        for p, home, g in zip(self.parts, homes, self._grads, strict=True):
            home.copy_(p)
            p.data = home
            if p.grad is not None:
                g.copy_(p.grad)
            p.grad = g
            _at_home[p] = None
        self._hooks: list[Any] = [
            p.register_post_accumulate_grad_hook(partial(self._bring_home, i))
            for i, p in enumerate(self.parts)
        ]
        self._homes: list[int | None] = [p.data_ptr() for p in self.parts]
        # the version of the data when the parts were last looked at
        self._checked: int | None = None

    def views(self, row: Tensor) -> list[Tensor]:
        """The pieces of a tensor shaped like this one, each in the shape and layout of its part."""
        unit, start, pieces = ALIGNMENT // self.element_size(), 0, []
        for p in self.parts:
            strides = torch.empty_like(p).stride()  # those of p, unless p has gaps
            pieces.append(row.as_strided(p.shape, strides, row.storage_offset() + start))
            start += -(-p.numel() // unit) * unit
        return pieces

    def touched(self) -> None:
        """Look through the parts again when the gradient is next read."""
        self._checked = None

    @property
    def grad(self) -> Tensor:
        """The gradients of all parts, shape ``(n,)``. Never absent: None makes them zero."""
        if self._checked != self._version:  # once a step: backward or the last update changed it
            self._check()
            self._checked = self._version
        return self._row

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        self.touched()
        for _, p, home in self._away():  # or a gradient assigned by hand would outlive this
            p.grad = None if value is None else home
        self._row.zero_() if value is None else self._row.copy_(value)

    def _bring_home(self, i: int, p: nn.Parameter) -> None:
        """After ``backward``: where it made a new gradient, copy it to where it belongs."""
        self.touched()
        if p.grad is not self._grads[i]:
            with torch.no_grad():
                p.grad = self._grads[i].copy_(p.grad)

    def _away(self) -> list[tuple[str, nn.Parameter, Tensor]]:
        """The parts whose gradient is not the view of the buffer, with that view."""
        if all(map(is_, map(attrgetter("grad"), self.parts), self._grads)):
            return []
        rows = zip(self.names, self.parts, self._grads, strict=True)
        return [(name, p, home) for name, p, home in rows if p.grad is not home]

    def _check(self) -> None:
        """See that all parts and gradients are at home; bring home the gradients that are not."""
        if list(map(Tensor.data_ptr, self.parts)) != self._homes or not all(
            map(attrgetter("requires_grad"), self.parts)
        ):
            gone = [
                name
                for name, p, home in zip(self.names, self.parts, self._homes, strict=True)
                if p.data_ptr() != home or not p.requires_grad
            ]
            raise RuntimeError(
                f"{gone[0]} was moved, cast, frozen or unflattened, and this optimizer would not "
                "train it: unflatten first, and flatten when the module is as it should be"
            )
        away = self._away()
        for name, p, _ in away:
            if p.grad is not None and p.grad.untyped_storage().nbytes() > p.grad.nbytes:
                raise RuntimeError(
                    f"the gradient of {name} is a view of another buffer: with "
                    "DistributedDataParallel use gradient_as_bucket_view=False"
                )
        with torch.no_grad():
            for _, p, home in away:
                p.grad = home.zero_() if p.grad is None else home.copy_(p.grad)

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise RuntimeError("a flat parameter is part of its module: copy or save the module")

    __deepcopy__ = __reduce_ex__


PLAIN.add(FlatParameter)


@torch.no_grad()
def flatten(module: nn.Module, params: Iterable[nn.Parameter] | None = None) -> list[FlatParameter]:
    """Move parameters of a module into one buffer for each dtype and device.

    Args:
        module: keeps its parameters, its ``state_dict`` and its results. Put it on its device and
            into its dtype first.
        params: some of its parameters, for a group of their own; by default all of them. Those
            that are frozen (``requires_grad=False``) stay as they are.

    Returns:
        What to give to an optimizer in place of the parameters, one tensor for each dtype and
        device, in order of appearance. Empty if there is nothing to train.

    Raises:
        TypeError: a parameter that is not an ordinary one, such as a lazy one.
        ValueError: a parameter of another module, one that is flat already or has no memory, or
            two that share memory (a parameter that the module uses twice counts once).
            Nothing is changed then.
    """
    names = {p: name for name, p in module.named_parameters()}
    chosen = [p for p in dict.fromkeys(names if params is None else params) if p.requires_grad]
    wanted = set(chosen)
    for p in chosen:
        if p not in names:
            raise ValueError("a parameter to flatten is not one of this module")
        if type(p) is not nn.Parameter or p.layout != torch.strided:
            raise TypeError(f"{names[p]}: cannot flatten a {type(p).__name__}")
        if p in _at_home or p.is_meta:
            raise ValueError(f"{names[p]} is flat already, or has no memory yet")
    spans = sorted(
        (t.data_ptr(), t.data_ptr() + t.nbytes, t in wanted)
        for t in [*names, *module.buffers()]
        if not t.is_meta
    )
    ends = [0, 0]  # how far the memory of those before reaches: what stays, what moves
    for start, end, moves in spans:
        if start < (max(ends) if moves else ends[True]):
            raise ValueError("two tensors of the module share memory: use one Parameter for both")
        ends[moves] = max(ends[moves], end)

    buckets: dict[tuple, list[nn.Parameter]] = {}
    for p in chosen:
        buckets.setdefault((p.device, p.dtype), []).append(p)
    flats = [FlatParameter(parts, [names[p] for p in parts]) for parts in buckets.values()]
    if flats:
        flats[0]._hooks += [
            m.register_load_state_dict_pre_hook(_refuse_assign) for m in module.modules()
        ]
    return flats


@torch.no_grad()
def unflatten(flats: Iterable[FlatParameter]) -> None:
    """Give every parameter memory of its own again, values and gradients unchanged.

    An optimizer that still holds the flat parameters refuses its next step. `copy_state` takes its
    state to a new one.
    """
    for flat in flats:
        for hook in flat._hooks:
            hook.remove()
        for p, home, g in zip(flat.parts, flat._homes, flat._grads, strict=True):
            if p.data_ptr() == home:
                p.data = p.clone()
            if p.grad is g:
                p.grad = g.clone()
            _at_home.pop(p, None)
        flat._homes, flat._checked = [None] * len(flat.parts), None


def copy_state(source: Any, target: Any) -> None:
    """Continue with ``target`` where ``source`` is: one optimizer is flat and the other is not.

    Both hold the parameters of one module, in the same groups; either may be flat, and they may be
    of this package or of ``torch.optim``. Tensors of the length of the flat parameter are split or
    joined, all else is copied. The options of the groups are copied too, such as ``lr``, but not
    those that say how to compute (``foreach``, ``fused``, ...). Works before and after `unflatten`.

    Raises:
        ValueError: other groups, or state that has no flat form: parameters of one buffer with
            another number of steps, or some with and some without state. Nothing is changed then.
    """
    if len(source.param_groups) != len(target.param_groups):
        raise ValueError("the two optimizers do not have the same parameter groups")
    of_part: dict[Any, dict[str, Any]] = {}
    for owner, parts in _owners(source):
        state = source.state.get(owner, {})
        for i, p in enumerate(parts):
            of_part[p] = {key: _piece(owner, i, x) for key, x in state.items()}
    states = []
    for owner, parts in _owners(target):
        old = [of_part.pop(p, {}) for p in parts]
        states.append(_joined(owner, old) if isinstance(owner, FlatParameter) else old[0])
    if any(of_part.values()):
        raise ValueError("the first optimizer has parameters that the second does not have")

    state_dict = target.state_dict()
    for before, after in zip(source.param_groups, state_dict["param_groups"], strict=True):
        after.update({key: x for key, x in before.items() if key not in HOW})
    state_dict["state"] = {i: state for i, state in enumerate(states) if state}
    target.load_state_dict(state_dict)
    for (owner, _), state in zip(_owners(target), states, strict=True):
        for key in COUNTS & set(state) - {"step"}:  # loading has cast them to the dtype of owner
            target.state[owner][key] = state[key].to(target.state[owner][key].device)


def _owners(optimizer: Any) -> Iterable[tuple[Any, list[Any]]]:
    """What an optimizer holds, and the parameters of a module that each stands for."""
    for p in chain(*(group["params"] for group in optimizer.param_groups)):
        yield p, p.parts if isinstance(p, FlatParameter) else [p]


def _piece(owner: Any, i: int, x: Any) -> Any:
    """What part ``i`` has of a value in the state of its owner."""
    if isinstance(owner, FlatParameter) and isinstance(x, Tensor) and x.shape == owner.shape:
        x = owner.views(x)[i]
    return x.clone() if isinstance(x, Tensor) else x


def _joined(flat: FlatParameter, states: list[dict[str, Any]]) -> dict[str, Any]:
    """The state of a flat parameter from the states of its parts."""
    if any(state.keys() != states[0].keys() for state in states):
        raise ValueError("some parameters of one buffer have state that others lack")
    joined = {}
    for key, first in states[0].items():
        values = [state[key] for state in states]
        if key not in COUNTS and isinstance(first, Tensor):
            joined[key] = torch.zeros_like(flat, dtype=first.dtype)
            for piece, value in zip(flat.views(joined[key]), values, strict=True):
                piece.copy_(value)
        elif any(value != first for value in values):
            raise ValueError(f"parameters of one buffer differ in {key}")
        else:
            joined[key] = first
    return joined


def _refuse_assign(module: nn.Module, state_dict: Any, prefix: str, metadata: Any, *_: Any) -> None:
    if metadata.get("assign_to_params_buffers") and any(p in _at_home for p in module.parameters()):
        raise RuntimeError(
            "assign=True would take the parameters out of the flat buffer: unflatten"
        )
