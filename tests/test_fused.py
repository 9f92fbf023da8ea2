"""The compiled engine: equal up to rounding, compiled once for each kind, and clear about limits.

Every kind of step costs seconds of compiling, so the tests of this module share a few: those of
`CASES`. On a machine without a compiler they are skipped, and the rest is not.
"""

import contextlib
import copy
import importlib.util
import shutil
import subprocess
import sys
from fractions import Fraction

import pytest
import torch
from pair import build, draw, unlike
from torch._dynamo.utils import counters

import minioptim
from minioptim import fused, more
from minioptim.engines import NO_PENALTY
from minioptim.engines import loop as engine

# PyTorch's compiler, while it is loaded, uses something that PyTorch declares old
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script_method:DeprecationWarning")

OURS = {**vars(minioptim), "Adagrad": more.Adagrad}


def missing_compiler(device="cpu"):
    try:
        fused.require_compiler(device)
    except RuntimeError as error:
        return str(error)
    return ""


needs_compiler = pytest.mark.skipif(bool(missing_compiler()), reason=missing_compiler())

SHAPES = [(7,), (3, 5), (), (1,), (2, 3, 4, 5), (0, 3), (40, 50)]
ADAM = "Adam(p, lr=0.01, fused=True)"
CASES = [  # dtype, and the largest distance from the loop after five steps: some units of rounding
    (ADAM, torch.float32, 5e-7),
    ("AdamW(p, lr=0.01, amsgrad=True, maximize=True, fused=True)", torch.float32, 5e-7),
    ("SGD(p, 0.1, momentum=0.9, weight_decay=0.1, nesterov=True, fused=True)", torch.float32, 2e-6),
    ("Adagrad(p, lr=0.1, fused=True)", torch.float32, 1e-6),
    ("Adam(p, 0.01, (0.9, 0.99999), weight_decay=0.1, fused=True)", torch.float64, 1e-15),
    ("Adam(p, lr=0.1, fused=True)", torch.bfloat16, 2e-2),
]


class Library:
    """What `build` asks for: classes by name."""

    def __init__(self, names):
        self.__dict__.update(names)


def parameters(dtype=torch.float32, shapes=SHAPES, device="cpu"):
    """Of many shapes, and one whose memory is in another order."""
    made = [draw(shape, dtype, i) for i, shape in enumerate(shapes)]
    turned = draw((2, 3, 4, 5), dtype, 99).to(memory_format=torch.channels_last)
    return [torch.nn.Parameter(x.to(device)) for x in [*made, turned]]


def give_gradients(params, t):
    for i, p in enumerate(params):
        p.grad = torch.empty_like(p).copy_(draw(p.shape, p.dtype, 1000 * t + i))


def run(names, case, dtype, steps=5, device="cpu"):
    params = parameters(dtype, device=device)
    optimizer = build(Library(names), case, params)
    for t in range(steps):
        give_gradients(params, t)
        optimizer.param_groups[0]["lr"] *= 0.9
        optimizer.step()
    return params, optimizer


def distance(a, b):
    return max((x - y).abs().max().item() for x, y in zip(a, b, strict=True) if x.numel())


# --- what it computes -----------------------------------------------------------------------------


def assert_equal_up_to_rounding(case, dtype, bound, monkeypatch, device="cpu"):
    """Five steps of our fused engine, beside our loop and PyTorch's kernel."""
    theirs, _ = run(vars(torch.optim), case, dtype, device=device)
    loop, looped = run(OURS, case.replace("fused=True", "fused=False"), dtype, device=device)
    for name in ("_fused_adam_", "_fused_adamw_", "_fused_sgd_", "_fused_adagrad_"):
        monkeypatch.setattr(torch, name, None)  # ours is not theirs
    ours, optimizer = run(OURS, case, dtype, device=device)
    assert distance(ours, loop) <= bound
    assert distance(ours, theirs) <= 2 * bound
    assert distance(ours, parameters(dtype, device=device)) > 5 * bound
    for p, q in zip(ours, loop, strict=True):
        state, other = optimizer.state[p], looped.state[q]
        assert list(state) == list(other)
        for key in state:
            assert state[key].dtype == other[key].dtype, key
            assert state[key].stride() == other[key].stride(), key
            torch.testing.assert_close(state[key], other[key], rtol=bound, atol=bound)


