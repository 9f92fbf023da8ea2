"""What comparing the optimizers has found in PyTorch 2.13.0. Each test shows both libraries.

Where PyTorch's numbers are the same either way, this package does the right thing. Where they are
not, it gives PyTorch's numbers, and says so in its documentation.
"""

import copy

import pytest
import torch
from pair import Pair, build, draw, same, unlike

import minioptim

BOTH = pytest.mark.parametrize("lib", [minioptim, torch.optim], ids=["minioptim", "torch"])


def one(value=1.0, **options):
    p = torch.nn.Parameter(torch.tensor([value], **options))
    p.grad = torch.ones_like(p)
    return p


# --- PyTorch does damage or fails, this package does not ------------------------------------------


@pytest.mark.parametrize(
    ("options", "damaged"),
    [("", 1.9), (", foreach=False", 1.0), (", weight_decay=0.1", 1.0), (", maximize=True", 1.0)],
)
def test_nesterov_with_foreach_writes_into_the_gradient(options, damaged):
    """1.0 becomes 1 + 0.9 * 1. On CUDA foreach is the default; the parameters are the same."""
    case = f"SGD(p, lr=0.1, momentum=0.9, nesterov=True{options or ', foreach=True'})"
    if "foreach" not in case:
        case = f"{case[:-1]}, foreach=True)"
    found = []
    for lib in (minioptim, torch.optim):
        p = one()
        build(lib, case, [p]).step()
        found.append((p.item(), p.grad.item()))
    assert found[0] == (found[1][0], 1.0)
    assert found[1][1] == pytest.approx(damaged)


def test_gradients_left_over_by_nesterov_change_the_next_step():
    """Whoever steps twice from one gradient (or accumulates without zeroing) gets other numbers."""
    ends = {}
    for lib in (minioptim, torch.optim):
        for foreach in (False, True):
            p = one()
            o = lib.SGD([p], lr=0.1, momentum=0.9, nesterov=True, foreach=foreach)
            o.step(), o.step()
            ends[lib.__name__, foreach] = p.item()
    assert ends["minioptim", False] == ends["minioptim", True] == ends["torch.optim", False]
    assert ends["torch.optim", True] != ends["torch.optim", False]


def test_the_first_step_is_lost_to_autograd_in_sgd_with_momentum():
    """PyTorch's buffer is a detached copy. Of x = -0.1 * g, nothing is left to differentiate."""
    slopes = {}
    for lib in (minioptim, torch.optim):
        g = torch.tensor([2.0], dtype=torch.float64, requires_grad=True)
        p = torch.zeros(1, dtype=torch.float64, requires_grad=True).clone()
        p.grad = g
        lib.SGD([p], lr=0.1, momentum=0.9, differentiable=True).step()
        (slope,) = torch.autograd.grad(p.sum(), g, allow_unused=True)
        slopes[lib.__name__] = slope
    assert slopes["minioptim"].item() == -0.1
    assert slopes["torch.optim"] is None


@pytest.mark.parametrize(
    ("case", "fails"),
    [
        ("SGD(p, lr=lr, momentum=0.9)", True),
        ("SGD(p, lr=lr, momentum=0.9, nesterov=True)", False),
        ("Adam(p, lr=lr, amsgrad=True)", True),
        ("AdamW(p, lr=lr, amsgrad=True)", True),
        ("Adam(p, lr=lr)", False),
    ],
)
def test_several_differentiable_steps(case, fails):
    """The buffer that autograd saved is overwritten by the next step."""
    for lib in (minioptim, torch.optim):
        lr = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
        p = torch.ones(2, dtype=torch.float64, requires_grad=True).clone()
        o = build(lib, f"{case[:-1]}, differentiable=True)", [p], lr=lr)
        for i in range(3):
            p.grad = draw((2,), torch.float64, i).requires_grad_()
            o.step()
        if lib is torch.optim and fails:
            with pytest.raises(RuntimeError, match="modified by an inplace operation"):
                p.sum().backward()
        else:
            p.sum().backward()
            assert lr.grad.abs() > 0.1


