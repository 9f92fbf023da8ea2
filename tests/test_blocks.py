"""Large tensors are stepped block by block: equal to the last bit, and with little memory."""

import weakref

import pytest
import torch
from pair import build, draw, unlike
from torch.utils._python_dispatch import TorchDispatchMode

import minioptim
from minioptim import blocks, more

OURS = type(
    "Ours", (), {**vars(minioptim), **{n: getattr(more, n) for n in ("Adagrad", "RMSprop")}}
)
BLOCK = 640  # the real one would need large tensors; a multiple of 64, like the real one
SIZES = [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 3 * BLOCK + 64, 5 * BLOCK - 7]
CASES = [
    "Adam(p, lr=0.01)",
    "Adam(p, lr=0.01, weight_decay=0.1, amsgrad=True, maximize=True)",
    "Adam(p, lr=torch.tensor(0.01), betas=(torch.tensor(0.9), torch.tensor(0.99)))",
    "AdamW(p, lr=0.01)",
    "AdamW(p, lr=0.01, weight_decay=0.3, amsgrad=True)",
    "Adagrad(p, lr=0.1, lr_decay=0.1, weight_decay=0.1)",
    "RMSprop(p, lr=0.01, momentum=0.9, centered=True)",
]


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def cuts(monkeypatch):
    """A list of the parameters that were cut, with short blocks."""
    cut, seen = blocks.cut, []
    monkeypatch.setattr(blocks, "BLOCK", BLOCK)
    monkeypatch.setattr(blocks, "cut", lambda row: seen.append(row[0]) or cut(row))
    return seen


def run(library, case, params, steps=3):
    optimizer = build(library, case, params)
    for t in range(steps):
        for i, p in enumerate(params):
            p.grad = torch.empty_like(p).copy_(draw(p.shape, p.dtype, 1000 * t + i))
        optimizer.step()
    return optimizer


def assert_same(case, make, cuts, steps=3):
    """Ours equals theirs to the last bit; returns how many tensors were cut."""
    ours, theirs = make(), make()
    ends = [run(OURS, case, ours, steps), run(torch.optim, case, theirs, steps)]
    for p, q in zip(ours, theirs, strict=True):
        assert torch.equal(p, q)
        assert p.stride() == q.stride()
    assert unlike(ends[0].state_dict()["state"], ends[1].state_dict()["state"]) is None
    return len(cuts)


# --- the same bits --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", CASES)
def test_equal_to_pytorch_to_the_last_bit(case, dtype, cuts):
    def make():
        return [torch.nn.Parameter(draw((n,), dtype, i)) for i, n in enumerate(SIZES)]

    cut = assert_same(case, make, cuts)
    assert cut == 3 * sum(n > BLOCK for n in SIZES)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", [CASES[1], CASES[4]])
def test_blocks_of_the_real_length(case, dtype, count, threads):
    assert blocks.BLOCK % 64 == 0
    threads(count)
    shapes = [(2 * blocks.BLOCK + 77,), (blocks.BLOCK + 1,), (1024, 300)]
    seen = []
    assert_same(case, lambda: [torch.nn.Parameter(draw(s, dtype, 7)) for s in shapes], seen, 2)


@pytest.mark.parametrize("case", [CASES[0], CASES[4]])
def test_any_order_of_memory_without_gaps_is_cut(case, cuts):
    def make():
        image = draw((4, 3, 16, 16), torch.float32, 1)
        base = draw((10, 50 * 40), torch.float32, 2)
        return [
            torch.nn.Parameter(image.to(memory_format=torch.channels_last)),
            torch.nn.Parameter(base[0].reshape(40, 50).t()),
            torch.nn.Parameter(base[5]),  # a part of a larger memory
        ]

    assert assert_same(case, make, cuts) == 9


def test_no_list_of_steps_is_needed_for_parameters_that_lag_behind(cuts):
    ends = []
    for library in (OURS, torch.optim):
        params = [torch.nn.Parameter(draw((n,), torch.float32, n)) for n in (900, 30, 2000)]
        optimizer = build(library, "AdamW(p, lr=0.1)", params)
        for t in range(4):
            for i, p in enumerate(params):
                p.grad = draw(p.shape, p.dtype, 10 * t + i) if (t + i) % 3 else None
            optimizer.step()
        ends.append(params)
    assert all(map(torch.equal, *ends))
    assert len(cuts) == 5


