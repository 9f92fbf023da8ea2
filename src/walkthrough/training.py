"""The training loop of the chapters, with a record of what it spent."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .data import Digits
from .environment import device


class History(NamedTuple):
    """Loss over the whole training set, after so many steps and so many per-sample gradients."""

    steps: list[int]
    spent: list[int]
    loss: list[float]


def train(
    model: nn.Module,
    optimizer: Any,
    data: Digits,
    batches: Iterable[Tensor],
    budget: int,
) -> History:
    """Step until ``budget`` per-sample gradients are spent, and measure the loss on the way.

    It is measured after steps 1 to 10 and then each time their number has grown by a tenth, which
    is not counted as spending. The model is trained in place.
    """
    history = History([0], [0], [mean_loss(model, data).item()])
    spent, due = 0, 1.0
    for step, batch in enumerate(batches, 1):
        if spent + len(batch) > budget:
            break
        optimizer.zero_grad()
        mean_loss(model, data.pick(batch)).backward()
        optimizer.step()
        spent += len(batch)
        if step >= due or spent + len(batch) > budget:
            due = max(step + 1, 1.1 * step)
            with torch.no_grad():
                loss = mean_loss(model, data).item()
            for record, value in zip(history, (step, spent, loss), strict=True):
                record.append(value)
    return history


def mean_loss(model: nn.Module, data: Digits) -> Tensor:
    """The mean of the cross entropies of a set of images."""
    return nn.functional.cross_entropy(model(data.x), data.y)


def accuracy(model: nn.Module, data: Digits) -> float:
    """The part of a set that the model gets right."""
    with torch.no_grad():
        return (model(data.x).argmax(1) == data.y).double().mean().item()


def linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear classifier in float64 whose weights all start at zero, so that no seed decides."""
    model = nn.Linear(inputs, outputs, dtype=torch.float64, device=device())
    for p in model.parameters():
        nn.init.zeros_(p)
    return model


def gradient(model: nn.Module, data: Digits) -> Tensor:
    """The gradient of the mean loss of a set, over all parameters, as one vector."""
    found = torch.autograd.grad(mean_loss(model, data), list(model.parameters()))
    return torch.cat([g.flatten() for g in found])
