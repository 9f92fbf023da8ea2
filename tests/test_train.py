"""The training loop: settings, checkpoints, and that a killed run loses nothing but time."""

from __future__ import annotations

import copy
import io
import os
import pickle
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from walkthrough import onepage, summary, train
from walkthrough.distributed import REST
from walkthrough.train import Refused, Run, Settings, fit

STEPS = 12  # batches in an epoch of 1,437 images, 128 at a time
SMALL = {"batch_size": 128, "hidden": 8, "epochs": 4}
SCHEDULERS = {
    "StepLR": {"step_size": 3, "gamma": 0.5},
    "MultiStepLR": {"milestones": [3], "gamma": 0.5},
    "ConstantLR": {"factor": 0.5, "total_iters": 3},
    "LinearLR": {"start_factor": 0.5, "total_iters": 3},
    "ExponentialLR": {"gamma": 0.9},
    "PolynomialLR": {"total_iters": 5},
    "CosineAnnealingLR": {"T_max": 5},
    "CosineAnnealingWarmRestarts": {"T_0": 3},
    "CyclicLR": {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 3},
    "OneCycleLR": {"max_lr": 0.1, "total_steps": 4 * STEPS},
    "ReduceLROnPlateau": {"patience": 0, "threshold": 0.5},
}
MOMENTUM = {"momentum": 0.9}


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """As in the program: sums of several threads are not the same in every run."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def settings(**more: Any) -> Settings:
    return Settings(**{**SMALL, "optimizer_options": MOMENTUM, **more})


def same(a: Any, b: Any) -> bool:
    """Equal, tensors to the last bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def everything(run: Run) -> dict[str, Any]:
    parts = {"model": run.model, "optimizer": run.optimizer, "scheduler": run.scheduler}
    found = {name: part.state_dict() for name, part in parts.items() if part is not None}
    return found | {"epoch": run.epoch, "record": run.record, "order": run.order.get_state()}


# --- it trains, the same in both libraries --------------------------------------------------------


@pytest.mark.parametrize(
    ("optimizer", "options"),
    [("SGD", MOMENTUM), ("Adam", {"betas": (0.8, 0.99)}), ("AdamW", {"weight_decay": 0.1})],
)
def test_both_libraries_train_alike(optimizer: str, options: dict[str, Any]) -> None:
    runs = [
        fit(settings(optimizer=optimizer, optimizer_options=options, lr=0.05, library=library))
        for library in train.LIBRARIES
    ]
    assert runs[0].digest() == runs[1].digest()
    assert runs[0].record == runs[1].record
    assert runs[0].record["loss"][-1] < 0.8 * runs[0].record["loss"][0]
    assert len(runs[0].record["lr"]) == 4 * STEPS


def test_a_run_leaves_the_callers_generator_alone_and_does_not_depend_on_it() -> None:
    digests = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        digests.append(fit(settings(epochs=1)).digest())
        assert torch.equal(torch.get_rng_state(), before)
    assert digests[0] == digests[1]
    assert fit(settings(epochs=1, seed=1)).digest() != digests[0]


@pytest.mark.parametrize(("cadence", "changes"), [("epoch", 3), ("batch", 4 * STEPS - 1)])
def test_the_cadence_decides_how_often_the_rate_changes(cadence: str, changes: int) -> None:
    run = fit(
        settings(scheduler="ExponentialLR", scheduler_options={"gamma": 0.9}, cadence=cadence)
    )
    lrs = run.record["lr"]
    assert sum(a != b for a, b in pairwise(lrs)) == changes


def test_a_convolution_trains_alike_in_both_libraries() -> None:
    runs = [
        fit(settings(network="conv", hidden=4, epochs=2, library=library))
        for library in train.LIBRARIES
    ]
    assert runs[0].digest() == runs[1].digest()
    assert runs[0].record == runs[1].record
    assert runs[0].record["loss"][-1] < 0.8 * runs[0].record["loss"][0]
    assert next(runs[0].model.parameters()).shape == (4, 1, 3, 3)


