"""What a step costs: bytes counted as it runs, and times that were measured before and stored.

Counting is exact and the same on every machine, so a notebook does it. Timing is neither: the times
on the page come from ``book/bench.json``, which ``make bench RECORD=1`` writes together with the
machine and the date.
"""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

RECORD = Path(__file__).resolve().parents[2] / "book" / "bench.json"
WRITE_ONLY = ("copy_", "zero_", "fill_")  # they write a tensor without reading it
MADE_OF_NOTHING = ("zeros_like", "ones_like", "full_like", "empty_like")


# --- counting -------------------------------------------------------------------------------------


@dataclass
class Call:
    """One operation: its name, and for each tensor its place in the count and what was done."""

    name: str
    read: dict[int, int] = field(default_factory=dict)  # address: bytes
    written: dict[int, int] = field(default_factory=dict)
    alive: int = 0  # bytes of temporaries when it had run


class Traffic(TorchDispatchMode):
    """Counts what passes between the processor and its memory, if no cache kept anything.

    Every operation reads each of its tensors once from the first element to the last, and writes
    its result. Numbers, in tensors of one element, do not count. What an operation does inside is
    not seen; a fused kernel is one operation.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.alive = self.most_alive = 0

    @property
    def read(self) -> int:
        """Bytes read."""
        return sum(sum(call.read.values()) for call in self.calls)

    @property
    def written(self) -> int:
        """Bytes written."""
        return sum(sum(call.written.values()) for call in self.calls)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = func._schema.name.removeprefix("aten::")
        call = Call(name)
        known = set()
        aliases = [r.alias_info for r in func._schema.returns]
        is_view = any(alias is not None and not alias.is_write for alias in aliases)
        for argument, value in _bound(func._schema, args, kwargs):
            # The fused kernels may scale the gradients back, and write them only then.
            unscaled = argument.name == "grads" and kwargs.get("grad_scale") is None
            writes = argument.alias_info is not None and argument.alias_info.is_write
            for t in _tensors(value):
                known.add(t.untyped_storage().data_ptr())
                if is_view or t.numel() <= 1:
                    continue
                only_written = argument.is_out or (writes and name in WRITE_ONLY)
                if not only_written and name not in MADE_OF_NOTHING:
                    call.read[t.data_ptr()] = t.nbytes
                if writes and not unscaled:
                    call.written[t.data_ptr()] = t.nbytes
        for t in _tensors(result):
            if t.untyped_storage().data_ptr() not in known and t.numel() > 1:
                if not name.startswith(("empty", "new_empty")):
                    call.written[t.data_ptr()] = t.nbytes
                self._count(t.nbytes)
                weakref.finalize(t, self._count, -t.nbytes)
        if call.read or call.written:
            call.alive = self.alive
            self.calls.append(call)
        return result

    def _count(self, nbytes: int) -> None:
        self.alive += nbytes
        self.most_alive = max(self.most_alive, self.alive)


def _bound(schema: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[tuple]:
    for argument, value in zip(schema.arguments, args, strict=False):
        yield argument, value
    for argument in schema.arguments:
        if argument.name in kwargs:
            yield argument, kwargs[argument.name]


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)


def count(step: Callable[[], Any]) -> Traffic:
    """Run a step and count its traffic. Run it once before, so that state is not counted."""
    with Traffic() as traffic:
        step()
    return traffic


# --- what was measured ----------------------------------------------------------------------------


def stored() -> dict[str, Any]:
    """The measurements that the book shows, with the machine and the date."""
    return json.loads(RECORD.read_text(encoding="utf-8"))


def spread(quartiles: Sequence[float], digits: int = 2) -> str:
    """A median between its quartiles: ``0.84 (0.82-0.86)``."""
    low, median, high = (f"{x:.{digits}f}" for x in quartiles)
    return f"{median} ({low}-{high})"


def table(found: Mapping[str, Any]) -> str:
    """All measurements as text, medians with their quartiles."""
    lines = ["; ".join(f"{key} {value}" for key, value in found["machine"].items())]
    for group in found["steps"]:
        lines += ["", f"{group['optimizer']}, {group['work']}: {group['tensors']} tensors, "
                      f"{group['elements']:,} elements"]  # fmt: skip
        for row in group["ratios"]:
            name, other = row["what"].replace("again", "torch itself,"), row["to"]
            aim = "" if row["target"] is None else f"   aim {row['target']}"
            if row["target"] is not None and row["ratio"][1] > row["target"]:
                aim += " MISSED"
            ms = group["ms"][row["what"]][1]
            lines.append(f"  {name:26} {ms:8.3f} ms  {spread(row['ratio'])} x {other}{aim}")
    bandwidth = found["bandwidth"]
    lines += ["", f"one tensor of {bandwidth['elements']:,}: p.add_(g) moves "
                  f"{spread(bandwidth['gigabytes_per_second'], 1)} GB/s at 12 bytes per element; "
                  f"a @ b makes {spread(bandwidth['gigaflops'], 0)} Gflop/s"]  # fmt: skip
    for name, part in bandwidth["part_of_it"].items():
        lines.append(f"  {name:26} {spread(part)} of it, at 28 bytes per element")
    for key, title in (("by_size", "one tensor"), ("by_number", "many tensors")):
        lines += ["", f"Adam over {title}: milliseconds of a step"]
        names = list(dict.fromkeys(name for point in found[key] for name in point["ms"]))
        lines.append(f"  {'tensors':>8} {'elements':>10}" + "".join(f"{n:>18}" for n in names))
        for point in found[key]:
            cells = [f"{point['ms'][n][1]:.4f}" if n in point["ms"] else "" for n in names]
            head = f"  {point['tensors']:>8} {point['elements']:>10}"
            lines.append(head + "".join(f"{cell:>18}" for cell in cells))
    lines += ["", "one tensor of one element: microseconds"]
    lines += [f"  {name:30} {spread(us)}" for name, us in found["overhead"].items()]
    lines += ["", "scheduler.step()"]
    for row in found["schedulers"]:
        lines.append(f"  {row['scheduler']:26} {spread(row['ratio'])}   aim {row['target']}   "
                     f"torch with itself {spread(row['itself'])}")  # fmt: skip
    lines += ["", "temporaries, bytes per element: counted, allocated"]
    for row in found["temporaries"]:
        counted = "-" if row["counted"] is None else f"{row['counted']:.1f}"
        lines.append(
            f"  {row['optimizer']:6} {row['what']:26} {counted:>5} {row['allocated']:6.1f}"
        )
    lines += ["", f"import minioptim after import torch: {spread(found['import_ms'], 1)} ms"]
    lines += [f"not measured: {text}" for text in found["missing"]]
    return "\n".join(lines)
