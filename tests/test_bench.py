"""The tool that measures works, and what it counts is right. No test looks at a time."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import minioptim
from walkthrough import speed

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(
    scope="module", params=[pytest.param("g++", marks=pytest.mark.long), "no-such-compiler"]
)
def found(tmp_path_factory, request) -> dict:
    """With our fused engine, and, which is quicker, on a machine that cannot compile it."""
    out = tmp_path_factory.mktemp("bench") / "bench.json"
    command = [sys.executable, str(ROOT / "tools/bench.py"), "--quick", "--out", str(out)]
    environment = os.environ | {"CXX": request.param}
    run = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)
    assert run.returncode == 0, run.stderr
    found = json.loads(out.read_text(encoding="utf-8"))
    assert speed.table(found) in run.stdout
    return found


def engines(what: str) -> set[str]:
    return {f"{who} {engine}" for who in what.split() for engine in ("loop", "foreach", "fused")}


def shape(found: dict) -> dict:
    """What was measured, without the numbers."""
    return {
        "keys": set(found),
        "machine": set(found["machine"]),
        "steps": [
            (g["optimizer"], g["work"], {r["what"] for r in g["ratios"]} | set(g["ms"]))
            for g in found["steps"]
        ],
        "bandwidth": set(found["bandwidth"]["ms"]),
        "overhead": set(found["overhead"]),
        "schedulers": [row["scheduler"] for row in found["schedulers"]],
        "temporaries": [(row["optimizer"], row["what"]) for row in found["temporaries"]],
    }


def test_everything_is_measured(found: dict) -> None:
    assert len(found["steps"]) == 9
    for group in found["steps"]:
        wanted = engines("torch again ours")
        if group["tensors"] > 1:
            wanted |= {f"{who} flat fused" for who in ("torch", "again", "ours")}
        left_out = {text.split(":")[0] for text in found["missing"]}
        assert wanted - left_out <= set(group["ms"])
        for numbers in (*group["ms"].values(), *(row["ratio"] for row in group["ratios"])):
            low, median, high = numbers
            assert 0 < low <= median <= high
    assert found["import_ms"][0] > 0


def test_the_record_of_the_book_is_of_this_kind(found: dict) -> None:
    stored = speed.stored()
    assert stored["quick"] is False
    assert shape(stored)["keys"] == shape(found)["keys"]
    assert shape(stored)["machine"] >= shape(found)["machine"] - {"gpu"}
    if not found["missing"]:
        assert shape(stored) == shape(found)


def test_numbers_that_mean_nothing_are_not_recorded() -> None:
    command = [sys.executable, str(ROOT / "tools/bench.py"), "--quick", "--record"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 2
    assert "not recorded" in run.stderr


# --- counting -------------------------------------------------------------------------------------


def counted(library, name: str, tensors: int = 3, **options) -> speed.Traffic:
    params = [torch.zeros(100, requires_grad=True) for _ in range(tensors)]
    for p in params:
        p.grad = torch.ones_like(p)
    optimizer = getattr(library, name)(params, **options)
    optimizer.step()
    return speed.count(optimizer.step)


def test_a_fused_step_of_adam_moves_28_bytes_per_element() -> None:
    traffic = counted(torch.optim, "Adam", fused=True)
    assert traffic.read == 4 * 4 * 300
    assert traffic.written == 3 * 4 * 300
    assert traffic.most_alive == 0
    assert len(traffic.calls) == 1


@pytest.mark.parametrize("engine", [{}, {"foreach": True}])
@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_ours_has_no_more_alive_than_pytorch(name: str, engine: dict) -> None:
    ours, theirs = (counted(x, name, **engine) for x in (minioptim, torch.optim))
    assert ours.most_alive <= theirs.most_alive
    assert ours.read + ours.written <= theirs.read + theirs.written


def test_every_kind_of_operation_is_counted() -> None:
    x, y = torch.ones(10), torch.ones(10)
    cases = [
        (lambda: x.add_(y), 80, 40, 0),
        (lambda: x.mul_(2.0), 40, 40, 0),
        (lambda: x.addcmul_(y, y), 80, 40, 0),  # y twice is read once
        (lambda: x.sqrt(), 40, 40, 40),
        (lambda: (x * 2.0).add_(1.0), 80, 80, 40),
        (lambda: x.copy_(y), 40, 40, 0),
        (lambda: x.zero_(), 0, 40, 0),
        (lambda: torch.zeros_like(x), 0, 40, 40),
        (lambda: torch.sqrt(x, out=y), 40, 40, 0),
        (lambda: x.view(2, 5).t(), 0, 0, 0),
        (lambda: x[:5].add_(1.0), 20, 20, 0),
        (lambda: torch._foreach_add([x, y], 1.0), 80, 80, 80),
        (lambda: torch._foreach_mul_([x, y], 2.0), 80, 80, 0),
    ]
    for i, (step, read, written, alive) in enumerate(cases):
        traffic = speed.count(step)
        assert (traffic.read, traffic.written) == (read, written), i
        assert traffic.most_alive == alive, i
        assert traffic.alive == 0, i


def test_the_median_stands_between_its_quartiles() -> None:
    assert speed.spread([0.5, 0.75, 1.25]) == "0.75 (0.50-1.25)"
    assert math.prod((64, 64)) * 400 in {g["elements"] for g in speed.stored()["steps"]}
