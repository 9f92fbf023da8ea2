"""Flat parameters: the same training, and a clear error wherever it would not be the same."""

import copy
import io
import subprocess
import sys
from itertools import product

import pytest
import torch
from pair import same, unlike
from torch import nn

import minioptim
from minioptim import more
from minioptim.blocks import is_one_block
from minioptim.flat import FlatParameter, copy_state, flatten, unflatten

LIBRARIES = (minioptim, torch.optim)
CASES = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "foreach": True}),
    ("Adam", {"lr": 0.01, "weight_decay": 0.01}),
    ("Adam", {"lr": 0.01, "amsgrad": True, "foreach": True}),
    ("AdamW", {"lr": 0.01}),
]


class Odd(nn.Module):
    """Odd sizes, two dtypes, a scalar, an empty and a transposed parameter, one used twice."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(1, 3, 3).to(memory_format=torch.channels_last)
        self.one, self.two = nn.Linear(108, 7), nn.Linear(7, 7)
        self.again = nn.Linear(7, 7)
        self.again.weight = self.two.weight
        self.scale, self.empty = nn.Parameter(torch.tensor(0.5)), nn.Parameter(torch.empty(0, 3))
        self.turned = nn.Parameter(torch.randn(3, 7).t())
        self.fine = nn.Linear(3, 3).double()

    def forward(self, x):
        x = self.again(self.two(self.one(self.conv(x).flatten(1)).tanh()).tanh()) * self.scale
        return self.fine((x @ self.turned.to(x.dtype)).double()) + self.empty.sum()


X, Y = torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(1)), torch.arange(16) % 3


def backward(module):
    nn.functional.cross_entropy(module(X), Y).backward()


ZERO = {
    "optimizer": lambda module, optimizer: optimizer.zero_grad(),
    "optimizer to zeros": lambda module, optimizer: optimizer.zero_grad(set_to_none=False),
    "module": lambda module, optimizer: module.zero_grad(),
    "module to zeros": lambda module, optimizer: module.zero_grad(set_to_none=False),
    "by hand": lambda module, optimizer: [setattr(p, "grad", None) for p in module.parameters()],
}


def train(module, optimizer, steps=6, zero="optimizer"):
    for _ in range(steps):
        ZERO[zero](module, optimizer)
        backward(module)
        optimizer.step()


def agree(one, other):
    found = unlike(dict(one.state_dict()), dict(other.state_dict()))
    assert found is None, found


def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2))


def push(module):
    """A gradient for every parameter of `small`."""
    module(torch.ones(4, 3)).square().sum().backward()


# --- the same training ----------------------------------------------------------------------------


RUNS = [(*case, "optimizer") for case in CASES] + [(*CASES[1], zero) for zero in list(ZERO)[1:]]


@pytest.mark.parametrize(("name", "options", "zero"), RUNS)
@pytest.mark.parametrize("library", LIBRARIES, ids=lambda x: x.__name__)
def test_training_is_the_same_to_the_last_bit(library, name, options, zero):
    plain, flat = Odd(), Odd()
    train(plain, getattr(library, name)(plain.parameters(), **options), zero=zero)
    flats = flatten(flat)
    assert [f.dtype for f in flats] == [torch.float32, torch.float64]
    train(flat, getattr(library, name)(flats, **options), zero=zero)
    agree(plain, flat)
    assert not same(flat.conv.weight, Odd().conv.weight)


def test_a_fused_kernel_agrees_up_to_rounding():
    plain, flat = Odd(), Odd()
    train(plain, torch.optim.Adam(plain.parameters(), fused=True))
    train(flat, torch.optim.Adam(flatten(flat), fused=True))
    for p, q in zip(plain.parameters(), flat.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-6)


def test_half_precision_agrees_up_to_rounding():
    plain, flat = small().bfloat16(), small().bfloat16()
    optimizers = [
        torch.optim.Adam(params, lr=0.1, weight_decay=0.1)
        for params in (plain.parameters(), flatten(flat))
    ]
    for module, optimizer in zip((plain, flat), optimizers, strict=True):
        for _ in range(6):
            optimizer.zero_grad()
            module(torch.ones(4, 3, dtype=torch.bfloat16)).square().sum().backward()
            optimizer.step()
    for p, q in zip(plain.parameters(), flat.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0.02, atol=0.02)


def test_gradients_can_be_accumulated_and_clipped():
    plain, flat = Odd(), Odd()
    flats = flatten(flat)
    optimizers = minioptim.SGD(plain.parameters(), lr=0.1), minioptim.SGD(flats, lr=0.1)
    for module, optimizer in zip((plain, flat), optimizers, strict=True):
        for _ in range(3):
            backward(module)
        nn.utils.clip_grad_norm_(module.parameters(), 0.1)
        optimizer.step()
    agree(plain, flat)


def test_groups_have_options_of_their_own():
    def groups(module, make):
        return [{"params": make([p for p in module.parameters() if p.dim() > 1]), "lr": 0.05},
                {"params": make([p for p in module.parameters() if p.dim() <= 1])}]  # fmt: skip

    plain, flat = Odd(), Odd()
    train(plain, minioptim.AdamW(groups(plain, list), lr=0.01))
    train(flat, minioptim.AdamW(groups(flat, lambda params: flatten(flat, params)), lr=0.01))
    agree(plain, flat)


def test_a_gradient_given_by_hand_is_used():
    module = small()
    optimizer = minioptim.SGD(flatten(module), lr=1.0)
    before = module[0].bias.detach().clone()
    module[0].bias.grad = torch.ones(5)
    optimizer.step()
    assert torch.equal(module[0].bias, before - 1)
    module[0].bias.grad.fill_(2.0)
    optimizer.step()
    assert torch.equal(module[0].bias, before - 3)


def test_zero_grad_forgets_a_gradient_given_by_hand():
    for library in LIBRARIES:
        for to_none in (True, False):
            module = small()
            optimizer = library.SGD(flatten(module), lr=1.0)
            before = module[0].bias.detach().clone()
            module[0].bias.grad = torch.ones(5)
            optimizer.zero_grad(to_none)
            optimizer.step()
            assert torch.equal(module[0].bias, before)


def test_zero_grad_forgets_the_gradients_of_parts_that_left():
    module = small()
    optimizer = minioptim.SGD(flatten(module), lr=1.0)
    push(module)
    module.zero_grad()
    module.double()
    optimizer.zero_grad()
    assert all(p.grad is None for p in module.parameters())


def test_the_gradient_of_all_parts_can_be_set():
    module = small()
    (flat,) = flatten(module)
    module[0].bias.grad = torch.ones(5)
    flat.grad = torch.full_like(flat, 2.0)
    assert all((p.grad == 2).all() for p in module.parameters())
    assert (flat.grad == 2).all()


@pytest.mark.filterwarnings("ignore:Using backward.. with create_graph=True")
def test_a_gradient_with_a_history_leaves_it_behind():
    module = small()
    (flat,) = flatten(module)
    module.zero_grad()
    module(torch.ones(4, 3)).square().sum().backward(create_graph=True)
    assert not flat.grad.requires_grad
    bias = module[1].bias
    (bias.grad,) = torch.autograd.grad((bias**3).sum(), bias, create_graph=True)
    flat.touched()
    expected = 3 * bias.detach() ** 2
    assert not flat.grad.requires_grad
    assert torch.equal(bias.grad, expected)
    assert bias.grad.untyped_storage().data_ptr() == flat.grad.data_ptr()


def test_every_part_has_a_gradient_in_the_buffer_from_the_first():
    module = small()
    flats = flatten(module)
    (row,) = {p.grad.untyped_storage().data_ptr() for p in module.parameters()}
    assert row == flats[0].grad.untyped_storage().data_ptr()
    assert all(torch.equal(p.grad, torch.zeros_like(p)) for p in module.parameters())


def test_what_moved_after_the_last_look_is_seen_after_backward():
    """Nothing was updated in between, as with PyTorch's fused kernels: the version is the same."""
    module = small()
    flats = flatten(module)
    loss = sum((p**2).sum() for p in module.parameters())
    assert torch.equal(flats[0].grad, torch.zeros_like(flats[0]))
    moved = next(iter(module.parameters()))
    loss.backward()
    moved.data = moved.detach().clone()
    with pytest.raises(RuntimeError, match="was moved"):
        flats[0].grad  # noqa: B018


