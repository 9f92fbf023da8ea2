"""Experiments of the chapter on Adam: optimizers that are handed their gradients.

Most of what Adam does can be seen without any loss: give it a sequence of gradients, and look at
the steps it answers with. `feed` does that. The rest of the file is what a cell has no room for.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from .plots import COLOURS, _arrow, _box, finish
from .surfaces import Domain
from .trajectories import Make

# --- gradients in, steps out ----------------------------------------------------------------------


class Fed(NamedTuple):
    """What an optimizer did with the gradients it was given."""

    points: Tensor  # (steps + 1, ...): where the parameter was, the start included
    state: dict[str, Tensor]  # the state of the parameter after the last step

    @property
    def steps(self) -> Tensor:
        """How far it moved in each step."""
        return self.points[1:] - self.points[:-1]


def feed(make: Make, gradients: Any, start: float = 0.0) -> Fed:
    """Hand ``gradients[0]``, ``gradients[1]``, ... to an optimizer, whatever the parameter is.

    Args:
        make: makes an optimizer of a list of parameters.
        gradients: a tensor or a sequence of numbers; its first axis is time.
        start: where the parameter starts. Its shape, dtype and device are those of one gradient.
    """
    if not isinstance(gradients, Tensor):
        gradients = torch.tensor(gradients, dtype=torch.float64)
    p = torch.full_like(gradients[0], start)
    optimizer, points = make([p]), [p.clone()]
    for g in gradients:
        p.grad = g.clone()
        optimizer.step()
        points.append(p.clone())
    return Fed(torch.stack(points), dict(optimizer.state[p]))


def noise(*shape: int, seed: int) -> Tensor:
    """Normal numbers in float64 that depend on the seed alone, on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64, generator=generator)


# --- a bowl whose axes are not the coordinates ----------------------------------------------------


class Tilted:
    """A quadratic bowl turned by an angle: the same curvatures, seen from rotated coordinates."""

    name = "tilted bowl"

    def __init__(
        self,
        curvatures: tuple[float, float],
        degrees: float,
        domain: Domain = ((-11.0, 11.0), (-11.0, 11.0)),
    ) -> None:
        c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        self.turn = torch.tensor([[c, -s], [s, c]], dtype=torch.float64)
        self.matrix = self.turn @ torch.diag(torch.tensor(curvatures).double()) @ self.turn.T
        self.domain = domain

    def value(self, x: Tensor) -> Tensor:
        return 0.5 * ((x @ self.matrix.to(x)) * x).sum(-1)

    def gradient(self, x: Tensor) -> Tensor:
        return x @ self.matrix.to(x)

    def hessian(self, x: Tensor) -> Tensor:
        return self.matrix.to(x)


# --- the article's second block -------------------------------------------------------------------

# The seven lines of the article's section on Adam, as they stand there.
SECOND_BLOCK = """
mt=(β1*mt)+(1-β1)*grad
vt=(β2*vt)+((1-β2)*(grad**2))
t=t+1
ρ=math.sqrt(1-β2**(t))/(1-β1**(t))
μ=ρ*μ+(1-ρ)*mt/((1-β1**(t))*δt)
σ=ρ*σ+(1-ρ)*(grad**2)/((1-β2**(t))*δt)
param=param-(lr*μ)/(sigma+ϵ)
"""


def run_block(
    block: str,
    x: float,
    steps: int,
    gradient: Callable[[float, int], float] = lambda x, t: x,
    **numbers: float,
) -> tuple[Tensor, dict[str, float]]:
    """Execute the text of an update rule, line by line as written, and return the whole path.

    What it needs is supplied: lr 0.01, the usual betas, ϵ 1e-8, δt 1, and zeros to begin with. All
    of it can be set by name. By default the loss is x²/2, so that the gradient is x.

    Returns:
        The points, the start included, and the variables after the last step.
    """
    names: dict[str, Any] = dict(math=math, lr=0.01, β1=0.9, β2=0.999, ε=1e-8, δt=1.0)
    names |= dict(mt=0.0, vt=0.0, μ=0.0, σ=0.0, t=0, param=x) | numbers
    code = compile(block, "<the article>", "exec")
    points = [x]
    for t in range(steps):
        names["grad"] = gradient(names["param"], t)
        exec(code, names)
        points.append(names["param"])
    left = {k: v for k, v in names.items() if isinstance(v, float | int)}
    return torch.tensor(points, dtype=torch.float64), left


