"""The record of a step: complete, credited to the right function, and without any effect."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

import minioptim
from walkthrough import path

NAMES = {"foreach": "multi_tensor", "fused": "fused"}
MODES: list[dict[str, bool]] = [{}, *({mode: True} for mode in NAMES)]
STEPS = {
    "torch": (torch.optim, torch.optim.lr_scheduler),
    "minioptim": (minioptim, minioptim.lr_scheduler),
}


def make(cls: Any = torch.optim.Adam, n: int = 4, **options: Any) -> Any:
    params = [torch.nn.Parameter(torch.arange(1.0, 4.0, dtype=torch.float64)) for _ in range(n)]
    for p in params:
        p.grad = torch.ones_like(p)
    return cls(params, lr=0.1, **options)


def params(optimizer: Any) -> list[torch.Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


# --- the record is complete and in order ----------------------------------------------------------


def test_the_path_of_adam() -> None:
    optimizer = make()
    names = path.record(optimizer.step, optimizer).names
    assert list(dict.fromkeys(names)) == [
        "profile_hook_step.wrapper",
        "_use_grad_for_differentiable._use_grad",
        "Adam.step",
        "Optimizer._accelerator_graph_capture_health_check",
        "Adam._init_group",
        "_get_scalar_dtype",
        "wrapper.maybe_fallback",
        "adam",
        "_default_to_fused_or_foreach",
        "_single_tensor_adam",
        "_to_scalar",
        "_get_value",
        "Optimizer._optimizer_step_code",
    ]
    assert names.count("_get_value") == 4


def test_operations_are_all_there_and_in_order() -> None:
    optimizer = make(n=1)
    optimizer.step()
    walk = path.record(optimizer.step, optimizer)
    rule = "lerp_ mul_ addcmul_ _local_scalar_dense sqrt div add_ addcdiv_"
    assert walk.operations == ["add_", *rule.split()]
    assert Counter(walk.operations) == Counter(o for call in walk.all() for o in call.operations)
    assert "_local_scalar_dense" not in walk.arithmetic


@pytest.mark.parametrize(
    ("options", "function"),
    [({}, "_single_tensor_adam"), *[({mode: True}, f"_{f}_adam") for mode, f in NAMES.items()]],
)
def test_each_mode_takes_its_own_branch(options: dict[str, bool], function: str) -> None:
    optimizer = make(**options)
    walk = path.record(optimizer.step, optimizer)
    branches = {"_single_tensor_adam", "_multi_tensor_adam", "_fused_adam"}
    assert branches & set(walk.names) == {function}
    written = {change.name for change in walk.find(function).changes}
    assert written == {"p", "step", "exp_avg", "exp_avg_sq"}


def test_a_detour_is_seen() -> None:
    class Twice(torch.optim.Adam):
        def step(self, closure: Any = None) -> Any:
            super().step(closure)
            return super().step(closure)

    optimizer = make(Twice)
    assert path.record(optimizer.step, optimizer).names.count("_single_tensor_adam") == 2


def test_an_error_ends_the_record_and_is_named() -> None:
    optimizer = make(capturable=True)
    walk = path.record(optimizer.step, optimizer, expect=AssertionError)
    assert walk.error == "AssertionError"
    assert walk.find("_single_tensor_adam").raised == "AssertionError"
    assert not walk.find("_to_scalar").raised
    assert len(optimizer.state) == 4  # the record shows where they came from
    assert {c.name for c in walk.find("Adam._init_group").changes} >= {"step", "exp_avg"}
    with pytest.raises(AssertionError):
        path.record(make(capturable=True).step)
    with pytest.raises(AssertionError):
        path.record(make(capturable=True).step, expect=ValueError)


def test_a_name_that_is_not_on_the_path() -> None:
    with pytest.raises(LookupError, match="_fused_adam is not on this path: profile_hook"):
        path.record(make().step).find("_fused_adam")


# --- what entered, left, changed ------------------------------------------------------------------


def test_what_enters_and_leaves() -> None:
    optimizer = make()
    params(optimizer)[0].grad = None
    collect = path.record(optimizer.step, optimizer).find("Adam._init_group")
    assert collect.enters == "group of 4 (lr 0.1), 6 lists of 0"
    assert collect.leaves == "lists of 3 3 3 3 0 3, returns False"
    assert not collect.grad


def test_changes_are_credited_to_the_function_that_made_them() -> None:
    optimizer = make(torch.optim.SGD, momentum=0.9)
    first, second = (path.record(optimizer.step, optimizer) for _ in range(2))
    made = path.Change("momentum_buffer", None, "")
    assert first.find("SGD.step").changes == [made] * 4
    assert made not in first.find("_single_tensor_sgd").changes
    assert second.find("SGD.step").changes == []
    assert Counter(second.find("_single_tensor_sgd").changes) == {
        path.Change("p", "", ""): 4,
        path.Change("momentum_buffer", "", ""): 4,
    }


def test_a_step_that_moves_nothing_changes_nothing() -> None:
    optimizer = make(torch.optim.SGD)
    for p in params(optimizer):
        p.grad.zero_()
    changes = path.record(optimizer.step, optimizer).log
    assert {change.name for change in changes} == {"grad"}


def test_the_first_step_alone_makes_state() -> None:
    optimizer = make()
    first, second, third = (path.record(optimizer.step, optimizer) for _ in range(3))
    assert any(change.old is None for change in first.log)
    assert all(change.old is not None for change in second.log)
    assert first.lines.keys() > second.lines.keys()
    assert (second.names, second.lines) == (third.names, third.lines)


@pytest.mark.parametrize("library", STEPS)
def test_a_scheduler_writes_the_rate_and_an_optimizer_does_not(library: str) -> None:
    optimizers, schedulers = STEPS[library]
    optimizer = make(optimizers.Adam)
    build = path.record(lambda: schedulers.StepLR(optimizer, 1, gamma=0.5), optimizer)
    found = path.written(build)
    assert (found["initial_lr"], found["last_epoch"], found["_step_count"]) == ("0.1", "0", "1")
    assert "lr" not in found
    moved = path.written(path.record(optimizer.step, optimizer))
    assert moved["_opt_called"] == "True"
    assert {"lr", "last_epoch", "_step_count"}.isdisjoint(moved)
    step = path.record(build.result.step, optimizer)
    assert path.written(step) == {
        "_step_count": "2",
        "last_epoch": "1",
        "lr": "0.05",
        "_last_lr": "[0.05]",
    }
    assert build.operations == step.operations == []


@pytest.mark.parametrize("library", STEPS)
def test_tensor_rates_are_compared_too(library: str) -> None:
    optimizers, schedulers = STEPS[library]
    optimizer = make(optimizers.Adam)
    optimizer.param_groups[0]["lr"] = torch.tensor(0.5)
    scheduler = schedulers.StepLR(optimizer, 1, gamma=0.5)
    optimizer.step()
    assert path.written(path.record(scheduler.step, optimizer))["lr"] == "0.25"


# --- lines ----------------------------------------------------------------------------------------

SOURCE = '''\
def function(x):
    """A text
    of two lines."""
    total = sum(
        [
            x,
            1,
        ]
    )
    try:
        if total > 100:
            return 0
        squares = [i * i for i in range(total)]
    finally:
        total += 1

    def inner():
        return total

    return inner() + len(squares)
'''


def test_statements_are_counted_not_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "example.py"
    file.write_text(SOURCE)
    monkeypatch.setattr(path, "FOLDERS", {"minioptim": tmp_path})
    path._package.cache_clear()
    space: dict[str, Any] = {}
    exec(compile(SOURCE, str(file), "exec"), space)
    try:
        walk = path.record(lambda: space["function"](3))
    finally:
        path._package.cache_clear()
    assert walk.result == 5 + 4
    assert walk.names == ["function", "function.inner"]
    rows = SOURCE.splitlines()
    ran = {rows[line - 1].strip() for _, line in walk.find("function").lines}
    assert ran == {
        "total = sum(",
        "if total > 100:",
        "squares = [i * i for i in range(total)]",
        "total += 1",
        "def inner():",
        "return inner() + len(squares)",
    }
    assert len(walk.find("function").statements) == 7  # and `return 0`, which did not run
    assert len(walk.find("function.inner").statements) == 1


# --- recording has no effect ----------------------------------------------------------------------


@pytest.mark.parametrize("options", MODES, ids=str)
def test_watching_changes_no_number(options: dict[str, bool]) -> None:
    watched, alone = make(**options), make(**options)
    for _ in range(3):
        path.record(watched.step, watched)
        alone.step()
    for p, q in zip(params(watched), params(alone), strict=True):
        assert torch.equal(p, q)
        for key, value in alone.state[q].items():
            assert torch.equal(watched.state[p][key], value)


@pytest.mark.parametrize("options", MODES, ids=str)
def test_recording_operations_does_not_change_the_way(options: dict[str, bool]) -> None:
    optimizer = make(**options)
    optimizer.step()
    full, bare = (path.record(optimizer.step, operations=flag) for flag in (True, False))
    assert full.operations
    assert not bare.operations
    assert (full.names, full.lines) == (bare.names, bare.lines)


def test_another_tracer_is_put_back() -> None:
    def tracer(frame: Any, event: str, arg: Any) -> None:
        return None

    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        path.record(make().step)
        found = [sys.gettrace()]
        path.record(make(capturable=True).step, expect=AssertionError)
        found.append(sys.gettrace())
    finally:
        sys.settrace(before)
    assert found == [tracer, tracer]


def test_other_threads_are_not_recorded() -> None:
    optimizer, other = make(torch.optim.Adam), make(torch.optim.SGD)
    other.step()
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            other.step()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        names = [path.record(optimizer.step, optimizer).names for _ in range(5)]
    finally:
        stop.set()
        thread.join()
    assert all(seen[-1] == "Optimizer._optimizer_step_code" for seen in names)
    assert not any("SGD" in name for seen in names for name in seen)


def test_the_number_of_threads_does_not_matter(capsys: pytest.CaptureFixture[str]) -> None:
    before, printed = torch.get_num_threads(), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        optimizer = make(n=8)
        path.record(optimizer.step, optimizer).table()
        printed.append(capsys.readouterr().out)
    torch.set_num_threads(before)
    assert printed[0] == printed[1]


# --- what is printed and drawn --------------------------------------------------------------------


def test_a_table_is_compact(capsys: pytest.CaptureFixture[str]) -> None:
    optimizer = make(minioptim.Adam, weight_decay=0.1)
    optimizer.step()
    path.record(optimizer.step, optimizer).table()
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= path.WIDTH
    rule = next(line for line in lines if "Adam.rule" in line)
    assert " ".join(rule.split()) == "Adam.rule ×4 5 28 p ×4, exp_avg ×4, exp_avg_sq ×4"
    assert sum("Penalty" in line for line in lines) == 1  # it takes turns with the rule


def test_a_stop_says_everything(capsys: pytest.CaptureFixture[str]) -> None:
    optimizer = make(n=2)
    path.record(optimizer.step, optimizer).stop("Adam._init_group")
    assert capsys.readouterr().out.splitlines() == [
        "Adam._init_group",
        "  enters   group of 2 (lr 0.1), 6 lists of 0",
        "  leaves   lists of 2 2 2 2 0 2, returns False",
        "  changes  step = 0 ×2, new exp_avg ×2, new exp_avg_sq ×2",
        "  runs     lift_fresh ×2, zeros_like ×4",
    ]


def test_a_stop_of_many_words_is_broken(capsys: pytest.CaptureFixture[str]) -> None:
    optimizer = make(foreach=True)
    walk = path.record(optimizer.step, optimizer)
    walk.stop("_multi_tensor_adam")
    walk.stop("wrapper.maybe_fallback")
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= path.WIDTH
    assert [line[:10].strip() for line in lines[:5]] == [
        "_multi_ten",
        "enters",
        "changes",
        "runs",
        "",
    ]
    assert lines[-1] == "  passes on what it got"


def test_python_calls_grow_by_the_same_number() -> None:
    counts = []
    for n in (1, 2, 3):
        optimizer = make(n=n)
        optimizer.step()
        counts.append(path.python_calls(optimizer.step))
    assert counts[2] - counts[1] == counts[1] - counts[0] > 0


def test_the_figures_print_what_they_show(capsys: pytest.CaptureFixture[str]) -> None:
    optimizer = make()
    steps = [path.record(optimizer.step, optimizer) for _ in range(2)]
    path.tree({"first": steps[0], "second": steps[1]})
    path.forks({"first": steps[0], "second": steps[1]})
    path.stages(steps)
    path.writes({"optimizer": steps[1]}, ["p", "lr"])
    printed = capsys.readouterr().out
    assert printed.count("digest") == 4
    assert f"first   {steps[0].functions} functions, {len(steps[0].lines)} lines" in printed
    assert "p   written\nlr  -\n" in printed