def test_backward_brings_new_gradients_into_the_buffer():
    """Before anybody asks for them: the memory of two gradients is not needed for long."""
    module = small()
    (flat,) = flatten(module)
    module.zero_grad()
    push(module)
    assert {p.grad.untyped_storage().data_ptr() for p in module.parameters()} == {
        flat._row.data_ptr()
    }


def test_gradients_that_were_there_are_taken_along():
    plain, flat = Odd(), Odd()
    for module in (plain, flat):
        backward(module)
        make = list if module is plain else lambda _, module=module: flatten(module)
        minioptim.SGD(make(module.parameters()), lr=0.1).step()
    agree(plain, flat)
    assert not same(flat.conv.weight, Odd().conv.weight)


def test_a_fused_kernel_of_pytorch_needs_to_be_told_of_a_gradient_given_by_hand():
    module = small()
    flats = flatten(module)
    optimizer = torch.optim.SGD(flats, lr=1.0, fused=True)
    version, start = flats[0]._version, module[0].bias.detach().clone()
    for tell, moved in ((lambda: None, 1), (lambda: None, 2), (flats[0].touched, 12)):
        module[0].bias.grad = torch.full((5,), 1.0 if moved == 1 else 10.0)
        tell()
        optimizer.step()
        torch.testing.assert_close(module[0].bias, start - moved)
    optimizer.zero_grad()
    module[0].bias.grad = torch.full((5,), 100.0)
    optimizer.step()
    torch.testing.assert_close(module[0].bias, start - 112)
    assert flats[0]._version == version  # this is why


