"""What runs a bad call in both libraries, and sees what came of it. The table is in the tests."""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from pair import draw, unlike
from torch import Tensor

import minioptim

# what several lines begin with; the second group is the one that something is wrong with
SETUPS = {
    "ADAM": "o = Adam([{'params': p[:1], 'betas': (0.5, 0.5)}, {'params': p[1:3]}]); o.step()",
    "SGD": "o = SGD([{'params': p[:1]}, {'params': p[1:3]}], momentum=0.9); o.step()",
    "DECAY": "o = SGD([{'params': p[:1]}, {'params': p[1:3]}], weight_decay=0.1)",
    "ONCE": "o.step(); s.step()",
    "LATE": "o.add_param_group({'params': p[:1]}); o.step()",
    "ONE": "o = Adam(p[:2])",
    "FOREIGN": "saved = StepLR(other, 3).state_dict()",
    "SAVED": "o = Adam(p[:2]); o.step(); saved = copy(o.state_dict())",
}
SETUPS["ADAMW"] = SETUPS["ADAM"].replace("Adam(", "AdamW(")
SETUPS["FOREACH"] = SETUPS["ADAM"].replace("}])", "}], foreach=True)")
LIBRARIES = {"minioptim": minioptim, "torch.optim": torch.optim}


@dataclass(frozen=True)
class Outcome:
    """What came of a call: the error, all that it says, and the first thing that is not as before.

    Attributes:
        where: how many statements went well before the one that failed.
    """

    error: type[BaseException] | None
    says: str
    changed: str | None
    where: int = 0


def names(library: Any) -> dict[str, Any]:
    """What a line can use: the names of a library, parameters ``p``, and optimizers.

    ``o`` and ``other`` have two groups of one parameter, with momentum.
    """
    p = [torch.nn.Parameter(draw((4, 2), torch.float32, i)) for i in range(4)]
    vectors = [torch.nn.Parameter(torch.ones(2)) for _ in range(4)]
    for tensor in (*p, *vectors):
        tensor.grad = torch.ones_like(tensor)

    def two_groups(a: Tensor, b: Tensor) -> Any:
        groups = [{"params": [a]}, {"params": [b], "lr": 0.03}]
        return library.SGD(groups, lr=0.1, momentum=0.9)

    lr_scheduler = {k: v for k, v in vars(library.lr_scheduler).items() if not k.startswith("__")}
    return {
        "torch": torch, "tensor": torch.tensor, "nan": float("nan"), "inf": float("inf"),
        "copy": copy.deepcopy, **lr_scheduler, **vars(library), "p": p,
        "model": torch.nn.Linear(1, 1),
        "o": two_groups(*vectors[:2]), "other": two_groups(*vectors[2:]),
        "without_momentum": torch.optim.Adagrad(vectors[:2]),
    }  # fmt: skip


def frozen(x: Any) -> Any:
    """A copy to be compared with later: of optimizers and schedulers, what they hold."""
    if isinstance(x, Tensor):
        return x.detach().clone(), None if x.grad is None else x.grad.clone()
    if isinstance(x, dict):
        return {id(k) if isinstance(k, Tensor) else k: frozen(v) for k, v in x.items()}
    if isinstance(x, (list, tuple)):
        return [frozen(item) for item in x]
    if hasattr(x, "param_groups"):
        held = (x.param_groups, x.state, x.defaults)
        return [frozen(dict(part) if isinstance(part, dict) else part) for part in held]
    if hasattr(x, "get_last_lr"):
        no_state = ("optimizer", "_step_count")  # the latter counts calls, also those that fail
        return frozen({key: value for key, value in vars(x).items() if key not in no_state})
    return x


def look(found: dict[str, Any]) -> dict[str, Any]:
    """All that a call could have changed."""
    kinds = (dict, list, tuple)
    return {
        name: frozen(value)
        for name, value in found.items()
        if not name.startswith("_")
        and (isinstance(value, kinds) or hasattr(value, "state_dict"))
        and name not in ("model", "lr_scheduler")
    }


def attempt(library: Any, line: str) -> Outcome:
    """Run the statements of a line, of which the last is the bad one."""
    *before, last = line.split("; ")
    found = names(library)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for statement in before:
            exec(SETUPS.get(statement, statement), found)
        held = look({k: v for k, v in found.items() if k not in vars(library)})
        try:
            exec(last, found)
        except Exception as error:
            says = "\n".join([str(error), *getattr(error, "__notes__", [])])
            after = look({k: v for k, v in found.items() if k in held})
            return Outcome(type(error), says, unlike(after, held))
    return Outcome(None, "", None)


def accepted(line: str) -> str | None:
    """Run a line that neither library refuses: the first difference between the two, or None."""
    ends = []
    for library in LIBRARIES.values():
        found = names(library)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exec(line, found)
        ends.append([found["p"], found["o"].param_groups, list(found["o"].state.values())])
    return unlike(*map(frozen_without_ids, ends))


def frozen_without_ids(x: Any) -> Any:
    """As `frozen`, for two things that hold other parameters."""
    if isinstance(x, dict):
        return {key: frozen_without_ids(value) for key, value in x.items()}
    if isinstance(x, (list, tuple)):
        return [frozen_without_ids(item) for item in x]
    return frozen(x)