# --- what goes whole ------------------------------------------------------------------------------


def rows_that_go_whole():
    """Of more than one block; each would be wrong or different in blocks, or is not worth it."""
    long = torch.arange(2000.0)

    def row(p, g=None):
        return p, torch.ones_like(p) if g is None else g, torch.zeros_like(p)

    yield "a short one", row(long[:BLOCK].clone())
    yield "gaps", row(torch.arange(4000.0)[::2])
    yield "gaps everywhere", tuple(torch.arange(4000.0)[::2] for _ in range(3))
    yield "another order", row(torch.ones(40, 50), torch.arange(2000.0).reshape(50, 40).t())
    yield "one number", row(long.clone(), torch.tensor(0.5).expand(2000))
    yield "shared memory", row(long[:1000], long[1:1001])
    yield "half precision", row(long.bfloat16())
    yield "complex", row(long.to(torch.complex64))
    yield "two dtypes", (long.clone(), torch.ones(2000, dtype=torch.float64), torch.zeros(2000))
    yield "a class of its own", row(type("Odd", (torch.nn.Parameter,), {})(long.clone()))
    yield "shorter state", (long.clone(), torch.ones(2000), torch.ones(1000))
    yield "a number as state", (long.clone(), torch.ones(2000), torch.tensor(1.0))
    yield "no memory", row(long.to("meta"), torch.ones(2000))


ROWS = dict(rows_that_go_whole())


