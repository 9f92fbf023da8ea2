"""Five more optimizers of PyTorch, each as one rule: the continuation of `sgd.py` and `adam.py`.

They show how far the form carries. Every class here brings the same three things, in this order:
the checks of its options, the numbers of one step (``scalars``), and the update itself (``rule``).
What an optimizer *is* fits in the last of them; nothing else in the package had to change.

=========  ============================================================  =======================
class      the idea                                                      equal to ``torch.optim``
=========  ============================================================  =======================
`Adagrad`  divide by the root of the sum of all squared gradients        to the last bit
`RMSprop`  divide by the root of a running mean of them                  to the last bit
`NAdam`    Adam that looks ahead along its momentum                      to the last bit
`RAdam`    Adam without a denominator while that is still a guess        to 1e-12 in float64
`Muon`     momentum, made orthogonal, for matrices                       to the last bit
=========  ============================================================  =======================

To the last bit means: in the same mode, on the CPU. There are three exceptions, described with the
classes: `Adagrad` in half precision with ``foreach``, `NAdam` with complex parameters and weight
decay, and `Muon` in bfloat16 without Nesterov.

Sources: ``torch/optim/adagrad.py``, ``rmsprop.py``, ``nadam.py``, ``radam.py``, ``_muon.py``.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from .compat import step_dtype
from .engines import Engine, Penalty, loop
from .optimizer import Optimizer, Params, _squeeze


class _More(Optimizer):
    """What the classes below share: checks by name, and state made of zeros."""

    complex_as_pairs = True
    loop_only = False

    def __init__(self, params: Params, options: dict[str, Any]) -> None:
        lr = options["lr"]
        if isinstance(lr, Tensor) and lr.numel() != 1:
            raise ValueError(f"a tensor lr has one element, this one has {lr.numel()}")
        for name, value in options.items():
            if name in NOT_NEGATIVE and not value >= 0:
                raise ValueError(f"{name} must not be negative or nan, got {value}")
        if not all(0 <= beta < 1 for beta in options.get("betas", ())):
            raise ValueError(f"both betas must be at least 0 and below 1, got {options['betas']}")
        super().__init__(params, options)

    def check(self, group: dict[str, Any], params: list[Tensor]) -> None:
        if any(p.grad.is_sparse for p in params):
            raise RuntimeError(f"{type(self).__name__} needs dense gradients: use SGD for these")
        for state in filter(None, map(self.state.get, params)):
            missing = [key for key in self.remembered(group) if key not in state]
            if missing:
                raise KeyError(f"{missing}: not in the state, which was made with other options")

    def init_state(self, p: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        state = self.state[p]
        if len(state) == 0:
            if self.counts_steps:
                state["step"] = torch.tensor(0.0, dtype=step_dtype(), device="cpu")
            state.update({key: torch.zeros_like(p) for key in self.remembered(group)})
        return state

    def remembered(self, group: dict[str, Any]) -> Iterable[str]:
        """The state keys that the options of this group call for."""
        return self.state_keys

    def _plan(self, group: dict[str, Any]) -> tuple[Engine, list[Tensor]]:
        engine, params = super()._plan(group)
        return (loop if self.loop_only else engine), params


NOT_NEGATIVE = {
    *("lr", "lr_decay", "eps", "alpha", "momentum", "weight_decay", "momentum_decay"),
    "initial_accumulator_value",
}


class Adagrad(_More):
    """Divide each coordinate's step by the root of the sum of its squared gradients so far.

    Args:
        params: tensors, ``(name, tensor)`` pairs, or dicts of groups; see `Optimizer`.
        lr: the learning rate: the size of the first step in each coordinate.
        lr_decay: the rate is divided by ``1 + lr_decay * (step - 1)``.
        weight_decay: ``weight_decay * p`` is added to the gradient.
        initial_accumulator_value: what the sum starts from.
        eps: added to the root.
        foreach, maximize, differentiable, fused: as for `SGD`.

    The state of a parameter is ``step`` and ``sum``, made by the constructor, as in PyTorch.

    Note:
        In 16 bits PyTorch's own two modes differ: its foreach mode rounds ``lr * g`` before it
        divides. This class divides first in both modes, and equals PyTorch's loop.

    Raises:
        ValueError: a negative option; a tensor lr with several elements.
        RuntimeError: in ``step``, for a sparse gradient (PyTorch's class takes those).

    Sources: Duchi, Hazan & Singer 2011; ``torch.optim.Adagrad``.
    """

    elementwise = True

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-2,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        what = dict(lr=lr, lr_decay=lr_decay, eps=eps, weight_decay=weight_decay)
        what |= dict(initial_accumulator_value=initial_accumulator_value)
        how = dict(foreach=foreach, maximize=maximize, differentiable=differentiable, fused=fused)
        super().__init__(params, what | how)
        for group in self.param_groups:
            for p in group["params"]:
                self.init_state(p, group)

    def init_state(self, p: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        fresh = p not in self.state
        state = super().init_state(p, group)
        if fresh:
            start = group["initial_accumulator_value"]
            state["sum"].fill_(complex(start, start) if p.is_complex() else start)
        return state

    @staticmethod
    def scalars(step: float, *, lr: Any, lr_decay: float, eps: float) -> dict[str, Any]:
        """The numbers of step 1, 2, ..."""
        return dict(step_size=lr / (1 + (step - 1) * lr_decay), eps=eps)

    @staticmethod
    def rule(p: Any, g: Any, sum: Any, *, step_size: Any, eps: float) -> None:
        """Update ``p`` and the sum of squares in place from the gradient ``g``."""
        sum.addcmul_(g, g)
        p.addcdiv_(g, sum.sqrt().add_(eps), value=-step_size)


class RMSprop(_More):
    """Divide each coordinate's step by the root of a running mean of its squared gradients.

    Args:
        params: tensors, ``(name, tensor)`` pairs, or dicts of groups; see `Optimizer`.
        lr: the learning rate.
        alpha: how much of the running mean of g² is kept, in [0, 1).
        eps: added to the root.
        weight_decay: ``weight_decay * p`` is added to the gradient.
        momentum: step along a running sum of the scaled gradients.
        centered: divide by the estimated standard deviation instead of the root mean square.
        foreach, maximize, differentiable: as for `SGD`. capturable: not supported here.

    The state of a parameter is ``step``, ``square_avg``, and where they are needed
    ``momentum_buffer`` and ``grad_avg``. The running mean starts at zero and is *not* corrected
    for it, so the first steps are ``1 / sqrt(1 - alpha)`` times as long as later ones: ten times.

    Raises:
        ValueError: a negative option; a tensor lr with several elements.
        RuntimeError: in ``step``, for a sparse gradient.

    Sources: Tieleman & Hinton 2012, lecture 6.5; ``torch.optim.RMSprop``.
    """

    elementwise = True

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        what = dict(lr=lr, momentum=momentum, alpha=alpha, eps=eps, centered=centered)
        how = dict(weight_decay=weight_decay, capturable=capturable, foreach=foreach)
        how |= dict(maximize=maximize, differentiable=differentiable)
        super().__init__(params, what | how)

    def remembered(self, group: dict[str, Any]) -> Iterable[str]:
        optional = {"momentum_buffer": group["momentum"] > 0, "grad_avg": group["centered"]}
        return (key for key in self.state_keys if optional.get(key, True))

    @staticmethod
    def scalars(step: float, *, lr: Any, alpha: float, eps: float, momentum: float) -> dict:
        """The numbers of one step. No momentum is None."""
        return dict(lr=lr, alpha=alpha, eps=eps, momentum=momentum if momentum > 0 else None)

    @staticmethod
    def rule(
        p: Any,
        g: Any,
        square_avg: Any,
        momentum_buffer: Any,
        grad_avg: Any,
        *,
        lr: Any,
        alpha: float,
        eps: float,
        momentum: Any,
    ) -> None:
        """Update ``p`` and its running means in place from its gradient ``g``."""
        square_avg.mul_(alpha).addcmul_(g, g, value=1 - alpha)
        if grad_avg is not None:  # the mean of the squares becomes the variance
            grad_avg.lerp_(g, 1 - alpha)
            square_avg = square_avg.clone().addcmul_(grad_avg, grad_avg, value=-1)
        denom = square_avg.sqrt().add_(eps)
        if momentum is None:
            p.addcdiv_(g, denom, value=-lr)
        else:
            p.add_(momentum_buffer.mul_(momentum).addcdiv_(g, denom), alpha=-lr)


class NAdam(_More):
    """Adam with Nesterov's momentum: the step already contains the next momentum.

    Args:
        params: tensors, ``(name, tensor)`` pairs, or dicts of groups; see `Optimizer`.
        lr, betas, eps, weight_decay, decoupled_weight_decay, maximize: as for `Adam`.
        momentum_decay: how fast beta1 warms up, from half of itself to all of it.
        foreach, capturable, differentiable: not supported here; the rule runs in the loop.

    The state of a parameter is ``step``, ``mu_product`` (the product of all momentums so far, in
    place of beta1's power), ``exp_avg`` and ``exp_avg_sq``.

    Note:
        For complex parameters weight decay multiplies complex numbers here and pairs of real ones
        in PyTorch, so the last bits differ.

    Raises:
        ValueError: a negative option; a beta outside [0, 1); a tensor lr with several elements.
        RuntimeError: in ``step``, for a sparse gradient.

    Sources: Dozat 2016; ``torch.optim.NAdam``.
    """

    loop_only = True  # the number mu_product belongs to one parameter, so no list can share it

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum_decay: float = 4e-3,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None:
        if foreach or differentiable:
            raise NotImplementedError(
                "NAdam runs in the loop here: leave foreach and differentiable"
            )
        what = dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
        what |= dict(momentum_decay=momentum_decay, decoupled_weight_decay=decoupled_weight_decay)
        how = dict(maximize=maximize, foreach=foreach, capturable=capturable)
        super().__init__(params, what | how | dict(differentiable=differentiable))

    def init_state(self, p: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        state = self.state[p]
        if len(state) == 0:
            state["step"] = torch.tensor(0.0, dtype=step_dtype(), device="cpu")
            state["mu_product"] = torch.tensor(1.0, dtype=step_dtype(), device="cpu")
            state.update(exp_avg=torch.zeros_like(p), exp_avg_sq=torch.zeros_like(p))
        return state

    @staticmethod
    def scalars(step: float, *, lr: Any, betas: Any, eps: float, momentum_decay: float) -> dict:
        """The numbers of step 1, 2, ...: the momentum of this step and that of the next."""
        mu, mu_next = (
            betas[0] * (1 - 0.5 * 0.96 ** (t * momentum_decay)) for t in (step, step + 1)
        )
        bias_correction2 = 1 - betas[1] ** step
        return dict(
            lr=lr, mu=mu, mu_next=mu_next, bias_correction2=bias_correction2, betas=betas, eps=eps
        )

    @staticmethod
    def rule(
        p: Any,
        g: Any,
        mu_product: Any,
        exp_avg: Any,
        exp_avg_sq: Any,
        *,
        lr: Any,
        mu: float,
        mu_next: float,
        bias_correction2: float,
        betas: Any,
        eps: float,
    ) -> None:
        """Update ``p`` and its running means in place from its gradient ``g``."""
        exp_avg.lerp_(g, 1 - betas[0])
        exp_avg_sq.mul_(betas[1]).addcmul_(g, g, value=1 - betas[1])
        denom = exp_avg_sq.div(bias_correction2).sqrt_().add_(eps)
        product = mu_product.mul_(mu).item()
        p.addcdiv_(g, denom, value=-lr * (1 - mu) / (1 - product))
        p.addcdiv_(exp_avg, denom, value=-lr * mu_next / (1 - product * mu_next))


class RAdam(_More):
    """Adam that waits with its denominator until enough gradients were seen to trust it.

    Args:
        params: tensors, ``(name, tensor)`` pairs, or dicts of groups; see `Optimizer`.
        lr, betas, eps, weight_decay, decoupled_weight_decay: as for `Adam`.
        foreach, maximize, differentiable: as for `SGD`. capturable: not supported here.

    The state of a parameter is ``step``, ``exp_avg`` and ``exp_avg_sq``. With the default betas the
    first five steps are plain momentum.

    Note:
        PyTorch multiplies four tensors where this rule multiplies four numbers: the same up to
        rounding, and two temporaries fewer. A tensor ``lr`` is one of these numbers, so a float32
        one rounds to float32 here also where the parameters are float64.

    Raises:
        ValueError: a negative option; a beta outside [0, 1); a tensor lr with several elements.
        RuntimeError: in ``step``, for a sparse gradient.

    Sources: Liu et al. 2020; ``torch.optim.RAdam``.
    """

    elementwise = True

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None:
        what = dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, maximize=maximize)
        how = dict(foreach=foreach, capturable=capturable)
        how |= dict(decoupled_weight_decay=decoupled_weight_decay, differentiable=differentiable)
        super().__init__(params, what | how)

    @staticmethod
    def scalars(step: float, *, lr: Any, betas: Any, eps: float) -> dict[str, Any]:
        """The numbers of step 1, 2, ...; no rectification while ``rho``, the length of the
        memory that v really has, is 5 or less."""
        bias_correction2 = 1 - betas[1] ** step
        longest = 2 / (1 - betas[1]) - 1
        rho = longest - 2 * step * betas[1] ** step / bias_correction2
        rectify = None
        if rho > 5:
            share = (rho - 4) * (rho - 2) * longest / ((longest - 4) * (longest - 2) * rho)
            rectify = (share * bias_correction2) ** 0.5
        return dict(step_size=lr / (1 - betas[0] ** step), rectify=rectify, betas=betas, eps=eps)

    @staticmethod
    def rule(
        p: Any,
        g: Any,
        exp_avg: Any,
        exp_avg_sq: Any,
        *,
        step_size: Any,
        rectify: Any,
        betas: Any,
        eps: float,
    ) -> None:
        """Update ``p`` and its running means in place from its gradient ``g``."""
        exp_avg.lerp_(g, 1 - betas[0])
        exp_avg_sq.mul_(betas[1]).addcmul_(g, g, value=1 - betas[1])
        if rectify is None:
            p.add_(exp_avg, alpha=-step_size)
        else:
            p.addcdiv_(exp_avg, exp_avg_sq.sqrt().add_(eps), value=-step_size * rectify)


class Muon(_More):
    """Momentum for the matrices of hidden layers, its step made (nearly) orthogonal.

    Args:
        params: matrices only. Give biases, embeddings and the last layer to another optimizer.
        lr: the learning rate.
        weight_decay: p shrinks by the factor ``1 - lr * weight_decay``.
        momentum: how much of the running mean of the gradient is kept.
        nesterov: step along the mean of gradient and momentum instead of the momentum.
        ns_coefficients, ns_steps: those of the Newton-Schulz iteration, see `orthogonalize`.
        eps: lower bound of the norm it divides by.
        adjust_lr_fn: how lr depends on the shape (rows, columns). None or "original": times
            ``sqrt(max(1, rows / columns))``; "match_rms_adamw": times
            ``0.2 * sqrt(max(rows, columns))``.

    The state of a parameter is ``{"momentum_buffer": tensor}``.

    Raises:
        ValueError: a negative option; a parameter that is not a matrix; an unknown adjust_lr_fn.
        RuntimeError: in ``step``, for a complex parameter or a sparse gradient.

    Note:
        The buffer is a running *mean* (``lerp``), unlike that of `SGD`. With bfloat16 parameters
        and ``nesterov=False`` PyTorch 2.13 divides the buffer itself by its norm at each step, by
        oversight; this class does not.

    Sources: Jordan et al. 2024; Liu et al. 2025 ("match_rms_adamw"); ``torch.optim.Muon``.
    """

    loop_only = True  # every matrix has a shape of its own

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = (3.4445, -4.775, 2.0315),
        eps: float = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: str | None = None,
    ) -> None:
        if adjust_lr_fn not in SHAPE_FACTORS:
            raise ValueError(f"adjust_lr_fn must be one of {list(SHAPE_FACTORS)}: {adjust_lr_fn!r}")
        what = dict(lr=lr, weight_decay=weight_decay, momentum=momentum, nesterov=nesterov)
        how = dict(ns_coefficients=ns_coefficients, eps=eps, ns_steps=ns_steps)
        super().__init__(params, what | how | dict(adjust_lr_fn=adjust_lr_fn))

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        for p in self.param_groups[-1]["params"]:
            if p.ndim != 2:
                self.param_groups.pop()
                raise ValueError(
                    f"Muon needs matrices, and one parameter has shape {tuple(p.shape)}"
                )

    def check(self, group: dict[str, Any], params: list[Tensor]) -> None:
        super().check(group, params)
        if any(p.is_complex() for p in params):
            raise RuntimeError("Muon needs real parameters")

    def penalty(self, group: dict[str, Any]) -> Penalty:
        return Penalty(shrink=1 - _squeeze(group["lr"]) * group["weight_decay"])

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        # PyTorch's base class does so, and groups that are added later have the option
        self.defaults.setdefault("differentiable", False)

    @staticmethod
    def scalars(
        *,
        lr: Any,
        momentum: float,
        nesterov: bool,
        ns_coefficients: tuple[float, float, float],
        ns_steps: int,
        eps: float,
        adjust_lr_fn: str | None,
    ) -> dict[str, Any]:
        """The numbers of one step, and how its size depends on the shape."""
        newton_schulz, factor = (ns_coefficients, ns_steps, eps), SHAPE_FACTORS[adjust_lr_fn]
        return dict(
            lr=lr, momentum=momentum, nesterov=nesterov, newton_schulz=newton_schulz, factor=factor
        )

    @staticmethod
    def rule(
        p: Any,
        g: Any,
        momentum_buffer: Any,
        *,
        lr: Any,
        momentum: float,
        nesterov: bool,
        newton_schulz: tuple,
        factor: Any,
    ) -> None:
        """Update the matrix ``p`` and its momentum in place from its gradient ``g``."""
        momentum_buffer.lerp_(g, 1 - momentum)
        direction = g.lerp(momentum_buffer, momentum) if nesterov else momentum_buffer
        direction = orthogonalize(direction, *newton_schulz)
        p.add_(direction, alpha=-lr * factor(*p.shape))


def orthogonalize(x: Tensor, coefficients: tuple, steps: int, eps: float) -> Tensor:
    """Nearly the closest matrix with orthonormal rows or columns: U Vᵀ, where x = U S Vᵀ.

    The iteration ``x -> a x + b (x xᵀ) x + c (x xᵀ)² x`` leaves U and V alone and sends each
    singular value s to ``a s + b s³ + c s⁵``. With the usual coefficients five rounds bring all but
    the smallest near 1, between 0.7 and 1.2. Computed in bfloat16, as its authors do.
    """
    a, b, c = coefficients
    tall = x.size(0) > x.size(1)
    y = x.T if tall else x  # the smaller of the two products x xᵀ and xᵀ x
    y = y.to(torch.bfloat16, copy=True)
    y.div_(y.norm().clamp(min=eps))  # now no singular value is above 1
    for _ in range(steps):
        square = y @ y.T
        y = torch.addmm(y, torch.addmm(square, square, square, beta=b, alpha=c), y, beta=a)
    return y.T if tall else y


SHAPE_FACTORS = {
    None: lambda rows, columns: math.sqrt(max(1, rows / columns)),
    "original": lambda rows, columns: math.sqrt(max(1, rows / columns)),
    "match_rms_adamw": lambda rows, columns: 0.2 * math.sqrt(max(rows, columns)),
}
