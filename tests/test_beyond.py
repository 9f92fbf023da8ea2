"""Chapter 07: workers in one process do what processes do, and the paper is what is measured."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import distributed, nn

import minioptim
from minioptim import more
from walkthrough import beyond, data, summary
from walkthrough.distributed import shard_model

STEPS = 4


@pytest.fixture(scope="module")
def digits() -> data.Digits:
    return data.digits()[0].pick(slice(0, 100))


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Linear(64, 7), nn.Tanh(), nn.Linear(7, 10)
    return nn.Sequential(*layers).double()


def adam(params: Any) -> Any:
    return minioptim.Adam(params, lr=0.01)


def trained(
    kind: Any, net: nn.Module, digits: data.Digits, make: Any = adam, world: int = 3
) -> Any:
    return beyond.train(kind(net, make, world), digits, STEPS, size=32)


# --- workers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_the_three_ways_end_with_the_same_bits(
    net: nn.Module, digits: data.Digits, world: int
) -> None:
    ddp, zero, fsdp = (
        trained(kind, net, digits, world=world) for kind in (beyond.DDP, beyond.ZeRO, beyond.FSDP)
    )
    assert beyond.gap(ddp, zero) == beyond.gap(ddp, fsdp) == 0
    alone = trained(beyond.DDP, net, digits, world=1)
    assert beyond.gap(ddp, alone) < 1e-13
    assert beyond.gap(alone, net) > 1e-3


def test_left_alone_they_drift_apart(net: nn.Module, digits: data.Digits) -> None:
    apart = trained(beyond.Workers, net, digits)
    assert beyond.gap(apart, apart) > 1e-3


def test_an_optimizer_that_looks_at_a_matrix_cannot_be_cut(
    net: nn.Module, digits: data.Digits
) -> None:
    def muon(params: Any) -> Any:
        return more.Muon([p for p in params if p.dim() == 2], lr=0.1)

    whole, rows = (trained(kind, net, digits, muon) for kind in (beyond.DDP, beyond.FSDP))
    assert beyond.gap(whole, rows) > 1e-3


def test_what_a_worker_holds(net: nn.Module, digits: data.Digits) -> None:
    numbers = 64 * 7 + 7 + 7 * 10 + 10
    step = 4  # bytes of a count, one for each tensor
    ddp = trained(beyond.DDP, net, digits).held(0)
    assert list(ddp.values()) == [8 * numbers, 8 * numbers, 16 * numbers + 4 * step]
    zero = [trained(beyond.ZeRO, net, digits).held(rank) for rank in range(3)]
    assert {h["parameters"] for h in zero} == {h["gradients"] for h in zero} == {8 * numbers}
    states = [h["optimizer state"] for h in zero]
    # the large matrix, the small one, both biases
    assert states == [16 * 448 + step, 16 * 70 + step, 16 * 17 + 2 * step]
    fsdp = [trained(beyond.FSDP, net, digits).held(rank) for rank in range(3)]
    rows = [3 * 64 + 3 + 4 * 7 + 4, 3 * 64 + 3 + 4 * 7 + 4, 1 * 64 + 1 + 2 * 7 + 2]
    for held, n in zip(fsdp, rows, strict=True):
        assert list(held.values()) == [8 * n, 8 * n, 16 * n + 4 * step]


@pytest.mark.parametrize(("kind", "times"), [("DDP", 2), ("ZeRO", 3), ("FSDP", 3), ("Workers", 0)])
def test_what_is_sent(kind: str, times: int, net: nn.Module, digits: data.Digits) -> None:
    workers = trained(getattr(beyond, kind), net, digits)
    numbers = sum(p.numel() for p in net.parameters())
    assert workers.sent == pytest.approx(STEPS * times * 8 * numbers * 2 / 3)


class Wrong(minioptim.SGD):
    @staticmethod
    def rule(p: Any, g: Any, momentum_buffer: Any, *, lr: Any, momentum: Any,
             dampening: Any, nesterov: Any) -> Any:  # fmt: skip
        p.add_(g, alpha=-lr * 1.001)


def test_the_table_sees_a_planted_error_and_demands_one(
    net: nn.Module, digits: data.Digits, capsys: pytest.CaptureFixture[str]
) -> None:
    case = beyond.ZeRO, "SGD", minioptim.SGD, torch.optim.SGD, {"lr": 0.1}
    beyond.table(net, digits, [case], Wrong, processes=2)
    assert "all equal. Planted error: seen." in capsys.readouterr().out
    with pytest.raises(AssertionError, match="not seen"):
        beyond.table(net, digits, [case], minioptim.SGD, processes=2)
    with pytest.raises(AssertionError, match="differ"):
        beyond.table(net, digits, [(beyond.FSDP, "x", Wrong, *case[3:])], Wrong, processes=2)


# --- as in PyTorch --------------------------------------------------------------------------------


@pytest.fixture
def _no_group_is_left() -> Iterator[None]:
    yield
    assert not distributed.is_initialized()


@pytest.mark.usefixtures("_no_group_is_left")
@pytest.mark.parametrize("world", [2, 3, 4, 12])
def test_rows_are_cut_as_fsdp2_cuts_them(world: int, net: nn.Module) -> None:
    ours = beyond.FSDP(net, adam, world)
    for rank in (0, 1, world - 1):
        with beyond.pretend(world, rank):
            theirs = nn.Sequential(nn.Linear(64, 7), nn.Tanh(), nn.Linear(7, 10)).double()
            shard_model(theirs, torch.device("cpu"))
            shapes = [p.to_local().shape for p in theirs.parameters()]
        assert shapes == [p.shape for p in ours.own(rank)]
        assert sum(s.numel() for s in shapes) == beyond.rows_of(net.parameters(), world, rank)


@pytest.mark.usefixtures("_no_group_is_left")
@pytest.mark.parametrize("world", [1, 2, 3, 6])
def test_tensors_are_dealt_as_zero_deals_them(world: int, net: nn.Module) -> None:
    ours = beyond.ZeRO(net, adam, world)
    with beyond.pretend(world):
        from torch.distributed.optim import ZeroRedundancyOptimizer

        parts = ZeroRedundancyOptimizer(net.parameters(), adam)._partition_parameters()
        theirs = [[p.numel() for p in part[0]["params"]] for part in parts]
    assert [[p.numel() for p in ours.own(rank)] for rank in range(world)] == theirs


def test_a_pretended_world_ends_also_with_an_error() -> None:
    with beyond.pretend(3, rank=2):
        assert (distributed.get_rank(), distributed.get_world_size()) == (2, 3)
    assert not distributed.is_initialized()
    with pytest.raises(ZeroDivisionError), beyond.pretend(3):
        _ = 1 / 0
    assert not distributed.is_initialized()


@pytest.mark.usefixtures("_no_group_is_left")
def test_a_large_model_is_measured_without_memory() -> None:
    with torch.device("meta"):
        net = beyond.Transformer(layers=2)
    layer = 4 * 4096**2 + 3 * 4096 * 11008 + 2 * 4096
    numbers = 2 * layer + 2 * 32000 * 4096 + 4096
    assert sum(p.numel() for p in net.parameters()) == numbers
    assert 32 * layer + 2 * 32000 * 4096 + 4096 == 6_738_415_616
    with beyond.pretend(8), warnings.catch_warnings():
        beyond.shard(net)
        mine = [p.to_local() for p in net.parameters()]
        assert sum(x.numel() for x in mine) == numbers // 8
        assert beyond.state_bytes(net.parameters(), adam) == numbers
    assert beyond.state_bytes([], adam) == 0


# --- threads that talk ----------------------------------------------------------------------------


def test_threads_add_up_in_order() -> None:
    def work(rank: int, all_reduce: Any) -> Iterator[float]:
        for n in range(3):
            yield all_reduce(10.0**n * rank)

    assert beyond.talk(work, processes=3) == [[3.0, 30.0, 300.0]] * 3


def test_who_waits_in_vain_gives_up() -> None:
    def work(rank: int, all_reduce: Any) -> Iterator[float]:
        for _ in range(2 - rank):
            yield all_reduce(1.0)

    assert beyond.talk(work, patience=0.5) == [[2.0, "RuntimeError"], [2.0]]


def test_another_error_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        beyond.talk(lambda rank, all_reduce: [1 / rank])


# --- paper ----------------------------------------------------------------------------------------


def test_sixteen_bytes_on_paper() -> None:
    for width in (beyond.FLOAT32, beyond.MIXED):
        assert sum(width) == 16
        for scheme in beyond.SPLIT:
            assert sum(beyond.paper(7e9, 1, scheme, width).values()) == 112e9
    gb = {
        (scheme, P, name): sum(beyond.paper(7e9, P, scheme, width).values()) / 1e9
        for scheme in beyond.SPLIT
        for P in (8, 1024)
        for name, width in (("float32", beyond.FLOAT32), ("mixed", beyond.MIXED))
    }
    assert gb["DDP", 1024, "mixed"] == 112
    assert gb["ZeRO", 8, "float32"] == 28 + 28 + 7
    assert gb["ZeRO", 8, "mixed"] == 14 + 14 + 10.5
    assert gb["FSDP2", 8, "float32"] == 14
    assert gb["FSDP2", 1024, "mixed"] == pytest.approx(0.109375)


def test_what_was_printed_is_read_again() -> None:
    held = [{part: 1000 * n + rank for n, part in enumerate(beyond.PARTS)} for rank in range(3)]
    lines = ["epoch 1", *summary.shares(held).splitlines(), "parameters abc"]
    assert beyond.held_in(lines) == held


def test_figures_say_what_they_show(
    net: nn.Module, digits: data.Digits, capsys: pytest.CaptureFixture[str]
) -> None:
    beyond.owners(4)
    assert "ZeRO   10 bytes per parameter in each of 4 processes" in capsys.readouterr().out
    beyond.talking({"DDP": 2.0, "ZeRO": 3.0, "FSDP2": 3.0})
    assert "DDP    every process sends 2 times" in capsys.readouterr().out
    with pytest.raises(AssertionError):
        beyond.talking({"DDP": 2.0, "ZeRO": 2.0, "FSDP2": 3.0})
    beyond.fair({"a": [6, 0, 0], "b": [2, 2, 2]})
    assert "a: largest 6, fair 2, idle 2" in capsys.readouterr().out
    beyond.on_paper(7e9)
    assert "FSDP2  112 -> 0.109" in capsys.readouterr().out
    held = {"DDP": [{part: 80 for part in beyond.PARTS}] * 2}
    beyond.measured(held, 10, (8, 8, 16))
    assert "240, 240 bytes; formula 320, off by 25% at most" in capsys.readouterr().out
    beyond.pieces(["w"], [4], {"rows": [[3, 1]]})
    assert "rows  steps 3, 1 numbers" in capsys.readouterr().out
