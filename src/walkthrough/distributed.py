"""Several processes: who they are, who holds what, and a checkpoint that each writes a part of.

All that is said between them, `torch.distributed` says: this module only calls it. What each
process holds is one of the three `SHARDS`:

========  ==============  ===========  ======================  ====================================
shard     parameters      gradients    state of the optimizer  by
========  ==============  ===========  ======================  ====================================
``none``  all             all          all                     ``DistributedDataParallel`` (DDP)
``zero``  all             all          of some parameters      ``ZeroRedundancyOptimizer``, and DDP
``fsdp``  rows of each    rows         rows                    ``fully_shard`` (FSDP2)
========  ==============  ===========  ======================  ====================================
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn

from .refused import refuse

SHARDS = ("none", "zero", "fsdp")
PATIENCE = timedelta(seconds=60)  # a process that waits longer for another one gives up


# --- who is there ---------------------------------------------------------------------------------


@contextmanager
def processes(device: torch.device) -> Iterator[None]:
    """Join the processes that torchrun has started, if it has, and leave them at the end.

    Tensors on a CUDA device travel by NCCL, all others by gloo.

    Raises:
        Refused: there are more processes on this machine than it has CUDA devices.
    """
    together = distributed.is_available() and distributed.is_torchelastic_launched()
    if together:  # who, how many and where to meet stands in the environment
        backend = "gloo"
        if device.type == "cuda":
            take_card(int(os.environ["LOCAL_RANK"]))
            backend = "cpu:gloo,cuda:nccl"
        distributed.init_process_group(backend, timeout=PATIENCE)
    try:
        yield
    finally:
        if together:
            distributed.destroy_process_group()


def take_card(number: int) -> None:
    """From here on ``"cuda"`` is the CUDA device of that number: each process takes its own."""
    if number >= torch.cuda.device_count():
        refuse(f"process {number} finds no CUDA device: there are {torch.cuda.device_count()}")
    torch.cuda.set_device(number)


def together() -> bool:
    """Whether this process has joined others, be they none."""
    return distributed.is_available() and distributed.is_initialized()


def rank_and_world() -> tuple[int, int]:
    """The number of this process, and how many there are: (0, 1) if it is alone."""
    return (distributed.get_rank(), distributed.get_world_size()) if together() else (0, 1)


def mean(value: Tensor) -> Tensor:
    """The mean of a value over all processes."""
    value = value.detach().clone()
    if together():
        distributed.all_reduce(value)  # the sum
    return value / rank_and_world()[1]


def everyones(thing: Any) -> list[Any]:
    """What each process has to say, in the order of their numbers."""
    found = [thing]
    if together():
        found *= distributed.get_world_size()
        distributed.all_gather_object(found, thing)
    return found


# --- who holds what -------------------------------------------------------------------------------


def shard_model(model: nn.Sequential, device: torch.device) -> None:
    """Leave each process its rows of every parameter: they become DTensors, in place.

    Before a layer computes, its rows are gathered, and afterwards forgotten again.
    """
    must_be_started("fsdp")
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (distributed.get_world_size(),))
    for layer in model:
        if any(True for _ in layer.parameters()):
            fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)


def shard_state(make: Callable[..., Any]) -> Callable[..., Any]:
    """An optimizer of that class in each process, for some of the parameters.

    After a step each process sends the others the parameters that it has updated.
    """
    must_be_started("zero")
    from torch.distributed.optim import ZeroRedundancyOptimizer

    return partial(ZeroRedundancyOptimizer, optimizer_class=make)


def must_be_started(shard: str) -> None:
    """Refuse to share with others if there are none."""
    if not together():
        refuse(f"--shard {shard} is for processes that torchrun has started")


def own(optimizer: Any) -> Any:
    """The optimizer that has the state of this process: within a sharded one, or itself."""
    return getattr(optimizer, "optim", optimizer)


def whole(tensor: Tensor) -> Tensor:
    """A tensor with the rows of all processes. All must ask for it."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def bytes_of(tensors: Iterable[Any]) -> int:
    """The bytes that this process holds of some tensors. What is no tensor holds none."""
    here = (t.to_local() if hasattr(t, "to_local") else t for t in tensors)
    return sum(t.numel() * t.element_size() for t in here if isinstance(t, Tensor))


def bytes_held(model: nn.Module, optimizer: Any) -> dict[str, int]:
    """The bytes that this process holds now, by what they are for."""
    params = list(model.parameters())
    return {
        "parameters": bytes_of(params),
        "gradients": bytes_of(p.grad for p in params),
        "optimizer state": bytes_of(
            value for state in own(optimizer).state.values() for value in state.values()
        ),
    }


