"""A small network learns the digits: a training loop that can be killed and resumed.

From a command line::

    python -m walkthrough.train --optimizer SGD momentum=0.9 --lr 0.1 \\
        --scheduler StepLR step_size=3 gamma=0.3 --epochs 9 --checkpoint run.pt
    python -m walkthrough.train ...the same... --resume

Optimizer and scheduler are named as in ``torch.optim``, and come from there or from `minioptim`.
A checkpoint is written after every epoch. A run that was killed and resumed ends with the same
parameters as one that was not, to the last bit, if it goes on with as many threads on such a CPU.
(With one exception: ``torch.optim.NAdam`` forgets on loading that it has a factor in float32.)

Started by torchrun it trains in several processes as if they were one, each with its share of every
batch, and the first of them prints::

    python -m torch.distributed.run --standalone --nproc-per-node 2 \\
        -m walkthrough.train ...the same...

With ``--shard`` each of them holds a part only of what the optimizer remembers, or of everything:
see `walkthrough.distributed`.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import math
import os
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import minioptim

from . import data, distributed, summary
from .distributed import processes, rank_and_world
from .environment import device
from .refused import Refused, refuse
from .training import accuracy, mean_loss

LIBRARIES = {"torch.optim": torch.optim, "minioptim": minioptim}
NETWORKS = ("dense", "conv")
DEVICES = ("book", "auto", "cpu", "cuda")
FORMAT = "walkthrough.train, 2"
# They need schedulers, a closure, or sparse gradients: more than a name and options.
NOT_BY_NAME = ("SequentialLR", "ChainedScheduler", "LBFGS", "SparseAdam")
NOT_IN_A_RUN = ("epochs", "library", "device", "shard")  # may be another one when a run goes on


@dataclass(frozen=True)
class Settings:
    """All that decides how a run goes.

    Raises:
        Refused: a value that makes no sense. Names and options are looked at by `Run`.
    """

    optimizer: str = "SGD"
    optimizer_options: dict[str, Any] = field(default_factory=dict)
    lr: float = 0.1
    scheduler: str | None = None
    scheduler_options: dict[str, Any] = field(default_factory=dict)
    cadence: str = "epoch"  # how often the scheduler steps: after each epoch, or each batch
    epochs: int = 5
    batch_size: int = 32  # of all processes together
    network: str = "dense"  # or conv, a convolution and pooling
    hidden: int = 32  # units of the hidden layer, or channels of the convolution
    seed: int = 0  # of the first parameters and of the order of the data
    library: str = "torch.optim"
    device: str = "book"  # auto, cpu or cuda; book: the CPU unless WALKTHROUGH_DEVICE says another
    shard: str = "none"  # what processes share besides batches: see `walkthrough.distributed`

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "hidden"):
            if getattr(self, name) < 1:
                refuse(f"{name} must be 1 or more, not {getattr(self, name)}")
        if not 0 <= self.seed < 2**63:
            refuse(f"seed must be a number from 0 to 2**63 - 1, not {self.seed}")
        if not math.isfinite(self.lr):
            refuse(f"lr must be a finite number, not {self.lr}")
        for name, allowed in (
            ("cadence", ("epoch", "batch")), ("library", tuple(LIBRARIES)), ("network", NETWORKS),
            ("device", DEVICES), ("shard", distributed.SHARDS),
        ):  # fmt: skip
            if getattr(self, name) not in allowed:
                refuse(f"{name} must be one of {', '.join(allowed)}, not {getattr(self, name)}")


class Run:
    """A run between two epochs: everything that its next step depends on.

    Attributes:
        model, optimizer, scheduler: the three that have a ``state_dict``.
        order: the generator that shuffles the data.
        epoch: epochs that are over.
        record: by ``"lr"`` and ``"loss"``, one number for each step of the optimizer.

    Raises:
        Refused: an optimizer or scheduler of that name does not exist, or refuses its options.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.device = place(settings)
        torch.backends.cudnn.deterministic = True  # on CUDA a convolution may add in any order else
        with torch.random.fork_rng(devices=[]):  # the caller's generator is left alone
            torch.manual_seed(settings.seed)
            self.model = network(settings).to(self.device, torch.float64)
        self.rank, self.world = rank_and_world()
        alone = self.world == 1 or settings.shard == "fsdp"
        if settings.shard == "fsdp":
            distributed.shard_model(self.model, self.device)
        self.replica = self.model if alone else DistributedDataParallel(self.model)
        self.optimizer, self.scheduler = build(settings, self.model)
        self.order = torch.Generator().manual_seed(settings.seed)
        self.epoch = 0
        self.record: dict[str, list[float]] = {"lr": [], "loss": []}

    def train_epoch(self, digits: data.Digits) -> None:
        """Go once through the data."""
        order = torch.randperm(len(digits.x), generator=self.order)
        batches = order.to(digits.x.device).split(self.settings.batch_size)
        for batch in batches:
            share = batch[self.rank :: self.world]  # of one process: all of it
            weight = len(share) * self.world / len(batch)  # shares may differ in size
            self.optimizer.zero_grad()
            loss = mean_loss(self.replica, digits.pick(share)) * weight
            loss.backward()  # with several processes, their mean gradient
            self.optimizer.step()
            loss = distributed.mean(loss)
            self.record["lr"].append(float(self.optimizer.param_groups[0]["lr"]))
            self.record["loss"].append(loss.item())
            if self.settings.cadence == "batch":
                self.step_scheduler(loss.item())
        self.epoch += 1
        if self.settings.cadence == "epoch":
            self.step_scheduler(self.epoch_loss())

    def agreed(self) -> bool:
        """Whether all processes have the same parameters and rates, to the last bit."""
        rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        return len(set(distributed.everyones(f"{self.digest()} {rates}"))) == 1

    def epoch_loss(self) -> float:
        """The mean loss of the last epoch, measured batch by batch while it went on."""
        losses = self.record["loss"][-(len(self.record["loss"]) // self.epoch) :]
        return sum(losses) / len(losses)

    def step_scheduler(self, loss: float) -> None:
        """Set the next learning rate. One scheduler wants to know how well it goes."""
        if self.settings.scheduler == "ReduceLROnPlateau":
            self.scheduler.step(loss)
        elif self.scheduler is not None:
            self.scheduler.step()

    def digest(self) -> str:
        """Eight hexadecimal digits that stand for every bit of the parameters."""
        flat = torch.cat(
            [distributed.whole(p.detach()).cpu().flatten() for p in self.model.parameters()]
        )
        return hashlib.sha256(flat.numpy().tobytes()).hexdigest()[:8]


def network(settings: Settings) -> nn.Sequential:
    """From 64 brightnesses to 10 scores."""
    hidden = settings.hidden
    if settings.network == "conv":
        image = nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, hidden, 3, padding=1), nn.ReLU()
        return nn.Sequential(*image, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16 * hidden, 10))
    return nn.Sequential(nn.Linear(64, hidden), nn.Tanh(), nn.Linear(hidden, 10))