# --- an online problem on which Adam goes the wrong way -------------------------------------------


def reddi(make: Make, steps: int, large: float = 3.0) -> Tensor:
    """The example of Reddi, Kale and Kumar: a convex problem whose best point is -1.

    Every third gradient is ``large``, the two between are -1, and x is kept in [-1, 1]. So the sum
    over three steps is ``large - 2``, which is positive, and x should go down. The learning rate
    falls as ``1 / sqrt(t)``, as their theorem wants it. Returns all points.
    """
    x = torch.zeros(1, dtype=torch.float64)
    optimizer, points = make([x]), [x.item()]
    lr = optimizer.param_groups[0]["lr"]
    for t in range(1, steps + 1):
        x.grad = torch.tensor([large if t % 3 == 1 else -1.0], dtype=torch.float64)
        optimizer.param_groups[0]["lr"] = lr / math.sqrt(t)
        optimizer.step()
        x.clamp_(-1, 1)
        points.append(x.item())
    return torch.tensor(points, dtype=torch.float64)


# --- learning problems made to order --------------------------------------------------------------


class Split(NamedTuple):
    """A classification with labels of -1 and 1 for training and for testing."""

    x: Tensor
    y: Tensor
    test_x: Tensor
    test_y: Tensor


def wilson(n: int = 200, test: int = 1000, share: float = 0.6, seed: int = 0) -> Split:
    """The problem of Wilson et al. 2017, section 3.3, on which adaptive methods learn by heart.

    Feature 0 is the label itself. Features 1 and 2 are always 1. Every training sample has five
    features of its own: one of them is set if its label is 1, all five if it is -1. Samples of the
    test set have none set, since they are new.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = torch.rand(n + test, generator=generator, dtype=torch.float64)
    y = torch.where(labels < share, 1.0, -1.0).double()
    x = torch.zeros(n + test, 3 + 5 * n, dtype=torch.float64)
    x[:, 0], x[:, 1:3] = y, 1
    for i in range(n):
        own = 3 + 5 * i
        x[i, own : own + (1 if y[i] > 0 else 5)] = 1
    return Split(x[:n], y[:n], x[n:], y[n:])


def least_squares(make: Make, data: Split, steps: int) -> dict[str, float]:
    """Fit a linear model to the labels with full gradients, and count its errors."""
    w = torch.zeros(data.x.shape[1], dtype=torch.float64)
    optimizer = make([w])
    for _ in range(steps):
        w.grad = data.x.T @ (data.x @ w - data.y) / len(data.y)
        optimizer.step()

    def wrong(x: Tensor, y: Tensor) -> float:
        return ((x @ w).sign() != y).double().mean().item()

    loss = (data.x @ w - data.y).square().mean().item()
    return {"train": wrong(data.x, data.y), "test": wrong(data.test_x, data.test_y), "loss": loss}


def zipf(make: Make, steps: int = 2000, words: int = 200, batch: int = 64) -> dict[str, float]:
    """Learn one number for each of ``words``; word k comes up with probability like 1/k.

    The gradient of a rare word is 0 in most steps. Returns the mean squared error of the 20 most
    frequent and of the 100 rarest words.
    """
    generator = torch.Generator().manual_seed(0)
    truth = torch.randn(words, generator=generator, dtype=torch.float64)
    chance = 1 / torch.arange(1, words + 1, dtype=torch.float64)
    w = torch.zeros(words, dtype=torch.float64)
    optimizer = make([w])
    for _ in range(steps):
        drawn = torch.multinomial(chance, batch, replacement=True, generator=generator)
        count = torch.bincount(drawn, minlength=words).double()
        w.grad = count / batch * (w - truth)
        optimizer.step()
    error = (w - truth).square()
    return {"frequent": error[:20].mean().item(), "rare": error[-100:].mean().item()}


# --- groups for weight decay ----------------------------------------------------------------------


def decay_groups(named: Sequence[tuple[str, Tensor]], weight_decay: float) -> list[dict[str, Any]]:
    """Two groups: matrices and larger decay, vectors (biases, gains of norms) do not."""
    groups: Mapping[bool, list[tuple[str, Tensor]]] = {True: [], False: []}
    for name, p in named:
        groups[p.ndim >= 2].append((name, p))
    return [
        {"params": groups[True], "weight_decay": weight_decay},
        {"params": groups[False], "weight_decay": 0.0},
    ]


# --- pictures of state ----------------------------------------------------------------------------


def state_drawing(optimizer: Any, names: Mapping[Tensor, str]) -> None:
    """Draw what a live optimizer keeps for each parameter: one row each, one box for each entry.

    Shapes, dtypes, devices and the step counts are read from the object.
    """
    groups = [(i, p) for i, group in enumerate(optimizer.param_groups) for p in group["params"]]
    keys = list(dict.fromkeys(key for _, p in groups for key in optimizer.state.get(p, {})))
    fig, ax = plt.subplots(figsize=(7.6, 0.5 + 0.75 * len(groups)))
    ax.set(xlim=(0, 100), ylim=(0, 100))
    ax.axis("off")
    width, gap = 80 / (len(keys) + 1), 90 / len(groups)
    lefts = [(width + 20 / (len(keys) + 0.5)) * k for k in range(len(keys) + 1)]
    for left, title in zip(lefts, ["parameter", *keys], strict=True):
        ax.text(left + width / 2, 97, title, ha="center", weight="bold", fontsize=11)
    rows = []
    for row, (i, p) in enumerate(groups):
        middle, state = 92 - gap * (row + 0.5), optimizer.state.get(p, {})
        text = f"{names[p]}  (group {i})\n{tuple(p.shape)}"
        _box(ax, lefts[0], middle, width, 0.72 * gap, text, COLOURS[0])
        if state:
            _arrow(ax, (lefts[1], middle), (width, middle), COLOURS[2])
        for left, key in zip(lefts[1:], keys, strict=True):
            value = state.get(key)
            text = "nothing" if value is None else _entry(value)
            colour = "#767676" if value is None else COLOURS[2]
            _box(ax, left, middle, width, 0.72 * gap, text, colour)
        rows.append([p.numel(), *(s.numel() for s in state.values())])
    says = {names[p]: " ".join(optimizer.state.get(p, {})) or "nothing" for _, p in groups}
    finish(fig, rows, says)


def _entry(value: Tensor) -> str:
    kind = f"{str(value.dtype).removeprefix('torch.')}, {value.device.type}"
    return f"{value.item():.0f}\n{kind}" if value.ndim == 0 else f"{tuple(value.shape)}\n{kind}"


def memory(optimizers: Mapping[str, Any]) -> None:
    """Bars of what each live optimizer makes a model keep, in multiples of its parameters."""
    fig, ax = plt.subplots(figsize=(7.6, 0.6 + 0.55 * len(optimizers)))
    says, drawn, seen = {}, [], {}
    for row, (name, optimizer) in enumerate(optimizers.items()):
        params = [p for group in optimizer.param_groups for p in group["params"]]
        sizes = {"parameters": _bytes(params), "gradients": _bytes([p.grad for p in params])}
        for key in dict.fromkeys(k for p in params for k in optimizer.state.get(p, {})):
            sizes[key] = _bytes([optimizer.state[p][key] for p in params])
        left = 0.0
        for key, size in sizes.items():
            part = size / sizes["parameters"]
            if part > 0.3:  # what is smaller, the step counts, is not to be seen
                colour = seen.setdefault(key, COLOURS[len(seen) % len(COLOURS)])
                ax.barh(row, part, left=left, color=colour, edgecolor="white", height=0.7)
                ax.text(left + part / 2, row, key, ha="center", va="center", color="white", size=8)
            left += part
        says[name] = f"{left:.2f} times the parameters"
        drawn.append(list(sizes.values()))
    ax.set_yticks(range(len(optimizers)), list(optimizers))
    ax.invert_yaxis()
    ax.set(xlabel="memory, in multiples of the parameters")
    finish(fig, drawn, says)


def _bytes(tensors: Sequence[Tensor | None]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors if t is not None)
