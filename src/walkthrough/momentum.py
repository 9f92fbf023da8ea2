"""What the chapter on momentum needs: the classical form, the theory of quadratics, two drawings.

On a quadratic every eigenvector of the Hessian is a world of its own: one number ``x``, one
velocity ``v``, and a 2×2 matrix that makes the next pair out of them. All that theory says about
the method there is said by the eigenvalues of that matrix.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

import minioptim

from .environment import device
from .plots import COLOURS, DEPTH, INK, finish, number, numbers
from .surfaces import Domain

# --- the classical form --------------------------------------------------------------------------


class Classical(minioptim.Optimizer):
    """Momentum with the learning rate inside the velocity: the article's form, and Keras's.

    Sources: Sutskever et al. 2013, equations 1 and 2; ``keras.optimizers.SGD``.
    """

    def __init__(self, params: Any, lr: float, momentum: float = 0.9, nesterov: bool = False):
        shared = dict(weight_decay=0, maximize=False)
        super().__init__(params, dict(lr=lr, momentum=momentum, nesterov=nesterov, **shared))

    @staticmethod
    def scalars(*, lr: Any, momentum: Any, nesterov: bool) -> dict[str, Any]:
        return dict(lr=lr, momentum=momentum, nesterov=nesterov)

    @staticmethod
    def rule(p: Any, g: Any, velocity: Any, *, lr: Any, momentum: Any, nesterov: bool) -> None:
        velocity.mul_(momentum).add_(g, alpha=-lr)
        if nesterov:  # p is the look-ahead point
            p.add_(velocity, alpha=momentum).add_(g, alpha=-lr)
        else:
            p.add_(velocity)

    def init_state(self, p: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        state = self.state[p]
        if "velocity" not in state:
            state["velocity"] = torch.zeros_like(p)
        return state


# --- theory of quadratics ------------------------------------------------------------------------


def iteration_matrix(curvature: Any, lr: Any, momentum: Any, nesterov: bool = False) -> Tensor:
    """The matrix that makes ``(x, v)`` of the next step, for numbers or tensors of them."""
    parts = [torch.as_tensor(n, dtype=torch.float64) for n in (curvature, lr, momentum)]
    c, lr, momentum = torch.broadcast_tensors(*parts)
    pull = lr * c  # the gradient step, as a fraction of x
    keep = momentum * (1 - pull) if nesterov else momentum  # of the velocity
    rows = torch.stack([1 - pull, keep]), torch.stack([-pull, keep])
    return torch.stack(rows).movedim((0, 1), (-2, -1))


def rate(curvatures: Sequence[float], lr: Any, momentum: Any, nesterov: bool = False) -> Tensor:
    """The factor by which the slowest part of the error shrinks per step, in the long run."""
    matrices = [iteration_matrix(c, lr, momentum, nesterov) for c in curvatures]
    return torch.linalg.eigvals(torch.stack(matrices)).abs().amax((0, -1))


def best(mu: float, L: float) -> tuple[float, float]:
    """Polyak's learning rate and momentum for curvatures between ``mu`` and ``L``."""
    low, high = mu**0.5, L**0.5
    return 4 / (low + high) ** 2, ((high - low) / (high + low)) ** 2


# --- experiments ---------------------------------------------------------------------------------


def roll(
    optimizer_of: Callable[[list[Tensor]], Any],
    curvatures: Sequence[float] | Tensor,
    steps: int,
    change: Callable[[int, Any], None] | None = None,
) -> Tensor:
    """Every point of a run on ``sum(curvature * x**2) / 2``, as a tensor of ``(steps + 1, d)``.

    All coordinates start at 1. ``change(step, optimizer)`` is called before each step.
    """
    c = torch.as_tensor(curvatures, dtype=torch.float64, device=device())
    x = torch.ones_like(c)
    optimizer = optimizer_of([x])
    points = [x.clone()]
    for step in range(steps):
        if change is not None:
            change(step, optimizer)
        x.grad = c * x
        optimizer.step()
        points.append(x.clone())
    return torch.stack(points).cpu()