def place(settings: Settings) -> torch.device:
    """Where a run computes. Of several CUDA devices it is the one this process has taken.

    Raises:
        Refused: CUDA is asked for and there is none.
    """
    names = {"auto": "cuda" if torch.cuda.is_available() else "cpu", "book": str(device())}
    found = torch.device(names.get(settings.device, settings.device))
    if found.type == "cuda" and not torch.cuda.is_available():
        refuse("this machine, or this build of PyTorch, has no CUDA device that could be used")
    return found


def build(settings: Settings, model: nn.Module) -> tuple[Any, Any]:
    """The optimizer, and the scheduler or None."""
    library = LIBRARIES[settings.library]
    make = pick(library, settings.library, settings.optimizer, library.Optimizer)
    if settings.shard == "zero":
        make = distributed.shard_state(make)
    optimizer = attempt(
        settings.optimizer,
        lambda: make(model.parameters(), lr=settings.lr, **settings.optimizer_options),
    )
    if settings.scheduler is None:
        return optimizer, None
    module, place = library.lr_scheduler, f"{settings.library}.lr_scheduler"
    schedule = pick(module, place, settings.scheduler, module.LRScheduler)
    return optimizer, attempt(
        settings.scheduler, lambda: schedule(optimizer, **settings.scheduler_options)
    )


