"""Is it equal? Our optimizer and PyTorch's, side by side, compared to the last bit.

`table` runs both with the same options, parameters and gradients, and compares all parameters and
all state after every step. What it prints is the same on every CPU if both are equal there.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .environment import device

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
SHAPES = ((), (5,), (4, 3), (2, 3, 2), (17,))  # one parameter each; 17 fills no vector register
MISSING = "missing gradients"

Options = Mapping[str, Any]


class Outcome(NamedTuple):
    """What a comparison found."""

    values: int  # numbers compared
    unequal: int  # numbers whose bits differ
    largest: float  # the largest difference, infinite where a shape or a key differs

    def __str__(self) -> str:
        return f"{self.largest:.0e}" if self.unequal else "0"


def compare(
    ours: Callable[..., Any],
    theirs: Callable[..., Any],
    options: Options | None = None,
    dtype: torch.dtype = torch.float64,
    steps: int = 20,
    seed: int = 0,
    shapes: Sequence[tuple[int, ...]] = SHAPES,
) -> Outcome:
    """Run two optimizers in step and compare parameters and state after every step.

    Args:
        ours, theirs: called with a list of parameters or groups, and the options.
        options: those of the constructor, and two more. ``groups``: a sequence of options, one for
            each group; the parameters are dealt out among them. ``missing gradients``: in each step
            some parameters, other ones each time, have no gradient.
        shapes: of the parameters.
    """
    options = dict(options or {})
    group_options = options.pop("groups", None)
    missing = options.pop(MISSING, False)
    generator = torch.Generator().manual_seed(seed)

    def draw(shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(device(), dtype)

    start = [draw(shape) for shape in shapes]
    sides = []
    for make in (ours, theirs):
        params: list[Any] = [torch.nn.Parameter(x.clone()) for x in start]
        given = params
        if group_options is not None:
            n = len(group_options)
            given = [{"params": params[i::n], **o} for i, o in enumerate(group_options)]
        sides.append((params, make(given, **options)))

    total = Outcome(0, 0, 0.0)
    for step in range(steps):
        for i, shape in enumerate(shapes):
            g = draw(shape)
            for params, _ in sides:
                params[i].grad = None if missing and (step + i) % 3 == 0 else g.clone()
        for _, optimizer in sides:
            optimizer.step()
        total = _add(total, _difference(*(_everything(*side) for side in sides)))
    return total


def table(
    ours: Callable[..., Any],
    theirs: Callable[..., Any],
    cases: Sequence[Options],
    planted: Callable[..., Any],
    dtypes: Sequence[torch.dtype] = DTYPES,
    steps: int = 20,
    shapes: Sequence[tuple[int, ...]] = SHAPES,
    within: float = 0.0,
) -> None:
    """Print the largest difference for each case and dtype; 0 means: not one bit differs.

    The last row is the first case once more, with ``planted``, our optimizer with one error in its
    rule, in place of ``ours``. It has to differ: a check that cannot fail proves nothing.

    Args:
        within: differences below it are no error; 0 allows none.

    Raises:
        AssertionError: a row differs, or the last one does not.
    """
    names = [str(dtype).removeprefix("torch.") for dtype in dtypes]
    width = max(len(describe(case)) for case in [*cases, {"one planted error": True}])
    print(_row(f"{'options':{width}}", *names, "values"))
    rows = [(describe(case), ours, case) for case in cases]
    rows.append(("one planted error", planted, cases[0]))
    compared = 0
    for label, make, case in rows:
        outcomes = [compare(make, theirs, case, dtype, steps, shapes=shapes) for dtype in dtypes]
        values = sum(outcome.values for outcome in outcomes)
        print(_row(f"{label:{width}}", *outcomes, f"{values:,}"))
        if make is planted:
            assert all(o.unequal for o in outcomes), "the planted error was not seen"
        else:
            bad = [o for o in outcomes if o.unequal and not o.largest < within]
            assert not bad, f"{label}: ours and PyTorch's differ"
            compared += values
    found = f"all within {within}" if within else "all equal"
    print(f"{compared:,} values after {steps} steps each: {found}. Planted error: seen.")


def _row(label: str, *columns: Any) -> str:
    """One line as one string: what is printed in pieces may be shown in pieces."""
    return " ".join([label, *(f"{column!s:>9}" for column in columns)])


def describe(options: Options) -> str:
    """Options as a short text."""

    def one(key: str, value: Any) -> str:
        if key == "groups":
            return f"{len(value)} groups"
        if isinstance(value, Tensor):
            return f"{key}=tensor({value.item():.3g})"
        return key if value is True else f"{key}={value}"

    return ", ".join(one(key, value) for key, value in options.items())


def _everything(params: Sequence[Tensor], optimizer: Any) -> dict[str, Any]:
    """All parameters and all state of an optimizer, by name."""
    found: dict[str, Any] = {f"parameter {i}": p.detach() for i, p in enumerate(params)}
    for i, p in enumerate(params):
        for key, value in optimizer.state.get(p, {}).items():
            found[f"{key} {i}"] = value
    return found


def _difference(a: Mapping[str, Any], b: Mapping[str, Any]) -> Outcome:
    """Compare two such dicts; None, numbers and tensors may be in them."""
    if a.keys() != b.keys():
        return Outcome(0, 1, float("inf"))
    total = Outcome(0, 0, 0.0)
    for key in a:
        x, y = (v if v is None else torch.as_tensor(v) for v in (a[key], b[key]))
        if key.startswith("step ") and x is not None and y is not None:
            x, y = x.cpu(), y.cpu()  # a fused kernel counts on CUDA, all else on the CPU
        if x is None or y is None:
            alike = x is y
            outcome = Outcome(1, 0 if alike else 1, 0.0 if alike else float("inf"))
        elif x.shape != y.shape or x.dtype != y.dtype or x.device != y.device:
            outcome = Outcome(0, 1, float("inf"))
        else:
            unequal = int((bits(x) != bits(y)).sum())
            largest = (x.double() - y.double()).abs().max().item() if unequal else 0.0
            outcome = Outcome(x.numel(), unequal, largest)
        total = _add(total, outcome)
    return total


def bits(x: Tensor) -> Tensor:
    """The bits of a tensor as integers: 0.0 and -0.0 differ, and a nan equals itself."""
    x = x.detach().contiguous()
    if x.is_complex():
        x = torch.view_as_real(x)
    if not x.is_floating_point():
        return x
    integer = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[x.element_size()]
    return x.view(integer)


def _add(a: Outcome, b: Outcome) -> Outcome:
    return Outcome(a.values + b.values, a.unequal + b.unequal, max(a.largest, b.largest))
