"""Functions to walk on, small enough to know everything about them.

Each surface has a ``name``, its ``domain`` for plots (low and high end of each axis), the ``value``
at a point, and two facts that theory speaks of: ``gradient`` and ``hessian``, both written out by
hand. A test compares them with autograd. Points are tensors of shape ``(..., d)``; the leading
dimensions, if any, are many points at once.
"""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

Domain = tuple[tuple[float, float], ...]


class Surface(Protocol):
    """What a trajectory or a plot asks of a surface."""

    name: str
    domain: Domain

    def value(self, x: Tensor) -> Tensor:
        """The loss at a point, or at many: the last axis holds the coordinates."""
        ...

    def gradient(self, x: Tensor) -> Tensor:
        """The gradient there, by formula and not by autograd."""
        ...

    def hessian(self, x: Tensor) -> Tensor:
        """The matrix of second derivatives at one point."""
        ...


def eigenvalues(surface: Surface, x: Tensor) -> Tensor:
    """The curvatures of a surface at ``x``, in ascending order: eigenvalues of its Hessian."""
    return torch.linalg.eigvalsh(surface.hessian(x))


@dataclass(frozen=True)
class Quadratic:
    """Half the sum of ``eigenvalue * x**2``: a bowl with a given curvature along each axis."""

    curvatures: tuple[float, ...]
    domain: Domain = ((-11.0, 11.0), (-4.0, 4.0))
    name: str = "quadratic"

    @property
    def L(self) -> float:
        """The largest curvature. It alone decides how long a stable step may be."""
        return max(self.curvatures)

    @property
    def mu(self) -> float:
        """The smallest curvature."""
        return min(self.curvatures)

    def _diagonal(self, x: Tensor) -> Tensor:
        return torch.tensor(self.curvatures, dtype=x.dtype, device=x.device)

    def value(self, x: Tensor) -> Tensor:
        return 0.5 * (self._diagonal(x) * x**2).sum(-1)

    def gradient(self, x: Tensor) -> Tensor:
        return self._diagonal(x) * x

    def hessian(self, x: Tensor) -> Tensor:
        return torch.diag(self._diagonal(x))


@dataclass(frozen=True)
class DoubleWell:
    """``(x**2 - 1)**2 + tilt * x``: two minima, one of them lower, and a maximum between them."""

    tilt: float = 0.3
    domain: Domain = ((-1.7, 1.7),)
    name: str = "double well"

    def value(self, x: Tensor) -> Tensor:
        x = x[..., 0]
        return (x**2 - 1) ** 2 + self.tilt * x

    def gradient(self, x: Tensor) -> Tensor:
        return 4 * x * (x**2 - 1) + self.tilt

    def hessian(self, x: Tensor) -> Tensor:
        return torch.diag(12 * x**2 - 4)


@dataclass(frozen=True)
class Saddle:
    """``(x**2 - y**2) / 2 + y**4 / 4``: saddle at the origin, minima at ``(0, -1)``, ``(0, 1)``."""

    domain: Domain = ((-1.6, 1.6), (-1.6, 1.6))
    name: str = "saddle"

    def value(self, x: Tensor) -> Tensor:
        x, y = x[..., 0], x[..., 1]
        return (x**2 - y**2) / 2 + y**4 / 4

    def gradient(self, x: Tensor) -> Tensor:
        x, y = x[..., 0], x[..., 1]
        return torch.stack([x, y**3 - y], -1)

    def hessian(self, x: Tensor) -> Tensor:
        return torch.diag(torch.stack([torch.ones_like(x[0]), 3 * x[1] ** 2 - 1]))


@dataclass(frozen=True)
class Cubic:
    """``x**3``: its gradient vanishes at 0, which is neither a minimum nor a maximum."""

    domain: Domain = ((-1.2, 1.2),)
    name: str = "cubic"

    def value(self, x: Tensor) -> Tensor:
        return x[..., 0] ** 3

    def gradient(self, x: Tensor) -> Tensor:
        return 3 * x**2

    def hessian(self, x: Tensor) -> Tensor:
        return torch.diag(6 * x)


@dataclass(frozen=True)
class Rosenbrock:
    """``(1 - x)**2 + 100 * (y - x**2)**2``: a curved valley with its floor at ``(1, 1)``."""

    scale: float = 100.0
    minimum: ClassVar[tuple[float, float]] = (1.0, 1.0)
    domain: Domain = ((-2.0, 2.0), (-1.0, 3.0))
    name: str = "Rosenbrock"

    def value(self, x: Tensor) -> Tensor:
        x, y = x[..., 0], x[..., 1]
        return (1 - x) ** 2 + self.scale * (y - x**2) ** 2

    def gradient(self, x: Tensor) -> Tensor:
        x, y = x[..., 0], x[..., 1]
        across = 2 * self.scale * (y - x**2)
        return torch.stack([2 * (x - 1) - 2 * x * across, across], -1)

    def hessian(self, x: Tensor) -> Tensor:
        x, y, a = x[0], x[1], self.scale
        rows = [2 - 4 * a * (y - 3 * x**2), -4 * a * x, -4 * a * x, 2 * a * torch.ones_like(x)]
        return torch.stack(rows).reshape(2, 2)
