"""A state_dict goes from one library to the other and back, in the middle of a run.

And what goes together with what: the table on the page of the API.
"""

import copy
import io

import pytest
import torch
from pair import build, draw, unlike
from test_parity import ADAM, GROUPS, SGD, SHAPES, TENSORS, with_engine
from torch.distributed.checkpoint import state_dict as distributed

import minioptim

CASES = [*SGD[3::2], *ADAM[1::2], *GROUPS]
CASES = [with_engine(case, foreach) for case in CASES for foreach in (False, True)]
CASES += [case for case in TENSORS if "betas" not in case]
SCHEDULES = ["CosineAnnealingLR(o, 5)", "OneCycleLR(o, 0.5, total_steps=20)", "StepLR(o, 2)",
             "SequentialLR(o, [LinearLR(o), ExponentialLR(o, 0.9)], [3])"]  # fmt: skip


class Run:
    """Parameters, an optimizer and, if asked for, a scheduler of one library."""

    def __init__(self, lib, case, dtype, schedule=None, start=None):
        start = start or [draw(shape, dtype, i) for i, shape in enumerate(SHAPES)]
        self.params = [torch.nn.Parameter(x.detach().clone()) for x in start]
        self.optimizer = build(lib, case, self.params)
        names = {"o": self.optimizer}
        self.scheduler = schedule and eval(schedule, {**vars(lib.lr_scheduler), **names})
        self.how = case, dtype, schedule

    def steps(self, first, last):
        for t in range(first, last):
            for k, p in enumerate(self.params):
                g = draw(p.shape, p.dtype, 1000 + 100 * t + k)
                p.grad = None if (t + k) % 3 == 0 else g
            self.optimizer.step()
            if self.scheduler:
                self.scheduler.step()
        return self

    def saved(self):
        """Everything as it would lie in a file."""
        parts = [x.state_dict() for x in (self.optimizer, self.scheduler) if x]
        file = io.BytesIO()
        torch.save(parts, file)
        file.seek(0)
        return torch.load(file, weights_only=True)

    def continued_in(self, lib):
        run = Run(lib, *self.how, start=self.params)
        for x, state in zip((run.optimizer, run.scheduler), self.saved(), strict=False):
            x.load_state_dict(state)
        return run

    def everything(self):
        rates = self.scheduler.get_last_lr() if self.scheduler else []
        return [p.detach() for p in self.params], in_order(self.saved()), rates


def in_order(x):
    """Dictionaries sorted by key: the order in which a scheduler writes its attributes is free."""
    if isinstance(x, dict):
        return {key: in_order(x[key]) for key in sorted(x, key=str)}
    return [in_order(value) for value in x] if isinstance(x, list) else x


def change_twice(*how):
    ours = Run(minioptim, *how).steps(0, 3).continued_in(torch.optim).steps(3, 5)
    ours = ours.continued_in(minioptim).steps(5, 8)
    theirs = Run(torch.optim, *how).steps(0, 8)
    assert unlike(ours.everything(), theirs.everything()) is None


@pytest.mark.parametrize("case", CASES)
def test_to_torch_and_back_mid_run(case):
    for dtype in (torch.float64, torch.bfloat16, torch.complex64):
        if not (dtype.is_complex and "tensor" in case):
            change_twice(case, dtype)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("case", ["SGD(p, lr=0.1, momentum=0.9)", "AdamW(p, lr=tensor(0.1))"])
def test_to_torch_and_back_with_a_scheduler(case, schedule):
    change_twice(case, torch.float32, schedule)


# --- loading --------------------------------------------------------------------------------------


def both_load(case, state, params):
    """Load ``state`` in both libraries; take two steps; everything must be equal."""
    runs = []
    for lib in (minioptim, torch.optim):
        run = Run(lib, case, None, start=params)
        run.optimizer.load_state_dict(copy.deepcopy(state))
        runs.append((run.optimizer.state_dict(), run.steps(0, 2).everything()))
    assert unlike(runs[0], runs[1]) is None
    return runs[0][0]


