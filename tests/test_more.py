"""The five optimizers of `minioptim.more` against PyTorch's."""

import copy

import pytest
import torch
from pair import COMPLEX, HALF, Pair, build, draw, unlike

import minioptim
from minioptim import blocks, engines, more

SHAPES = [(), (5,), (4, 3), (0,), (17,)]
EXACT = [
    "Adagrad(p)",
    "Adagrad(p, lr=0.1, maximize=True)",
    "Adagrad(p, lr=0.1, weight_decay=0.1)",
    "Adagrad(p, lr=0.1, weight_decay=0.1, maximize=True, eps=1e-3)",
    "Adagrad(p, lr=0.1, lr_decay=0.5, initial_accumulator_value=0.3)",
    "RMSprop(p)",
    "RMSprop(p, lr=0.1, maximize=True)",
    "RMSprop(p, lr=0.1, weight_decay=0.1)",
    "RMSprop(p, lr=0.1, momentum=0.9)",
    "RMSprop(p, lr=0.1, centered=True)",
    "RMSprop(p, lr=0.1, centered=True, momentum=0.9, alpha=0.5, eps=1e-3, maximize=True)",
    "RMSprop([{'params': p[:2]}, {'params': p[2:], 'momentum': 0.5, 'lr': 0.01}], lr=0.1)",
]
EXACT_IN_THE_LOOP = [
    "NAdam(p)",
    "NAdam(p, lr=0.1, maximize=True)",
    "NAdam(p, lr=tensor(0.1))",
    "Adagrad(p, lr=tensor([0.1]))",
    "RMSprop(p, lr=tensor(0.1), momentum=0.9)",
    "NAdam(p, lr=0.1, weight_decay=0.1, momentum_decay=0.1)",
    "NAdam(p, lr=0.1, weight_decay=0.1, decoupled_weight_decay=True, betas=(0.5, 0.9))",
]
CLOSE = [
    "RAdam(p)",
    "RAdam(p, lr=0.1, maximize=True)",
    "RAdam(p, lr=0.1, weight_decay=0.1)",
    "RAdam(p, lr=0.1, weight_decay=0.1, decoupled_weight_decay=True, betas=(0.5, 0.9))",
    "RAdam(p, lr=0.1, eps=1e-3, foreach=True)",
    "RAdam(p, lr=0.1, betas=(0.9, 0.7678067796924252))",  # at step 7 rho is 5 exactly
    "RAdam(p, lr=tensor(0.1, dtype=torch.float64))",
]
MUON = [
    "Muon(p)",
    "Muon(p, lr=0.1, weight_decay=0.0)",
    "Muon(p, lr=0.1, momentum=0.5, weight_decay=0.5)",
    "Muon(p, lr=0.1, nesterov=False)",
    "Muon(p, lr=tensor([0.1], dtype=torch.float64), weight_decay=0.3)",
    "Muon(p, lr=0.1, adjust_lr_fn='match_rms_adamw')",
    "Muon(p, lr=0.1, adjust_lr_fn='original', ns_steps=2, ns_coefficients=(2.0, -1.5, 0.5))",
]


@pytest.fixture(autouse=True)
def _by_name(monkeypatch):
    """Let the cases find the classes of `more` where those of PyTorch are: in one namespace."""
    for name in ("Adagrad", "RMSprop", "NAdam", "RAdam", "Muon"):
        monkeypatch.setattr(minioptim, name, getattr(more, name), raising=False)


def run(case, dtype, shapes=SHAPES, steps=8, missing=True, check=Pair.check):
    pair = Pair(case, [draw(shape, dtype, seed) for seed, shape in enumerate(shapes)])
    for step in range(steps):
        grads = [draw(shape, dtype, 100 * step + k) for k, shape in enumerate(shapes, start=10)]
        pair.step([None if missing and (step + k) % 3 == 0 else g for k, g in enumerate(grads)])
        check(pair)


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("case", EXACT)
def test_equal_to_the_last_bit(case, foreach):
    half = () if case.startswith("Adagrad") and foreach else HALF  # see the test below
    for dtype in (torch.float64, torch.float32, *half, *COMPLEX):
        run(f"{case[:-1]}, foreach={foreach})", dtype)


