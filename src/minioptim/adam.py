"""Adam, and AdamW as its one-line correction. Sources: ``torch/optim/adam.py``, ``adamw.py``."""

from typing import Any

import torch
from torch import Tensor

from .compat import step_dtype
from .engines import like
from .optimizer import Optimizer, Params, _require_numbers, _squeeze


class Adam(Optimizer):
    """Step along a running mean of the gradient, over the root of a running mean of its square.

    Args:
        params: tensors, ``(name, tensor)`` pairs, or dicts of groups; see `Optimizer`.
        lr: the learning rate, about the size of a step in each coordinate. A number, or a tensor
            with one element (not with ``foreach=True``).
        betas: how much of the running mean of g, and of g², is kept: both in [0, 1), both floats or
            both tensors with one element.
        eps: added to the root. In float16 anything below 6e-8 is 0, and a zero gradient gives nan.
        weight_decay: ``weight_decay * p`` is added to the gradient.
        decoupled_weight_decay: instead p shrinks by the factor ``1 - lr * weight_decay``, and the
            running means see nothing of it: this is `AdamW`.
        amsgrad: divide by the largest running mean of g² so far.
        maximize: climb instead of descend.
        foreach: run the rule on lists of tensors. None: on CUDA yes, on CPU no.
        differentiable: let autograd follow the step.
        fused: compile the rule; see `minioptim.fused`. Equal to the loop up to rounding.
        capturable: not supported here.

    The state of a parameter is ``step`` (a 0-dim CPU tensor), ``exp_avg``, ``exp_avg_sq``, and with
    amsgrad ``max_exp_avg_sq``, each of the shape, dtype and device of the parameter.

    Raises:
        ValueError: lr, eps or weight_decay negative or nan; a beta outside [0, 1); betas of mixed
            kind; a tensor lr with several elements; tensor lr or betas with foreach.
        TypeError: something that should be a number is none.
        RuntimeError: a beta with several elements; in ``step``, a sparse gradient.
        KeyError: in ``step``, amsgrad was switched on too late. ``step`` then changes nothing.

    Note:
        For a parameter of shape () with tensor betas, PyTorch divides in the wider dtype of the two
        and this class in the parameter's. Everywhere else they agree to the last bit.

    Sources: Kingma & Ba 2015, algorithm 1; Reddi et al. 2018 (amsgrad); ``torch.optim.Adam``.
    """

    complex_as_pairs = True
    elementwise = True

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
    ) -> None:
        if not hasattr(betas, "__getitem__"):
            raise TypeError(f"betas must be two floats or two tensors, not {betas!r}")
        beta1, beta2 = betas[0], betas[1]
        if foreach and not capturable:
            _refuse_tensors(ValueError, lr=lr, beta1=beta1, beta2=beta2)
        _require_numbers(ValueError, lr=lr)
        _require_numbers(RuntimeError, beta1=beta1, beta2=beta2, eps=eps, weight_decay=weight_decay)
        for name, value in {"lr": lr, "eps": eps, "weight_decay": weight_decay}.items():
            if not 0 <= value:
                raise ValueError(f"{name} must not be negative or nan, got {value}")
        if not all(0 <= beta < 1 for beta in (beta1, beta2)):
            raise ValueError(f"both betas must be at least 0 and below 1, got {betas}")
        kinds = [all(isinstance(beta, kind) for beta in betas) for kind in (float, Tensor)]
        if len(betas) != 2 or not any(kinds):
            raise ValueError("betas must be two floats or two tensors")
        betas = tuple(map(_squeeze, betas))
        what = dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, amsgrad=amsgrad)
        how = dict(foreach=foreach, capturable=capturable, differentiable=differentiable)
        how |= dict(fused=fused, decoupled_weight_decay=decoupled_weight_decay)
        super().__init__(params, what | dict(maximize=maximize) | how)

    def check(self, group: dict[str, Any], params: list[Tensor]) -> None:
        beta1, beta2 = group["betas"]
        if group["foreach"] and params:
            _refuse_tensors(RuntimeError, lr=group["lr"])
            _refuse_tensors(ValueError, beta1=beta1, beta2=beta2)
        needed = {"step", *(self.state_keys if group["amsgrad"] else self.state_keys[:2])}
        for p in params:
            if p.grad.is_sparse:
                raise RuntimeError("Adam needs dense gradients: use SGD, or torch.optim.SparseAdam")
            state = self.state.get(p)
            if state and not needed <= state.keys():
                missing = sorted(needed - state.keys())
                raise KeyError(f"{missing}: not in the state, which was made with other options")

    def init_state(self, p: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        state = self.state[p]
        if len(state) == 0:
            state["step"] = torch.tensor(0.0, dtype=step_dtype(), device="cpu")
            state.update(exp_avg=torch.zeros_like(p), exp_avg_sq=torch.zeros_like(p))
            if group["amsgrad"]:
                state["max_exp_avg_sq"] = torch.zeros_like(p)
        return state

    @staticmethod
    def scalars(step: float, *, lr: Any, betas: Any, eps: float, amsgrad: bool) -> dict[str, Any]:
        """The numbers of step 1, 2, ...: the bias corrections, folded into the step size."""
        bias_correction1 = 1 - betas[0] ** step
        bias_correction2 = 1 - betas[1] ** step
        return dict(
            step_size=lr / bias_correction1,
            bias_correction2_sqrt=bias_correction2**0.5,
            betas=betas,
            eps=eps,
            amsgrad=amsgrad,
        )

    @staticmethod
    def rule(p: Any, g: Any, exp_avg: Any, exp_avg_sq: Any, max_exp_avg_sq: Any, *,
             step_size: Any, bias_correction2_sqrt: Any, betas: Any,
             eps: float, amsgrad: bool) -> None:  # fmt: skip
        """Update ``p`` and its running means in place from its gradient ``g``."""
        exp_avg.lerp_(g, 1 - like(betas[0], g))
        exp_avg_sq.mul_(betas[1]).addcmul_(g, g, value=1 - betas[1])
        if amsgrad:
            exp_avg_sq = max_exp_avg_sq.clamp_min_(exp_avg_sq)
        denom = exp_avg_sq.sqrt().div_(bias_correction2_sqrt).add_(eps)
        p.addcdiv_(exp_avg, denom, value=-step_size)


class AdamW(Adam):
    """Adam with decoupled weight decay: p shrinks by ``1 - lr * weight_decay`` before the step.

    Arguments, state and errors are those of `Adam`, except that weight decay is 0.01 unless given.

    Note:
        The decay is multiplied by lr, so a schedule of lr schedules the decay too.

    Sources: Loshchilov & Hutter 2019; ``torch.optim.AdamW``.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        how = dict(foreach=foreach, capturable=capturable, differentiable=differentiable)
        how |= dict(maximize=maximize, fused=fused, decoupled_weight_decay=True)
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, **how)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:  # whatever dictionary was loaded, AdamW stays AdamW
            group["decoupled_weight_decay"] = True


def _refuse_tensors(error: type[Exception], **numbers: float | Tensor) -> None:
    for name, x in numbers.items():
        if isinstance(x, Tensor):
            raise error(f"{name} cannot be a tensor with foreach=True: leave foreach unset")
