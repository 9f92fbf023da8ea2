"""What only a GPU can prove. `make test-cuda` runs these; without a GPU they are skipped.

On any machine they run on the device of `elsewhere`, all but those that need a GPU's streams:
``pytest -p elsewhere -m cuda tests/test_cuda.py``.
"""

import copy
import sys
import warnings
from contextlib import contextmanager, nullcontext

import pytest
import test_flat
import test_fused
import test_more
import torch
from pair import COMPLEX, REAL, Pair, build, draw, same
from test_more import _by_name  # noqa: F401 - a fixture: finds the classes of `more` by name
from test_parity import ADAM, GROUPS, SGD, SHAPES, TENSORS, with_engine
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import minioptim
from minioptim.flat import flatten

PRETENDED = "elsewhere" in sys.modules
DEVICE = torch.device("elsewhere:0" if PRETENDED else "cuda:0")
pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(
        not (PRETENDED or torch.cuda.is_available()), reason="needs a GPU that CUDA can use"
    ),
]
needs_streams = pytest.mark.skipif(PRETENDED, reason="needs the streams of a GPU")
LOOP_AND_FOREACH = pytest.mark.parametrize("foreach", [None, False, True])


def there(shape, dtype, seed):
    """The numbers of `draw`, on the device."""
    return draw(shape, dtype, seed).to(DEVICE)


def run(case, dtype, shapes=SHAPES, steps=3, check=Pair.check):
    """Step both libraries on the device, with gradients that are missing now and then."""
    pair = Pair(case, [there(shape, dtype, seed) for seed, shape in enumerate(shapes)])
    for step in range(steps):
        grads = [there(shape, dtype, 100 * step + k) for k, shape in enumerate(shapes, start=10)]
        pair.step([None if (step + k) % 3 == 0 else g for k, g in enumerate(grads)])
        check(pair)
    return pair


def assert_at_home(pair):
    """State is where its parameter is; only the count of steps is on the CPU."""
    for optimizer, params in zip(pair.optimizers, pair.params, strict=True):
        for p in params:
            assert p.device == DEVICE
            for key, value in optimizer.state[p].items():
                if isinstance(value, torch.Tensor):
                    counts = key == "step" or value.dim() == 0 != p.dim()
                    assert value.device == (torch.device("cpu") if counts else DEVICE), key


@contextmanager
def no_waiting():
    """An error where the CPU waits for the device, as far as PyTorch notices."""
    with warnings.catch_warnings(action="ignore"):  # it calls the mode a prototype
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


# --- equal to PyTorch, to the last bit ------------------------------------------------------------


@LOOP_AND_FOREACH
@pytest.mark.parametrize("case", [*SGD, *ADAM, *GROUPS])
def test_equal_to_torch(case, foreach):
    for dtype in REAL:
        assert_at_home(run(with_engine(case, foreach), dtype))


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("case", SGD + ADAM)
def test_complex_parameters(case, foreach):
    for dtype in COMPLEX:
        assert_at_home(run(with_engine(case, foreach), dtype))


@pytest.mark.parametrize("case", TENSORS)
def test_numbers_given_as_tensors_of_the_cpu(case):
    for dtype in REAL:
        assert_at_home(run(with_engine(case, False), dtype))


@LOOP_AND_FOREACH
@pytest.mark.parametrize("case", test_more.EXACT + test_more.EXACT_IN_THE_LOOP)
def test_more_optimizers(case, foreach):
    if foreach is not False and case in test_more.EXACT_IN_THE_LOOP:
        pytest.skip("NAdam has no foreach here")
    # PyTorch's foreach multiplies g by lr before it divides, which on CUDA rounds once more
    check = close if case.startswith("Adagrad") and foreach is not False else Pair.check
    for dtype in (torch.float64, torch.float32):
        run(with_engine(case, foreach), dtype, test_more.SHAPES, check=check)


def close(pair):
    """Equal up to a few units of rounding."""
    for p, q in zip(*pair.params, strict=True):
        bound = 4 * torch.finfo(p.dtype).eps
        torch.testing.assert_close(p, q, rtol=bound, atol=bound)


