"""The loop over large tensors, block by block, so that what a rule computes in between stays small.

Adam's rule makes one temporary, as long as the parameter. For a parameter of 40 MB that is 40 MB of
new memory at each step, which the operating system has to fetch and to clear, and which no cache
holds. Here the rule sees a large parameter as many short ones: blocks of its memory, with the same
blocks of the gradient and the state. The temporary is 2 MB long then, the same memory each time.

Every element meets the same operations in the same order, so the results are those of the loop to
the last bit. That holds for float32 and float64. In 16 bits PyTorch's ``add_(y, alpha=...)`` rounds
the last few elements of a tensor in another way than the rest, and a block would have such an end.

It pays where a rule makes temporaries, not for `SGD`, which works in place.
"""

from collections.abc import Iterable, Iterator
from itertools import repeat
from typing import Any

import torch
from torch import Tensor

from . import engines
from .engines import Penalty, Row, Rule

BLOCK = 2**19  # elements. Shorter: Python's part of a call shows. Longer: caches hold less of it
PLAIN: set[type] = {Tensor, torch.nn.Parameter}  # classes whose methods mean what a tensor's mean


def loop(
    rule: Rule, rows: list[Row], penalty: Penalty, options: dict, pairs: bool = False
) -> list[Any]:
    """Run an elementwise rule on one tensor after the other, on large ones block by block.

    The rule must treat each element by itself, write to state that is there, and return nothing.
    An optimizer says so with ``elementwise = True``. A tensor of more than `BLOCK` elements is cut
    if it is on the CPU, in float32 or float64, and if the tensors of its row can be walked through
    together; see `is_one_block`. Arguments and result are those of `minioptim.engines.loop`.
    """
    if type(penalty) is Penalty:
        pieces = [piece for row in rows for piece in (cut(row) if can_be_cut(row) else [row])]
        engines.loop(rule, pieces, penalty, options, pairs)
        return [None] * len(rows)
    return engines.loop(rule, rows, penalty, options, pairs)


def can_be_cut(row: Row) -> bool:
    """Whether the rule sees the tensors of a row block by block; see `loop`."""
    p = row[0]
    return (
        p.numel() > BLOCK
        and p.is_cpu
        and p.dtype in (torch.float32, torch.float64)
        and all(t is None or t.dtype == p.dtype for t in row)
        and not torch.is_grad_enabled()  # a block has no history
        and is_one_block(row)
    )


def cut(row: Row) -> Iterator[Row]:
    """The rows of a row: the first block of all its tensors, the second of all, ..."""
    columns: list[Iterable[Any]] = [
        repeat(None) if t is None else flat(t).split(BLOCK) for t in row
    ]
    return zip(*columns, strict=False)


def flat(t: Tensor) -> Tensor:
    """The memory of ``t`` as one row: without history, but a change of it counts as one of ``t``.

    Detached last, or the compiler would find ``t`` behind the view and look at its shape.
    """
    return t.as_strided((t.numel(),), (1,)).detach()


def is_one_block(row: Row) -> bool:
    """Whether the tensors of a row can be walked through together in the order of their memory.

    Not so with gaps, other strides than the parameter's, shared memory, classes of their own.
    """
    p, size, stride = row[0], row[0].size(), row[0].stride()
    owners = set()
    for t in row:
        if t is not None:
            if type(t) not in PLAIN or t.layout != torch.strided:
                return False
            if t.size() != size or t.stride() != stride:
                return False
            owner = t.untyped_storage()._cdata
            if owner in owners:
                return False
            owners.add(owner)
    return p.is_contiguous() or torch.ops.aten.is_non_overlapping_and_dense(p)
