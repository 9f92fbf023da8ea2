"""Stochastic gradient descent, with momentum if asked for. Source: ``torch/optim/sgd.py``."""

from typing import Any

from torch import Tensor

from .optimizer import Optimizer, Params, _require_numbers


class SGD(Optimizer):
    """Step against the gradient, or along a running sum of gradients.

    Args:
        params: tensors, ``(name, tensor)`` pairs, or dicts of groups; see `Optimizer`.
        lr: the learning rate. A positive number, or a tensor with one element.
        momentum: how much of the last buffer is kept, usually 0 to 0.99. 0 means no buffer at all.
        dampening: the new gradient enters the buffer times ``1 - dampening``, except the first one,
            which enters whole.
        weight_decay: ``weight_decay * p`` is added to the gradient.
        nesterov: step along ``g + momentum * buffer`` instead of the buffer.
        maximize: climb instead of descend.
        foreach: run the rule on lists of tensors. None: on CUDA yes, on CPU no.
        differentiable: let autograd follow the step.
        fused: not supported here.

    The state of a parameter is ``{"momentum_buffer": tensor}``, of the shape, dtype and device of
    the parameter; without momentum it is empty.

    Raises:
        ValueError: a negative lr, momentum or weight_decay; a tensor lr with several elements;
            nesterov without momentum or with dampening.
        TypeError: lr, momentum or weight_decay is not a number.

    Note:
        The learning rate multiplies the buffer, not the gradient that enters it. In the classical
        form (Sutskever et al. 2013) it is the other way round, and the two part when lr changes.

    Sources: Robbins & Monro 1951; Polyak 1964; Nesterov 1983; Sutskever et al. 2013;
    ``torch.optim.SGD``.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float | Tensor = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        _require_numbers(ValueError, lr=lr)
        _require_numbers(RuntimeError, momentum=momentum, weight_decay=weight_decay)
        for name, value in {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}.items():
            if value < 0:
                raise ValueError(f"{name} must not be negative, got {value}")
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError("nesterov needs momentum above 0 and dampening equal to 0")
        what = dict(lr=lr, momentum=momentum, dampening=dampening, weight_decay=weight_decay)
        what |= dict(nesterov=nesterov, maximize=maximize)
        how = dict(foreach=foreach, differentiable=differentiable, fused=fused)
        super().__init__(params, what | how)

    @staticmethod
    def scalars(*, lr: Any, momentum: Any, dampening: Any, nesterov: bool) -> dict[str, Any]:
        """The numbers of one step. No momentum is None: the rule never asks for a value."""
        momentum = None if momentum == 0 else momentum
        return dict(lr=lr, momentum=momentum, dampening=dampening, nesterov=nesterov)

    @staticmethod
    def rule(p: Any, g: Any, momentum_buffer: Any, *,
             lr: Any, momentum: Any, dampening: Any, nesterov: bool) -> Any:  # fmt: skip
        """Update ``p`` in place from its gradient ``g``, and return the new buffer."""
        buf = momentum_buffer
        if momentum is not None:
            if buf is None:
                buf = g.clone()  # the first gradient enters whole
            else:
                buf.mul_(momentum).add_(g, alpha=1 - dampening)
            g = g.add(buf, alpha=momentum) if nesterov else buf
        p.add_(g, alpha=-lr)
        return buf
