"""Real data without a download: the 8×8 images of handwritten digits of scikit-learn."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from .environment import device


class Digits(NamedTuple):
    """Images as rows of 64 brightnesses in [0, 1], and the digits they show."""

    x: Tensor  # (n, 64)
    y: Tensor  # (n,), int64

    def pick(self, which: Tensor | slice | int) -> "Digits":
        """Some of them, still as rows, by index or indices."""
        which = slice(which, which + 1) if isinstance(which, int) else which
        return Digits(self.x[which], self.y[which])

    def to(self, place: torch.device) -> "Digits":
        """The same ones on another device."""
        return Digits(self.x.to(place), self.y.to(place))


def digits(dtype: torch.dtype = torch.float64) -> tuple[Digits, Digits]:
    """The 1,797 images, the first 1,437 for training and the last 360 (other writers) for testing.

    In float64 by default: then what is computed from them agrees on every CPU to many digits.
    """
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    x = torch.from_numpy(images).to(device(), dtype) / 16
    y = torch.from_numpy(labels).to(device(), torch.int64)
    return Digits(x[:1437], y[:1437]), Digits(x[1437:], y[1437:])


def batches(n: int, size: int, seed: int = 0) -> Iterator[Tensor]:
    """Endless batches of ``size`` out of ``n`` indices, reshuffled in each pass.

    Every index comes once in a pass; what is left of a pass after its last full batch is not used.
    """
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(n, generator=generator).to(device())
        yield from order[: n - n % size].split(size)
