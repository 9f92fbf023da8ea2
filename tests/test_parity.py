"""Every optimizer against PyTorch's: parameters, state and options, equal to the last bit.

Each line of the tables below is run in every dtype and in both of PyTorch's modes on the CPU, the
loop and foreach, each against the same mode of ours, and compared after every step.
"""

import pytest
import torch
from pair import COMPLEX, REAL, Pair, draw

import minioptim

SGD = [
    "SGD(p)",
    "SGD(p, lr=0.1)",
    "SGD(p, lr=0.1, maximize=True)",
    "SGD(p, lr=0.1, weight_decay=0.1)",
    "SGD(p, lr=0.1, weight_decay=0.1, maximize=True)",
    "SGD(p, lr=0.1, momentum=0.9)",
    "SGD(p, lr=0.1, momentum=0.9, maximize=True)",
    "SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1)",
    "SGD(p, lr=0.1, momentum=0.9, dampening=0.5)",
    "SGD(p, lr=0.1, momentum=0.5, dampening=0.9, weight_decay=0.1, maximize=True)",
    "SGD(p, lr=0.1, momentum=0.9, nesterov=True)",
    "SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1)",
    "SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1, maximize=True)",
    "SGD(p, lr=0.1, momentum=1.0)",
    "SGD(p, lr=0.1, momentum=1.5)",
    "SGD(p, lr=0.0, momentum=0.9)",
]
ADAM = [
    "Adam(p)",
    "Adam(p, lr=0.1)",
    "Adam(p, lr=0.1, maximize=True)",
    "Adam(p, lr=0.1, betas=(0.0, 0.999))",
    "Adam(p, lr=0.1, betas=(0.9, 0.0))",
    "Adam(p, lr=0.1, betas=(0.5, 0.6), eps=1e-2)",
    "Adam(p, lr=0.1, eps=0.0)",
    "Adam(p, lr=0.1, weight_decay=0.1)",
    "Adam(p, lr=0.1, weight_decay=0.1, maximize=True)",
    "Adam(p, lr=0.1, weight_decay=0.1, decoupled_weight_decay=True)",
    "Adam(p, lr=0.1, amsgrad=True)",
    "Adam(p, lr=0.1, amsgrad=True, weight_decay=0.1, maximize=True)",
    "AdamW(p)",
    "AdamW(p, lr=0.1)",
    "AdamW(p, lr=0.1, weight_decay=0.0)",
    "AdamW(p, lr=0.1, weight_decay=0.5, amsgrad=True)",
    "AdamW(p, lr=0.1, weight_decay=0.5, maximize=True, betas=(0.8, 0.9))",
]
GROUPS = [
    "SGD([{'params': p[:2]}, {'params': p[2:], 'lr': 0.01, 'momentum': 0.5}], lr=0.1)",
    "SGD([{'params': p[::2], 'weight_decay': 0.1}, {'params': p[1::2], 'maximize': True}], lr=0.1,"
    " momentum=0.9)",
    "Adam([{'params': p[:2], 'amsgrad': True}, {'params': p[2:], 'betas': (0.5, 0.9)}], lr=0.1)",
    "AdamW([{'params': p[:1], 'weight_decay': 0.0}, {'params': p[1:], 'lr': 0.01}], lr=0.1)",
]
TENSORS = [  # numbers given as tensors
    "SGD(p, lr=tensor(0.1), momentum=0.9)",
    "SGD(p, lr=tensor([0.1], dtype=torch.float64), weight_decay=tensor(0.1))",
    "Adam(p, lr=tensor(0.1))",
    "AdamW(p, lr=tensor([0.1], dtype=torch.float64))",
    "Adam(p[1:], lr=tensor(0.1), betas=(tensor(0.9), tensor(0.999)))",
    "Adam(p[1:], betas=(tensor(0.9, dtype=torch.float64), tensor([0.99], dtype=torch.float64)))",
]
SHAPES = [(), (5,), (4, 3), (0,), (2, 3, 2), (17,)]  # 17 fills no vector register
STEPS = 4


def run(case: str, dtype: torch.dtype, missing: bool, steps: int = STEPS) -> Pair:
    pair = Pair(case, [draw(shape, dtype, seed) for seed, shape in enumerate(SHAPES)])
    for step in range(steps):
        grads = [draw(shape, dtype, 100 * step + k) for k, shape in enumerate(SHAPES, start=10)]
        pair.step([None if missing and (step + k) % 3 == 0 else g for k, g in enumerate(grads)])
        pair.check()
    return pair


def with_engine(case: str, foreach: bool | None) -> str:
    return f"{case[:-1]}, foreach={foreach})"


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("case", SGD + ADAM + GROUPS)
def test_equal_to_torch(case, foreach):
    for dtype in REAL:
        run(with_engine(case, foreach), dtype, missing=True)
    run(with_engine(case, foreach), torch.float32, missing=False)


@pytest.mark.parametrize("case", ["SGD(p, lr=0.1, momentum=0.9)", "AdamW(p, lr=0.1)"])
def test_the_default_engine_is_that_of_torch(case):
    """In half precision loop and foreach give other bits, so a wrong choice would be seen."""
    run(case, torch.float16, missing=False)


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("case", SGD + ADAM)
def test_complex_parameters(case, foreach):
    for dtype in COMPLEX:
        run(with_engine(case, foreach), dtype, missing=True, steps=3)