def test_a_piece_of_a_larger_gradient_is_no_reason_to_refuse():
    module = small()
    optimizer = minioptim.SGD(flatten(module), lr=1.0)
    before = module[0].bias.detach().clone()
    module.zero_grad()
    torch.cat([module[0].bias, module[1].bias]).sum().backward()
    optimizer.step()
    assert torch.equal(module[0].bias, before - 1)


# --- the module does not notice -------------------------------------------------------------------


def test_the_state_of_the_module_is_unchanged():
    plain, flat = Odd(), Odd()
    flatten(flat)
    agree(plain, flat)
    assert list(plain.state_dict()) == list(flat.state_dict())
    strides = [[p.stride() for p in m.parameters()] for m in (plain, flat)]
    assert strides[0] == strides[1]
    torch.testing.assert_close(plain(X), flat(X), rtol=0, atol=0)


def test_every_parameter_begins_where_one_of_its_own_would():
    flats = flatten(module := Odd())
    for p in module.parameters():
        if p.numel():
            assert p.data_ptr() % 64 == 0
            assert any(p.untyped_storage().data_ptr() == f.data_ptr() for f in flats)


def test_loading_a_checkpoint_stays_flat():
    module, other = Odd(), Odd()
    with torch.no_grad():
        for p in other.parameters():
            p.add_(1)
    optimizer = minioptim.SGD(flatten(module), lr=0.1)
    module.load_state_dict(other.state_dict())
    agree(module, other)
    train(module, optimizer)
    train(other, minioptim.SGD(other.parameters(), lr=0.1))
    agree(module, other)


def test_what_is_shared_or_frozen_stays_so():
    module = Odd()
    module.one.weight.requires_grad_(False)
    address = module.one.weight.data_ptr()
    flats = flatten(module)
    assert module.again.weight is module.two.weight
    assert all(p is not module.one.weight for f in flats for p in f.parts)
    assert module.one.weight.data_ptr() == address
    train(module, minioptim.SGD(flats, lr=0.1))
    other = Odd()
    other.one.weight.requires_grad_(False)
    train(other, minioptim.SGD(other.parameters(), lr=0.1))
    agree(module, other)


