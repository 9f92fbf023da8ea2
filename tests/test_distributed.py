"""Several processes on this machine: what they compute together is what one computes alone.

All runs with as many processes are made by one start of torchrun, see tests/workers.py. Those with
two belong to every run of the tests; those with one or four, and more places to be killed at, only
to ``make test-distributed``.

Where the bits agree: a sum of two numbers does not depend on their order, and a division by two is
exact, so with two processes DDP, ZeRO and FSDP2 agree with each other, and with one process that
adds up the gradients of both shares. One matrix product over a whole batch is another sum. With
four processes gloo adds up each quarter of a vector in an order of its own, and the quarters are
cut elsewhere in DDP and in FSDP2: there the last bits differ.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from walkthrough import data, onepage, train
from walkthrough.train import Run, Settings, fit
from walkthrough.training import mean_loss

TINY = {
    "optimizer": "Adam", "lr": 0.02, "library": "minioptim", "batch_size": 128, "hidden": 8,
    "epochs": 2, "scheduler": "CosineAnnealingLR", "scheduler_options": {"T_max": 20},
    "cadence": "batch",
}  # fmt: skip
STEPS = 12  # of an epoch: 1,437 images, 128 at a time, so that the last 29 are shared unevenly
SHAPES = [(8, 64), (8,), (10, 8), (10,)]
TOLERANCE = 1e-13  # of parameters below 2, after 24 steps in float64
ENGINE = {"optimizer_options": {"foreach": True, "amsgrad": True, "weight_decay": 0.01}}
MOMENTUM = {"optimizer": "SGD", "optimizer_options": {"momentum": 0.9}}

Outcome = dict[str, Any]


def case(**more: Any) -> dict[str, Any]:
    """A run for the workers: what is no setting is an order to them."""
    orders = {key: more.pop(key) for key in ("path", "copy", "fault", "die") if key in more}
    return {"settings": TINY | more, **orders}


HALF = case(shard="fsdp", epochs=1, path="half")
CASES = {
    "none": case(),
    "zero": case(shard="zero"),
    "fsdp": case(shard="fsdp"),
    "none, torch": case(library="torch.optim"),
    "none, foreach": case(**ENGINE),
    "zero, foreach": case(**ENGINE, shard="zero"),
    "fsdp, foreach": case(**ENGINE, shard="fsdp"),
    "none, momentum": case(**MOMENTUM),
    "zero, momentum": case(**MOMENTUM, shard="zero"),
    "fsdp, momentum": case(**MOMENTUM, shard="fsdp"),
    "half": HALF,
    "half, then none": case(path="none", copy="half"),
    "half, then zero": case(shard="zero", path="zero", copy="half"),
    "half, then fsdp": case(shard="fsdp", path="fsdp", copy="half"),
    "wrong sum": case(fault="sum of gradients", **MOMENTUM),
    "wrong rates": case(fault="only the first one schedules", shard="zero"),
}


class Runs:
    """The outcome of each case in each process."""

    def __init__(self, folder: Path, processes: int) -> None:
        self.folder, self.processes = folder, processes

    def __getitem__(self, name: str) -> Outcome:
        """What the first process has found."""
        return self.everywhere(name)[0]

    def everywhere(self, name: str) -> list[Outcome]:
        return [torch.load(self.folder / f"{name}.{i}.pt") for i in range(self.processes)]


def start(folder: Path, cases: dict[str, Any], processes: int, restarts: int = 0) -> Runs:
    (folder / "cases.json").write_text(json.dumps(cases))
    worker = str(Path(__file__).with_name("workers.py"))
    onepage.torchrun([str(folder)], processes, timeout=170, program=[worker], restarts=restarts)
    return Runs(folder, processes)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """As in the workers: sums of several threads are not the same in every run."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return start(tmp_path_factory.mktemp("two"), CASES, processes=2)


def parameters(run: Run) -> list[torch.Tensor]:
    return [p.detach() for p in run.model.parameters()]