@pytest.mark.parametrize("to", [torch.float64, torch.bfloat16, torch.float16, torch.complex128])
@pytest.mark.parametrize("case", ["SGD(p, momentum=0.9)", "Adam(p, amsgrad=True)"])
def test_state_takes_the_dtype_of_its_parameter_but_the_count_does_not(case, to):
    source = Run(torch.optim, case, torch.float32).steps(0, 2)
    params = [p.detach().to(to) for p in source.params]
    if to.is_complex:  # there the state is left as it is, and later steps mix dtypes
        source = Run(torch.optim, case, torch.complex64).steps(0, 2)
        target = [build(lib, case, params) for lib in (minioptim, torch.optim)]
        [o.load_state_dict(copy.deepcopy(source.optimizer.state_dict())) for o in target]
        assert unlike(*[o.state_dict() for o in target]) is None
    else:
        loaded = both_load(case, source.optimizer.state_dict(), params)
        dtypes = {k: v.dtype for k, v in loaded["state"][1].items()}
        assert dtypes.pop("step", torch.float32) == torch.float32
        assert set(dtypes.values()) == {to}


def old(case, **changes):
    """What an older version would have written: options and values changed, or taken away."""
    state = copy.deepcopy(Run(torch.optim, case, torch.float32).steps(0, 3).optimizer.state_dict())
    for group in state["param_groups"]:
        for key, value in changes.items():
            group.pop(key, None) if value is None else group.update({key: value})
    return state


ADAM_KEYS = dict.fromkeys(["amsgrad", "maximize", "foreach", "capturable", "differentiable",
                           "fused", "decoupled_weight_decay"])  # fmt: skip
SGD_KEYS = dict.fromkeys(["nesterov", "maximize", "foreach", "differentiable", "fused"])


@pytest.mark.parametrize(
    ("case", "missing"),
    [("SGD(p, lr=0.1, momentum=0.9)", SGD_KEYS), ("Adam(p, lr=0.1)", ADAM_KEYS),
     ("AdamW(p, lr=0.1, weight_decay=0.1)", ADAM_KEYS)],
)  # fmt: skip
def test_options_that_came_later(case, missing):
    state = old(case, **missing)
    params = [draw(shape, torch.float32, i) for i, shape in enumerate(SHAPES)]
    loaded = both_load(case, state, params)
    assert set(missing) <= set(loaded["param_groups"][0])
    for key in missing:  # and each one alone
        both_load(case, old(case, **{key: None}), params)


@pytest.mark.parametrize("number", [int, float])
def test_counts_that_were_plain_numbers(number):
    state = old("Adam(p, lr=0.1)")
    for entry in state["state"].values():
        entry["step"] = number(entry["step"])
    params = [draw(shape, torch.float32, i) for i, shape in enumerate(SHAPES)]
    for dtype in (torch.float64, torch.bfloat16, torch.float32):
        torch.set_default_dtype(dtype)
        try:
            loaded = both_load("Adam(p, lr=0.1)", state, params)
        finally:
            torch.set_default_dtype(torch.float32)
        assert all(isinstance(entry["step"], torch.Tensor) for entry in loaded["state"].values())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.int64])
def test_counts_that_are_tensors_stay_as_they_are(dtype):
    state = old("Adam(p, lr=0.1)")
    for entry in state["state"].values():
        entry["step"] = entry["step"].to(dtype)
    o = minioptim.Adam([draw(shape, torch.float32, i) for i, shape in enumerate(SHAPES)])
    o.load_state_dict(state)
    for number, p in enumerate(o.param_groups[0]["params"]):
        assert o.state[p]["step"] is state["state"][number]["step"]
    both_load("Adam(p, lr=0.1)", state, o.param_groups[0]["params"])


def test_buffers_that_were_none():
    state = old("SGD(p, lr=0.1, momentum=0.9)")
    for entry in state["state"].values():
        entry["momentum_buffer"] = None
    both_load("SGD(p, lr=0.1, momentum=0.9)", state, [draw(s, torch.float32, 1) for s in SHAPES])