@pytest.mark.parametrize(
    ("options", "error"),
    [({}, TypeError), ({"momentum": 0.9, "nesterov": True, "lr": 0.1}, RuntimeError)],
)
def test_sgd_takes_foreach_and_differentiable_together_and_cannot_run_them(options, error):
    """List calls take no tensor for alpha, and Nesterov's writes into the gradient, a leaf."""
    for lib, expected in (minioptim, AssertionError), (torch.optim, error):
        lr = torch.tensor(0.1, requires_grad=True)
        p = torch.ones(2, requires_grad=True).clone()
        p.grad = torch.ones(2, requires_grad=True)
        o = lib.SGD([p], foreach=True, differentiable=True, **{"lr": lr, **options})
        with pytest.raises(expected):
            o.step()


def test_hooks_of_a_subclass_run_twice_once_a_plain_optimizer_was_built():
    """PyTorch patches ``step`` of a class when its first instance is made."""
    for lib, expected in (minioptim, [1, 1]), (torch.optim, [1, 2]):

        class Plain(lib.Optimizer):
            def __init__(self, params):
                super().__init__(params, {"lr": 0.1})

            def step(self, closure=None):
                return closure

        class Logging(Plain):
            def step(self, closure=None):
                return super().step(closure)

        counts = []
        for _ in range(2):
            o, calls = Logging([one()]), []
            o.register_step_post_hook(lambda *args, calls=calls: calls.append(1))
            o.step()
            counts.append(len(calls))
            Plain([one()])  # nobody uses it
        assert counts == expected


def test_tensor_betas_where_foreach_is_the_default_raise_in_pytorch(monkeypatch):
    """For a tensor lr PyTorch falls back to the loop; for tensor betas it forgets to."""
    from importlib import import_module

    home = import_module("torch.optim.optimizer")
    monkeypatch.setattr(home, "_get_foreach_kernels_supported_devices", lambda: ["cpu"])
    monkeypatch.setattr(minioptim.optimizer, "FOREACH_DEVICES", ("cpu",))
    for lib in (minioptim, torch.optim):
        lib.Adam([one()], lr=torch.tensor(0.1)).step()
    betas = torch.tensor(0.9), torch.tensor(0.999)
    minioptim.Adam([one()], betas=betas).step()
    with pytest.raises(ValueError, match="beta1 as a Tensor is not supported"):
        torch.optim.Adam([one()], betas=betas).step()


def test_a_failed_step_has_moved_the_groups_before_it():
    for lib, moved in (minioptim, False), (torch.optim, True):
        p, q = one(), one()
        q.grad = q.grad.to_sparse()
        o = lib.Adam([{"params": [p]}, {"params": [q]}], lr=0.1)
        with pytest.raises(RuntimeError, match=r"sparse|dense"):
            o.step()
        assert (p.item() != 1.0) == moved
        assert bool(o.state) == moved


def test_a_group_that_is_refused_has_been_written_to():
    for lib, written in (minioptim, False), (torch.optim, True):
        p = one()
        o = lib.SGD([p], lr=0.5)
        group = {"params": p}
        with pytest.raises(ValueError, match="group"):
            o.add_param_group(group)
        assert (group.get("lr") == 0.5) == written
        assert isinstance(group["params"], list) == written


# --- strange numbers, and the same ones here ------------------------------------------------------


@BOTH
def test_half_precision_foreach_depends_on_what_another_tensor_does(lib):
    """``_foreach_mul_(x, 0.9)`` and ``x.mul_(0.9)`` round differently in bfloat16.

    With foreach, the momentum of a tensor is computed by the first if all tensors of its group have
    a buffer, else by the second: the bits of one tensor depend on when another gets its gradient.
    """
    ends = []
    for late in (0, 2):
        p, q = (torch.nn.Parameter(draw((1000,), torch.bfloat16, i)) for i in range(2))
        o = lib.SGD([p, q], lr=0.1, momentum=0.9, foreach=True)
        for step in range(4):
            p.grad = draw((1000,), torch.bfloat16, 10 + step)
            q.grad = p.grad if step >= late else None
            o.step()
        ends.append(o.state[p]["momentum_buffer"])
    differ = int((ends[0] != ends[1]).sum())
    assert 50 < differ < 500


