"""Two optimizers in step: a case is a line of Python, evaluated with the names of each library."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from hypothesis import HealthCheck, settings
from torch import Tensor

import minioptim
from walkthrough.parity import bits


def random_runs(count: int) -> Callable[[Any], Any]:
    """How far a property is searched: always the same cases, more with RANDOM_RUNS set.

    ``tools/search.py`` takes the settings off again and looks elsewhere each time.
    """
    return settings(
        max_examples=int(os.environ.get("RANDOM_RUNS", count)),
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


NAMES = {"torch": torch, "tensor": torch.tensor}
HALF = (torch.bfloat16, torch.float16)
REAL = (torch.float64, torch.float32, *HALF)
COMPLEX = (torch.complex128, torch.complex64)


def build(library: Any, case: str, params: Any, **names: Any) -> Any:
    """``SGD(p, lr=0.1)`` with the classes of one library and ``p`` for the parameters."""
    return eval(case, {**NAMES, **vars(library), "p": params, **names})


def draw(shape: Sequence[int], dtype: torch.dtype, seed: int) -> Tensor:
    """Normal numbers that depend on the seed alone, computed in double precision."""
    generator = torch.Generator().manual_seed(seed)
    wide = torch.complex128 if dtype.is_complex else torch.float64
    return torch.randn(tuple(shape), generator=generator, dtype=wide).to(dtype)


class Pair:
    """The same case in both libraries, with equal parameters."""

    def __init__(self, case: str, start: Sequence[Tensor], **names: Any) -> None:
        self.case = case
        self.params = [[torch.nn.Parameter(x.clone()) for x in start] for _ in range(2)]
        libraries = (minioptim, torch.optim)
        self.optimizers = [
            build(library, case, params, **copy.deepcopy(names))
            for library, params in zip(libraries, self.params, strict=True)
        ]

    @property
    def ours(self) -> Any:
        return self.optimizers[0]

    @property
    def theirs(self) -> Any:
        return self.optimizers[1]

    def step(self, grads: Sequence[Tensor | None]) -> None:
        """One step of both from the same gradients; None is a missing one."""
        for optimizer, params in zip(self.optimizers, self.params, strict=True):
            for p, g in zip(params, grads, strict=True):
                p.grad = None if g is None else g.clone()
            optimizer.step()

    def difference(self) -> str | None:
        """The first difference between parameters, state or options of the two, in words."""
        for i, (a, b) in enumerate(zip(*self.params, strict=True)):
            if not same(a, b):
                return f"parameter {i}: {a.tolist()} and {b.tolist()}"
        a, b = (optimizer.state_dict() for optimizer in self.optimizers)
        return unlike(a, b)

    def check(self) -> None:
        found = self.difference()
        assert found is None, f"{self.case}: {found}"


def same(a: Tensor, b: Tensor) -> bool:
    """Equal shape, dtype, device and bits; a nan equals any nan."""
    if (a.shape, a.dtype, a.device, a.layout) != (b.shape, b.dtype, b.device, b.layout):
        return False
    if a.is_sparse:
        a, b = a.to_dense(), b.to_dense()
    if a.is_complex():
        a, b = torch.view_as_real(a), torch.view_as_real(b)
    return bool(((bits(a) == bits(b)) | (a.isnan() & b.isnan())).all())


def unlike(a: Any, b: Any, where: str = "") -> str | None:
    """The first difference between two nested structures, in words; None if they are equal."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return None if same(a, b) else f"{where}: {a} and {b}"
    if type(a) is not type(b):
        return f"{where}: {type(a)} and {type(b)}"
    if isinstance(a, dict):
        if list(a) != list(b):
            return f"{where}: keys {list(a)} and {list(b)}"
        return next(filter(None, (unlike(a[k], b[k], f"{where}[{k!r}]") for k in a)), None)
    if isinstance(a, (list, tuple)):
        if len(a) != len(b):
            return f"{where}: {len(a)} and {len(b)} entries"
        pairs = enumerate(zip(a, b, strict=True))
        return next(filter(None, (unlike(x, y, f"{where}[{i}]") for i, (x, y) in pairs)), None)
    return None if a == b or (a != a and b != b) else f"{where}: {a!r} and {b!r}"