def test_copies_are_ordinary():
    module = Odd()
    optimizer = minioptim.SGD(flatten(module), lr=0.1)
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    for other in (copy.deepcopy(module), torch.load(file, weights_only=False)):
        agree(module, other)
        other.load_state_dict(Odd().state_dict(), assign=True)
        train(other, minioptim.SGD(other.parameters(), lr=0.1))
    assert same(module.conv.weight, Odd().conv.weight)
    train(module, optimizer)


def test_nothing_to_train_is_no_flat_parameter():
    assert flatten(nn.ReLU()) == []
    assert flatten(small().requires_grad_(False)) == []


# --- missing gradients ----------------------------------------------------------------------------


@pytest.mark.parametrize("zero", ZERO)
def test_a_missing_gradient_is_zero_and_never_an_old_one(zero):
    module = small()
    optimizer = torch.optim.SGD(flatten(module), lr=1.0)
    push(module)
    optimizer.step()
    still, moved = module[0].bias.detach().clone(), module[1].bias.detach().clone()
    ZERO[zero](module, optimizer)
    module[1](torch.ones(4, 5)).sum().backward()  # the first layer has no part in it
    optimizer.step()
    assert torch.equal(module[0].bias, still)
    assert not torch.equal(module[1].bias, moved)
    ZERO[zero](module, optimizer)
    before = module[1].bias.detach().clone()
    optimizer.step()  # and now no gradient at all
    assert torch.equal(module[1].bias, before)


def test_weight_decay_moves_a_parameter_without_gradient():
    module = small()
    flat_step = module[0].bias * 0.9
    torch.optim.SGD(flatten(module), lr=1.0, weight_decay=0.1).step()
    torch.testing.assert_close(module[0].bias, flat_step)


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda x: x.__name__)
@pytest.mark.parametrize("when", ["before backward", "after backward", "without backward"])
@pytest.mark.parametrize(
    ("move", "name"),
    [
        (lambda module: module.double(), "0.weight"),
        (lambda module: setattr(module[0].bias, "data", torch.zeros(5)), "0.bias"),
        (lambda module: module[1].bias.requires_grad_(False), "1.bias"),
    ],
    ids=["cast", "assigned", "frozen"],
)
def test_what_left_the_buffer_is_refused(library, when, move, name):
    module = small()
    flats = flatten(module)
    optimizer = library.SGD(flats, lr=0.1)
    push(module)
    optimizer.step()
    before = flats[0].detach().clone()
    if when == "after backward":
        push(module)
    move(module)
    if when == "before backward":
        module(torch.ones(4, 3).to(module[0].bias.dtype)).square().sum().backward()
    with pytest.raises(RuntimeError, match=f"^{name} was moved, cast, frozen"):
        optimizer.step()
    assert torch.equal(flats[0], before)
    unflatten(flats)  # the way out
    ordinary = library.SGD(module.parameters(), lr=0.1)
    module(torch.ones(4, 3).to(module[0].bias.dtype)).square().sum().backward()
    ordinary.step()


def test_assigned_checkpoints_are_refused():
    module = nn.Sequential(small(), small())
    flats = flatten(module, module[1].parameters())
    before = copy.deepcopy(module.state_dict())
    checkpoint = copy.deepcopy(before)
    with pytest.raises(RuntimeError, match="assign=True would"):
        module[1].load_state_dict(checkpoint and small().state_dict(), assign=True)
    assert unlike(dict(before), dict(module.state_dict())) is None
    params = [*module.parameters()]
    with pytest.raises(RuntimeError, match="assign=True would"):
        module.load_state_dict(checkpoint, assign=True)
    assert all(p is q for p, q in zip(params, module.parameters(), strict=True))
    module[0].load_state_dict(small().state_dict(), assign=True)  # not flat
    unflatten(flats)
    module.load_state_dict(checkpoint, assign=True)
    assert module[1][0].weight is not flats[0].parts[0]
    assert all(not m._load_state_dict_pre_hooks for m in module.modules())