@pytest.mark.parametrize("case", ["SGD(p, momentum=0.9)", "AdamW(p, amsgrad=True)"])
def test_differentiable_is_close(case, monkeypatch):
    """PyTorch computes the bias corrections in the dtype of the step count here."""
    monkeypatch.setattr(torch, "get_default_dtype", lambda: torch.float64)
    ends = []
    for library in (minioptim, torch.optim):
        p = there((5,), torch.float64, 0)  # not a parameter: a leaf could not be followed
        optimizer = build(library, f"{case[:-1]}, differentiable=True)", [p])
        for step in range(3):
            p.grad = there((5,), torch.float64, 1 + step)
            optimizer.step()
        ends.append(p)
    torch.testing.assert_close(*ends, rtol=0, atol=1e-14)


@pytest.mark.skipif(PRETENDED, reason="needs a GPU: what its kernels compute")
def test_a_single_divisor_becomes_a_factor():
    """So the loop and foreach of Adam differ on CUDA, in both libraries.

    The foreach gives each tensor a number of its own, and those are divided by.
    """
    x = there((1000,), torch.float64, 0)
    each, single = x.clone(), x.clone()
    torch._foreach_div_([each], [0.19])
    torch._foreach_div_([single], 0.19)
    assert same(each.cpu(), x.cpu() / 0.19)
    assert same(single, x * (1 / 0.19))
    assert same(single, x / 0.19)
    assert not same(each, single)
    ends = []
    for foreach in (False, True):
        pair = run(f"Adam(p, lr=0.1, foreach={foreach})", torch.float64, [(1000,)])
        ends.append(pair.params[1][0].detach())
    assert not same(*ends)
    torch.testing.assert_close(*ends, rtol=0, atol=1e-14)


def test_the_default_engine_is_foreach():
    p = torch.nn.Parameter(torch.ones(3, device=DEVICE))
    wanted = minioptim.engines.loop if PRETENDED else minioptim.engines.foreach
    for o in (minioptim.SGD([p]), minioptim.AdamW([p])):
        assert minioptim.optimizer.choose_engine(o.param_groups[0], [p]) is wanted


@LOOP_AND_FOREACH
@pytest.mark.parametrize("library", [minioptim, torch.optim], ids=["minioptim", "torch"])
def test_a_step_between_forward_and_backward_is_an_error(library, foreach):
    """Both engines raise the version of what they write to."""
    w = torch.nn.Parameter(torch.ones(3, device=DEVICE))
    w.grad = torch.ones_like(w)
    loss = (w**2).sum()
    library.AdamW([w], foreach=foreach).step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_schedule_writes_into_a_learning_rate_on_the_device():
    traces = []
    for library in (minioptim, torch.optim):
        p = torch.nn.Parameter(torch.ones(3, device=DEVICE))
        lr = torch.tensor(0.1, device=DEVICE)
        optimizer = library.SGD([p], lr=lr, momentum=0.9)
        scheduler = library.lr_scheduler.ExponentialLR(optimizer, 0.5)
        rates = []
        for _ in range(4):
            p.grad = torch.ones_like(p)
            optimizer.step()
            scheduler.step()
            rates.append(lr.item())
        assert optimizer.param_groups[0]["lr"] is lr
        traces.append((rates, p.tolist()))
    assert traces[0] == traces[1]
    assert traces[0][0][-1] == pytest.approx(0.1 / 16)


# --- devices --------------------------------------------------------------------------------------


@pytest.mark.parametrize("library", ["minioptim", "torch.optim"])
def test_state_saved_on_the_cpu_is_loaded_to_the_device_and_back(library):
    at_first = Pair("AdamW(p, lr=0.1)", [draw((5,), torch.float32, 0)])
    at_first.step([draw((5,), torch.float32, 1)])
    saved = (at_first.ours if library == "minioptim" else at_first.theirs).state_dict()
    pair = Pair("AdamW(p, lr=0.1)", [at_first.params[0][0].detach().to(DEVICE)])
    for o in pair.optimizers:
        o.load_state_dict(copy.deepcopy(saved))
    pair.step([there((5,), torch.float32, 2)])
    pair.check()
    assert_at_home(pair)
    back = Pair("AdamW(p, lr=0.1)", [draw((5,), torch.float32, 0)])
    for o in back.optimizers:
        o.load_state_dict(copy.deepcopy(pair.ours.state_dict()))
    back.step([draw((5,), torch.float32, 3)])
    back.check()