@needs_compiler
@pytest.mark.parametrize(("case", "dtype", "bound"), CASES)
def test_equal_to_the_loop_and_to_pytorchs_kernel_up_to_rounding(case, dtype, bound, monkeypatch):
    assert_equal_up_to_rounding(case, dtype, bound, monkeypatch)


@needs_compiler
def test_nothing_is_compiled_again(monkeypatch):
    """Neither for a new lr, a new step count or new betas, nor for other sizes and numbers."""
    run(OURS, ADAM, torch.float32, steps=1)
    monkeypatch.setattr(fused, "INDEXABLE", 0)  # ask each time whether the code fits
    before = copy.deepcopy(counters["stats"])
    params = parameters(shapes=[(), (1,), (2,), (3, 3), (4, 4, 4), (9, 1), (1, 8), (65, 3)])
    optimizer = minioptim.Adam(params, fused=True)
    with torch.compiler.set_stance("fail_on_recompile"):
        for t in range(12):
            optimizer.param_groups[0].update(lr=0.1 / (1 + t), betas=(0.5 + t / 50, 0.99), eps=1e-6)
            give_gradients(params, t)
            if t % 3 == 0:
                params[3].grad = None  # from here on two step counts
            optimizer.step()
    assert counters["stats"] == before
    tensor = minioptim.Adam(params, lr=torch.tensor(0.1), fused=True)
    with torch.compiler.set_stance("fail_on_recompile"):
        tensor.step()


@needs_compiler
def test_each_kind_is_compiled_once():
    first = fused._kernel.cache_info().misses
    graphs = counters["stats"]["unique_graphs"]
    for case, dtype, _ in CASES[:3]:
        run(OURS, case, dtype, steps=2)
    assert counters["stats"]["unique_graphs"] - graphs == fused._kernel.cache_info().misses - first
    assert counters["stats"]["unique_graphs"] <= 12


@needs_compiler
def test_the_first_tensor_does_not_decide_how_the_work_is_shared(monkeypatch):
    """A compiler that sees seven elements would write code for one thread, and large tensors wait.

    On a GPU it would take blocks of eight elements, and be ten times as slow for large tensors.
    What it was told and what it wrote is looked at, for times prove nothing.
    """
    written, sizes = [], []
    keep = staticmethod(written.append)
    monkeypatch.setattr("torch._inductor.graph.GraphLowering.save_output_code", keep)
    compile_it = fused.Compiled._compile

    def watched(self, graph, examples):
        sizes.extend(x.node.hint for x in examples if isinstance(x, torch.SymInt))
        return compile_it(self, graph, examples)

    monkeypatch.setattr(fused.Compiled, "_compile", watched)
    run(OURS, "SGD(p, 0.1, fused=True)", torch.float64, steps=1)
    assert sizes == [2**20]  # one for all tensors
    (code,) = written
    assert "#pragma omp parallel\n" in code
    assert "num_threads(" not in code


@needs_compiler
def test_autograd_learns_of_the_step():
    """The version counters move: an old graph is not differentiated with new numbers in it."""
    p = torch.nn.Parameter(torch.full((3,), 3.0))
    p.grad = torch.ones(3)
    optimizer = minioptim.Adam([p], lr=1.0, fused=True)
    loss = (p**3).sum()
    versions = p._version, p.grad._version
    optimizer.step()
    assert (p._version, p.grad._version) == (versions[0] + 1, versions[1])
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
    again = optimizer.state[p]["exp_avg"]._version
    optimizer.step()
    assert optimizer.state[p]["exp_avg"]._version == again + 1

    theirs = torch.nn.Parameter(torch.full((3,), 3.0))
    theirs.grad = torch.ones(3)
    loss = (theirs**3).sum()
    torch.optim.Adam([theirs], lr=1.0, fused=True).step()
    theirs.grad = None
    loss.backward()  # PyTorch 2.13: no error, and a gradient at the wrong place
    assert torch.allclose(theirs.grad, torch.full((3,), 12.0))


