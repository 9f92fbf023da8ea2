"""``differentiable=True``: autograd goes through one and through several steps.

The gradients are checked against finite differences, with respect to everything that a step depends
on: parameters, gradients, lr, weight decay, betas, and the state from earlier steps.
"""

import re
import warnings

import pytest
import torch
from pair import build, draw
from torch.autograd import gradcheck

import minioptim

N = 3
NUMBERS = {"lr": 0.1, "wd": 0.2, "b1": 0.8, "b2": 0.9, "mu": 0.7, "tau": 0.25}
CASES = [  # the names stand for numbers that require a gradient
    "SGD(p, lr=lr)",
    "SGD(p, lr=lr, weight_decay=wd)",
    "SGD(p, lr=lr, momentum=mu)",
    "SGD(p, lr=lr, momentum=mu, dampening=tau, weight_decay=wd)",
    "SGD(p, lr=lr, momentum=mu, nesterov=True)",
    "SGD(p, lr=lr, momentum=0.9, nesterov=True, weight_decay=wd, maximize=True)",
    "SGD(p, lr=0.1, momentum=0.9)",
    "Adam(p, lr=lr)",
    "Adam(p, lr=lr, weight_decay=wd)",
    "Adam(p, lr=lr, betas=(b1, b2))",
    "Adam(p, lr=lr, betas=(b1, b2), amsgrad=True, maximize=True)",
    "Adam(p, lr=0.1, amsgrad=True)",
    "AdamW(p, lr=lr, weight_decay=wd)",
    "AdamW(p, lr=lr, betas=(b1, b2), weight_decay=wd, amsgrad=True)",
]
STATES = {"SGD": ["momentum_buffer"], "Adam": ["exp_avg", "exp_avg_sq", "max_exp_avg_sq"]}


def unrolled(lib, case, steps, resumed=False, dtype=torch.float64):
    """The steps as a function of tensors, and tensors to call it with."""
    names = sorted(set(re.findall(rf"\b({'|'.join(NUMBERS)})\b(?!=)", case)))
    state_keys = STATES["SGD" if case.startswith("SGD") else "Adam"] if resumed else []
    if "amsgrad" not in case:
        state_keys = [key for key in state_keys if not key.startswith("max")]
    if "momentum" not in case and case.startswith("SGD"):
        state_keys = []
    inputs = [draw((N,), dtype, i) for i in range(1 + steps + len(state_keys))]
    inputs[1 + steps :] = [x.square() + 0.1 for x in inputs[1 + steps :]]
    inputs += [torch.tensor(NUMBERS[name], dtype=dtype) for name in names]

    def run(*tensors):
        p = tensors[0].clone()
        numbers = dict(zip(names, tensors[len(tensors) - len(names) :], strict=True))
        o = build(lib, f"{case[:-1]}, differentiable=True)", [p], **numbers)
        if state_keys:
            clones = (x.clone() for x in tensors[1 + steps :])
            o.state[p] = dict(zip(state_keys, clones, strict=False))
            if not case.startswith("SGD"):
                o.state[p]["step"] = torch.tensor(3.0)
        for g in tensors[1 : 1 + steps]:
            p.grad = g
            o.step()
        return (p, *(o.state[p][key] for key in state_keys))

    return run, [x.requires_grad_() for x in inputs]


@pytest.mark.parametrize("resumed", [False, True])
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("case", CASES)
def test_gradients_are_right(case, steps, resumed):
    run, inputs = unrolled(minioptim, case, steps, resumed)
    assert gradcheck(run, inputs, fast_mode=False)


def outcome(lib, case, steps, dtype=torch.float64):
    """Values after the steps, and the gradients of their sum; or the error."""
    run, inputs = unrolled(lib, case, steps, dtype=dtype)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            p, *_ = run(*inputs)
            return [p.detach(), *torch.autograd.grad(p.square().sum(), inputs, allow_unused=True)]
    except (RuntimeError, TypeError) as error:
        return type(error)