@BOTH
def test_loop_and_foreach_differ_in_half_precision(lib):
    ends = []
    for foreach in (False, True):
        p = torch.nn.Parameter(draw((1000,), torch.float16, 0))
        o = lib.Adam([p], eps=1e-4, foreach=foreach)
        for step in range(10):
            p.grad = draw((1000,), torch.float16, 10 + step)
            o.step()
        ends.append(o.state[p]["exp_avg_sq"])
    assert 10 < int((ends[0] != ends[1]).sum()) < 500


@BOTH
def test_a_bfloat16_mean_with_a_tensor_beta_takes_another_beta(lib):
    """It averages with 1 - bfloat16(0.9) = 0.1016, and corrects the bias as if with 0.1."""
    means = []
    for betas in ((0.9, 0.999), (torch.tensor(0.9), torch.tensor(0.999))):
        p = one(dtype=torch.bfloat16)
        o = lib.Adam([p], betas=betas)
        o.step()
        means.append(o.state[p]["exp_avg"].item())
    assert means == [0.10009765625, 0.1015625]


@BOTH
def test_float16_adam_with_the_default_eps_divides_zero_by_zero(lib):
    """1e-8 is 0 in float16, so a gradient of 0 gives 0 / (sqrt(0) + 0)."""
    for dtype, finite in (torch.float16, False), (torch.bfloat16, True), (torch.float32, True):
        p = one(dtype=dtype)
        p.grad.zero_()
        lib.Adam([p]).step()
        assert bool(p.isfinite()) == finite


@BOTH
def test_amsgrad_cannot_be_switched_on_later(lib):
    p = one()
    o = lib.Adam([p])
    o.step()
    o.param_groups[0]["amsgrad"] = True
    with pytest.raises(KeyError, match="max_exp_avg_sq"):
        o.step()


@BOTH
def test_momentum_switched_off_and_on_continues_from_a_stale_buffer(lib):
    p = one()
    o = lib.SGD([p], lr=0.1, momentum=0.9)
    for momentum in (0.9, 0.0, 0.0, 0.9):
        o.param_groups[0]["momentum"] = momentum
        o.step()
    assert o.state[p]["momentum_buffer"].item() == pytest.approx(0.9 * 1 + 1)


@BOTH
def test_dampening_spares_the_first_gradient(lib):
    p = one()
    o = lib.SGD([p], lr=0.1, momentum=0.9, dampening=1.0)
    buffers = []
    for _ in range(3):
        o.step()
        buffers.append(o.state[p]["momentum_buffer"].item())
    assert buffers == pytest.approx([1.0, 0.9, 0.81])  # dampening 1 lets no later gradient in


@BOTH
def test_sgd_takes_a_nan_for_a_learning_rate(lib):
    """It asks whether lr is negative, Adam whether it is at least 0: only one refuses nan."""
    lib.SGD([one()], lr=float("nan"))
    with pytest.raises(ValueError, match="nan"):
        lib.Adam([one()], lr=float("nan"))


@BOTH
def test_adam_with_betas_of_two_kinds_of_zero(lib):
    """Integers are no floats, so betas of (0, 0) are refused and those of (0.0, 0.0) are not."""
    lib.Adam([one()], betas=(0.0, 0.0)).step()
    with pytest.raises(ValueError, match=r"two floats|both floats"):
        lib.Adam([one()], betas=(0, 0))


# --- corners where equality is a bound, or is not meant -------------------------------------------


def test_a_0dim_parameter_with_tensor_betas():
    """``sqrt(v) / root`` promotes to the wider dtype of two 0-dim tensors, ``div_`` does not."""
    double = {"dtype": torch.float64}
    worst = 0.0
    for dtype in (torch.float32, torch.bfloat16):
        betas = torch.tensor(0.9, **double), torch.tensor(0.99, **double)
        pair = Pair("Adam(p, lr=0.1, betas=betas)", [draw((), dtype, 0)], betas=betas)
        for step in range(20):
            pair.step([draw((), dtype, 1 + step)])
            a, b = (params[0].detach().double() for params in pair.params)
            worst = max(worst, ((a - b).abs() / torch.finfo(dtype).eps).item())
    assert 0 < worst <= 16
    pair = Pair("Adam(p, lr=0.1, betas=betas)", [draw((1,), torch.float32, 0)], betas=betas)
    for step in range(20):
        pair.step([draw((1,), torch.float32, 1 + step)])
        pair.check()  # one dimension more, and every bit is the same