@needs_compiler
@pytest.mark.parametrize("case", [case for case, dtype, _ in CASES if dtype == torch.float32])
def test_state_goes_to_the_loop_and_to_pytorch_and_back(case):
    names = (OURS, OURS, vars(torch.optim), vars(torch.optim))
    modes = ("fused=True", "fused=False", "fused=True", "fused=False")
    params, optimizer = run(OURS, case, torch.float32, steps=2)
    saved = copy.deepcopy(optimizer.state_dict())
    ends = []
    for library, mode in zip(names, modes, strict=True):
        again = [torch.nn.Parameter(p.detach().clone()) for p in params]
        other = build(Library(library), case.replace("fused=True", mode), again)
        other.load_state_dict(copy.deepcopy(saved))
        for group in other.param_groups:
            group["fused"] = mode == "fused=True"
        for t in (2, 3):
            give_gradients(again, t)
            other.step()
        ends.append(again)
        back = minioptim.SGD if case.startswith("SGD") else type(optimizer)
        ours = back(again)
        ours.load_state_dict(copy.deepcopy(other.state_dict()))
        give_gradients(again, 4)
        ours.step()
    for end in ends[1:]:
        assert distance(ends[0], end) < 5e-6


# --- the rule, as the compiler gets it ------------------------------------------------------------


@pytest.fixture
def uncompiled(monkeypatch):
    """The step that is handed to the compiler, run as it is, and what the compiler was told."""
    made = []

    def compile(step, **options):
        made.append((step, options))
        return step

    monkeypatch.setattr(torch, "compile", compile)
    monkeypatch.setattr(fused, "require_compiler", lambda device: None)
    fused.clear()
    yield made
    fused.clear()


@pytest.mark.parametrize(("case", "dtype", "bound"), CASES)
def test_uncompiled_equal_to_the_loop_up_to_rounding(case, dtype, bound, uncompiled, monkeypatch):
    loop, looped = run(OURS, case.replace("fused=True", "fused=False"), dtype)
    cut = []
    monkeypatch.setattr(fused, "loop", lambda r, rows, *a: cut.extend(rows) or engine(r, rows, *a))
    ours, optimizer = run(OURS, case, dtype)
    assert {row[0].numel() for row in cut} == {0, 1}  # all others went through the step
    assert distance(ours, loop) <= bound
    for p, q in zip(ours, loop, strict=True):
        state, other = optimizer.state[p], looped.state[q]
        assert list(state) == list(other)
        for key in state:
            assert (state[key].dtype, state[key].shape) == (other[key].dtype, other[key].shape), key
            assert state[key].stride() == other[key].stride(), key
            torch.testing.assert_close(state[key], other[key], rtol=bound, atol=bound)
    assert len({id(step.__code__) for step, _ in uncompiled}) == len(uncompiled)
    for _, options in uncompiled:
        assert options.pop("backend").__func__ is fused.Compiled._compile
        assert options == {"fullgraph": True, "dynamic": True}


def test_half_precision_is_computed_in_float32_and_rounded_once(uncompiled):
    p = torch.nn.Parameter(draw((50,), torch.bfloat16, 1))
    p.grad = draw((50,), torch.bfloat16, 2)
    wide = torch.nn.Parameter(p.detach().float())
    wide.grad = p.grad.float()
    ours, exact = minioptim.Adam([p], lr=0.1, fused=True), minioptim.Adam([wide], lr=0.1)
    ours.step()
    exact.step()
    assert (p != wide.bfloat16()).sum() == 0
    for key in ("exp_avg", "exp_avg_sq"):
        assert torch.equal(ours.state[p][key], exact.state[wide][key].bfloat16())


def test_what_a_step_writes_to_and_what_it_leaves_alone(uncompiled):
    """State stays where it is once it was made, in the dtype of its parameter."""
    p = torch.nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
    p.grad_dtype = None  # a gradient of another dtype is allowed
    p.grad = torch.ones(3)
    version = p.grad._version
    optimizer = minioptim.SGD([p], lr=0.1, momentum=0.9, fused=True)
    optimizer.step()
    buffer = optimizer.state[p]["momentum_buffer"]
    assert buffer.dtype == p.dtype
    optimizer.step()
    assert optimizer.state[p]["momentum_buffer"] is buffer
    assert buffer.tolist() == torch.full((3,), 1.9).bfloat16().tolist()
    assert p.grad._version == version