def pick(module: Any, place: str, name: str, base: type) -> Any:
    """The class of that name in a module, a subclass of ``base``."""
    known = {
        key: value
        for key, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, base) and value is not base
        if not key.startswith("_") and key not in NOT_BY_NAME
    }
    if name not in known:
        refuse(f"{place} has no {name} that could be used here. It has {', '.join(sorted(known))}")
    return known[name]


BAD_OPTION = (TypeError, ValueError, ArithmeticError, NotImplementedError)


def attempt(what: str, do: Callable[[], Any]) -> Any:
    """Do something with options that somebody typed, and blame them if it fails."""
    try:
        return do()
    except BAD_OPTION as error:
        raise Refused(f"{what}: {error}") from error


# --- checkpoints ----------------------------------------------------------------------------------


def in_folder(settings: Settings, path: Path) -> bool:
    """Whether a checkpoint is a folder: by FSDP2 it is, and otherwise what is found is kept."""
    return settings.shard == "fsdp" or path.is_dir()


def save(run: Run, path: Path) -> None:
    """Write a checkpoint. At any moment ``path`` is a whole one: the last, or this one.

    It is written under another name, and takes its place in one operation of the file system. All
    processes must call this: the first one writes a file, and all of them their parts of a folder.
    """
    folder = in_folder(run.settings, path)
    state = {
        "format": FORMAT,
        "settings": asdict(run.settings),
        "epoch": run.epoch,
        "model": None if folder else run.model.state_dict(),
        "optimizer": None if folder else distributed.state_of(run.optimizer),
        "scheduler": None if run.scheduler is None else run.scheduler.state_dict(),
        "order": run.order.get_state(),
        "record": run.record,
    }
    if folder:
        distributed.write_shards(path, run.epoch, state, run.model, run.optimizer)
    if folder or run.rank:
        return
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def load(path: Path, settings: Settings) -> Run:
    """The run that a checkpoint was written by, ready to go on.

    It is put together from new objects, so if this fails nothing has been changed.

    Raises:
        Refused: there is no such file; it is not a whole checkpoint of this program; or it comes
            from a run with other settings (epochs, library, device and shard may differ).
    """
    try:
        file = distributed.newest(path) / distributed.REST if path.is_dir() else path
        check_sums(file)
        state = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        refuse(f"there is no checkpoint {path}")
    except Exception as error:  # torch.load raises many kinds, and none of its own
        kind = type(error).__name__
        raise Refused(f"{path} cannot be read as a checkpoint, or is cut short ({kind})") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        refuse(f"{path} is not a checkpoint of this program")
    if in_folder(settings, path) != path.is_dir():
        refuse(f"{path} is a file, and --shard fsdp saves in folders: go on with another --shard")
    try:
        saved, now = state["settings"], asdict(settings)
        for name in now.keys() - NOT_IN_A_RUN:
            if saved[name] != now[name]:
                refuse(f"{path} comes from a run with {name} {saved[name]!r}, not {now[name]!r}")
        run = Run(settings)  # builds the scheduler, which writes lr: so the loading comes after it
        if path.is_dir():
            distributed.read_shards(file.parent, state, run.model, run.optimizer)
        else:
            run.model.load_state_dict(state["model"])
            run.optimizer.load_state_dict(state["optimizer"])
        if run.scheduler is not None:
            same_keys("scheduler", run.scheduler.state_dict(), state["scheduler"])
            run.scheduler.load_state_dict(state["scheduler"])
        run.order.set_state(state["order"])
        run.epoch = int(state["epoch"])
        run.record = {key: list(map(float, state["record"][key])) for key in run.record}
        check_record(run)
        check_state(run)
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise Refused(f"{path} is damaged: {type(error).__name__} {error}") from error
    if run.epoch > settings.epochs:
        refuse(f"{path} has {run.epoch} epochs behind it, more than {settings.epochs}")
    return run