def test_two_parameters_over_one_memory_are_refused():
    module = small()
    module[1].weight = nn.Parameter(module[0].weight.detach().view(5, 3).t()[:2].t().t())
    module[1].weight.data = module[0].weight.data[:2]
    with pytest.raises(ValueError, match="share memory"):
        flatten(module)
    frozen = small()
    frozen.register_buffer("view", frozen[0].weight.data)
    with pytest.raises(ValueError, match="share memory"):
        flatten(frozen)
    assert type(module[0].weight) is nn.Parameter


@pytest.mark.parametrize(
    ("weight", "buffers", "refused"),
    [  # of twelve numbers, from where to where each of them reaches
        ((0, 4), [(4, 8), (8, 12)], False),
        ((4, 8), [(0, 4), (8, 12)], False),
        ((4, 8), [(0, 3), (1, 4)], False),  # two that stay may share
        ((4, 8), [(4, 8)], True),
        ((4, 8), [(0, 5)], True),
        ((4, 8), [(7, 12)], True),
        ((4, 8), [(0, 12), (1, 2)], True),
        ((0, 12), [(1, 2), (11, 12)], True),
        ((8, 12), [(0, 10), (1, 2), (3, 4)], True),
        ((4, 4), [(0, 12)], False),  # an empty one
    ],
)
def test_what_stays_must_not_lie_in_memory_that_moves(weight, buffers, refused):
    memory, module = torch.arange(12.0), nn.Module()
    module.weight = nn.Parameter(memory[slice(*weight)])
    for i, place in enumerate(buffers):
        module.register_buffer(f"b{i}", memory[slice(*place)])
    if refused:
        with pytest.raises(ValueError, match="share memory"):
            flatten(module)
        assert module.weight.untyped_storage().data_ptr() == memory.data_ptr()
    else:
        assert len(flatten(module)) == 1
        assert module.weight.tolist() == memory[slice(*weight)].tolist()


def test_a_gradient_that_is_a_view_of_another_buffer_is_refused():
    """As DistributedDataParallel may make them: it would go on to write to its own buffer."""
    module = small()
    optimizer = minioptim.SGD(flatten(module), lr=1.0)
    before = copy.deepcopy(module.state_dict())
    module[0].weight.grad, module[1].bias.grad = torch.ones(5, 3), torch.ones(10)[:2]
    with pytest.raises(RuntimeError, match=r"of 1\.bias .* gradient_as_bucket_view=False"):
        optimizer.step()
    assert unlike(dict(before), dict(module.state_dict())) is None
    module[1].bias.grad = torch.ones(2)
    optimizer.step()
    assert torch.equal(module[1].bias, before["1.bias"] - 1)


def test_what_cannot_be_flattened_is_refused_and_nothing_changed():
    module, other = small(), small()
    addresses = [p.data_ptr() for p in module.parameters()]
    with pytest.raises(ValueError, match="not one of this module"):
        flatten(module, [*module.parameters(), *other.parameters()])
    with pytest.raises(TypeError, match="cannot flatten"):
        flatten(nn.Sequential(module, nn.LazyLinear(3)))
    sparse = nn.Module()
    sparse.weight = nn.Parameter(torch.eye(3).to_sparse())
    with pytest.raises(TypeError, match="cannot flatten"):
        flatten(sparse)
    with pytest.raises(ValueError, match="no memory yet"):
        flatten(nn.Sequential(module, nn.Linear(2, 2, device="meta")))
    assert [p.data_ptr() for p in module.parameters()] == addresses
    flatten(module)
    with pytest.raises(ValueError, match="flat already"):
        flatten(module)


def test_a_flat_parameter_is_not_copied():
    flats = flatten(small())
    optimizer = minioptim.SGD(flats, lr=0.1)
    for bad in (copy.deepcopy, lambda x: torch.save(x, io.BytesIO())):
        for x in (flats[0], optimizer):
            with pytest.raises(RuntimeError, match="copy or save the module"):
                bad(x)