def test_compiled_steps_can_be_forgotten(uncompiled):
    run(OURS, ADAM, torch.float32, steps=1)
    assert fused._kernel.cache_info().currsize == 1
    fused.clear()
    assert fused._kernel.cache_info().currsize == 0


def test_the_engine_itself_asks_for_a_compiler(monkeypatch):
    fused.clear()
    fused.require_compiler.cache_clear()
    monkeypatch.setattr(shutil, "which", lambda name: None)
    row = (torch.ones(3), torch.ones(3), None)
    options = dict(lr=0.1, momentum=0, dampening=0, nesterov=False)
    with pytest.raises(RuntimeError, match=r"C\+\+ compiler"):
        fused.fused(minioptim.SGD.rule, [row], NO_PENALTY, options)
    assert row[0].tolist() == [1, 1, 1]


def test_a_step_with_numbers_in_tensors(uncompiled):
    """They stay where they are: a GPU would have to be waited for."""
    ends = []
    tensors = torch.tensor(0.1), (torch.tensor(0.9), torch.tensor(0.99999))
    for lr, betas in ((0.1, (0.9, 0.99999)), tensors):
        p = torch.nn.Parameter(draw((3, 4), torch.float32, 1))
        p.grad = draw((3, 4), torch.float32, 2)
        optimizer = minioptim.Adam([p], lr=lr, betas=betas, fused=True)
        for _ in range(3):
            optimizer.step()
        ends.append(p.detach())
    torch.testing.assert_close(*ends, rtol=1e-6, atol=1e-6)


def test_the_numbers_of_a_step_are_made_once_for_a_dtype(uncompiled, monkeypatch):
    """Of parameters: a gradient may have another."""
    made = []
    original = fused._as_tensor
    monkeypatch.setattr(fused, "_as_tensor", lambda x, *how: made.append(how) or original(x, *how))
    params = [torch.ones(2 + i % 3, dtype=[torch.float32, torch.float64][i % 2]) for i in range(6)]
    for p in params:
        p.requires_grad_().grad_dtype = None
        p.grad = torch.ones_like(p, dtype=torch.float64)
    minioptim.SGD(params, fused=True).step()
    cpu = torch.device("cpu")
    assert made == [(cpu, torch.float32), (cpu, torch.float64)]


def test_each_kind_of_step_is_one_to_the_compiler(uncompiled):
    """Which state there is, dtypes and options tell kinds apart; numbers and shapes do not."""
    wanted = 0
    for options, kinds in (
        (dict(lr=0.1), 1),
        (dict(lr=0.2), 0),
        (dict(lr=0.1, momentum=0.9), 2),  # the first step has no buffer yet
        (dict(lr=0.1, momentum=0.8), 0),
        (dict(lr=0.1, momentum=0.8, nesterov=True), 2),
        (dict(lr=0.1, maximize=True), 1),
    ):
        params = [torch.ones(n, n, requires_grad=True) for n in (2, 3)]
        optimizer = minioptim.SGD(params, fused=True, **options)
        for _ in range(3):
            for p in params:
                p.grad = torch.ones_like(p)
            optimizer.step()
        wanted += kinds
        assert len(uncompiled) == wanted, options


def test_autograd_is_off_in_the_step_whoever_calls(uncompiled):
    """The compiler would write one version for each of the two modes."""
    seen = []
    row = torch.ones(3, requires_grad=True), torch.ones(3), None
    with torch.enable_grad():
        fused.fused(lambda *row: seen.append(torch.is_grad_enabled()), [row], NO_PENALTY, {})
        assert seen == [False]
        assert torch.is_grad_enabled()


