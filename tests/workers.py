"""What each process does in tests/test_distributed.py: some runs, and a file of what came out.

    torchrun ... tests/workers.py FOLDER

Reads ``FOLDER/cases.json``: by name ``settings``, and perhaps ``path`` (of a checkpoint, in
FOLDER), ``copy`` (another one, to begin from), ``fault`` (a mistake to be made) or ``die`` (where
to be killed, unless it has been already). Writes ``FOLDER/NAME.RANK.pt``.
"""

import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from walkthrough import train
from walkthrough.distributed import bytes_held, everyones, processes, whole


def sums(state: Any, bucket: distributed.GradBucket) -> torch.futures.Future[torch.Tensor]:
    """Gradients are added up, and not divided by the number of processes."""
    work = distributed.all_reduce(bucket.buffer(), async_op=True)
    return work.get_future().then(lambda done: done.value()[0])


def make(fault: str, run: train.Run) -> None:
    """Make a mistake that people make."""
    if fault == "sum of gradients":
        run.replica.register_comm_hook(None, sums)
    elif fault == "only the first one schedules" and run.rank:
        run.step_scheduler = lambda loss: None


def die(place: str, run: train.Run) -> None:
    """Be killed: the second process after so many steps, or the first one before a rename."""
    replace, left = os.replace, [18 if place == "in a step" else 2]

    def count(*arguments: Any) -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        if place == "before a rename":
            replace(*arguments)

    if place == "in a step" and run.rank == 1:
        run.optimizer.register_step_post_hook(count)
    elif place == "before a rename" and run.rank == 0:
        os.replace = count


def outcome(folder: Path, case: dict[str, Any]) -> dict[str, Any]:
    """Do one run, and say all about it that this process can see."""
    path = folder / case["path"] if "path" in case else None
    if "copy" in case and distributed.get_rank() == 0:
        shutil.copytree(folder / case["copy"], path)
    everyones("copied")
    found: dict[str, Any] = {}

    def watch(run: train.Run, per_epoch: int) -> None:
        found["begins at"] = run.epoch
        make(case.get("fault", ""), run)
        if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
            die(case.get("die", ""), run)

    settings = train.Settings(**case["settings"])
    run = train.fit(settings, path, resume="auto" if path else False, watch=watch)
    return found | {
        "parameters": [whole(p.detach()) for p in run.model.parameters()],
        "kind": type(next(run.model.parameters())).__name__,
        "record": run.record,
        "rates": [group["lr"] for group in run.optimizer.param_groups],
        "scheduler": run.scheduler.state_dict(),
        "held": bytes_held(run.model, run.optimizer),
        "agreed": run.agreed(),
    }


def summed(n: int) -> dict[str, Any]:
    """A vector of each process, and their sum as gloo makes it."""
    torch.manual_seed(distributed.get_rank())
    mine = torch.randn(n, dtype=torch.float64)
    parts = everyones(mine)
    distributed.all_reduce(mine)
    return {"parts": parts, "sum": mine}


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    with processes(torch.device("cpu")):
        found = {
            name: outcome(folder, case)
            for name, case in json.loads(
                (folder / "cases.json").read_text(encoding="utf-8")
            ).items()
        }
        found["a sum"] = summed(1200)
        for name, result in found.items():
            torch.save(result, folder / f"{name}.{distributed.get_rank()}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