class OneDevice(TorchDispatchMode):
    """Raise if an operation mixes devices; a 0-dim tensor on the CPU counts as a number."""

    seen = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        devices = {x.device for x in tensors if x.dim() or x.device.type != "cpu"}
        assert len(devices) <= 1, f"{function} mixes {devices}"
        self.seen += DEVICE in devices
        return function(*args, **(kwargs or {}))


@LOOP_AND_FOREACH
@pytest.mark.parametrize("case", ["SGD(p, momentum=0.9, weight_decay=0.1)", "AdamW(p)"])
def test_a_group_with_parameters_on_two_devices(case, foreach):
    start = [there((5,), torch.float32, 0), draw((5,), torch.float32, 1)]
    pair = Pair(with_engine(case, foreach), start)
    with OneDevice() as watch:
        for step in range(3):
            pair.step([draw((5,), torch.float32, 10 + step).to(x.device) for x in start])
    assert watch.seen > 0
    pair.check()


def test_a_gradient_from_another_device_is_refused():
    p = torch.nn.Parameter(torch.ones(3, device=DEVICE))
    with pytest.raises(RuntimeError):
        p.grad = torch.ones(3)


# --- compiled, and flat ---------------------------------------------------------------------------


def needs_compiler(test):
    """Triton compiles for CUDA, and for no device that only pretends."""
    reason = "needs a GPU" if PRETENDED else test_fused.missing_compiler("cuda")
    loaded = "ignore:.torch.jit.script_method:DeprecationWarning"
    return pytest.mark.filterwarnings(loaded)(pytest.mark.skipif(bool(reason), reason=reason)(test))


@needs_compiler
@pytest.mark.parametrize(("case", "dtype", "bound"), test_fused.CASES)
def test_fused_is_equal_up_to_rounding(case, dtype, bound, monkeypatch):
    """To the loop, and to the kernel that PyTorch has for CUDA."""
    bound *= 2  # measured: 7.2e-7 for 5e-7, three units in the last place of a number above 2
    test_fused.assert_equal_up_to_rounding(case, dtype, bound, monkeypatch, DEVICE)


@needs_compiler
@pytest.mark.parametrize("case", [test_fused.CASES[k][0] for k in (0, 2)])
def test_a_fused_step_does_not_wait_for_the_device(case):
    p = torch.nn.Parameter(there((50, 70), torch.float32, 0))
    p.grad = there((50, 70), torch.float32, 1)
    optimizer = build(minioptim, case, [p])
    for _ in range(3):  # compiled, asked, called directly
        optimizer.step()
    with no_waiting():
        for _ in range(3):
            optimizer.step()


@needs_compiler
def test_numbers_of_a_fused_step_arrive_whole():
    """Each step hands its numbers over from memory that is gone afterwards, and does not wait."""
    p, q = (torch.nn.Parameter(torch.zeros(100, device=DEVICE)) for _ in range(2))
    rates = torch.arange(1, 301, dtype=torch.float64).tolist()
    for x, mode in ((p, True), (q, False)):
        x.grad = torch.full_like(x, -1.0)
        optimizer = minioptim.SGD([x], lr=0.0, fused=mode)
        optimizer.step()
        torch.cuda._sleep(10**8)  # the device is busy while all steps are queued
        for lr in rates:
            optimizer.param_groups[0]["lr"] = lr
            optimizer.step()
    assert p.tolist() == q.tolist() == [sum(rates)] * 100