def test_every_tensor_reaches_the_step_flat(monkeypatch):
    """One that is flat already as it is: each view costs some microseconds."""
    seen = []
    monkeypatch.setattr(fused, "_kernel", lambda *kind: lambda *given: seen.extend(given[1:]))
    flat, turned = torch.ones(6), torch.arange(6.0).reshape(2, 3).t()
    rows = [(flat, flat + 1, None), (turned, turned + 1, None)]
    fused.fused(minioptim.SGD.rule, rows, NO_PENALTY, {})
    assert [t.shape for t in seen] == [(6,)] * 4
    assert seen[0] is flat
    assert seen[1] is rows[0][1]
    assert seen[2].tolist() == [0, 1, 2, 3, 4, 5]  # in the order of its memory
    assert seen[2].data_ptr() == turned.data_ptr()


# --- the questions of torch.compile, asked once ---------------------------------------------------


@needs_compiler
def test_the_compiled_code_is_called_directly_from_the_second_step_on(monkeypatch):
    """Also if the first tensor is as long as the list of numbers: 5 of Adam, and what they lack."""
    fused.clear()
    kept, compiled = [], fused.Compiled
    monkeypatch.setattr(fused, "Compiled", lambda step: kept.append(compiled(step)) or kept[-1])
    params = parameters(shapes=[(10,), (5,), (2,), (2, 5), (33, 3)])
    others = [torch.nn.Parameter(p.detach().clone()) for p in params]
    ours, loop = minioptim.Adam(params, lr=0.01, fused=True), minioptim.Adam(others, lr=0.01)
    for t in range(4):
        for turn, optimizer in ((params, ours), (others, loop)):
            give_gradients(turn, t)
            optimizer.step()
        kept[-1].checked = None  # what is called now is no longer this
    assert distance(params, others) <= 5e-7
    assert kept[-1].code is not None


@pytest.fixture
def compiled(monkeypatch):
    """A step, its machine code, and what was called: with a stand-in for the compiler.

    The step adds the gradient to the parameter. Its code takes its arguments in another order.
    """
    called = []

    def compile(step, backend, **options):
        def checked(numbers, p, g):
            called.append("checked")
            assert not any((torch.is_grad_enabled(), p.requires_grad, type(p) is not torch.Tensor))
            assert [t is numbers for t in static] == [True]
            assert [t is other for (t, _), other in zip(dynamic, (p, g), strict=True)] == [True] * 2
            assert all(how == (0, 2**20) for _, how in dynamic)  # whatever size comes first
            static.clear()
            dynamic.clear()
            size = [] if given.get("constant") else [p.numel()]
            last = p.view(-1) if given.get("unknown") else p
            results = made(g, *size, numbers, last)
            return results[0] if results else None

        made = backend("graph", ["examples"])
        return checked

    def code(g, *rest):
        called.append("code")
        with torch.no_grad():
            rest[-1].add_(g)
        return [g + 1] if given.get("result") else []

    def make(graph, examples, options):
        assert (graph, examples, options) == ("graph", ["examples"], {"cpp.dynamic_threads": True})
        return code

    def mark_dynamic(t, dim, hint_override=None):
        dynamic.append((t, (dim, hint_override)))

    given, static, dynamic = {}, [], []
    monkeypatch.setattr(torch, "compile", compile)
    monkeypatch.setattr("torch._dynamo.mark_dynamic", mark_dynamic)
    monkeypatch.setattr("torch._dynamo.mark_static", static.append)
    monkeypatch.setattr("torch._inductor.compile", make)
    return fused.Compiled(None), called, given


def test_questions_are_asked_once(compiled):
    step, called, _ = compiled
    p, g, numbers = torch.nn.Parameter(torch.zeros(3)), torch.ones(3), torch.zeros(4)
    for expected in (["checked", "code"], ["code"], ["code"]):
        called.clear()
        assert step(numbers, p, g) is None
        assert called == expected
    assert p.tolist() == [3, 3, 3]
    assert step.order == [3, 0, 1, 2]


def test_what_the_code_hands_out_comes_back(compiled):
    step, called, given = compiled
    given["result"] = True
    p, g = torch.nn.Parameter(torch.zeros(3)), torch.ones(3)
    step(torch.zeros(4), p, g)
    assert step(torch.zeros(4), p, g).tolist() == [2, 2, 2]
    assert called == ["checked", "code", "code"]