def state_of(optimizer: Any) -> dict[str, Any]:
    """The ``state_dict`` with the state of all processes. All must ask; the first one gets it."""
    if own(optimizer) is not optimizer:
        optimizer.consolidate_state_dict(to=0)
        if distributed.get_rank() != 0:
            return {}
    return optimizer.state_dict()


# --- a checkpoint in a folder ---------------------------------------------------------------------
#
# run/          what the user calls the checkpoint
#     3/        the state after three epochs, whole; older ones are removed when it is
#         rest.pt                      all but tensors, and what else is the same everywhere
#         .metadata  __0_0.distcp ...  by torch.distributed.checkpoint
#     4.part/   being written; when it is whole it is renamed to 4

REST = "rest.pt"


def newest(path: Path) -> Path:
    """The last whole checkpoint in a folder.

    Raises:
        ValueError: there is none.
    """
    return max((part for part in path.iterdir() if part.name.isdigit()), key=epochs_in)


def epochs_in(part: Path) -> int:
    """How many epochs are behind a part of a folder: its name without ``.part``."""
    return int(part.stem) if part.stem.isdigit() else 0


def begun(path: Path) -> bool:
    """Whether there is a checkpoint, or something else that stands in its place."""
    if not path.is_dir():
        return path.exists()
    return any(part.suffix != ".part" for part in path.iterdir())


def write_shards(
    path: Path, epoch: int, rest: dict[str, Any], model: nn.Module, optimizer: Any
) -> None:
    """Write what each process holds, and the rest, into a folder in ``path``.

    All processes must call it, and must see the same file system.

    Raises:
        OSError: in one of the processes. The last whole checkpoint is still there.
    """
    from torch.distributed import checkpoint

    first, part = rank_and_world()[0] == 0, path / f"{epoch}.part"
    if first:
        shutil.rmtree(part, ignore_errors=True)  # left by a process that was killed
        part.mkdir(parents=True)
    tensors = {"model": model.state_dict(), "state": held_by_name(model, optimizer)["state"]}
    everyones("ready")  # no one writes before the folder is there
    with unwrapped():
        checkpoint.save(tensors, checkpoint_id=part, no_dist=not together())
    if first:  # the others have written: `save` waits for them
        with (part / REST).open("wb") as file:
            torch.save(rest | {"optimizer": options_of(optimizer)}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path / str(epoch))
        for old in path.iterdir():
            if 0 < epochs_in(old) < epoch:
                shutil.rmtree(old)


def read_shards(part: Path, rest: dict[str, Any], model: nn.Module, optimizer: Any) -> None:
    """Read what this process shall hold, whoever has written it, and put it in place.

    There is a pickle among the files of PyTorch, so a folder must come from someone you trust.

    Raises:
        ValueError: a file is missing or damaged, or made for another model.
    """
    from torch.distributed import checkpoint
    from torch.distributed.checkpoint.state_dict import set_optimizer_state_dict

    held = held_by_name(model, optimizer)
    tensors = {"model": model.state_dict(), "state": held["state"]}  # to be read into
    try:
        with unwrapped():
            checkpoint.load(tensors, checkpoint_id=part, no_dist=not together())
    except Exception as error:  # of many kinds
        reason = f"{type(error).__name__} {error}".splitlines()[0]
        raise ValueError(reason) from error
    model.load_state_dict(tensors["model"])
    set_optimizer_state_dict(model, [own(optimizer)], held | {"state": tensors["state"]})
    for group, options in zip(optimizer.param_groups, rest["optimizer"], strict=True):
        group.update(options)


def held_by_name(model: nn.Module, optimizer: Any) -> dict[str, Any]:
    """The ``state_dict`` of this process's optimizer, with names instead of numbers.

    An optimizer without state is given some first, by a step without effect.
    """
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

    # A list, because PyTorch takes a single optimizer only if its class is one of torch.optim.
    return get_optimizer_state_dict(model, [own(optimizer)])


def options_of(optimizer: Any) -> list[dict[str, Any]]:
    """The groups of an optimizer without their parameters: the same in all processes."""
    return [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]


@contextmanager
def unwrapped() -> Iterator[None]:
    """Let an error out as it is: PyTorch hands it on in a wrapper that is not an Exception.

    To be alone is no reason for a warning here.
    """
    from torch.distributed.checkpoint.api import CheckpointException

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
            yield
    except CheckpointException as error:
        raise next(iter(error.failures.values()))[0] from error
