"""The module of the chapter on momentum, its theory, and what PyTorch does there."""

import pytest
import torch

import minioptim
from walkthrough import momentum


def ball(lr, m, library=minioptim, **more):
    return lambda params: library.SGD(params, lr=lr, momentum=m, **more)


def halve(step, optimizer):
    if step == 20:
        optimizer.param_groups[0]["lr"] /= 2


def test_the_classical_form_is_pytorchs_until_the_rate_changes():
    def classical(params):
        return momentum.Classical(params, lr=0.05, momentum=0.9)

    for change, together in ((None, True), (halve, False)):
        ways = [
            momentum.roll(make, [1.0, 10.0], 40, change)
            for make in (classical, ball(0.05, 0.9, torch.optim))
        ]
        assert torch.allclose(ways[0][:21], ways[1][:21], rtol=0, atol=1e-14)
        assert torch.allclose(*ways, rtol=0, atol=1e-14) == together


@pytest.mark.parametrize("nesterov", [False, True])
def test_the_matrix_makes_the_next_step(nesterov):
    lr, m, c = 0.3, 0.7, 1.3
    way = momentum.roll(ball(lr, m, torch.optim, nesterov=nesterov), [c], 30)[:, 0]
    matrix = momentum.iteration_matrix(c, lr, m, nesterov)
    if nesterov:  # PyTorch's points are the look-ahead ones: x + m * v
        pair, predicted = torch.tensor([1.0, 0.0]).double(), []
        for _ in range(31):
            predicted.append(pair[0] + m * pair[1])
            pair = matrix @ pair
        predicted = torch.stack(predicted)
    else:
        powers = [torch.linalg.matrix_power(matrix, t)[0, 0] for t in range(31)]
        predicted = torch.stack(powers)
    assert torch.allclose(way, predicted, rtol=0, atol=1e-13)


def test_polyaks_pair_is_the_best():
    lr, m = momentum.best(2, 50)
    best = momentum.rate((2, 50), lr, m)
    assert best == pytest.approx((5 - 1) / (5 + 1), abs=1e-6)  # the root of 25 is 5
    for a in (0.97, 1.0, 1.03):
        for b in (0.97, 1.0, 1.03):
            assert momentum.rate((2, 50), lr * a, m * b) >= best - 1e-7


def test_rates_are_measured_right():
    pairs = [(0.1, 0.0), (0.1, 0.5), (0.3, 0.9)]
    predicted = [float(momentum.rate((1, 4), *pair)) for pair in pairs]
    found = momentum.measured_rates((1.0, 4.0), pairs, steps=100)
    assert found.tolist() == pytest.approx(predicted, abs=5e-3)


def test_steps_are_counted_to_the_last_that_is_too_far():
    c = torch.tensor([1.0], dtype=torch.float64)
    assert momentum.steps_to(ball(0.5, 0.0), c, 1e-3) == 10  # 0.5**10 < 0.001 < 0.5**9
    with pytest.raises(RuntimeError, match="no convergence"):
        momentum.steps_to(ball(2.0, 0.0), c, limit=100)


def test_steps_of_given_gradients():
    steps = momentum.feed(ball(1.0, 0.5), [1.0, 1.0, 0.0])
    assert steps.tolist() == [-1.0, -1.5, -0.75]


def test_the_function_of_three_pieces():
    f = momentum.ThreePieces()
    x = torch.linspace(-3, 4, 1001, dtype=torch.float64)[:, None].requires_grad_()
    (slope,) = torch.autograd.grad(f.value(x).sum(), x)
    assert torch.allclose(slope, f.gradient(x.detach()))
    with torch.no_grad():
        near = torch.tensor([[1 - 1e-9], [1.0], [2 - 1e-9], [2.0]], dtype=torch.float64)
        assert torch.allclose(f.value(near), torch.tensor([12.5, 12.5, 38, 38]).double())
        assert f.value(x).min() >= 0
        assert set(f.hessian(x[:, 0]).diagonal().tolist()) == {1.0, 25.0}


# --- found in PyTorch 2.13.0: each test shows both libraries --------------------------------------


@pytest.mark.parametrize("options", [{}, {"weight_decay": 0.1}, {"maximize": True}])
def test_foreach_nesterov_overwrites_the_gradient(options):
    for library, kept in ((torch.optim, bool(options)), (minioptim, True)):
        w = torch.zeros(2)
        w.grad = torch.ones(2)
        ball(0.1, 0.9, library, nesterov=True, foreach=True, **options)([w]).step()
        assert torch.equal(w.grad, torch.ones(2)) == kept


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_foreach_rounds_the_momentum_to_half_precision(dtype):
    """So a buffer depends on when another tensor of the list has its first gradient."""
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = x.to(dtype)
    listed = [x.clone()]
    torch._foreach_mul_(listed, 0.9)
    rounded = torch.tensor(0.9, dtype=dtype).double()
    assert torch.equal(listed[0], (x.double() * rounded).to(dtype))
    assert torch.equal(x.clone().mul_(0.9), (x.double() * 0.9).to(dtype))
    assert not torch.equal(listed[0], x.mul(0.9))


@pytest.mark.parametrize("nesterov", [False, True])
def test_the_first_differentiable_step(nesterov):
    for library, found in ((torch.optim, 1.0 if not nesterov else 0.9), (minioptim, None)):
        start = torch.ones(1, dtype=torch.float64, requires_grad=True)
        w = start.clone()
        optimizer = ball(0.1, 0.9, library, nesterov=nesterov, differentiable=True)([w])
        w.grad = start.clone()
        optimizer.step()
        right = 1 - 0.1 * (1.9 if nesterov else 1.0)
        (slope,) = torch.autograd.grad(w.sum(), start)
        assert slope.item() == pytest.approx(right if found is None else found, abs=1e-14)


def test_fused_needs_all_first_gradients_in_one_step():
    a, b = torch.zeros(1), torch.zeros(1)
    optimizer = ball(0.1, 0.9, torch.optim, fused=True)([a, b])
    a.grad = torch.ones(1)
    optimizer.step()
    b.grad = torch.ones(1)
    with pytest.raises(TypeError):
        optimizer.step()
