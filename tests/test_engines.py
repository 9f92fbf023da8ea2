"""What an engine shows to a rule, asked of the engines themselves."""

from itertools import product

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import minioptim
from minioptim import blocks
from minioptim.engines import NO_PENALTY, Pure, TensorList, differentiable, foreach, listable, loop
from minioptim.fused import fused


@pytest.mark.parametrize("kinds", [(torch.float32, torch.float64), ("cpu", "meta")])
def test_foreach_makes_one_list_for_each_kind_of_parameters(kinds):
    """Of parameters: what their gradients are like does not matter."""
    seen = []
    rows = [[torch.ones(2).to(kind) for kind in row] for row in product(kinds, repeat=2)]
    foreach(lambda p, g: seen.append(list(map(id, p))), rows, NO_PENALTY, {})
    assert seen == [[id(row[0]) for row in rows[:2]], [id(row[0]) for row in rows[2:]]]


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ("", True),
        ("x x", True),
        ("- -", True),
        ("x -", False),
        ("xx xx", True),
        ("x- x-", True),
        ("xx x-", False),
        ("-x xx", False),
        ("x- -x", False),
    ],
)
def test_lists_stand_for_rows_only_if_all_have_the_same_state(states, expected):
    """A word is a row, a dash is state that it lacks."""
    one = torch.ones(1)
    rows = [(one, one, *(None if x == "-" else one for x in word)) for word in states.split()]
    assert listable(rows or [(one, one)]) is expected


def test_the_parameter_decides_what_is_seen_as_pairs():
    seen = []
    real, pairs = torch.ones(3), torch.ones(3, dtype=torch.complex64)
    rows = [(real, pairs), (pairs, real), (pairs, pairs), (real, real)]
    loop(lambda *row: seen.append([t.dim() for t in row]), rows, NO_PENALTY, {}, pairs=True)
    assert seen == [[1, 1], [2, 1], [2, 2], [1, 1]]


@pytest.mark.parametrize("engine", [loop, foreach, fused, differentiable, blocks.loop])
def test_who_does_not_ask_for_pairs_sees_none(engine):
    seen = []
    rows = [(torch.ones(1, dtype=torch.complex64), torch.ones(1, dtype=torch.complex64))]
    engine(lambda p, g: seen.append(p), rows, NO_PENALTY, {})
    (p,) = seen[0] if engine is foreach else seen
    assert (p.tensor if engine is differentiable else p).dim() == 1


def test_a_list_that_is_changed_in_place_is_the_one_that_comes_back():
    tensors = TensorList([torch.ones(2), torch.ones(3)])
    assert tensors.mul_(2) is tensors
    assert tensors.add(1) is not tensors
    assert [t.tolist() for t in tensors] == [[2.0] * 2, [2.0] * 3]


@pytest.mark.parametrize("name", ["addcmul_", "addcdiv_"])
def test_a_product_counts_once_if_nothing_else_is_said(name):
    x, y, z = torch.tensor([3.0]), torch.tensor([5.0]), torch.tensor([7.0])
    pure = Pure(x.clone())
    getattr(pure, name)(Pure(y), Pure(z))
    assert torch.equal(pure.tensor, getattr(x, name)(y, z))


@pytest.mark.parametrize("name", ["add", "mul", "div", "sqrt", "clamp_min"])
def test_a_pure_method_with_an_underscore_replaces_and_the_other_does_not(name):
    x, operands = torch.tensor([1.0, 4.0]), () if name == "sqrt" else (torch.tensor([2.0, 8.0]),)
    expected = getattr(x, name)(*operands)
    pure = Pure(x)
    result = getattr(pure, name)(*operands)
    assert pure.tensor is x
    assert torch.equal(result.tensor, expected)
    assert getattr(pure, f"{name}_")(*operands) is pure
    assert torch.equal(pure.tensor, expected)
    assert x.tolist() == [1, 4]


class Overloads(TorchDispatchMode):
    """Notes which form of each list operation is called: a list and a number, or two lists."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if "foreach" in function.__name__:
            self.seen.add(function.__name__)
        return function(*args, **(kwargs or {}))


def test_foreach_divides_by_a_number_for_each_tensor():
    """As PyTorch does. On CUDA it matters: a single number x becomes a multiplication by 1 / x."""
    for library in (minioptim, torch.optim):
        p = torch.nn.Parameter(torch.ones(3))
        p.grad = torch.ones(3)
        with Overloads() as overloads:
            library.Adam([p], foreach=True).step()
        assert "_foreach_div_.ScalarList" in overloads.seen
        assert "_foreach_div_.Scalar" not in overloads.seen