def check_sums(file: Path) -> None:
    """Raise an error if a bit has changed since `save`: `torch.load` would not notice.

    The format is a zip archive, which holds a checksum of each of its parts.
    """
    with zipfile.ZipFile(file) as archive:
        bad = archive.testzip()
    if bad:
        raise zipfile.BadZipFile(f"{bad} is not what was written")


def same_keys(what: str, wanted: dict[str, Any], found: dict[str, Any]) -> None:
    """Raise a ValueError if a dictionary has other keys than it should have."""
    if different := sorted(wanted.keys() ^ found.keys()):
        raise ValueError(f"the {what} has more or less than it should: {', '.join(different)}")


def check_record(run: Run) -> None:
    """Raise a ValueError if there is not the same number of steps for each epoch that is over."""
    lengths = {len(values) for values in run.record.values()}
    if run.epoch < 0 or len(lengths) != 1 or min(lengths) % max(run.epoch, 1):
        raise ValueError(f"{sorted(lengths)} steps were recorded in {run.epoch} epochs")


def check_state(run: Run) -> None:
    """Raise a ValueError if the optimizer remembers something that does not fit its parameter.

    What fits is one number, or as many as the parameter has in each dimension, or one in it.
    """
    for p in run.model.parameters():
        for key, value in distributed.own(run.optimizer).state.get(p, {}).items():
            if not isinstance(value, Tensor) or not value.dim():
                continue
            sizes = zip(value.shape, p.shape, strict=False)
            if value.dim() != p.dim() or any(n not in (1, whole) for n, whole in sizes):
                raise ValueError(f"{key} has the shape {tuple(value.shape)}, not {tuple(p.shape)}")


# --- the whole run --------------------------------------------------------------------------------


def fit(
    settings: Settings,
    checkpoint: str | Path | None = None,
    resume: bool | str = False,
    report: Callable[[str], None] | None = None,
    watch: Callable[[Run, int], None] | None = None,
) -> Run:
    """Train, from the start or from a checkpoint, and return the run.

    Args:
        checkpoint: where to save after each epoch; None saves nothing.
        resume: go on from the checkpoint, which must exist. Otherwise it must not. ``"auto"``: go
            on from it if it exists, which is what a restarted process wants.
        report: called with a line of text after each epoch, in the first process.
        watch: called with the run before it begins or goes on, and with its steps per epoch; it
            may put hooks in place.

    Raises:
        Refused: see `Settings`, `Run` and `load`; or there is a checkpoint that would be lost.
    """
    path = None if checkpoint is None else Path(checkpoint)
    if path is not None and not path.parent.is_dir():
        refuse(f"there is no folder {path.parent}")
    if resume and path is None:
        refuse("to resume, say from which checkpoint")
    if path is not None and path.exists() and not resume:
        refuse(f"there is already a checkpoint {path}: resume from it, or move it away")
    if resume == "auto":
        resume = path is not None and distributed.begun(path)
    run = load(path, settings) if resume and path is not None else Run(settings)
    train, test = (part.to(run.device) for part in data.digits())
    smallest = len(train.x) % settings.batch_size or settings.batch_size
    if smallest < run.world:
        refuse(f"{run.world} processes cannot share a batch of {smallest}, the last of an epoch")
    if watch is not None:
        watch(run, math.ceil(len(train.x) / settings.batch_size))
    while run.epoch < settings.epochs:
        attempt(f"in epoch {run.epoch + 1}", lambda: run.train_epoch(train))
        if path is not None:
            try:
                save(run, path)
            except OSError as error:
                raise Refused(f"{path} cannot be written: {error.strerror}") from error
        if report is not None:
            right = accuracy(run.model, test)  # all compute it: their parameters may be in parts
            lr, loss = run.record["lr"][-1], run.epoch_loss()
            if run.rank == 0:
                report(f"epoch {run.epoch:3}   lr {lr:<10.4g} loss {loss:.4f}   test {right:.0%}")
    return run


