"""The picture on the first page: our optimizers' paths as lines, PyTorch's as circles upon them.

It is drawn when the site is built. Where the two differ in one bit, there is no picture
and no site.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import torch

import minioptim

from . import plots
from .surfaces import Quadratic
from .trajectories import Trajectory, descend

START, STEPS = (-10.0, 2.6), 60
BOWL = Quadratic((1.0, 10.0), domain=((-11.5, 8.5), (-3.6, 3.6)))
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "SGD": ("SGD", {"lr": 0.02}),
    "SGD with momentum": ("SGD", {"lr": 0.02, "momentum": 0.9}),
    "Adam": ("Adam", {"lr": 0.5}),
}
# where the name of each stands: beside which point, how far from it
NAMES = {"SGD": (28, (0, 8)), "SGD with momentum": (7, (6, -14)), "Adam": (3, (10, 4))}


def runs(library: Any) -> dict[str, Trajectory]:
    """Each optimizer from the same start for the same number of steps."""

    def make(kind: str, options: dict[str, Any]) -> Callable[..., Any]:
        return lambda params: getattr(library, kind)(params, **options)

    return {name: descend(make(*run), BOWL, START, STEPS) for name, run in RUNS.items()}


def draw(path: Path, size: tuple[float, float] = (8.0, 3.1)) -> None:
    """Write the picture as a PNG.

    Args:
        path: where to.
        size: width and height in inches, of 200 pixels each.

    Raises:
        AssertionError: a point of one of our optimizers is not PyTorch's.
    """
    ours, theirs = runs(minioptim), runs(torch.optim)
    with mpl.rc_context():
        plots.style()
        fig, ax = plt.subplots(figsize=size, layout="none")
        plots.draw_surface(ax, BOWL, levels=14)
        for name, colour in zip(RUNS, plots.COLOURS, strict=False):
            line, circles = ours[name].points, theirs[name].points
            assert torch.equal(line, circles), f"{name}: ours is not PyTorch's"
            ax.plot(*line.T, color=colour, linewidth=1.8)
            ax.plot(*circles.T, "o", color=colour, markersize=5.5, markerfacecolor="none")
            at, offset = NAMES[name]
            ax.annotate(name, line[at], offset, textcoords="offset points", color=colour, size=12)
        ax.plot(0.0, 0.0, "*", color=plots.INK, markersize=12)
        ax.set(xlim=BOWL.domain[0], ylim=BOWL.domain[1])
        ax.set_position((0, 0, 1, 1))
        ax.axis("off")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(plots.png(fig))
        plt.close(fig)


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