def equal(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return len(a) == len(b) and all(map(torch.equal, a, b))


def distance(a: list[torch.Tensor], b: list[torch.Tensor]) -> float:
    return max((p - q).abs().max().item() for p, q in zip(a, b, strict=True))


class ByTurns(Run):
    """One process that does the work of several, one share after the other."""

    def __init__(self, settings: Settings, shares: int) -> None:
        super().__init__(settings)
        self.shares = shares

    def train_epoch(self, digits: data.Digits) -> None:
        order = torch.randperm(len(digits.x), generator=self.order)
        for batch in order.split(self.settings.batch_size):
            self.optimizer.zero_grad()
            for i in range(self.shares):
                share = batch[i :: self.shares]
                loss = mean_loss(self.model, digits.pick(share)) * (len(share) / len(batch))
                loss.backward()  # adds to the gradient
            self.optimizer.step()
            self.step_scheduler(loss.item())
        self.epoch += 1


def by_turns(shares: int) -> list[torch.Tensor]:
    run = ByTurns(Settings(**TINY), shares)
    for _ in range(TINY["epochs"]):
        run.train_epoch(data.digits()[0])
    return parameters(run)


# --- the same numbers -----------------------------------------------------------------------------


@pytest.mark.parametrize("shard", ["none", "zero", "fsdp"])
def test_two_processes_are_one(two: Runs, shard: str) -> None:
    alone = fit(Settings(**TINY))
    assert 0 < distance(two[shard]["parameters"], parameters(alone)) < TOLERANCE
    assert two[shard]["record"]["lr"] == alone.record["lr"]
    assert two[shard]["record"]["loss"] == pytest.approx(alone.record["loss"], rel=0, abs=1e-13)


def test_two_processes_are_to_the_last_bit_one_that_works_by_turns(two: Runs) -> None:
    assert equal(two["none"]["parameters"], by_turns(2))


@pytest.mark.parametrize("shard", ["zero", "fsdp"])
@pytest.mark.parametrize("what", ["", ", foreach", ", momentum"])
def test_shards_change_no_bit_with_two(two: Runs, shard: str, what: str) -> None:
    sharded, whole = two[shard + what], two["none" + what]
    assert equal(sharded["parameters"], whole["parameters"])
    assert sharded["record"] == whole["record"]
    assert sharded["kind"] == ("DTensor" if shard == "fsdp" else "Parameter")


def test_both_libraries_agree_with_two(two: Runs) -> None:
    assert equal(two["none"]["parameters"], two["none, torch"]["parameters"])


@pytest.mark.parametrize("name", [name for name in CASES if not name.startswith("wrong")])
def test_all_processes_agree(two: Runs, name: str) -> None:
    one, other = two.everywhere(name)
    assert one["agreed"]
    assert other["agreed"]
    for key in ("rates", "scheduler", "record", "begins at"):
        assert one[key] == other[key]
    assert equal(one["parameters"], other["parameters"])
    assert len(set(one["record"]["lr"])) > 5  # there was a schedule to agree about


# --- what must be seen ----------------------------------------------------------------------------


def test_a_sum_for_a_mean_is_seen(two: Runs) -> None:
    wrong, right = two["wrong sum"], two["none, momentum"]
    assert wrong["agreed"]  # all make the same mistake
    assert distance(wrong["parameters"], right["parameters"]) > 0.01


def test_a_schedule_in_one_process_only_is_seen(two: Runs) -> None:
    """In the rates alone: what ZeRO has sent around is the same everywhere, and wrong."""
    one, other = two.everywhere("wrong rates")
    assert one["rates"] != other["rates"]
    assert equal(one["parameters"], other["parameters"])
    assert not one["agreed"]
    assert distance(one["parameters"], two["zero"]["parameters"]) > 0.001


# --- who holds which bytes ------------------------------------------------------------------------

COUNT = sum(torch.Size(shape).numel() for shape in SHAPES)  # 610 numbers


def rows(processes: int, rank: int) -> int:
    """How many numbers FSDP2 leaves a process: of each parameter its rows."""
    sizes = [torch.empty(shape).chunk(processes) for shape in SHAPES]
    return sum(parts[rank].numel() for parts in sizes if rank < len(parts))


def adam(numbers: int, tensors: int) -> int:
    """Bytes of the state of Adam: two float64 per number, one float32 step count per tensor."""
    return 2 * 8 * numbers + 4 * tensors


def expected(shard: str, processes: int) -> list[dict[str, int]]:
    held = []
    for rank in range(processes):
        numbers = rows(processes, rank) if shard == "fsdp" else COUNT
        state = adam(numbers, tensors=4)
        held.append({"parameters": 8 * numbers, "gradients": 8 * numbers, "optimizer state": state})
    return held


@pytest.mark.parametrize("shard", ["none", "fsdp"])
def test_bytes_of_two_processes(two: Runs, shard: str) -> None:
    assert [o["held"] for o in two.everywhere(shard)] == expected(shard, 2)


def test_zero_deals_out_whole_parameters(two: Runs) -> None:
    """The largest goes to the first, and all the others together are smaller."""
    held = [o["held"] for o in two.everywhere("zero")]
    assert [h["optimizer state"] for h in held] == [adam(512, 1), adam(98, 3)]
    assert [h["parameters"] for h in held] == [8 * COUNT, 8 * COUNT]


# --- a checkpoint in parts ------------------------------------------------------------------------


@pytest.mark.parametrize("shard", ["none", "zero", "fsdp"])
def test_a_folder_goes_on_under_any_shard(two: Runs, shard: str) -> None:
    resumed, undisturbed = two[f"half, then {shard}"], two["fsdp"]
    assert resumed["begins at"] == 1
    assert equal(resumed["parameters"], undisturbed["parameters"])
    assert resumed["record"] == undisturbed["record"]
    assert resumed["scheduler"] == undisturbed["scheduler"]


def test_two_processes_save_and_one_goes_on(two: Runs) -> None:
    path = two.folder / "half"
    assert [part.name for part in path.iterdir()] == ["1"]
    loaded = train.load(path, Settings(**TINY))
    assert equal(parameters(loaded), two["half"]["parameters"])
    assert loaded.record == two["half"]["record"]
    half = fit(Settings(**TINY | {"epochs": 1}))
    for p, q in zip(loaded.model.parameters(), half.model.parameters(), strict=True):
        ours, theirs = loaded.optimizer.state[p], half.optimizer.state[q]
        assert ours.keys() == theirs.keys()
        assert ours["step"] == theirs["step"] == STEPS
        for key in ("exp_avg", "exp_avg_sq"):
            assert torch.allclose(ours[key], theirs[key], rtol=0, atol=TOLERANCE)
    loaded.train_epoch(data.digits()[0])
    assert distance(parameters(loaded), two["fsdp"]["parameters"]) < TOLERANCE


# --- a process is killed --------------------------------------------------------------------------


def killed(folder: Path, place: str, shard: str) -> Runs:
    path = "killed" if shard == "fsdp" else "killed.pt"
    return start(folder, {"killed": case(shard=shard, path=path, die=place)}, 2, restarts=1)


def test_a_killed_process_costs_nothing_but_time(two: Runs, tmp_path: Path) -> None:
    resumed, undisturbed = killed(tmp_path, "in a step", "fsdp")["killed"], two["fsdp"]
    assert resumed["begins at"] == 1
    assert equal(resumed["parameters"], undisturbed["parameters"])
    assert resumed["record"] == undisturbed["record"]
    assert [part.name for part in (tmp_path / "killed").iterdir()] == ["2"]


# --- the longer ones ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    cases = {shard: case(shard=shard) for shard in ("none", "zero", "fsdp")}
    return start(tmp_path_factory.mktemp("one"), cases, processes=1)


@pytest.fixture(scope="module")
def four(two: Runs, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    cases = {shard: case(shard=shard) for shard in ("none", "zero", "fsdp")}
    half = str(two.folder / "half")
    cases["half, then fsdp"] = case(shard="fsdp", path="fsdp", copy=half)
    cases["half, then zero"] = case(shard="zero", path="zero", copy=half)
    return start(tmp_path_factory.mktemp("four"), cases, processes=4)


@pytest.mark.distributed
@pytest.mark.parametrize("shard", ["none", "zero", "fsdp"])
def test_one_process_of_torchrun_is_one_without(one: Runs, shard: str) -> None:
    alone = fit(Settings(**TINY))
    assert equal(one[shard]["parameters"], parameters(alone))
    assert one[shard]["record"] == alone.record
    assert [o["held"] for o in one.everywhere(shard)] == expected("none", 1)


@pytest.mark.distributed
@pytest.mark.parametrize("shard", ["none", "zero", "fsdp"])
def test_four_processes_are_one(four: Runs, shard: str) -> None:
    alone = fit(Settings(**TINY))
    found = four.everywhere(shard)
    for outcome in found:
        assert outcome["agreed"]
        assert equal(outcome["parameters"], found[0]["parameters"])
        assert outcome["rates"] == found[0]["rates"]
        assert outcome["scheduler"] == found[0]["scheduler"]
        assert outcome["record"]["lr"] == alone.record["lr"]
    assert 0 < distance(found[0]["parameters"], parameters(alone)) < TOLERANCE
    assert distance(found[0]["parameters"], by_turns(4)) < TOLERANCE


@pytest.mark.distributed
def test_four_shards_of_the_state_change_no_bit(four: Runs) -> None:
    """ZeRO leaves the gradients as they are; FSDP2 adds them up in another order."""
    assert equal(four["zero"]["parameters"], four["none"]["parameters"])
    assert four["zero"]["record"] == four["none"]["record"]
    assert distance(four["fsdp"]["parameters"], four["none"]["parameters"]) < TOLERANCE


@pytest.mark.distributed
def test_bytes_of_four_processes(four: Runs) -> None:
    for shard in ("none", "fsdp"):
        assert [o["held"] for o in four.everywhere(shard)] == expected(shard, 4)
    states = [o["held"]["optimizer state"] for o in four.everywhere("zero")]
    assert states == [adam(n, 1) for n in (512, 80, 10, 8)]


@pytest.mark.distributed
@pytest.mark.parametrize("shard", ["zero", "fsdp"])
def test_two_processes_save_and_four_go_on(two: Runs, four: Runs, shard: str) -> None:
    resumed = four[f"half, then {shard}"]
    assert resumed["begins at"] == 1
    assert resumed["agreed"]
    assert resumed["record"]["loss"][:STEPS] == two["half"]["record"]["loss"]
    assert resumed["record"]["lr"] == two["fsdp"]["record"]["lr"]
    assert distance(resumed["parameters"], two["fsdp"]["parameters"]) < TOLERANCE


@pytest.mark.distributed
def test_gloo_adds_up_each_part_of_a_vector_in_another_order(four: Runs) -> None:
    """Part c goes around the ring, c - 1 first and c last, and then to all."""
    found = four["a sum"]
    parts = [list(x.chunk(4)) for x in found["parts"]]
    for c, total in enumerate(found["sum"].chunk(4)):
        order = [(c - 1 - i) % 4 for i in range(4)]
        by_hand = parts[order[0]][c]
        for i in order[1:]:
            by_hand = by_hand + parts[i][c]
        assert torch.equal(total, by_hand)
    assert not torch.equal(found["sum"], sum(found["parts"]))
    assert all(torch.equal(o["sum"], found["sum"]) for o in four.everywhere("a sum"))


@pytest.mark.distributed
@pytest.mark.parametrize(
    ("place", "shard"),
    [
        ("in a step", "none"),
        ("in a step", "zero"),
        ("before a rename", "none"),
        ("before a rename", "fsdp"),
    ],
)
def test_wherever_it_is_killed(two: Runs, tmp_path: Path, place: str, shard: str) -> None:
    resumed, undisturbed = killed(tmp_path, place, shard)["killed"], two[shard]
    assert resumed["begins at"] == 1
    assert equal(resumed["parameters"], undisturbed["parameters"])
    assert resumed["record"] == undisturbed["record"]


@pytest.mark.distributed
def test_the_command_line_with_two(tmp_path: Path) -> None:
    command = ["--optimizer", "Adam", "--library", "minioptim", "--lr", "0.02", "--hidden", "8"]
    command += ["--batch-size", "128", "--shard", "fsdp", "--checkpoint", str(tmp_path / "run")]
    command += ["--resume", "auto", "--table", "--memory", "--plot", str(tmp_path / "run.png")]
    first = onepage.torchrun([*command, "--epochs", "1"], timeout=170)
    then = onepage.torchrun([*command, "--epochs", "2"], timeout=170)
    assert [line.split()[:2] for line in (first[0], then[0])] == [["epoch", "1"], ["epoch", "2"]]
    assert [line.split()[0] for line in then[1:4]] == ["epoch", "1", "2"]
    assert [line.split()[1:4] for line in then[5:7]] == [["2,440", "2,440", "4,896"]] * 2
    assert then[-1] == "2 processes, the same parameters"
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(RuntimeError, match="already a checkpoint"):
        onepage.torchrun([word for word in command if word not in ("--resume", "auto")])