@pytest.mark.parametrize("name", ROWS)
def test_other_memory_goes_whole(name, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", BLOCK)
    fine = torch.ones(BLOCK + 1), torch.ones(BLOCK + 1), None, torch.ones(BLOCK + 1)
    with torch.no_grad():
        assert blocks.can_be_cut(fine)
        assert not blocks.can_be_cut(ROWS[name])
    assert not blocks.can_be_cut(fine)  # where autograd is on


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
def test_what_has_no_strides_goes_whole():
    p = torch.ones(40, 50)
    assert blocks.is_one_block((p, torch.ones(40, 50)))
    assert not blocks.is_one_block((p, torch.ones(40, 50).to_sparse_csr()))


def test_memory_that_overlaps_gives_what_pytorch_gives(cuts):
    ends = []
    for library in (OURS, torch.optim):
        memory = torch.arange(2001.0)
        p = torch.nn.Parameter(memory[:2000])
        p.grad = memory[1:]
        build(library, "AdamW(p, lr=0.1, weight_decay=0.1)", [p]).step()
        ends.append(p)
    assert torch.equal(*ends)
    assert cuts == []


class Sign(minioptim.Adam):
    """A rule of a user, which looks at all elements: it must never see a part of them."""

    @staticmethod
    def rule(p, g, exp_avg, exp_avg_sq, max_exp_avg_sq, *,
             step_size, bias_correction2_sqrt, betas, eps, amsgrad):  # fmt: skip
        p.add_(g / g.norm(), alpha=-step_size)


def test_a_rule_that_does_not_say_so_is_not_cut(cuts):
    names = [name for name, cls in vars(more).items() if getattr(cls, "elementwise", False)]
    assert sorted(names) == ["Adagrad", "RAdam", "RMSprop"]
    assert minioptim.AdamW.elementwise
    for cls in (minioptim.SGD, minioptim.Optimizer, more.Muon, more.NAdam, Sign):
        assert not cls.elementwise
    p = torch.nn.Parameter(torch.zeros(2000))
    p.grad = torch.ones(2000)
    optimizer = Sign([p], lr=1.0)
    optimizer.step()
    assert cuts == []
    torch.testing.assert_close(p.norm(), torch.tensor(10.0))


@pytest.mark.parametrize("option", ["foreach=True", "differentiable=True"])
def test_only_the_loop_cuts(option, cuts):
    p = torch.zeros(2000, requires_grad=True).clone()
    p.retain_grad()
    p.grad = torch.ones(2000)
    if option == "foreach=True":
        p = torch.nn.Parameter(p.detach())
        p.grad = torch.ones(2000)
    build(OURS, f"Adam(p, lr=0.1, {option})", [p]).step()
    assert cuts == []
    assert p.sum() < 0


def test_a_penalty_of_another_kind_is_not_cut(cuts):
    class Normed(minioptim.Adam):
        def penalty(self, group):
            return lambda p, g: g / g.norm()

    p = torch.nn.Parameter(torch.zeros(2000))
    p.grad = torch.ones(2000)
    optimizer = Normed([p], lr=1.0)
    optimizer.step()
    assert cuts == []
    expected = torch.full((2000,), 0.1 / 2000**0.5)
    torch.testing.assert_close(optimizer.state[p]["exp_avg"], expected)


# --- autograd and memory --------------------------------------------------------------------------


def test_autograd_learns_of_the_step(cuts):
    p = torch.nn.Parameter(torch.full((2000,), 3.0))
    p.grad = torch.ones(2000)
    loss = (p**3).sum()
    before = p._version, p.grad._version
    optimizer = minioptim.Adam([p], lr=1.0)
    optimizer.step()
    assert cuts
    assert p._version > before[0]
    assert p.grad._version == before[1]
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
    again = optimizer.state[p]["exp_avg"]._version
    optimizer.step()
    assert optimizer.state[p]["exp_avg"]._version > again


def test_flat_memory_has_no_history_and_tells_of_changes():
    p = torch.nn.Parameter(torch.ones(3, 4))
    row, before = blocks.flat(p), p._version
    assert (row.shape, row.requires_grad, row._is_view()) == ((12,), False, False)
    row.mul_(2)
    assert p._version == before + 1
    assert p.sum() == 24


class Alive(TorchDispatchMode):
    """Counts the bytes of tensors that operations make: how many exist at once, at most."""

    now = most = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        known = {t.untyped_storage().data_ptr() for t in self.tensors(args)}
        result = func(*args, **(kwargs or {}))
        for t in self.tensors((result,)):
            if t.untyped_storage().data_ptr() not in known and t.numel() > 1:
                self.count(t.nbytes)
                weakref.finalize(t, self.count, -t.nbytes)
        return result

    def tensors(self, values):
        for value in values:
            if isinstance(value, torch.Tensor):
                yield value
            elif isinstance(value, (list, tuple)):
                yield from self.tensors(value)

    def count(self, nbytes):
        self.now += nbytes
        self.most = max(self.most, self.now)


def alive(library, case, shapes):
    params = [torch.nn.Parameter(torch.ones(shape)) for shape in shapes]
    optimizer = run(library, case, params, steps=2)
    with Alive() as counted:
        optimizer.step()
    return counted.most


MEMORY = ["SGD(p, 0.1, weight_decay=0.1, {})", "SGD(p, 0.1, momentum=0.9, nesterov=True, {})",
          "Adam(p, {})", "Adam(p, weight_decay=0.1, maximize=True, amsgrad=True, {})",
          "AdamW(p, {})"]  # fmt: skip


def test_a_gradient_that_was_turned_is_overwritten_by_its_decay():
    case = "SGD(p, 0.1, weight_decay=0.1, maximize=True, foreach=False)"
    ours, theirs = (alive(library, case, [(300,)]) for library in (OURS, torch.optim))
    assert (ours, theirs) == (4 * 300, 2 * 4 * 300)


@pytest.mark.parametrize("mode", ["foreach=False", "foreach=True"])
@pytest.mark.parametrize("case", MEMORY)
def test_a_step_needs_no_more_memory_than_pytorchs(case, mode):
    case, shapes = case.format(mode), [(3,), (50, 40), (300,)]
    ours, theirs = (alive(library, case, shapes) for library in (OURS, torch.optim))
    if mode == "foreach=True" and ("nesterov" in case or "Adam(p, weight_decay" in case):
        # PyTorch overwrites the gradient of nesterov, p.grad itself if it must, and lets go of
        # Adam's decayed gradient before the step ends. A rule here cannot: it does not own them.
        theirs += 4 * 2303
    assert 0 < ours <= theirs


def test_in_blocks_it_needs_a_block(cuts):
    ours, theirs = (alive(x, "Adam(p, foreach=False)", [(5000,)]) for x in (OURS, torch.optim))
    assert ours == 4 * BLOCK
    assert theirs == 2 * 4 * 5000