def feed(optimizer_of: Callable[[list[Tensor]], Any], gradients: Iterable[float]) -> Tensor:
    """The steps that an optimizer makes when it is handed these gradients, one number each."""
    x = torch.zeros((), dtype=torch.float64, device=device())
    optimizer, points = optimizer_of([x]), [0.0]
    for g in gradients:
        x.grad = torch.full_like(x, g)
        optimizer.step()
        points.append(x.item())
    return torch.tensor(points, dtype=torch.float64).diff()


def steps_to(
    optimizer_of: Callable[[list[Tensor]], Any],
    curvatures: Tensor,
    factor: float = 1e-6,
    limit: int = 20_000,
) -> int:
    """The number of steps after which the error is ``factor`` times that of the start, for good.

    For good means: over as many steps again, and 20 more. Fails if that is not before ``limit``.
    """
    x = torch.ones_like(curvatures)
    optimizer, last, step = optimizer_of([x]), 0, 0
    while step <= 2 * last + 20:
        x.grad = curvatures * x
        optimizer.step()
        step += 1
        if not x.norm() <= factor * len(x) ** 0.5:
            last = step
        if step > limit:
            raise RuntimeError(f"no convergence within {limit} steps")
    return last + 1


def measured_rates(
    curvatures: Sequence[float], pairs: Sequence[tuple[float, float]], steps: int = 400
) -> Tensor:
    """`rate`, measured: one optimizer with a group for each pair of lr and momentum.

    The largest error of steps 2n to 3n, divided by that of steps n to 2n, is the rate to the n.
    """
    c = torch.tensor(curvatures, dtype=torch.float64, device=device())
    groups = [{"params": [torch.ones_like(c)], "lr": lr, "momentum": m} for lr, m in pairs]
    optimizer = minioptim.SGD(groups)
    params = [group["params"][0] for group in optimizer.param_groups]
    largest = torch.zeros(3, len(pairs), dtype=torch.float64)
    for part in range(3):
        for _ in range(steps):
            for p in params:
                p.grad = c * p
            optimizer.step()
            errors = torch.stack(params).norm(dim=1).cpu()
            largest[part] = torch.maximum(largest[part], errors)
    return (largest[2] / largest[1]) ** (1 / steps)


@dataclass(frozen=True)
class ThreePieces:
    """Strongly convex, curvature 1 between 1 and 2 and 25 elsewhere; the minimum is 0 at 0.

    Source: Lessard, Recht and Packard 2016.
    """

    domain: Domain = ((-3.0, 4.0),)
    name: str = "three pieces"

    def value(self, x: Tensor) -> Tensor:
        x = x[..., 0]
        steep = 12.5 * x**2
        flat, beyond = x**2 / 2 + 24 * x - 12, steep - 24 * x + 36
        return torch.where(x < 1, steep, torch.where(x < 2, flat, beyond))

    def gradient(self, x: Tensor) -> Tensor:
        return torch.where(x < 1, 25 * x, torch.where(x < 2, x + 24, 25 * x - 24))

    def hessian(self, x: Tensor) -> Tensor:
        return torch.diag(torch.where((x >= 1) & (x < 2), 1.0, 25.0).to(x.dtype))


# --- drawings ------------------------------------------------------------------------------------