# --- several processes ----------------------------------------------------------------------------


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    """The last batch of an epoch is shared unevenly: 29 images make 15 and 14."""
    path = tmp_path / "run.pt"
    lines = onepage.torchrun([*COMMAND, "--checkpoint", str(path)], timeout=100)
    wanted = settings(scheduler="MultiStepLR", scheduler_options=MILESTONES)
    said: list[str] = []
    one = fit(wanted, report=said.append)
    assert lines[:4] == said
    assert lines[4].startswith("parameters ")
    assert lines[5:] == ["2 processes, the same parameters"]

    two = train.load(path, wanted)
    assert two.record["lr"] == one.record["lr"]
    assert two.record["loss"] == pytest.approx(one.record["loss"], rel=0, abs=1e-12)
    for p, q in zip(one.model.parameters(), two.model.parameters(), strict=True):
        assert torch.allclose(p, q, rtol=0, atol=1e-12)
    assert list(tmp_path.iterdir()) == [path]


def test_a_batch_must_have_a_sample_for_each_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "rank_and_world", lambda: (0, 30))
    monkeypatch.setattr(train, "DistributedDataParallel", lambda model: model)
    with pytest.raises(Refused, match="30 processes cannot share a batch of 29"):
        fit(settings())


def test_a_command_that_torchrun_cannot_run_says_why() -> None:
    with pytest.raises(RuntimeError, match="epochs must be 1 or more"):
        onepage.torchrun(["--epochs", "0"], processes=1, timeout=100)


# --- stopped and resumed --------------------------------------------------------------------------