@pytest.mark.parametrize("why", ["constant", "unknown"])
def test_code_that_might_not_fit_is_not_called_directly(why, compiled):
    """The size is not among its arguments; or one of them is, that the caller does not know."""
    step, called, given = compiled
    given[why] = True
    for _ in range(2):
        step(torch.zeros(4), torch.nn.Parameter(torch.zeros(3)), torch.ones(3))
    assert called == ["checked", "code"] * 2


def test_what_is_too_long_for_short_indices_is_asked_about_each_time(compiled, monkeypatch):
    assert fused.INDEXABLE - 1 == torch.iinfo(torch.int32).max
    step, called, _ = compiled
    monkeypatch.setattr(fused, "INDEXABLE", 3)
    for n, expected in ((2, ["checked", "code"]), (3, ["checked", "code"]), (2, ["code"])):
        called.clear()
        step(torch.zeros(4), torch.nn.Parameter(torch.zeros(n)), torch.ones(n))
        assert called == expected


# --- what goes through the loop -------------------------------------------------------------------


def odd_rows():
    """Memory that cannot be walked through in one go, with a gradient that fits."""
    base = torch.arange(24.0).reshape(4, 6)
    yield "gaps", base[:, ::2].clone().as_strided((4, 2), (3, 1)), None
    yield "gradient in another order", torch.ones(3, 4), torch.arange(12.0).reshape(4, 3).t()
    yield "gradient of one number", torch.ones(3, 4), torch.tensor(0.5).expand(3, 4)
    shared = torch.arange(12.0)
    yield "shared memory", shared[:6], shared[6:]
    yield "a class of its own", type("Odd", (torch.nn.Parameter,), {})(torch.ones(4)), None


@pytest.mark.parametrize("name", [name for name, *_ in odd_rows()])
def test_other_memory_goes_through_the_loop(name, monkeypatch):
    monkeypatch.setattr(fused, "require_compiler", lambda device: None)
    monkeypatch.setattr(fused, "_kernel", None)  # it would fail if it compiled
    ends = []
    for option in (True, False):
        data, g = next((x, g) for n, x, g in odd_rows() if n == name)
        p = data.requires_grad_() if isinstance(data, torch.nn.Parameter) else data
        p.requires_grad_()
        p.grad = torch.ones_like(p) if g is None else g
        minioptim.Adam([p], lr=0.1, fused=option).step()
        ends.append(p.detach().clone())
    assert torch.equal(*ends)


def test_pytorchs_kernel_takes_a_gradient_in_the_order_of_its_memory():
    """PyTorch 2.13 on the CPU: strides are not looked at, and the numbers go to other elements."""
    ends = []
    for option in (True, False):
        p = torch.nn.Parameter(torch.zeros(2, 2))
        p.grad = torch.tensor([[0.0, 1.0], [2.0, 3.0]]).t()
        torch.optim.SGD([p], lr=1.0, fused=option).step()
        ends.append(-p.detach())
    assert ends[0].tolist() == [[0.0, 1.0], [2.0, 3.0]]
    assert ends[1].tolist() == [[0.0, 2.0], [1.0, 3.0]]


# --- numbers --------------------------------------------------------------------------------------


def test_numbers_are_taken_out_and_put_back():
    numbers = []
    constants = fused._without_numbers((True, None, 0.5, [0.9, 0.999], "word", 3), numbers)
    assert numbers == [0.5, 0.9, 0.999, 3]
    assert constants == (True, None, 0, (1, 2), "word", 3)
    back = fused._with_numbers(constants, list("abcd"))
    assert back == (True, None, "a", ("b", "c"), "word", "d")


def test_a_number_may_be_of_any_class_that_has_a_float():
    values = fused._as_tensor([Fraction(1, 4)], torch.device("cpu"), torch.float32)
    assert values.tolist() == [0.25, 0.75]
    assert fused._as_tensor([], torch.device("cpu"), torch.float64).dtype == torch.float64