def test_state_that_belongs_to_no_parameter_and_state_within_state():
    state = old("SGD(p, lr=0.1)")
    state["state"] = {
        0: {"list": [torch.ones(2), 1, {"x": torch.zeros(1)}], "tuple": (1, 2), "none": None},
        "global": {"seen": 17, "tensor": torch.ones(2)},
        99: {"of": "a parameter that is gone"},
    }
    both_load("SGD(p, lr=0.1)", state, [draw(s, torch.bfloat16, 1) for s in SHAPES])


def test_an_adamw_stays_one():
    """Whatever the dictionary says, also that of an Adam with the option switched off."""
    for source in ("Adam(p)", "AdamW(p)"):
        state = old(source, decoupled_weight_decay=False)
        loaded = both_load("AdamW(p)", state, [draw(s, torch.float32, 1) for s in SHAPES])
        assert loaded["param_groups"][0]["decoupled_weight_decay"] is True


def test_what_is_shared_after_loading():
    """Tensors of the state are, options are not: as in PyTorch."""
    for lib in (minioptim, torch.optim):
        run = Run(lib, "Adam(p, lr=tensor(0.1))", torch.float32).steps(0, 2)
        state = run.optimizer.state_dict()
        other = Run(lib, "Adam(p)", torch.float32)
        other.optimizer.load_state_dict(state)
        loaded = other.optimizer.state_dict()
        assert loaded["state"][1]["exp_avg"] is state["state"][1]["exp_avg"]
        assert loaded["param_groups"][0]["lr"] is not state["param_groups"][0]["lr"]
        assert state["param_groups"][0] is not run.optimizer.param_groups[0]


def test_loading_into_a_run_leaves_the_dictionary_alone():
    run = Run(minioptim, "Adam(p, lr=0.1)", torch.bfloat16).steps(0, 2)
    state = run.optimizer.state_dict()
    before = copy.deepcopy(state)
    Run(minioptim, "Adam(p, lr=0.1)", torch.float32).optimizer.load_state_dict(state)
    assert unlike(state, before) is None


# --- what goes together with what -----------------------------------------------------------------


def test_schedulers_of_pytorch_refuse_an_optimizer_of_ours():
    o = minioptim.SGD([torch.ones(1)])
    for cls in (torch.optim.lr_scheduler.StepLR, torch.optim.swa_utils.SWALR):
        with pytest.raises(TypeError, match="not an Optimizer"):
            cls(o, 1)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("case", ["SGD(p, lr=0.1, momentum=0.9)", "RMSprop(p, momentum=0.9)"])
def test_our_schedulers_drive_optimizers_of_pytorch(case, schedule):
    found = []
    for schedulers in (minioptim.lr_scheduler, torch.optim.lr_scheduler):
        run = Run(torch.optim, case, torch.float32)
        run.scheduler = eval(schedule, {**vars(schedulers), "o": run.optimizer})
        found.append(run.steps(0, 8).everything())
    assert unlike(found[0], found[1]) is None


@pytest.mark.parametrize("case", ["SGD(p, lr=0.1, momentum=0.9)", "AdamW(p)"])
def test_distributed_checkpoint_takes_our_optimizer_in_a_list(case):
    saved = []
    for lib in (minioptim, torch.optim):
        model = torch.nn.Linear(3, 2)
        for p in model.parameters():
            p.data.fill_(0.5)
            p.grad = torch.ones_like(p)
        o = build(lib, case, model.parameters())
        o.step()
        _, state = distributed.get_state_dict(model, [o])
        saved.append(copy.deepcopy(state))

        other_model = copy.deepcopy(model)
        other = build(lib, case, other_model.parameters())
        distributed.set_optimizer_state_dict(other_model, [other], saved[1 - len(saved)])
        assert unlike(other.state_dict(), o.state_dict()) is None
    assert unlike(saved[0], saved[1]) is None
    assert "weight" in saved[0]["state"]  # parameters have names there

    model = torch.nn.Linear(3, 2)
    distributed.get_optimizer_state_dict(model, torch.optim.SGD(model.parameters()))
    with pytest.raises(TypeError):
        distributed.get_optimizer_state_dict(model, minioptim.SGD(model.parameters()))