@pytest.mark.parametrize("case", TENSORS)
def test_numbers_given_as_tensors(case):
    for dtype in REAL:
        run(case, dtype, missing=True)
    if case.startswith("SGD"):
        run(with_engine(case, True), torch.float32, missing=True)


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("case", ["SGD(p, lr=0.1, momentum=0.9)", "AdamW(p, lr=0.1)"])
def test_several_dtypes_in_one_group(case, foreach):
    dtypes = (torch.float32, torch.float64, torch.bfloat16, torch.complex64, torch.float32)
    pair = Pair(with_engine(case, foreach), [draw((99,), d, i) for i, d in enumerate(dtypes)])
    for step in range(4):
        grads = [draw((99,), d, 10 * step + i) for i, d in enumerate(dtypes, start=50)]
        pair.step([None if (step + i) % 4 == 0 else g for i, g in enumerate(grads)])
        pair.check()


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("case", SGD[:5] + SGD[5:11:2])
def test_sparse_gradients(case, foreach):
    """An embedding's gradient holds rows. PyTorch refuses some options with it, and so do we."""
    pair = Pair(
        with_engine(case, foreach), [draw((6, 2), torch.float32, 0), draw((3,), torch.float32, 1)]
    )
    rows = torch.tensor([[1, 4, 1]])
    for step in range(4):
        values = draw((3, 2), torch.float32, 10 + step)
        sparse = torch.sparse_coo_tensor(rows, values, (6, 2), check_invariants=True)
        errors = []
        for optimizer, params in zip(pair.optimizers, pair.params, strict=True):
            params[0].grad, params[1].grad = sparse.clone(), draw((3,), torch.float32, 20 + step)
            try:
                optimizer.step()
            except RuntimeError as error:
                errors.append(type(error))
        if errors:
            assert len(errors) == 2
            return
        pair.check()


@pytest.mark.parametrize("case", ["SGD(p, lr=0.1, momentum=0.9)", "Adam(p, lr=0.1, amsgrad=True)"])
@pytest.mark.parametrize("odd", [0.0, -0.0, float("nan"), float("inf"), 1e-320, 3e38])
def test_odd_gradients(case, odd):
    for foreach in (False, True):
        pair = Pair(with_engine(case, foreach), [torch.tensor([0.0, -0.0, 1.0])])
        for _ in range(3):
            pair.step([torch.tensor([odd, -odd, odd])])
            pair.check()


def test_options_changed_between_steps():
    for case in ("SGD(p, lr=0.1, momentum=0.9)", "Adam(p, lr=0.1)"):
        pair = Pair(case, [draw((5,), torch.float32, 0)])
        for step in range(12):
            for optimizer in pair.optimizers:
                group = optimizer.param_groups[0]
                group["lr"] *= 0.7
                group["maximize"] = step % 3 == 0
                group["weight_decay"] = 0.1 * (step % 2)
                group["foreach"] = step % 4 == 3
                if "momentum" in group:
                    group["momentum"] = (0.9, 0.0, 0.5)[step % 3]
            pair.step([draw((5,), torch.float32, 10 + step)])
            pair.check()


def test_noncontiguous_and_shared_memory():
    whole = draw((4, 6), torch.float32, 0)
    pair = Pair("Adam(p, lr=0.1)", [whole])
    for optimizer, params in zip(pair.optimizers, pair.params, strict=True):
        view = torch.nn.Parameter(params[0].detach().t()[::2])
        params.append(view)
        optimizer.add_param_group({"params": [view]})
    for step in range(3):
        pair.step([draw((4, 6), torch.float32, 10 + step), draw((3, 4), torch.float32, 20 + step)])
        pair.check()


def test_a_duplicate_parameter_is_stepped_twice_by_both():
    x = draw((3,), torch.float32, 0)
    with pytest.warns(UserWarning, match="twice"):
        ours = minioptim.SGD([p := torch.nn.Parameter(x.clone())] * 2, lr=0.1)
    with pytest.warns(UserWarning, match="duplicate"):
        theirs = torch.optim.SGD([q := torch.nn.Parameter(x.clone())] * 2, lr=0.1)
    p.grad, q.grad = torch.ones(3), torch.ones(3)
    ours.step(), theirs.step()
    assert torch.equal(p, q)
    assert torch.equal(p, x - 0.1 - 0.1)
    assert ours.state_dict() == theirs.state_dict()


RULE = minioptim.Adam.rule  # the name Adam stands for the wrong class during the test


class WrongSign(minioptim.SGD):
    @staticmethod
    def rule(p, g, momentum_buffer, *, lr, momentum, dampening, nesterov):
        p.add_(g, alpha=lr)


class WrongState(minioptim.Adam):
    @staticmethod
    def rule(p, g, exp_avg, exp_avg_sq, max_exp_avg_sq, *, betas, **numbers):
        exp_avg.mul_(betas[0])
        RULE(p, g, exp_avg, exp_avg_sq, max_exp_avg_sq, betas=betas, **numbers)


@pytest.mark.parametrize(
    ("wrong", "case"), [(WrongSign, "SGD(p, lr=0.1)"), (WrongState, "Adam(p, lr=0.1)")]
)
def test_a_planted_error_is_seen(wrong, case, monkeypatch):
    monkeypatch.setattr(minioptim, case[: case.index("(")], wrong)
    with pytest.raises(AssertionError, match="parameter 0"):
        run(case, torch.float32, missing=False)