def test_a_number_knows_what_it_lacks_to_one():
    values = fused._as_tensor([0.99999, torch.tensor(0.25)], torch.device("cpu"), torch.bfloat16)
    assert values.dtype == torch.float32
    beta, quarter = map(fused.Number, *values.chunk(2))
    assert (1 - beta).item() == pytest.approx(1e-5, rel=1e-7)
    assert (1 - torch.tensor(0.99999)).item() != pytest.approx(1e-5, rel=1e-4)
    found = [2 * quarter, quarter * 2, quarter / 2, 2 / quarter, 2 - quarter, quarter - 2]
    assert [x.item() for x in found] == [0.5, 0.5, 0.125, 8, 1.75, -1.75]
    assert [x.item() for x in (quarter**2, 2 + quarter, quarter + 2)] == [0.0625, 2.25, 2.25]
    assert (-quarter).tensor.item() == -0.25
    assert (torch.tensor([1.0, 2.0]) - quarter).tolist() == [0.75, 1.75]


def test_a_number_in_a_tensor_is_not_read(monkeypatch):
    """On a GPU the host would have to wait for it. What it was computed from is left behind."""
    monkeypatch.setattr(torch.Tensor, "__float__", None)
    numbers = [0.5, torch.tensor(0.25, requires_grad=True)]
    values = fused._as_tensor(numbers, torch.device("cpu"), torch.float32)
    assert values.tolist() == [0.5, 0.25, 0.5, 0.75]
    assert not values.requires_grad


def test_other_devices_are_refused_by_name():
    p = torch.nn.Parameter(torch.ones(3, device="meta"))
    p.grad = torch.ones(3, device="meta")
    with pytest.raises(RuntimeError, match=r"on cpu or cuda, and one is torch\.float32 on meta"):
        fused.engine_for([p])


# --- what is refused ------------------------------------------------------------------------------


@contextlib.contextmanager
def unchanged(params, optimizer=None):
    before = [p.detach().clone() for p in params]
    state = copy.deepcopy(optimizer.state_dict()) if optimizer else None
    yield
    if optimizer:
        assert all(torch.equal(p, q) for p, q in zip(params, before, strict=True))
        assert unlike(optimizer.state_dict(), state) is None


@pytest.mark.parametrize("case", ["SGD", "Adam", "AdamW", "Adagrad"])
@pytest.mark.parametrize("other", ["foreach", "differentiable"])
def test_two_modes_at_once(case, other, monkeypatch):
    monkeypatch.setattr(fused, "require_compiler", lambda device: None)
    p = [torch.ones(3, requires_grad=True)]
    for names in (OURS, vars(torch.optim)):
        with pytest.raises(RuntimeError, match="fused"):
            names[case](p, fused=True, **{other: True})
    optimizer = OURS[case](p, fused=True)
    saved = copy.deepcopy(optimizer.state_dict())
    saved["param_groups"][0][other] = True
    p[0].grad = torch.ones(3)
    with unchanged(p, optimizer):
        with pytest.raises(RuntimeError, match=f"{other}=True exclude each other"):
            optimizer.load_state_dict(saved)
        with pytest.raises(RuntimeError, match=f"{other}=True exclude each other"):
            optimizer.add_param_group({"params": [torch.ones(1)], other: True})
    optimizer.param_groups[0][other] = True
    with unchanged(p, optimizer), pytest.raises(RuntimeError, match="exclude"):
        optimizer.step()


@pytest.mark.parametrize("case", ["SGD", "Adam", "AdamW", "Adagrad"])
@pytest.mark.parametrize("kind", ["complex", "sparse", "meta"])
def test_what_cannot_be_compiled(case, kind, monkeypatch):
    monkeypatch.setattr(fused, "require_compiler", lambda device: None)
    dtype = torch.complex64 if kind == "complex" else torch.float32
    for names in (OURS, vars(torch.optim)):
        device = "meta" if kind == "meta" else "cpu"
        p = torch.ones(4, 2, dtype=dtype, device=device, requires_grad=True)
        p.grad = torch.ones(4, 2).to_sparse() if kind == "sparse" else torch.ones_like(p)
        q = torch.ones(2, requires_grad=True)
        q.grad = torch.ones(2)
        optimizer = names[case]([{"params": [q], "fused": False}, {"params": [p]}], fused=True)
        with (
            unchanged([q, p], optimizer if names is OURS and p.is_cpu else None),
            pytest.raises(RuntimeError, match=r"fused|sparse|dense"),
        ):
            optimizer.step()