@pytest.mark.parametrize("cadence", ["epoch", "batch"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_goes_on_where_it_was(name: str, cadence: str, tmp_path: Path) -> None:
    wanted = settings(scheduler=name, scheduler_options=SCHEDULERS[name], cadence=cadence)
    whole = fit(wanted)
    path = tmp_path / "run.pt"
    fit(settings(**{**vars(wanted), "epochs": 2}), path)
    resumed = fit(settings(**{**vars(wanted), "library": "minioptim"}), path, resume=True)
    assert same(everything(whole)["model"], everything(resumed)["model"])
    assert whole.record == resumed.record
    again = train.load(path, wanted)
    assert same(everything(again)["record"], whole.record)
    assert again.digest() == whole.digest()


@pytest.mark.parametrize("lost", ["optimizer", "scheduler", "order"])
def test_without_any_one_part_the_run_is_another(lost: str, tmp_path: Path) -> None:
    """The comparison sees what it is there to see."""
    wanted = settings(scheduler="CosineAnnealingLR", scheduler_options={"T_max": 4})
    path = tmp_path / "run.pt"
    fit(settings(**{**vars(wanted), "epochs": 2}), path)
    state = torch.load(path)
    state[lost] = train_state(Run(wanted), lost)
    torch.save(state, path)
    assert fit(wanted, path, resume=True).digest() != fit(wanted).digest()


def train_state(run: Run, part: str) -> Any:
    return run.order.get_state() if part == "order" else getattr(run, part).state_dict()


KILL = """
import os, signal, sys
import torch
from walkthrough import train
import walkthrough.train

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

place = sys.argv.pop(1)
if place == "step":
    steps = []
    def count(*_):
        steps.append(1)
        if len(steps) == 30:
            die()
    from torch.optim.optimizer import register_optimizer_step_post_hook
    register_optimizer_step_post_hook(count)
elif place == "replace":
    replace, calls = os.replace, []
    def second(*args):
        calls.append(1)
        die() if len(calls) == 3 else replace(*args)
    os.replace = second
elif place == "write":
    save, calls = torch.save, []
    def half(state, file):
        calls.append(1)
        if len(calls) == 3:
            file.write(b"half a checkpoint")
            file.flush()
            die()
        save(state, file)
    torch.save = half
sys.exit(train.main(sys.argv[1:]))
"""
COMMAND = ["--optimizer", "SGD", "momentum=0.9", "--batch-size", "128", "--hidden", "8"]
COMMAND += ["--epochs", "4", "--scheduler", "MultiStepLR", "milestones=[2,3]", "gamma=0.5"]


def program(*arguments: str, code: str | None = None) -> subprocess.CompletedProcess[str]:
    start = ["-c", code] if code else ["-m", "walkthrough.train"]
    return subprocess.run([sys.executable, *start, *arguments], capture_output=True, text=True)


@pytest.mark.parametrize(
    ("place", "name"),
    [
        pytest.param("step", "run.pt", marks=pytest.mark.long),
        ("write", "run.pt"),
        pytest.param("replace", "run.pt", marks=pytest.mark.long),
        ("replace", "run"),
    ],
)
def test_a_killed_run_goes_on_as_if_nothing_had_happened(
    place: str, name: str, tmp_path: Path
) -> None:
    """In the middle of an epoch, in the middle of writing a checkpoint, and before it counts."""
    path = tmp_path / name
    if path.suffix != ".pt":
        path.mkdir()
    killed = program(place, *COMMAND, "--checkpoint", str(path), "--resume", "auto", code=KILL)
    assert killed.returncode == -signal.SIGKILL
    assert torch.load(path / "2" / REST if path.is_dir() else path)["epoch"] == 2

    resumed = program(*COMMAND, "--checkpoint", str(path), "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert resumed.stdout.startswith("epoch   3 ")

    undisturbed = fit(settings(scheduler="MultiStepLR", scheduler_options=MILESTONES))
    went_on = train.load(path, undisturbed.settings)
    assert same(everything(went_on), everything(undisturbed))
    assert resumed.stdout.split()[-1] == undisturbed.digest()
    assert list(tmp_path.iterdir()) == [path]
    if path.is_dir():
        assert list(path.iterdir()) == [path / "4"]


MILESTONES = {"milestones": [2, 3], "gamma": 0.5}

EVERY_OPTIMIZER = [
    (library, name)
    for library, module in train.LIBRARIES.items()
    for name, value in sorted(vars(module).items())
    if isinstance(value, type) and issubclass(value, module.Optimizer)
    if value is not module.Optimizer and name not in (*train.NOT_BY_NAME, "Muon")
]


@pytest.mark.parametrize(("library", "name"), EVERY_OPTIMIZER)
def test_a_folder_holds_what_a_file_holds(library: str, name: str, tmp_path: Path) -> None:
    """Whatever an optimizer remembers. Muon is for matrices only, and there are biases here.

    NAdam keeps a product in float32, and PyTorch loads it in the dtype of the parameter.
    """
    wanted = {"optimizer": name, "optimizer_options": {}, "library": library, "lr": 0.01}
    wanted |= {"scheduler": "StepLR", "scheduler_options": {"step_size": 1}}
    file, folder = tmp_path / "run.pt", tmp_path / "run"
    folder.mkdir()
    fit(settings(**wanted, epochs=1), file)
    fit(settings(**wanted, epochs=1), folder, resume="auto")
    runs = [train.load(path, settings(**wanted)) for path in (file, folder)]
    assert same(*map(everything, runs))
    goes_on = fit(settings(**wanted, epochs=2), folder, resume="auto")
    undisturbed = fit(settings(**wanted, epochs=2))
    assert same(everything(goes_on), everything(undisturbed)) == (name != "NAdam")
    assert goes_on.record["loss"] == pytest.approx(undisturbed.record["loss"], rel=1e-6)


def test_momentum_goes_on_from_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    fit(settings(epochs=1), folder, resume="auto")
    assert fit(settings(epochs=2), folder, resume=True).digest() == fit(settings(epochs=2)).digest()
    assert list(folder.iterdir()) == [folder / "2"]


def test_auto_begins_only_where_there_is_nothing(tmp_path: Path) -> None:
    file = tmp_path / "run.pt"
    assert fit(settings(epochs=1), file, resume="auto").epoch == 1
    assert len(fit(settings(epochs=2), file, resume="auto").record["loss"]) == 2 * STEPS
    file.write_bytes(b"something else")
    with pytest.raises(Refused, match="cannot be read"):
        fit(settings(epochs=2), file, resume="auto")
    (tmp_path / "run" / "3.part").mkdir(parents=True)  # a first checkpoint that came to nothing
    assert fit(settings(epochs=1), tmp_path / "run", resume="auto").epoch == 1
    (tmp_path / "mine" / "2").mkdir(parents=True)
    with pytest.raises(Refused, match="no checkpoint"):
        fit(settings(epochs=2), tmp_path / "mine", resume="auto")
    assert (tmp_path / "mine" / "2").is_dir()


@pytest.mark.parametrize("lost", [".metadata", "__0_0.distcp", REST])
@pytest.mark.parametrize("part", [None, 0.0, 0.7])
def test_a_damaged_folder_is_refused(lost: str, part: float | None, tmp_path: Path) -> None:
    path = tmp_path / "run"
    path.mkdir()
    fit(settings(epochs=1), path, resume="auto")
    file = path / "1" / lost
    content = file.read_bytes()
    file.unlink()
    if part is not None:
        file.write_bytes(content[: int(part * len(content))])
    with pytest.raises(Refused, match=r"no checkpoint|cut short|damaged") as error:
        train.load(path, settings())
    assert "\n" not in str(error.value)


# PyTorch's writer of parts, left in the middle, closes its file twice: Python 3.13 says so
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_failure_while_saving_keeps_the_last_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run"
    path.mkdir()
    one = fit(settings(epochs=1), path, resume="auto")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(Refused, match="No space"):
            fit(settings(epochs=2), path, resume=True)
    assert train.load(path, settings()).digest() == one.digest()
    assert fit(settings(epochs=2), path, resume=True).epoch == 2
    assert list(path.iterdir()) == [path / "2"]


def test_fsdp_does_not_go_on_from_a_file(checkpoint: bytes, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="another --shard"):
        loads(checkpoint, tmp_path / "run.pt", shard="fsdp")


def test_a_failure_while_saving_keeps_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.pt"
    run = fit(settings(epochs=1), path)
    before = path.read_bytes()

    def full(state: Any, file: Any) -> None:
        file.write(b"the beginning")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space"):
        train.save(run, path)
    with pytest.raises(Refused, match="No space"):
        fit(settings(epochs=2), path, resume=True)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


# --- what is refused ------------------------------------------------------------------------------

BAD_COMMANDS = [
    ("--optimizer Sdg", "has no Sdg"),
    ("--optimizer Optimizer", "has no Optimizer"),
    ("--optimizer LBFGS", "has no LBFGS"),
    ("--optimizer SGD momentum", "key=value"),
    ("--optimizer SGD lr=1", "lr as --lr"),
    ("--optimizer SGD momentum=-1", "momentum"),
    ("--optimizer SGD speed=1", "speed"),
    ("--optimizer SGD momentum=[0.9]", "SGD:"),
    ("--optimizer RAdam --library minioptim", "minioptim has no RAdam"),
    ("--optimizer Adam capturable=True --library minioptim", "not supported"),
    ("--scheduler StepLR", "step_size"),
    ("--scheduler StepLR step_size=0", "in epoch 1"),
    ("--scheduler Steps step_size=1", "has no Steps"),
    ("--scheduler SequentialLR", "has no SequentialLR"),
    ("--scheduler LambdaLR lr_lambda=0.9", "LambdaLR:"),
    ("--scheduler OneCycleLR max_lr=0.1 total_steps=3 cycle_momentum=False --cadence batch", "4"),
    ("--lr -1", "SGD:"),
    ("--lr nan", "finite"),
    ("--epochs 0", "epochs must be 1 or more"),
    ("--batch-size -3", "batch_size"),
    ("--seed -1", "seed"),
    ("--threads 0", "threads"),
    ("--cadence daily", "cadence"),
    ("--network deep", "network"),
    ("--library tensorflow", "library"),
    ("--resume", "which checkpoint"),
    ("--resume auto", "which checkpoint"),
    ("--device gpu", "device must be one of"),
    ("--shard thirds", "shard must be one of"),
    ("--shard zero", "torchrun"),
    ("--shard fsdp", "torchrun"),
    ("--plot run.txt", "ends in one of"),
    ("--plot no/such/folder/run.png", "no folder"),
    ("--checkpoint no/such/folder/run.pt", "no folder"),
    ("--checkpoint run.pt --resume", "no checkpoint"),
    ("--checkpoint . --resume", "cannot be read"),
    ("--checkpoint .", "already"),
]


@pytest.mark.parametrize(("line", "reason"), BAD_COMMANDS, ids=[line for line, _ in BAD_COMMANDS])
def test_a_bad_command_is_refused_in_one_line(
    line: str,
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)
    with pytest.raises(SystemExit) as stop:
        train.main(["--epochs", "1", "--batch-size", "256", "--hidden", "4", *line.split()])
    out, err = capsys.readouterr()
    assert stop.value.code == 2
    assert reason in err
    assert err.startswith("python -m walkthrough.train: ")
    assert err.count("\n") == 1
    assert out == ""
    assert list(tmp_path.iterdir()) == []


def test_the_program_says_what_it_does() -> None:
    done = program("--help")
    assert done.returncode == 0
    for word in ("--optimizer", "--scheduler", "--cadence", "--checkpoint", "--resume"):
        assert word in done.stdout


def test_cuda_is_refused_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(Refused, match="no CUDA device"):
        fit(settings(device="cuda"))
    assert Run(settings(device="auto")).device.type == "cpu"


def test_the_book_decides_where_a_run_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WALKTHROUGH_DEVICE", "meta")
    assert Run(settings()).device.type == "meta"
    assert Run(settings(device="cpu")).device.type == "cpu"


# --- what is shown --------------------------------------------------------------------------------


def test_tables_and_a_plot_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)
    pictures = [tmp_path / "run.png", tmp_path / "run.svg"]
    for picture in pictures:
        words = [*COMMAND, "--table", "--memory", "--plot", str(picture)]
        assert train.main(words) == 0
    run = fit(settings(scheduler="MultiStepLR", scheduler_options=MILESTONES))
    lines = capsys.readouterr().out.splitlines()[:12]
    assert [line.split()[:2] for line in lines[:4]] == [["epoch", str(i + 1)] for i in range(4)]
    for i, line in enumerate(lines[5:9]):
        losses = run.record["loss"][i * STEPS : (i + 1) * STEPS]
        lr = run.record["lr"][i * STEPS]
        wanted = [i + 1, lr, lr, sum(losses) / STEPS, min(losses), max(losses)]
        assert [float(x) for x in line.split()] == pytest.approx(wanted, abs=6e-5)
    assert [lines[10].split()[i] for i in range(4)] == ["0", "4,880", "4,880", "4,880"]
    assert lines[11] == f"parameters {run.digest()}"
    assert pictures[0].read_bytes().startswith(b"\x89PNG")
    assert (
        "mean of the epoch" in pictures[1].read_text(encoding="utf-8")
        or pictures[1].stat().st_size > 10_000
    )


def test_a_bar_where_it_can_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    plain = fit(settings(epochs=2))
    for screen in (io.StringIO(), Terminal()):
        monkeypatch.setattr(sys, "stderr", screen)
        assert fit(settings(epochs=2), watch=summary.watch).digest() == plain.digest()
        frames = screen.getvalue().split("\r")[1:]
        shown = [frame for frame in frames if "[" in frame and "%" in frame]
        assert len(shown) == (2 * STEPS if screen.isatty() else 0)
    assert "  4%" in shown[0]
    assert "[############............]  50%" in shown[STEPS - 1]
    assert shown[-1].startswith("[########################] 100%")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("run") / "run.pt"
    fit(settings(epochs=1, scheduler="StepLR", scheduler_options={"step_size": 2}), path)
    return path.read_bytes()


def loads(content: bytes, path: Path, **more: Any) -> Run:
    path.write_bytes(content)
    wanted = settings(scheduler="StepLR", scheduler_options={"step_size": 2}, **more)
    try:
        return train.load(path, wanted)
    finally:
        assert path.read_bytes() == content


def changed(content: bytes, path: Path, **parts: Any) -> bytes:
    path.write_bytes(content)
    state = torch.load(path)
    for name, value in parts.items():
        *keys, last = (int(key) if key.isdigit() else key for key in name.split("__"))
        place = state
        for key in keys:
            place = place[key]
        place[last] = value
    torch.save(state, path)
    return path.read_bytes()


def test_a_whole_checkpoint_is_taken(checkpoint: bytes, tmp_path: Path) -> None:
    assert loads(checkpoint, tmp_path / "run.pt").epoch == 1


def test_a_checkpoint_cut_short_is_refused(checkpoint: bytes, tmp_path: Path) -> None:
    """Anywhere: at 300 places, and after each of the first and before each of the last bytes."""
    places = {*range(0, len(checkpoint), len(checkpoint) // 300), *range(40)}
    places |= {len(checkpoint) - n for n in range(1, 40)}
    for place in sorted(places):
        with pytest.raises(Refused, match="cut short"):
            loads(checkpoint[:place], tmp_path / "run.pt")


def test_a_changed_bit_is_refused_or_means_nothing(checkpoint: bytes, tmp_path: Path) -> None:
    """Between the parts of the file there is padding, which nobody reads."""
    path = tmp_path / "run.pt"
    wanted = everything(loads(checkpoint, path))
    rng = random.Random(0)
    refused = 0
    for _ in range(300):
        flipped = bytearray(checkpoint)
        flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
        try:
            assert same(everything(loads(bytes(flipped), path)), wanted)
        except Refused:
            refused += 1
    assert refused > 150


def test_a_refused_file_leaves_the_run_that_was_there_alone(
    checkpoint: bytes, tmp_path: Path
) -> None:
    """Loading builds new objects: what a program already has is not touched."""
    path = tmp_path / "run.pt"
    run = loads(checkpoint, path)
    before = copy.deepcopy(everything(run))
    generator = torch.get_rng_state()
    for content in (checkpoint[:-9], b"a text", changed(checkpoint, path, model={})):
        with pytest.raises(Refused):
            loads(content, path)
        assert same(everything(run), before)
        assert torch.equal(torch.get_rng_state(), generator)


@pytest.mark.parametrize("content", [b"a text", b"\x00" * 5000, pickle.dumps({"a": 1})])
def test_a_foreign_file_is_refused(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"run\.pt (cannot be read|is not)"):
        loads(content, tmp_path / "run.pt")


@pytest.mark.parametrize("thing", [{"model": {}}, [1, 2], torch.ones(3), {"format": "another"}])
def test_what_another_program_saved_is_refused(thing: Any, tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    torch.save(thing, path)
    with pytest.raises(Refused, match="not a checkpoint of this program"):
        loads(path.read_bytes(), path)


class Bomb:
    def __reduce__(self) -> Any:
        return os.mkdir, ("it-went-off",)


def test_a_checkpoint_cannot_run_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"format": train.FORMAT, "model": Bomb()}, "run.pt")
    with pytest.raises(Refused, match="cannot be read"):
        loads(Path("run.pt").read_bytes(), Path("run.pt"))
    assert not Path("it-went-off").exists()


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({"model": {}}, "Missing key"),
        ({"model": None}, "damaged"),
        ({"optimizer": {}}, "damaged"),
        ({"optimizer__param_groups": []}, "damaged"),
        ({"optimizer__state__0__momentum_buffer": torch.ones(2)}, "momentum_buffer"),
        ({"scheduler": None}, "damaged"),
        ({"scheduler": {}}, "damaged.* less than it should: _get_lr"),
        ({"scheduler__more": 1}, "damaged.* should: more"),
        ({"scheduler": {"last_epoch": 1}}, "damaged"),
        ({"optimizer__state": None}, "damaged"),
        ({"optimizer__param_groups__0__params": [0, 1]}, "damaged"),
        ({"optimizer__state__0": 3}, "damaged"),
        ({"model__0.bias": torch.ones(3)}, "size mismatch"),
        ({"model__0.bias": "many"}, "damaged"),
        ({"model__more": torch.ones(3)}, "Unexpected key"),
        ({"order": torch.zeros(5056, dtype=torch.uint8)}, "damaged"),
        ({"epoch": -1}, "damaged"),
        ({"epoch": None}, "damaged"),
        ({"record": {"lr": [0.1], "loss": []}}, "damaged.* steps were recorded in 1 epochs"),
        ({"record": None}, "damaged"),
        ({"order": torch.ones(3)}, "damaged"),
        ({"settings": {}}, "damaged"),
        ({"epoch": "many"}, "damaged"),
        ({"record": {"lr": ["x"], "loss": []}}, "damaged"),
        ({"epoch": 6}, "6 epochs behind it"),
    ],
)
def test_a_damaged_checkpoint_is_refused(
    checkpoint: bytes, parts: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "run.pt"
    with pytest.raises(Refused, match=reason):
        loads(changed(checkpoint, path, **parts), path)


@pytest.mark.parametrize(
    "other",
    [{"lr": 0.2}, {"batch_size": 64}, {"seed": 1}, {"optimizer_options": {}}, {"cadence": "batch"}],
    ids=lambda other: next(iter(other)),
)
def test_a_run_with_other_settings_is_not_continued(
    checkpoint: bytes, other: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(Refused, match=f"comes from a run with {next(iter(other))}"):
        loads(checkpoint, tmp_path / "run.pt", **other)


def test_a_checkpoint_is_not_overwritten_without_being_asked(
    checkpoint: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "run.pt"
    path.write_bytes(checkpoint)
    with pytest.raises(Refused, match="already"):
        fit(settings(), path)
    assert path.read_bytes() == checkpoint


def test_more_epochs_may_be_asked_for(checkpoint: bytes, tmp_path: Path) -> None:
    run = loads(checkpoint, tmp_path / "run.pt", epochs=50)
    assert run.settings.epochs == 50
    assert run.epoch == 1
