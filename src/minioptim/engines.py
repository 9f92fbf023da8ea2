"""Engines: ways to run one update rule.

An update rule such as :meth:`minioptim.SGD.rule` is written once, for *a* parameter ``p``, *a*
gradient ``g`` and their state. Nothing in it says what kind of object ``p`` is, only which methods
it has. An engine decides what it is:

=================  ==========================================  ==================================
engine             the rule sees                               PyTorch's counterpart
=================  ==========================================  ==================================
`loop`             one tensor at a time                        ``_single_tensor_sgd``, ``..._adam``
`foreach`          a list of tensors that acts as one          ``_multi_tensor_sgd``, ``..._adam``
`differentiable`   a tensor whose in-place methods make a      ``_single_tensor_*`` with
                   new tensor, so that autograd can follow     ``differentiable=True``
`fused.fused`      such a tensor too, but only once, while     ``_fused_sgd``, ``_fused_adam``
                   ``torch.compile`` writes one pass from it
=================  ==========================================  ==================================

No engine knows the formula of an optimizer, and no optimizer knows how an engine works.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

Rule = Callable[..., Any]
Row = tuple[Any, ...]  # (p, g, *state): one parameter, its gradient, its state (None where absent)
Engine = Callable[..., list[Any]]


class Penalty(NamedTuple):
    """What happens to ``p`` and ``g`` before the rule, the same for every optimizer.

    A number that is None is absent. The distinction matters: a branch on None can be taken before
    any number is known, a branch on the value of a tensor cannot.
    """

    maximize: bool = False
    l2: Any = None  # added to the gradient as l2 * p: the gradient of the penalty l2/2 * p²
    shrink: Any = None  # p is multiplied by it: decoupled weight decay, 1 - lr * weight_decay

    def __call__(self, p: Any, g: Any) -> Any:
        """Shrink ``p`` in place; return the gradient for the rule, a new tensor if it differs."""
        if self.maximize:
            g = -g
        if self.shrink is not None:
            p.mul_(self.shrink)
        if self.l2 is not None:
            g = (g.add_ if self.maximize else g.add)(p, alpha=self.l2)  # -g is ours to overwrite
        return g


NO_PENALTY = Penalty()


def like(x: Any, t: Any) -> Any:
    """A tensor ``x`` moved to the device and dtype of ``t``; a plain number as it is."""
    return x.to(t.device, t.dtype) if isinstance(x, Tensor) else x


def as_pairs(row: Sequence[Any]) -> list[Any]:
    """Every complex tensor of a row seen as real ones of shape ``(..., 2)``, sharing its memory."""
    return [t if t is None or not t.is_complex() else torch.view_as_real(t) for t in row]


def loop(
    rule: Rule, rows: list[Row], penalty: Penalty, options: dict, pairs: bool = False
) -> list[Any]:
    """Run the rule on one tensor after the other, and return what it returned for each.

    Args:
        rule: the update rule, ``rule(p, g, *state, **options)``.
        rows: ``(p, g, *state)`` for each parameter that has a gradient.
        penalty: applied to ``p`` and ``g`` before the rule.
        options: the rule's keyword arguments, the same for all rows.
        pairs: show complex tensors to the rule as pairs of real numbers.
    """
    results = []
    for row in rows:
        if penalty is not NO_PENALTY:
            row = [row[0], penalty(*row[:2]), *row[2:]]
        if pairs and row[0].is_complex():
            row = as_pairs(row)
        results.append(rule(*row, **options))
    return results


# --- foreach -------------------------------------------------------------------------------------


def _forward(name: str) -> Callable[..., "TensorList"]:
    foreach_function = getattr(torch, f"_foreach_{name}")

    def method(self: Any, *args: Any, value: Any = None, **kwargs: Any) -> "TensorList":
        if value is not None:  # `value=` of a tensor method has no keyword in the foreach functions
            args = (*args, value)
        if name == "div_":  # one number for each tensor: for a single one CUDA multiplies by 1 / x
            args = ([*args] * len(self),)
        result = foreach_function(self, *args, **kwargs)
        return self if name.endswith("_") else TensorList(result)

    return method


class TensorList(list):
    """Tensors of one device and dtype that act as one: one ``torch._foreach_*`` call a method."""

    __neg__, clone = _forward("neg"), _forward("clone")


for _name in ("add", "add_", "mul_", "div_", "lerp_", "sqrt", "addcmul_", "addcdiv_", "clamp_min_"):
    setattr(TensorList, _name, _forward(_name))


def foreach(
    rule: Rule, rows: list[Row], penalty: Penalty, options: dict, pairs: bool = False
) -> list[Any]:
    """Run the rule once per device and dtype, on all its tensors together.

    On CUDA one call for a list launches a few kernels where the loop launches one per tensor. The
    temporaries of the rule are alive for all tensors at once, so it needs more memory.

    A bucket goes through `loop` instead where a list cannot stand for it: state that some of its
    rows have and others lack. PyTorch does the same, and in half precision the difference can be
    seen. Arguments and result are those of `loop`.
    """
    buckets: dict[tuple, list[int]] = {}
    for i, row in enumerate(rows):
        buckets.setdefault((row[0].device, row[0].dtype), []).append(i)
    results: list[Any] = [None] * len(rows)
    for indices in buckets.values():
        bucket = [rows[i] for i in indices]
        if listable(bucket):
            if pairs:
                bucket = [as_pairs(row) for row in bucket]
            columns = zip(*bucket, strict=True)
            p, g, *state = [None if col[0] is None else TensorList(col) for col in columns]
            bucket_results = rule(p, penalty(p, g), *state, **options)
        else:
            bucket_results = loop(rule, bucket, penalty, options, pairs)
        for i, result in zip(indices, bucket_results or (), strict=False):
            results[i] = result
    return results


def listable(rows: list[Row]) -> bool:
    """Whether one list per column can stand for these rows: all have the same state."""
    _, _, *columns = zip(*rows, strict=True)
    return all(len({t is None for t in column}) == 1 for column in columns)


# --- differentiable ------------------------------------------------------------------------------


class Pure:
    """A tensor whose in-place methods put a new tensor in place of the old one.

    Autograd cannot go back through a value that was overwritten. Here ``buf.mul_(0.9)`` computes
    ``buf * 0.9`` and lets ``buf`` stand for it: the rule reads the same, and nothing is lost.
    Any operand and any number may be a tensor that requires grad.
    """

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    def __neg__(self) -> "Pure":
        return Pure(-self.tensor)

    device = property(lambda self: self.tensor.device)
    dtype = property(lambda self: self.tensor.dtype)


_FORMULAS: dict[str, Callable[..., Tensor]] = {
    "add": lambda x, y, alpha=1: x + alpha * y,
    "mul": lambda x, y: x * y,
    "div": lambda x, y: x / y,
    "sqrt": lambda x: x.sqrt(),
    "lerp": lambda x, y, weight: x + weight * (y - x),
    "addcmul": lambda x, y, z, value=1: x + value * (y * z),
    "addcdiv": lambda x, y, z, value=1: x + value * (y / z),
    "clamp_min": lambda x, y: torch.maximum(x, y),
    "clone": lambda x: x.clone(),
}


def _unwrap(x: Any) -> Any:
    return x.tensor if isinstance(x, Pure) else x


def _method(formula: Callable[..., Tensor], in_place: bool) -> Callable[..., Pure]:
    def method(self: Pure, *args: Any, **kwargs: Any) -> Pure:
        kwargs = {key: _unwrap(x) for key, x in kwargs.items()}
        result = formula(self.tensor, *map(_unwrap, args), **kwargs)
        if not in_place:
            return Pure(result)
        self.tensor = result
        return self

    return method


for _name, _formula in _FORMULAS.items():
    setattr(Pure, _name, _method(_formula, in_place=False))
    setattr(Pure, _name + "_", _method(_formula, in_place=True))


def differentiable(
    rule: Rule, rows: list[Row], penalty: Penalty, options: dict, pairs: bool = False
) -> list[Any]:
    """Run the rule so that gradients flow through it: to ``p``, ``g``, the state and every number.

    The rule works on copies, and the result is written back once at the end. A parameter that is a
    leaf and requires grad cannot be written to by autograd's own law (RuntimeError): pass a clone.
    Arguments and result are those of `loop`.
    """
    results = []
    for row in rows:
        shown = as_pairs(row) if pairs else row
        p, g, *state = operands = [None if t is None else Pure(t.clone()) for t in shown]
        result = rule(p, penalty(p, g), *state, **options)
        for t, operand in zip(shown, operands, strict=True):
            if t is not None and operand is not g:
                t.copy_(operand.tensor)
        # A clone: the next step must not overwrite what autograd has saved of this one.
        results.append(None if result is None else result.tensor.clone())
    return results