@pytest.mark.skipif(PRETENDED, reason="needs a GPU: tensors of other classes are not flattened")
@pytest.mark.parametrize("library", ["minioptim", "torch.optim"])
@pytest.mark.parametrize("name", ["SGD", "AdamW"])
def test_a_flat_parameter_trains_the_same(library, name):
    library = minioptim if library == "minioptim" else torch.optim
    options = {"lr": 0.1} | ({"momentum": 0.9} if name == "SGD" else {})
    plain, flat = (test_flat.small().to(DEVICE) for _ in range(2))
    ends = []
    for module in (plain, flat):
        given = flatten(module) if module is flat else module.parameters()
        optimizer = getattr(library, name)(given, foreach=False, **options)
        for step in range(4):
            optimizer.zero_grad()
            for i, p in enumerate(module.parameters()):
                g = there(p.shape, p.dtype, 100 * step + i)
                (p * g).sum().backward()
            optimizer.step()
        ends.append([p.detach().clone() for p in module.parameters()])
    assert all(p.device == DEVICE for p in flat.parameters())
    assert all(same(x, y) for x, y in zip(*ends, strict=True))


# --- streams and graphs ---------------------------------------------------------------------------


@needs_streams
@LOOP_AND_FOREACH
@pytest.mark.parametrize("case", ["SGD(p, momentum=0.9, nesterov=True)", "AdamW(p, amsgrad=True)"])
def test_steps_on_a_side_stream(case, foreach):
    """The work is queued on the current stream, whichever it is."""
    ends = []
    for stream in (torch.cuda.current_stream(), torch.cuda.Stream()):
        p = torch.nn.Parameter(there((1000, 1000), torch.float32, 0))
        optimizer = build(minioptim, with_engine(case, foreach), [p])
        stream.wait_stream(torch.cuda.default_stream())
        with torch.cuda.stream(stream):
            for step in range(5):
                torch.cuda._sleep(10**7)  # the gradient comes late
                p.grad = p.detach() * (step + 1)
                optimizer.step()
        torch.cuda.default_stream().wait_stream(stream)
        ends.append(p.detach().clone())
    assert same(*ends)


@needs_streams
@LOOP_AND_FOREACH
@pytest.mark.parametrize("case", [*SGD, *ADAM])
def test_a_step_does_not_wait_for_the_device(case, foreach):
    """No number is fetched: the count of steps is on the CPU."""
    p = torch.nn.Parameter(there((5,), torch.float32, 0))
    p.grad = there((5,), torch.float32, 1)
    optimizer = build(minioptim, with_engine(case, foreach), [p])
    with no_waiting():
        for _ in range(2):
            optimizer.step()


def recorded(library, case, capture):
    """A graph that holds one step, recorded after three steps that warm up."""
    p = torch.nn.Parameter(there((5,), torch.float32, 0))
    p.grad = there((5,), torch.float32, 1)
    optimizer = build(library, case, [p])
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            optimizer.step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with capture(), torch.cuda.graph(graph):
        p.grad.mul_(1)  # so that the graph is not empty
        optimizer.step()
    return graph, p


@needs_streams
@pytest.mark.parametrize("case", ["SGD(p, lr=0.1)", "SGD(p, lr=0.1, momentum=0.9)"])
def test_a_recorded_step_of_sgd_can_be_replayed(case):
    """It counts nothing, so nothing is frozen but the learning rate."""
    ends = []
    for library in (minioptim, torch.optim):
        graph, p = recorded(library, case, nullcontext)
        for _ in range(5):
            graph.replay()
        ends.append(p.detach().clone())
    assert same(*ends)
    plain = Pair(case, [there((5,), torch.float32, 0)])
    for _ in range(3 + 5):  # recording is not running
        plain.step([there((5,), torch.float32, 1)])
    assert same(ends[0], plain.params[0][0].detach())


@needs_streams
@pytest.mark.parametrize("case", ["Adam(p, lr=0.1)", "AdamW(p, lr=0.1, foreach=False)"])
def test_a_step_that_counts_cannot_be_recorded(case):
    """The recording would repeat the bias correction of one step for ever."""
    for library in (minioptim, torch.optim):
        recorded(library, case, lambda: pytest.raises(RuntimeError, match="captur"))