@pytest.mark.parametrize("case", EXACT_IN_THE_LOOP)
def test_equal_to_the_last_bit_in_the_loop(case):
    for dtype in (torch.float64, torch.float32, *HALF):
        run(case, dtype)
    run(case, torch.complex128, steps=12, check=close)  # weight decay sees pairs in PyTorch only


def test_adagrad_in_half_precision_equals_the_loop_of_torch_in_both_modes():
    for foreach in (False, True):
        for dtype in HALF:
            start = draw((1000,), dtype, 0)
            params = [torch.nn.Parameter(start.clone()) for _ in range(2)]
            ours = more.Adagrad(params[:1], lr=0.1, foreach=foreach)
            theirs = torch.optim.Adagrad(params[1:], lr=0.1, foreach=False)
            for step in range(5):
                for p, optimizer in zip(params, (ours, theirs), strict=True):
                    p.grad = draw((1000,), dtype, 1 + step)
                    optimizer.step()
            assert torch.equal(*params)


def test_adagrad_in_half_precision_differs_between_the_two_modes_of_torch():
    """Its foreach mode rounds lr * g to 16 bits before the division, its loop does not."""
    ends = []
    for foreach in (False, True):
        p = torch.nn.Parameter(draw((1000,), torch.float16, 0))
        optimizer = torch.optim.Adagrad([p], lr=0.1, foreach=foreach)
        for step in range(3):
            p.grad = draw((1000,), torch.float16, 1 + step)
            optimizer.step()
        ends.append(p.detach())
    assert 10 < (ends[0] != ends[1]).sum() < 500
    torch.testing.assert_close(*ends, rtol=0, atol=2e-3)


