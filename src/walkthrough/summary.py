"""What `walkthrough.train` shows besides its lines: a bar, two tables and a plot."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .refused import refuse

Record = Mapping[str, Sequence[float]]  # "lr" and "loss", by steps

WIDTH = 24  # of the bar, in characters


def watch(run: Any, per_epoch: int) -> None:
    """Draw a bar on standard error while a `walkthrough.train.Run` goes on, if one can be seen.

    It is drawn by a hook that the optimizer calls after each step.
    """
    if run.rank or not sys.stderr.isatty():
        return
    steps, goal = len(run.record["loss"]), run.settings.epochs

    def draw(*_: Any) -> None:
        nonlocal steps
        steps += 1
        done = steps / (per_epoch * goal)
        filled = "#" * round(WIDTH * done)
        end = "\r\033[K" if steps % per_epoch == 0 else ""  # an epoch has a line of its own
        print(f"\r[{filled:.<{WIDTH}}] {done:4.0%}", end=end, file=sys.stderr, flush=True)

    run.optimizer.register_step_post_hook(draw)


def by_epoch(record: Record, epochs: int) -> list[tuple[Sequence[float], Sequence[float]]]:
    """The learning rates and losses of each of so many epochs, at least one."""
    size = len(record["loss"]) // epochs
    cuts = [slice(i * size, (i + 1) * size) for i in range(epochs)]
    return [(record["lr"][cut], record["loss"][cut]) for cut in cuts]


def table(record: Record, epochs: int) -> str:
    """A row per epoch: its first and last learning rate; mean, least, largest batch loss."""
    rows = [f"{'epoch':>5}{'first lr':>12}{'last lr':>12}{'loss':>9}{'least':>9}{'largest':>9}"]
    for i, (lr, loss) in enumerate(by_epoch(record, epochs), 1):
        mean = sum(loss) / len(loss)
        row = f"{i:5}{lr[0]:12.4g}{lr[-1]:12.4g}{mean:9.4f}{min(loss):9.4f}{max(loss):9.4f}"
        rows.append(row)
    return "\n".join(rows)


def shares(held: Sequence[Mapping[str, int]]) -> str:
    """A row per process: the bytes it holds, as found by `walkthrough.distributed.bytes_held`."""
    rows = ["process" + "".join(f"{name:>17}" for name in held[0])]
    for i, kinds in enumerate(held):
        rows.append(f"{i:7}" + "".join(f"{count:17,}" for count in kinds.values()) + " bytes")
    return "\n".join(rows)


def can_draw(path: str) -> None:
    """Refuse a plot that could not be written, before a run rather than after it.

    Raises:
        Refused: no matplotlib; no such folder; a name that ends like no kind of picture.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        refuse("for a plot, matplotlib must be installed")
    kinds = sorted(Figure().canvas.get_supported_filetypes())
    if Path(path).suffix[1:] not in kinds:
        refuse(f"a plot is a file that ends in one of {', '.join(kinds)}, not {path}")
    if not Path(path).parent.is_dir():
        refuse(f"there is no folder {Path(path).parent}")


def draw(record: Record, epochs: int, path: str) -> None:
    """Draw loss and learning rate over the steps, the mean loss of each epoch on top of it."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    from . import plots

    means = [sum(loss) / len(loss) for _, loss in by_epoch(record, epochs)]
    size = len(record["loss"]) // epochs
    with mpl.rc_context():
        plots.style()
        fig = Figure(figsize=(6.4, 5))
        above, below = fig.subplots(2, sharex=True)
        steps = range(1, len(record["loss"]) + 1)
        above.plot(steps, record["loss"], color=plots.COLOURS[0], lw=0.8, alpha=0.6)
        edges = [i * size + 0.5 for i in range(epochs + 1)]
        look = {"color": plots.COLOURS[1], "lw": 2, "label": "mean of the epoch"}
        above.stairs(means, edges, baseline=None, **look)
        above.legend()
        above.set(ylabel="loss of a batch")
        below.plot(steps, record["lr"], color=plots.COLOURS[2], drawstyle="steps-mid")
        below.set(ylabel="learning rate", xlabel="step")
        fig.savefig(path)
