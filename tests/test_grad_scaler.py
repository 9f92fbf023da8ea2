"""Loss scaling with PyTorch's own ``GradScaler``: it asks nothing of an optimizer that ours lack.

A small gradient in float16 is zero. So the loss is multiplied by a large power of two before
``backward``, the gradients are divided by it before the step, and a step with an infinite one is
left out.
"""

import copy

import pytest
import torch
from pair import Pair, build, draw, same, unlike

import minioptim

CASES = ["SGD(p, lr=0.1, momentum=0.9)", "Adam(p, lr=0.1)", "AdamW(p, lr=0.1, foreach=True)"]
cuda = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that CUDA can use"),
]
on_each_device = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=cuda)])


def target(step, device):
    """Something to go towards; in the third step it is infinitely far."""
    far = draw((7,), torch.float32, 10 + step)
    return torch.where(torch.tensor(step == 2), torch.inf, far).to(device)


def train(pair, device, scaled, clip=False):
    """Eight steps of both optimizers, from the gradient of a square, and the scales on the way."""
    scalers = [
        torch.amp.GradScaler(device, init_scale=1024.0, growth_interval=3, enabled=scaled)
        for _ in pair.optimizers
    ]
    scales, moved = [], []
    for step in range(8):
        for optimizer, params, scaler in zip(pair.optimizers, pair.params, scalers, strict=True):
            before = params[0].detach().clone()
            optimizer.zero_grad()
            loss = (params[0] - target(step, device)).square().sum()
            if scaled or step != 2:
                scaler.scale(loss).backward()
                if clip:
                    scaler.unscale_(optimizer)
                    torch.nn.utils.clip_grad_norm_(params, 1.0)
                scaler.step(optimizer)
            scaler.update()
        scales.append(scalers[0].get_scale())
        moved.append(not torch.equal(before, params[0]))
        assert scales[-1] == scalers[1].get_scale()
        pair.check()
    return scales, moved


@on_each_device
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_equal_to_torch_and_an_infinite_step_is_left_out(case, clip, device):
    pair = Pair(case, [draw((7,), torch.float32, 0).to(device)])
    scales, moved = train(pair, device, scaled=True, clip=clip)
    # it doubles after three good steps, and halves after a bad one
    assert scales == [1024, 1024, 512, 512, 512, 1024, 1024, 1024]
    assert moved == [True, True, False, True, True, True, True, True]


@on_each_device
@pytest.mark.parametrize("case", CASES)
def test_scaling_by_a_power_of_two_changes_no_bit(case, device):
    ends = []
    for scaled in (False, True):
        pair = Pair(case, [draw((7,), torch.float32, 0).to(device)])
        train(pair, device, scaled)
        ends.append(pair)
    assert all(same(*both) for both in zip(ends[0].params[0], ends[1].params[0], strict=True))
    states = [pair.ours.state_dict() for pair in ends]
    assert unlike(*states) is None  # the step that was left out has not been counted


@on_each_device
def test_a_gradient_too_small_for_float16_arrives(device):
    ends = []
    for scale in (1.0, 2.0**16):
        p = torch.nn.Parameter(torch.ones(3, device=device))
        optimizer = minioptim.SGD([p], lr=2.0**20)
        scaler = torch.amp.GradScaler(device, init_scale=scale)
        loss = (p.half() * torch.tensor(2.0**-20, device=device).half()).float().sum()
        scaler.scale(loss * 2.0**-10).backward()
        scaler.step(optimizer)
        ends.append(p[0].item())
    assert ends == [1.0, 1 - 2.0**-10]


@on_each_device
def test_what_the_scaler_refuses_changes_nothing(device):
    p = torch.nn.Parameter(torch.ones(3, device=device))
    optimizer = minioptim.Adam([p])
    scaler = torch.amp.GradScaler(device)
    scaler.scale(p.sum()).backward()
    before = copy.deepcopy((p.detach(), optimizer.state_dict()))
    with pytest.raises(RuntimeError, match="Closure"):
        scaler.step(optimizer, closure=lambda: None)
    scaler.unscale_(optimizer)
    with pytest.raises(RuntimeError, match="already"):
        scaler.unscale_(optimizer)
    assert torch.equal(p, before[0])
    assert unlike(optimizer.state_dict(), before[1]) is None


def test_it_is_no_optimizer_that_scales_by_itself():
    """A fused optimizer of PyTorch divides the gradients in its kernel, and says so."""
    p = [torch.nn.Parameter(torch.ones(3))]
    for case, says in (("Adam(p)", False), ("Adam(p, fused=True)", True)):
        optimizer = build(torch.optim, case, p)
        assert getattr(optimizer, "_step_supports_amp_scaling", False) == says
    assert not hasattr(minioptim.Adam(p), "_step_supports_amp_scaling")