@pytest.mark.parametrize("case", CASES)
def test_within_a_bound_of_torch_where_torch_works(case, monkeypatch):
    """Values always, where PyTorch gives some; gradients where they are not lost in its buffer.

    With float64 as the default dtype, since PyTorch computes the bias corrections in the dtype of
    the step count here.
    """
    monkeypatch.setattr(torch, "get_default_dtype", lambda: torch.float64)
    for steps in (1, 3):
        ours, theirs = outcome(minioptim, case, steps), outcome(torch.optim, case, steps)
        assert isinstance(ours, list)
        if isinstance(theirs, list):
            lost = case.startswith("SGD") and "momentum" in case
            for a, b in zip(ours[: 1 if lost else None], theirs, strict=lost is False):
                torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)
        else:
            assert theirs in (RuntimeError, TypeError)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.complex128])
@pytest.mark.parametrize("case", [case for case in CASES if "=(" not in case])
def test_the_values_are_those_of_the_other_engines(case, dtype):
    """Equal up to rounding, stated here in units in the last place of the largest value."""
    case = case.replace("=lr", "=0.1").replace("=wd", "=0.2").replace("=mu", "=0.7")
    case = case.replace("=tau", "=0.25" if "nesterov" not in case else "=0")
    run, inputs = unrolled(minioptim, case, 3, dtype=dtype)
    with torch.no_grad():
        found = run(*inputs)[0]
        p = torch.nn.Parameter(inputs[0].detach().clone())
        o = build(minioptim, case, [p])
        for g in inputs[1:]:
            p.grad = g.detach()
            o.step()
    unit = torch.finfo(dtype).eps * p.detach().abs().max()
    assert (found - p).abs().max() <= 8 * unit


@pytest.mark.parametrize("case", ["SGD(p, lr=0.1, momentum=0.9)", "Adam(p, amsgrad=True)"])
def test_the_state_of_a_complex_parameter_is_that_of_the_loop(case):
    states = []
    for option in (True, False):
        p = draw((N,), torch.complex128, 0)
        o = build(minioptim, f"{case[:-1]}, differentiable={option})", [p])
        for t in range(3):
            p.grad = draw((N,), torch.complex128, 1 + t)
            o.step()
        states.append(o.state[p])
    torch.testing.assert_close(*states)


def test_learning_to_learn():
    """The learning rate that makes three steps end lowest, found by descending on it."""
    lr = torch.tensor(0.05, dtype=torch.float64, requires_grad=True)
    start = torch.tensor([3.0, -2.0], dtype=torch.float64)
    curvature = torch.tensor([1.0, 4.0], dtype=torch.float64)
    outer = minioptim.Adam([lr], lr=0.05)
    losses = []
    for _ in range(30):
        x = start.clone().requires_grad_()
        inner = minioptim.SGD([x := x * 1.0], lr=lr, momentum=0.5, differentiable=True)
        for _ in range(3):
            x.grad = curvature * x
            inner.step()
        loss = (curvature * x * x).sum()
        outer.zero_grad()
        loss.backward()
        outer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]
    assert 0.1 < lr.item() < 0.5


def test_outside_autograd_nothing_is_recorded():
    """Without the option, whatever requires grad, the step is not part of any graph."""
    for case in ("SGD(p, lr=lr, momentum=0.9)", "Adam(p, lr=lr)"):
        p = torch.nn.Parameter(draw((N,), torch.float64, 0))
        lr = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
        p.grad = draw((N,), torch.float64, 1)
        o = build(minioptim, case, [p], lr=lr)
        o.step()
        assert p.is_leaf
        assert all(x.grad_fn is None for x in o.state[p].values())


@pytest.mark.parametrize("case", ["SGD(p, lr=0.1, momentum=0.9)", "Adam(p, amsgrad=True)"])
def test_a_leaf_that_requires_grad_is_refused_as_by_autograd(case):
    for lib in (minioptim, torch.optim):
        p = torch.nn.Parameter(torch.ones(N))
        p.grad = torch.ones(N)
        o = build(lib, f"{case[:-1]}, differentiable=True)", [p])
        with pytest.raises(RuntimeError, match="leaf"):
            o.step()
        assert p.tolist() == [1.0] * N
