"""Walk an optimizer over a surface and keep every point it visits.

A comparison is fair by construction: `race` gives every optimizer the same start and the same
number of steps, and its caller states the learning rate in the label.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .environment import device
from .surfaces import Surface

Make = Callable[[list[Tensor]], Any]  # makes an optimizer of a list of parameters


class Trajectory(NamedTuple):
    """The points an optimizer visited, the start included, and the values there."""

    points: Tensor  # (steps + 1, d), float64, on the CPU
    values: Tensor  # (steps + 1,)

    @property
    def end(self) -> Tensor:
        """The last point."""
        return self.points[-1]


def descend(make: Make, surface: Surface, start: Sequence[float], steps: int) -> Trajectory:
    """Run the optimizer that ``make`` builds for ``steps`` steps, in float64.

    The gradient comes from autograd, as in training: the surface's own formula is not used.
    """
    x = torch.tensor(start, dtype=torch.float64, device=device(), requires_grad=True)
    optimizer = make([x])
    points, values = [x.detach().clone()], []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = surface.value(x)
        loss.backward()
        optimizer.step()
        values.append(loss.detach())
        points.append(x.detach().clone())
    values.append(surface.value(points[-1]))
    return Trajectory(torch.stack(points).cpu(), torch.stack(values).cpu())


def race(
    makers: Mapping[str, Make], surface: Surface, start: Sequence[float], steps: int
) -> dict[str, Trajectory]:
    """`descend` once for each optimizer: same start, same budget. Keys are labels for a plot."""
    return {label: descend(make, surface, start, steps) for label, make in makers.items()}