def test_differentiable_adam_corrects_its_bias_in_the_dtype_of_the_count():
    """In PyTorch ``1 - beta ** step`` is float32 there, also for a float64 parameter."""
    ends = {}
    for lib in (minioptim, torch.optim):
        for differentiable in (False, True):
            p = draw((3,), torch.float64, 0)
            o = lib.Adam([p], lr=0.1, differentiable=differentiable)
            p.grad = draw((3,), torch.float64, 1)
            with torch.no_grad():
                o.step()
            ends[lib.__name__, differentiable] = p
    exact = ends["torch.optim", False]
    assert same(ends["minioptim", False], exact)
    assert (ends["minioptim", True] - exact).abs().max() < 1e-15
    assert 1e-9 < (ends["torch.optim", True] - exact).abs().max() < 1e-5


def test_a_tensor_rate_that_requires_grad_without_differentiable():
    """PyTorch multiplies by it in another order (``addcmul``) than by any other tensor rate."""
    worst = 0.0
    for seed in range(20):
        lr = torch.tensor(0.1, requires_grad=True)
        pair = Pair("SGD(p, lr=lr)", [draw((50,), torch.float32, seed)], lr=lr)
        pair.step([draw((50,), torch.float32, 100 + seed)])
        a, b = (params[0].detach() for params in pair.params)
        worst = max(worst, (a - b).abs().max().item())
    assert worst <= 4e-7


@pytest.mark.parametrize("case", ["Adam(p)", "SGD(p, momentum=0.9)", "Adam(p, foreach=True)"])
def test_a_parameter_twice_in_a_group(case):
    """Adam with foreach counts both steps before it takes either; all else is equal."""
    runs = []
    for lib in (minioptim, torch.optim):
        p = torch.nn.Parameter(draw((3,), torch.float32, 0))
        with pytest.warns(UserWarning, match="twice|duplicate"):
            o = build(lib, case, [p, p])
        p.grad = draw((3,), torch.float32, 1)
        o.step()
        runs.append(copy.deepcopy([p.detach(), o.state_dict()]))
    assert (unlike(*runs) is None) == ("foreach" not in case)
    torch.testing.assert_close(runs[0][0], runs[1][0], rtol=1e-3, atol=1e-3)


# --- fused and flat -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "Adagrad"])
def test_fused_kernels_do_not_raise_the_version(name):
    """So a step between forward and backward is an error without them, and silent with them."""

    def gradient(**options):
        w = torch.ones(3, requires_grad=True)
        w.grad = torch.ones(3)
        optimizer = getattr(torch.optim, name)([w], lr=0.5, **options)
        loss, version = (w**2).sum(), w._version
        optimizer.step()
        assert (w._version == version) == ("fused" in options)
        w.grad = None
        loss.backward()
        return w.grad[0].item()

    for options in ({}, {"foreach": True}):
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            gradient(**options)
    assert gradient(fused=True) == pytest.approx(1, abs=0.02)  # and 2 is right


@pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"),
    reason="without these vector instructions nothing is left over",
)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_the_last_elements_are_rounded_differently_in_half_precision(dtype):
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.rand(6400, generator=generator).to(dtype) for _ in range(2))
    whole = x.add(y, alpha=0.1)
    pieces = [a.add(b, alpha=0.1) for a, b in zip(x.split(5), y.split(5), strict=True)]
    assert torch.equal(whole, torch.cat(pieces)) == (dtype == torch.float32)


# --- saving and loading ---------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_nadam_goes_on_otherwise_after_loading_in_float64(dtype):
    """Loading gives the product of momenta the dtype of the parameter; it was made in float32."""

    def made(*saved):
        p = torch.ones(3, dtype=dtype, requires_grad=True)
        p.grad = torch.full_like(p, 0.1)
        optimizer = torch.optim.NAdam([p])
        for state_dict in saved:
            optimizer.load_state_dict(copy.deepcopy(state_dict))
        return optimizer, p

    first, p = made()
    first.step()
    second, q = made(first.state_dict())
    assert first.state[p]["mu_product"].dtype == torch.float32
    assert second.state[q]["mu_product"].dtype == dtype
    with torch.no_grad():
        q.copy_(p)
    for _ in range(20):
        first.step()
        second.step()
    assert torch.equal(p, q) == (dtype == torch.float32)
    torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-6)