def close(pair):
    for ours, theirs in zip(*pair.params, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    groups = [optimizer.state_dict()["param_groups"] for optimizer in pair.optimizers]
    assert unlike(*groups) is None


@pytest.mark.parametrize("case", CLOSE)
def test_close_in_double_precision(case):
    for dtype in (torch.float64, torch.complex128):
        run(case, dtype, steps=12, check=close)


@pytest.mark.parametrize("case", MUON)
def test_muon_is_equal_in_the_loop(case):
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        if dtype == torch.bfloat16 and "nesterov=False" in case:
            continue  # test_muon_keeps_its_buffer
        run(case, dtype, shapes=[(4, 3), (3, 4), (5, 5), (1, 6)])


def test_muon_keeps_its_buffer():
    """PyTorch 2.13 normalises the buffer itself if it is bfloat16 and nesterov is off.

    The conversion to bfloat16 is then no copy, and a division in place goes through to the state.
    Mended in PyTorch by pull request 194664.
    """
    start, g = draw((3, 4), torch.bfloat16, 0), draw((3, 4), torch.bfloat16, 1)
    pair = Pair("Muon(p, momentum=0.9, nesterov=False)", [start])
    pair.step([g])
    ours, theirs = (o.state_dict()["state"][0]["momentum_buffer"] for o in pair.optimizers)
    assert torch.equal(ours, torch.zeros_like(g).lerp_(g, 1 - 0.9))
    assert abs(theirs.norm().item() - 1) < 0.01 < (ours - theirs).abs().max()


def test_orthogonalize_flattens_the_singular_values():
    x = draw((6, 40), torch.float64, 0)
    y = more.orthogonalize(x, (3.4445, -4.775, 2.0315), 5, 1e-7).double()
    assert y.shape == x.shape
    values = torch.linalg.svdvals(y)
    assert 0.6 < values.min() <= values.max() < 1.3
    u, _, v = torch.linalg.svd(x, full_matrices=False)
    assert ((u.T @ y @ v.T).diagonal() - values.mean()).abs().max() < 0.35
    assert torch.equal(more.orthogonalize(x.T, (3.4445, -4.775, 2.0315), 5, 1e-7), y.T.bfloat16())


BAD = [
    "Adagrad(p, lr=-1)",
    "Adagrad(p, lr=float('nan'))",
    "Adagrad(p, lr=tensor([1.0, 2.0]))",
    "Adagrad(p, lr_decay=-1)",
    "Adagrad(p, initial_accumulator_value=-1)",
    "Adagrad(p, eps=-1)",
    "RMSprop(p, alpha=-1)",
    "RMSprop(p, momentum=-1)",
    "RMSprop(p, weight_decay=-1)",
    "NAdam(p, momentum_decay=-1)",
    "NAdam(p, betas=(0.9, 1.0))",
    "RAdam(p, betas=(-0.1, 0.9))",
    "RAdam(p, eps=-1)",
    "Muon(p, momentum=-1)",
    "Muon(p, adjust_lr_fn='none')",
    "Muon([x.flatten() for x in p])",
    "Muon([])",
]


@pytest.mark.parametrize("case", BAD)
def test_a_bad_argument_raises_what_torch_raises(case):
    x = draw((2, 3), torch.float32, 0)
    for library in (minioptim, torch.optim):
        with pytest.raises(ValueError, match=r"\w"):
            build(library, case, [x.clone().requires_grad_()], float=float)


@pytest.mark.parametrize("name", ["Adagrad", "RMSprop", "NAdam", "RAdam", "Muon"])
def test_refused_before_anything_changed(name):
    p = torch.nn.Parameter(draw((2, 3), torch.float32, 0))
    before, optimizer = p.detach().clone(), getattr(more, name)([p])
    state = {key: dict(value) for key, value in optimizer.state.items()}
    p.grad = torch.ones(2, 3).to_sparse()
    with pytest.raises(RuntimeError, match="dense"):
        optimizer.step()
    assert torch.equal(p, before)
    assert dict(optimizer.state) == state


@pytest.mark.parametrize(
    ("name", "change"),
    [("RMSprop", {"momentum": 0.5}), ("RMSprop", {"centered": True})],
)
def test_an_option_that_comes_too_late_is_refused_before_anything_changed(name, change):
    """Momentum or centering switched on after the first step has no state. Found by a search."""
    for library in (more, torch.optim):
        p = torch.nn.Parameter(draw((2, 3), torch.float32, 0))
        optimizer = getattr(library, name)([p])
        p.grad = torch.ones(2, 3)
        optimizer.step()
        before = copy.deepcopy([p.detach(), optimizer.state_dict()["state"]])
        optimizer.param_groups[0].update(change)
        with pytest.raises(KeyError):
            optimizer.step()
        if library is more:
            assert unlike([p.detach(), optimizer.state_dict()["state"]], before) is None


def test_what_is_not_supported_is_refused():
    p = [torch.nn.Parameter(torch.ones(2, 3))]
    for case in (
        "NAdam(p, foreach=True)",
        "NAdam(p, differentiable=True)",
        "RAdam(p, capturable=True)",
        "RMSprop(p, capturable=True)",
    ):
        with pytest.raises(NotImplementedError):
            build(minioptim, case, p)
    muon = more.Muon(p)
    with pytest.raises(ValueError, match="matrices"):
        muon.add_param_group({"params": [torch.nn.Parameter(torch.ones(3))]})
    assert len(muon.param_groups) == 1
    complex_muon = more.Muon([q := torch.nn.Parameter(torch.ones(2, 2, dtype=torch.complex64))])
    q.grad = torch.ones_like(q)
    with pytest.raises(RuntimeError, match="real"):
        complex_muon.step()


@pytest.mark.parametrize(
    "case",
    ["Adagrad(p)", "RMSprop(p, momentum=0.9, centered=True)", "NAdam(p)", "RAdam(p)", "Muon(p)"],
)
def test_state_goes_from_one_library_to_the_other(case):
    pair = Pair(case, [draw((3, 4), torch.float64, 0)])
    pair.step([draw((3, 4), torch.float64, 1)])
    saved = [copy.deepcopy(optimizer.state_dict()) for optimizer in pair.optimizers]
    pair.ours.load_state_dict(saved[1])
    pair.theirs.load_state_dict(saved[0])
    for step in range(3):
        pair.step([draw((3, 4), torch.float64, 2 + step)])
        close(pair)


@pytest.mark.parametrize("name", ["Adagrad", "RMSprop", "NAdam", "RAdam"])
def test_numbers_of_the_state_depend_on_no_default(name):
    """They are in float32, on the CPU, even where new tensors are in half precision elsewhere."""
    start, g = draw((3,), torch.float32, 0), draw((3,), torch.float32, 1)
    torch.set_default_dtype(torch.float16)
    try:
        pair = Pair(f"{name}(p)", [start])
        pair.step([g])
        saved = [optimizer.state_dict()["state"] for optimizer in pair.optimizers]
        assert saved[0][0]["step"].dtype == torch.float32
        close(pair) if name == "RAdam" else pair.check()
    finally:
        torch.set_default_dtype(torch.float32)
    p = torch.nn.Parameter(start.clone())
    with torch.device("meta"):
        optimizer = getattr(more, name)([p])
        p.grad = g
        optimizer.step()
    assert unlike(optimizer.state_dict()["state"], saved[0]) is None


@pytest.mark.parametrize(
    "case",
    ["Adagrad(p, lr=lr)", "RMSprop(p, lr=lr, momentum=0.9, centered=True)", "RAdam(p, lr=lr)"],
)
def test_autograd_goes_through_the_steps(case):
    """Eight, because RAdam has a denominator from the sixth on."""

    def run(lr, start, *grads):
        p = start.clone()
        optimizer = build(minioptim, f"{case[:-1]}, differentiable=True)", [p], lr=lr)
        for p.grad in grads:
            optimizer.step()
        return p

    inputs = [
        torch.tensor(0.1, dtype=torch.float64),
        *(draw((2,), torch.float64, i) for i in range(9)),
    ]
    assert torch.autograd.gradcheck(run, [x.requires_grad_() for x in inputs])


@pytest.mark.parametrize("name", ["Adagrad", "RMSprop", "NAdam", "RAdam", "Muon"])
def test_which_engine_runs(name):
    """A rule that looks at one element at a time may run in blocks, and as a list."""
    p = torch.nn.Parameter(torch.ones(2, 2))
    p.grad = torch.ones(2, 2)
    optimizer = getattr(more, name)([p])
    group, in_loop = optimizer.param_groups[0], name in ("NAdam", "Muon")
    assert optimizer._plan(group)[0] is (engines.loop if in_loop else blocks.loop)
    group["foreach"] = True
    assert optimizer._plan(group)[0] is (engines.loop if in_loop else engines.foreach)


@pytest.mark.parametrize("case", ["NAdam(p)", "Muon(p)"])
def test_what_runs_in_the_loop_does_so_whatever_a_group_says(case):
    """As where the state of PyTorch's class was loaded, which was saved with foreach=True."""
    pair = Pair(case, [draw((3, 4), torch.float64, i) for i in range(2)])
    for optimizer in pair.optimizers:
        optimizer.param_groups[0]["foreach"] = True
    for step in range(3):
        pair.step([draw((3, 4), torch.float64, 10 * step + i) for i in range(2)])
        close(pair)


def test_after_loading_a_group_of_muon_has_an_option_more():
    """PyTorch's base class adds a default while it loads, and Muon has no such option itself."""
    pair = Pair("Muon(p)", [draw((3, 4), torch.float64, 0)])
    for optimizer in pair.optimizers:
        optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(2, 2))]})
    assert "differentiable" in pair.theirs.param_groups[1]
    assert pair.ours.param_groups[1].keys() == pair.theirs.param_groups[1].keys()


def test_a_planted_error_is_seen(monkeypatch):
    class Planted(more.RMSprop):
        @staticmethod
        def scalars(step, *, lr, alpha, eps, momentum):
            return more.RMSprop.scalars(step, lr=lr, alpha=alpha, eps=eps * 2, momentum=momentum)

    monkeypatch.setattr(minioptim, "RMSprop", Planted, raising=False)
    with pytest.raises(AssertionError, match="parameter"):
        run("RMSprop(p, eps=1e-3)", torch.float64)


def test_muon_has_what_it_loads():
    one, two = (torch.nn.Parameter(draw((3, 4), torch.float64, i)) for i in range(2))
    one.grad = torch.ones_like(one)
    source, target = more.Muon([one], lr=0.5), more.Muon([two])
    source.step()
    target.load_state_dict(source.state_dict())
    assert target.param_groups[0]["lr"] == 0.5
    (key,) = source.state[one]
    assert torch.equal(target.state[two][key], source.state[one][key])