def eigenvalue_paths(momenta: Sequence[float]) -> None:
    """Where the two eigenvalues go in the complex plane while lr times curvature grows from 0."""
    fig, axes = plt.subplots(1, len(momenta), figsize=(3.8 * len(momenta), 3.9), squeeze=False)
    drawn: list[Any] = []
    says: dict[str, str] = {}
    turn = np.linspace(0, 2 * np.pi, 181)
    for ax, m in zip(axes[0], momenta, strict=True):
        low, high, limit = (1 - m**0.5) ** 2, (1 + m**0.5) ** 2, 2 * (1 + m)
        ax.plot(np.cos(turn), np.sin(turn), color="#777777", linewidth=1)
        pieces = {
            "creeping": (0.0, low, COLOURS[2], "^"),
            "oscillation": (low, high, COLOURS[0], "o"),
            "sign flips": (high, limit, COLOURS[1], "s"),
        }
        for name, (start, stop, colour, marker) in pieces.items():
            even = torch.linspace(0, torch.pi, 21, dtype=torch.float64).cos()  # in the angle of z
            pull = (start + stop) / 2 - (stop - start) / 2 * even
            z = torch.linalg.eigvals(iteration_matrix(pull, 1.0, m)).flatten()
            ax.plot(
                numbers(z.real), numbers(z.imag), marker, color=colour, markersize=4, label=name
            )
            sizes = z.abs().reshape(-1, 2).sort(-1).values
            drawn.append(sizes)
            says[f"momentum {m}, {name}"] = (
                f"lr · curvature from {number(start)} to {number(stop)}, "
                f"larger |z| {number(sizes[0, 1])} -> {number(sizes[-1, 1])}"
            )
        ax.axhline(0, color="#bbbbbb", linewidth=0.8)
        ax.axvline(0, color="#bbbbbb", linewidth=0.8)
        ax.set(aspect="equal", xlabel="real part", title=f"momentum = {m}")
        ax.grid(False)
        ax.text(0.04, 0.06, rf"$|z|=\sqrt{{{m}}}$")
    axes[0, 0].set_ylabel("imaginary part")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside upper center", ncols=3, fontsize=10)
    finish(fig, drawn, says)


def rate_map(
    mu: float,
    L: float,
    tried: Sequence[tuple[float, float]],
    found: Tensor,
    lr_end: float,
) -> None:
    """The rate over lr and momentum, computed (ground) and measured (circles in the same colours).

    White is no convergence. Prints the best cell of the map and how far the circles are off.
    """
    lr = torch.linspace(0, lr_end, 153, dtype=torch.float64)[1:]
    momentum = torch.linspace(0, 0.99, 133, dtype=torch.float64)
    z = rate((mu, L), lr[None, :], momentum[:, None])
    fig, ax = plt.subplots(figsize=(6.8, 4.6))
    look = {"cmap": DEPTH, "norm": plt.Normalize(best(mu, L)[1] ** 0.5, 1.0)}
    axes = numbers(lr), numbers(momentum)
    shown = np.ma.masked_greater_equal(numbers(z), 1)
    mesh = ax.pcolormesh(*axes, shown, shading="nearest", **look)
    levels = [0.85, 0.9, 0.95, 0.98]
    ax.clabel(ax.contour(*axes, numbers(z), levels=levels, colors="#445566", linewidths=0.8))
    ax.plot(2 * (1 + axes[1]) / L, axes[1], color=COLOURS[1], linestyle="--")
    ax.annotate(
        "limit $2(1+\\beta)/L$", (2 * 1.5 / L, 0.5), (8, -4), textcoords="offset points",
        color=COLOURS[1],
    )  # fmt: skip
    x, y = np.array(tried).T
    ax.scatter(x, y, c=numbers(found), s=80, edgecolors=INK, linewidths=1, **look)
    _mark(ax, "best of all", best(mu, L), "*")
    _mark(ax, "best without momentum", (2 / (mu + L), 0.0), "D")
    ax.set(xlim=(0, lr_end), ylim=(-0.03, 1), xlabel="learning rate", ylabel="momentum $\\beta$")
    ax.grid(False)
    fig.colorbar(mesh, ax=ax, label="factor per step")
    where = np.unravel_index(int(z.argmin()), z.shape)
    off = (found - rate((mu, L), *torch.tensor(tried, dtype=torch.float64).T)).abs().max()
    finish(
        fig,
        [numbers(z), numbers(tried)],
        f"best cell: lr {number(lr[where[1]])}, momentum {number(momentum[where[0]])}, "
        f"factor {number(z.min())}\n"
        f"{len(tried)} measured points, off by less than {'0.01' if off < 0.01 else number(off)}",
    )


def _mark(ax: Axes, name: str, place: tuple[float, float], marker: str) -> None:
    ax.plot(*place, marker, color=INK, markersize=11 if marker == "*" else 7, zorder=5)
    ax.annotate(name, place, (9, 5), textcoords="offset points", color=INK, fontsize=10)