def options(words: list[str]) -> tuple[str, dict[str, Any]]:
    """A name, and options written as ``key=value`` with a Python literal for the value."""
    name, *pairs = words
    found = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        try:
            found[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            found[key] = value  # a word, such as anneal_strategy=linear
        if not equals or not key.isidentifier() or key == "lr":
            refuse(f"{name}: options are written key=value (and lr as --lr), not {pair!r}")
    return name, found


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m walkthrough.train",
        description="Train a small network on the 8x8 digits.",
        epilog="Values are Python literals: momentum=0.9 milestones=[3,6] betas='(0.9, 0.99)'.",
    )
    named = {"nargs": "+", "metavar": ("NAME", "KEY=VALUE")}
    made.add_argument("--optimizer", default=["SGD"], help="and its options", **named)
    made.add_argument("--scheduler", help="and its options; default: none", **named)
    made.add_argument("--library", default="torch.optim", help="torch.optim or minioptim")
    made.add_argument("--lr", type=float, default=0.1, help="the learning rate to begin with")
    made.add_argument("--network", default="dense", help="dense, or conv: a convolution")
    made.add_argument("--cadence", default="epoch", help="step the scheduler per epoch or batch")
    for name, default in (
        ("epochs", 5), ("batch-size", 32), ("hidden", 32), ("seed", 0), ("threads", 1),
    ):  # fmt: skip
        made.add_argument(f"--{name}", type=int, default=default, help=f"default: {default}")
    made.add_argument(
        "--checkpoint", metavar="FILE", help="saved after every epoch; by fsdp: a folder"
    )
    made.add_argument(
        "--resume", nargs="?", const=True, default=False, choices=["auto"], metavar="auto",
        help="go on from the checkpoint; auto: from the start if there is none yet",
    )  # fmt: skip
    made.add_argument(
        "--device", default="book", help="auto, cpu or cuda; default: what WALKTHROUGH_DEVICE says"
    )
    made.add_argument(
        "--shard", default="none", help=f"{', '.join(distributed.SHARDS)}; under torchrun"
    )
    made.add_argument("--table", action="store_true", help="at the end: lr and loss of the epochs")
    made.add_argument("--memory", action="store_true", help="at the end: the bytes each holds")
    made.add_argument("--plot", metavar="FILE", help="at the end: lr and loss, drawn")
    return made


def main(argv: list[str] | None = None) -> int:
    """The program. Returns 0, or leaves with status 2 and a line that says what was refused."""
    command = parser()
    given = vars(command.parse_args(argv))
    threads = given.pop("threads")
    wanted = {key: given.pop(key) for key in ("checkpoint", "resume", "table", "memory", "plot")}
    try:
        if threads < 1:
            refuse(f"threads must be 1 or more, not {threads}")
        torch.set_num_threads(threads)  # how a sum is split decides its last bits
        for name in ("optimizer", "scheduler"):
            if given[name] is not None:
                given[name], given[f"{name}_options"] = options(given[name])
        settings = Settings(**given)
        with processes(place(settings)):
            return follow(settings, **wanted)
    except Refused as error:
        command.exit(2, f"{command.prog}: {error}\n")


def follow(
    settings: Settings,
    checkpoint: str | None,
    resume: bool | str,
    table: bool,
    memory: bool,
    plot: str | None,
) -> int:
    """Train and print; of several processes the first one prints. Returns 0 if they agree."""
    if plot is not None:
        summary.can_draw(plot)
    run = fit(settings, checkpoint, resume, lambda line: print(line, flush=True), summary.watch)
    agreed, digest = run.agreed(), run.digest()
    held = distributed.everyones(distributed.bytes_held(run.model, run.optimizer))
    if run.rank == 0:
        if table:
            print(summary.table(run.record, run.epoch))
        if memory:
            print(summary.shares(held))
        if plot is not None:
            summary.draw(run.record, run.epoch, plot)
        print(f"parameters {digest}")
        if run.world > 1:
            same = "the same parameters" if agreed else "DIFFERENT parameters or rates"
            print(f"{run.world} processes, {same}")
    return 0 if agreed else 1


if __name__ == "__main__":
    raise SystemExit(main())