DDP = """
import sys
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
sys.path.insert(0, "tests")
from test_flat import agree, push, small
from minioptim import Adam
from minioptim.flat import flatten

distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
plain = small()
optimizer = Adam(plain.parameters())
for _ in range(5):
    optimizer.zero_grad()
    push(plain)
    optimizer.step()
for first in (True, False):
    for zero in ("optimizer", "module"):
        module = small()
        flats = flatten(module) if first else None
        parallel = DistributedDataParallel(module)
        optimizer = Adam(flats or flatten(module))
        for _ in range(5):
            (optimizer if zero == "optimizer" else module).zero_grad()
            push(parallel)
            optimizer.step()
        agree(plain, module)
        module = small()
        flats = flatten(module) if first else None
        parallel = DistributedDataParallel(module, gradient_as_bucket_view=True)
        optimizer = Adam(flats or flatten(module))
        try:
            for _ in range(5):
                (optimizer if zero == "optimizer" else module).zero_grad()
                push(parallel)
                optimizer.step()
        except RuntimeError as error:
            assert "gradient_as_bucket_view=False" in str(error), error
            print("refused")
distributed.destroy_process_group()
"""


@pytest.mark.skipif(not torch.distributed.is_available(), reason="needs torch.distributed")
def test_data_parallel_works_and_its_bucket_views_are_refused():
    run = subprocess.run([sys.executable, "-c", DDP], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == ["refused"] * 4


# --- back, and state ------------------------------------------------------------------------------


def test_unflatten_gives_every_parameter_its_own_memory():
    plain, flat = Odd(), Odd()
    flats = flatten(flat)
    for module in (plain, flat):
        backward(module)
    unflatten(flats)
    agree(plain, flat)
    for p, q in zip(plain.parameters(), flat.parameters(), strict=True):
        assert same(p.grad, q.grad)
        for x in (q, q.grad):
            assert x.untyped_storage().nbytes() == x.nbytes
        assert not q._post_accumulate_grad_hooks
    with pytest.raises(RuntimeError, match="unflattened"):
        minioptim.SGD(flats, lr=0.1).step()
    flatten(flat.double())  # and again


def test_unflatten_leaves_alone_what_is_not_in_the_buffer():
    module = small()
    flats = flatten(module)
    moved, own = torch.ones(5, 3), torch.ones(5)
    module[0].weight.data, module[0].bias.grad, module[1].bias.grad = moved, own, None
    unflatten(flats)
    assert module[0].weight.data_ptr() == moved.data_ptr()
    assert module[0].bias.grad is own
    assert module[1].bias.grad is None


EXCHANGED = [*CASES, ("NAdam", {}), ("RMSprop", {"centered": True}), ("Adagrad", {})]


@pytest.mark.parametrize(("name", "options"), EXCHANGED)
def test_state_goes_both_ways_in_the_middle_of_a_run(name, options):
    libraries = [x for x in (minioptim, more, torch.optim) if hasattr(x, name)]
    for one, other in product(libraries, repeat=2):
        plain, module = Odd(), Odd()
        reference = getattr(one, name)(plain.parameters(), **options)
        optimizer = getattr(one, name)(module.parameters(), **options)
        reference.param_groups[0]["lr"] = optimizer.param_groups[0]["lr"] = 0.003
        for to_flat in (True, False):
            train(plain, reference, steps=3)
            train(module, optimizer, steps=3)
            if to_flat:
                flats = flatten(module)
            after = getattr(other if to_flat else one, name)(
                flats if to_flat else module.parameters(), **options
            )
            copy_state(optimizer, after)
            optimizer = after
            assert optimizer.param_groups[0]["lr"] == 0.003
        unflatten(flats)
        train(plain, reference, steps=3)
        train(module, optimizer, steps=3)
        agree(plain, module)
        found = unlike(reference.state_dict()["state"], optimizer.state_dict()["state"])
        assert found is None, found


def test_state_of_a_single_parameter_and_state_that_is_no_tensor():
    """Older versions of PyTorch saved momentum_buffer: None."""
    module = nn.Linear(3, 2, bias=False)
    state = {"momentum_buffer": None, "note": "any value will do"}
    source = minioptim.SGD(module.parameters())
    source.state[module.weight] = dict(state)
    flat = minioptim.SGD(flatten(module))
    copy_state(source, flat)
    assert flat.state_dict()["state"] == {0: state}
    back = minioptim.SGD(module.parameters())
    copy_state(flat, back)
    assert back.state_dict()["state"] == {0: state}


def test_counts_that_are_plain_numbers_and_real_state_of_a_complex_parameter():
    module = nn.Module()
    module.weight = nn.Parameter(torch.ones(3, dtype=torch.complex64))
    source = minioptim.Adam(module.parameters())
    source.state[module.weight] = {"step": 3, "size": torch.ones(3)}
    target = minioptim.Adam(flatten(module))
    copy_state(source, target)
    (state,) = target.state.values()
    assert same(state["step"], torch.tensor(3.0))
    assert state["size"].dtype == torch.float32
    assert state["size"][:3].tolist() == [1.0] * 3


def test_state_without_a_flat_form_is_refused():
    module = small()
    source = minioptim.Adam(module.parameters())
    push(module)
    source.step()
    module[0].bias.grad = None
    source.step()
    target = minioptim.Adam(flatten(module), lr=0.5)
    with pytest.raises(ValueError, match="differ in step"):
        copy_state(source, target)
    del source.state[module[0].bias]
    with pytest.raises(ValueError, match="state that others lack"):
        copy_state(source, target)
    with pytest.raises(ValueError, match="does not have"):
        copy_state(source, minioptim.Adam(small().parameters()))
    with pytest.raises(ValueError, match="same parameter groups"):
        copy_state(source, minioptim.Adam([{"params": [p]} for p in module.parameters()]))
    assert not target.state
    assert target.param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize("how", ["foreach", "fused", "capturable", "differentiable"])
def test_how_to_compute_is_not_taken_along(how):
    module = small()
    source = torch.optim.Adam(module.parameters(), lr=0.5)
    source.param_groups[0][how] = True
    target = torch.optim.Adam(flatten(module))
    before = target.param_groups[0][how]
    copy_state(source, target)
    assert target.param_groups[0]["lr"] == 0.5
    assert target.param_groups[0][how] is before is not True


def test_a_flat_parameter_is_one_block():
    (flat,) = flatten(small())
    assert is_one_block((flat, flat.grad, None))


def test_names_of_parameters_are_not_taken_along():
    module = small()
    source = torch.optim.Adam(module.named_parameters(), lr=0.5)
    target = torch.optim.Adam(flatten(module))
    copy_state(source, target)
    assert target.param_groups[0]["lr"] == 0.5
    assert "param_names" not in target.param_groups[0]


def test_the_numbers_of_asgd_stay_numbers():
    module = small()
    source = torch.optim.ASGD(module.parameters(), t0=0)
    for _ in range(2):
        push(module)
        source.step()
    target = torch.optim.ASGD(flatten(module))
    copy_state(source, target)
    (state,) = target.state.values()
    for key in ("step", "eta", "mu"):
        (expected, *others) = [one[key] for one in source.state.values()]
        assert same(state[key], expected), key
        assert all(same(other, expected) for other in others)
    assert state["ax"].dim() == 1


def test_an_exchanged_state_is_a_copy():
    module = small()
    source = torch.optim.Adam(module.parameters(), foreach=True)
    push(module)
    source.step()
    target = torch.optim.Adam(flatten(module))
    copy_state(source, target)
    ((flat, state),) = target.state.items()
    between = state["exp_avg"].clone()
    for piece in flat.views(between):
        piece.zero_()
    assert not between.any()
    target.step()
    assert target.param_groups[0]["foreach"] is None
    assert {s["step"].item() for s in source.state.values()} == {1.0}
    assert isinstance(next(iter(target.state)), FlatParameter)