@pytest.mark.parametrize("where", ["the constructor", "a group", "a dictionary", "a step"])
def test_without_a_compiler(where, monkeypatch):
    fused.require_compiler.cache_clear()
    monkeypatch.setattr(shutil, "which", lambda name: None)
    p = torch.ones(3, requires_grad=True)
    p.grad = torch.ones(3)
    optimizer = minioptim.Adam([p])
    saved = copy.deepcopy(optimizer.state_dict())
    saved["param_groups"][0]["fused"] = True
    changed = minioptim.Adam([p])
    changed.param_groups[0]["fused"] = True
    attempts = {
        "the constructor": lambda: minioptim.SGD([p], fused=True),
        "a group": lambda: optimizer.add_param_group({"params": [torch.ones(1)], "fused": True}),
        "a dictionary": lambda: optimizer.load_state_dict(saved),
        "a step": changed.step,
    }
    with unchanged([p], optimizer):
        with pytest.raises(RuntimeError, match=r"C\+\+ compiler .* Install g\+\+.* leave fused"):
            attempts[where]()
        assert len(optimizer.param_groups) == 1
        assert not changed.state
    optimizer.step()  # who leaves the choice open needs no compiler
    assert p[0] < 1


def test_what_is_missing_is_named(monkeypatch):
    fused.require_compiler.cache_clear()
    monkeypatch.setattr(importlib.util, "find_spec", {"triton": None}.__getitem__)
    with pytest.raises(
        RuntimeError, match=r"Triton was not found\. Install it with pip install triton;"
    ):
        fused.require_compiler("cuda")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(RuntimeError, match=r"a C compiler .* Install gcc"):
        fused.require_compiler("cuda")
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(RuntimeError, match="no-such-compiler"):
        fused.require_compiler("cpu")
    monkeypatch.setattr(shutil, "which", lambda name: name)
    monkeypatch.setattr(fused.sysconfig, "get_path", lambda name: "/nowhere")
    with pytest.raises(RuntimeError, match=r"Python\.h .* python3-dev"):
        fused.require_compiler("cpu")


@pytest.mark.parametrize(
    ("device", "there", "environment", "platform", "missing"),
    [
        ("cpu", "g++", {}, "linux", None),
        ("cpu", "clang++", {}, "linux", r"\(g\+\+\)"),
        ("cpu", "clang++", {}, "darwin", None),
        ("cpu", "mine", {"CXX": "mine"}, "linux", None),
        ("cpu", "g++", {"CXX": "mine"}, "linux", r"\(mine\)"),
        ("cuda", "gcc", {}, "linux", None),  # and no compiler of C++
        ("cuda", "clang", {}, "linux", None),
        ("cuda", "mine", {"CC": "mine"}, "linux", None),
        ("cuda", "gcc", {"CC": "mine"}, "linux", "a C compiler"),
        ("cuda", "g++", {}, "linux", "a C compiler"),
        ("meta", "nothing", {}, "linux", None),  # refused at the step, as in PyTorch
    ],
)
def test_one_compiler_is_enough(
    device, there, environment, platform, missing, monkeypatch, tmp_path
):
    fused.require_compiler.cache_clear()
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(shutil, "which", lambda name: name if name == there else None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(fused.sysconfig, "get_path", lambda name: {"include": tmp_path}[name])
    (tmp_path / "Python.h").touch()
    for name in ("CC", "CXX"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    wanted = pytest.raises(RuntimeError, match=missing) if missing else contextlib.nullcontext()
    with wanted:
        fused.require_compiler(device)


@pytest.fixture(autouse=True)
def _ask_again():
    yield
    fused.require_compiler.cache_clear()


def test_the_compiler_is_not_loaded_before_it_is_needed():
    code = "import sys, minioptim; print('torch._dynamo' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"
