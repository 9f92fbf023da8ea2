"""How other libraries write Adam and weight decay: their formulas, as their documentation has them.

Neither Keras nor optax is installed here. What each does with a sequence of gradients is written
out in a few lines, so that it can be held against `torch.optim`. The sources stand on the page
of conventions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

PLACES = ("after", "before", "inside")


def adam_steps(
    gradients: Iterable[Tensor],
    eps: float = 1e-8,
    betas: tuple[float, float] = (0.9, 0.999),
    place: str = "after",
    amsgrad: str = "",
    counted: int = 0,
) -> Tensor:
    """The steps of Adam for these gradients, in units of the learning rate.

    Args:
        place: where epsilon stands. ``after`` the correction: Algorithm 1, PyTorch, optax.
            ``before`` it: Keras and TensorFlow. ``inside`` the root: optax's ``eps_root``.
        amsgrad: of what the maximum is kept: ``raw`` averages (PyTorch, Keras), ``corrected`` ones
            (optax), or none.
        counted: how many steps the counter has counted before the first of these gradients.
    """
    if place not in PLACES:
        raise ValueError(f"{place!r} is none of {', '.join(PLACES)}")
    m = v = largest = torch.tensor(0.0, dtype=torch.float64)
    steps = []
    for t, g in enumerate(gradients, counted + 1):
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g * g
        correction = 1 - betas[1] ** t
        largest = torch.maximum(largest, v / correction if amsgrad == "corrected" else v)
        corrected = (largest if amsgrad else v) / (1 if amsgrad == "corrected" else correction)
        if place == "after":
            divisor = corrected.sqrt() + eps
        elif place == "before":
            divisor = corrected.sqrt() + eps / math.sqrt(correction)
        else:
            divisor = (corrected + eps).sqrt()
        steps.append(m / (1 - betas[0] ** t) / divisor)
    return torch.stack(steps)


def keras_sgd_decay(lr: float, momentum: float, weight_decay: float, steps: int) -> Tensor:
    """A weight of 1 without any gradient of its own, under Keras's SGD: decayed beside the step."""
    w = torch.ones(steps + 1, dtype=torch.float64)
    velocity = 0.0
    for t in range(steps):
        velocity *= momentum  # the gradient is zero
        w[t + 1] = w[t] * (1 - lr * weight_decay) + velocity
    return w


def torch_decay(make: Any, steps: int, **options: Any) -> Tensor:
    """The same weight under an optimizer of `torch.optim` or `minioptim`."""
    w = torch.nn.Parameter(torch.ones((), dtype=torch.float64))
    w.grad = torch.zeros_like(w)
    optimizer = make([w], **options)
    seen = [w.detach().clone()]
    for _ in range(steps):
        w.grad.zero_()
        optimizer.step()
        seen.append(w.detach().clone())
    return torch.stack(seen)


def decay_left(rates: Sequence[float], weight_decay: float, paper: bool) -> float:
    """What decoupled decay leaves of a weight under a schedule.

    In the paper the schedule's factor multiplies the decay, the base rate does not; in PyTorch,
    Keras and optax the whole rate does.
    """
    factors = (rate / rates[0] if paper else rate for rate in rates)
    return math.prod(1 - factor * weight_decay for factor in factors)
