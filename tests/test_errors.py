"""Bad arguments of optimizers: the type of error that PyTorch gives, and nothing half-changed.

A case is a line of Python, run once with the names of each library.
"""

import copy

import pytest
import torch
from pair import build, draw, unlike
from test_optimizer import sign_descent

import minioptim

CONSTRUCTOR = [
    # what is to be optimized
    "SGD(p[0])",
    "SGD(None)",
    "SGD([])",
    "SGD(iter([]))",
    "SGD({'params': p})",
    "SGD([{}])",
    "SGD([{'params': 3}])",
    "SGD([{'params': {p[0], p[1]}}])",
    "SGD([1.0])",
    "SGD([p[0], 'weight'])",
    "SGD([p[0], {'params': [p[1]]}])",
    "SGD([{'params': [p[0]]}, p[1]])",
    "SGD([p[0] * 2])",
    "Adam([{'params': [p[0]]}, {'params': [p[1] + 1]}])",
    "SGD([{'params': [p[0]]}, {'params': [p[1], p[0]]}])",
    # names
    "SGD([('a', p[0]), p[1]])",
    "SGD([p[0], ('a', p[1])])",
    "SGD([('a',)])",
    "SGD([('a', 1.0)])",
    "SGD([{'params': [('a', p[0])]}, {'params': [p[1]]}])",
    "SGD([{'params': [p[0]]}, {'params': [('a', p[1])]}])",
    # numbers
    "SGD(p, lr=-0.1)",
    "SGD(p, lr=None)",
    "SGD(p, lr='fast')",
    "SGD(p, lr=1j)",
    "SGD(p, lr=tensor([0.1, 0.2]))",
    "SGD(p, lr=tensor([]))",
    "SGD(p, lr=tensor(-0.1))",
    "SGD(p, momentum=-0.5)",
    "SGD(p, momentum=None)",
    "SGD(p, momentum=tensor([0.9, 0.9]))",
    "SGD(p, weight_decay=tensor([0.1, 0.1]))",
    "SGD(p, weight_decay=-1)",
    "SGD(p, weight_decay='much')",
    "SGD(p, nesterov=True)",
    "SGD(p, nesterov=True, momentum=0)",
    "SGD(p, nesterov=True, momentum=0.9, dampening=0.1)",
    "Adam(p, lr=-1e-3)",
    "Adam(p, lr=float('nan'))",
    "Adam(p, lr=None)",
    "Adam(p, lr=tensor([0.1, 0.2]))",
    "Adam(p, lr=tensor(0.1), foreach=True)",
    "Adam(p, eps=-1e-8)",
    "Adam(p, eps=None)",
    "Adam(p, eps=tensor([1e-8, 1e-8]))",
    "Adam(p, weight_decay='much')",
    "Adam(p, weight_decay=-0.1)",
    "Adam(p, weight_decay=float('nan'))",
    "Adam(p, betas=(1.0, 0.999))",
    "Adam(p, betas=(0.9, 1.0))",
    "Adam(p, betas=(-0.1, 0.999))",
    "Adam(p, betas=(float('nan'), 0.999))",
    "Adam(p, betas=(0, 0))",
    "Adam(p, betas=(0, 0.999))",
    "Adam(p, betas=(0.9, tensor(0.999)))",
    "Adam(p, betas=(tensor(0.9), 0.999))",
    "Adam(p, betas=(tensor([0.9, 0.8]), tensor(0.999)))",
    "Adam(p, betas=(tensor(0.9), tensor([0.99, 0.9])))",
    "Adam(p, betas=(tensor(0.9), tensor(0.99)), foreach=True)",
    "Adam(p, betas=0.9)",
    "Adam(p, betas=(0.9,))",
    "Adam(p, betas=None)",
    "Adam(p, betas=('a', 'b'))",
    "AdamW(p, betas=(0.9, 1.5))",
    "AdamW(p, weight_decay=-0.1)",
    # arguments that do not exist, or not by position
    "SGD(p, 0.1, 0.9, 0, 0, False, True)",
    "SGD(p, learning_rate=0.1)",
    "SGD(p, capturable=False)",
    "Adam(p, 0.1, (0.9, 0.999), 1e-8, 0, False, True)",
    "Adam(p, momentum=0.9)",
    "AdamW(p, decoupled_weight_decay=True)",
    "SGD()",
    "Adam()",
    "Optimizer(p)",
]
LATER = [  # nothing wrong when built, and a step raises
    ("Adam(p)", "sparse"),
    ("AdamW(p)", "sparse"),
    ("Adam(p, foreach=True)", {"lr": torch.tensor(0.1)}),
    ("Adam(p, foreach=True)", {"betas": (torch.tensor(0.9), torch.tensor(0.99))}),
    ("Adam(p)", {"betas": (0.9, 0.99, 0.999)}),
    ("Adam(p)", {"betas": (0.9,)}),
    ("Adam(p)", {"betas": None}),
    ("Adam(p)", {"amsgrad": True}),
    ("Adam(p)", "no exp_avg"),
    ("Adam(p, foreach=True)", {"differentiable": True}),
    ("SGD(p, weight_decay=0.1)", "sparse"),
    ("SGD(p)", "a closure that fails"),
]
LOADING = [
    lambda saved: {},
    lambda saved: None,
    lambda saved: {"state": {}},
    lambda saved: {"state": {}, "param_groups": []},
    lambda saved: saved | {"param_groups": saved["param_groups"] * 2},
    lambda saved: saved | {"param_groups": [saved["param_groups"][0] | {"params": [0]}]},
    lambda saved: saved | {"param_groups": [saved["param_groups"][0] | {"params": [0, 1, 2]}]},
    lambda saved: {"param_groups": saved["param_groups"]},
]
GROUPS = [
    "[p[2]]",
    "p[2]",
    "{}",
    "{'params': [3]}",
    "{'params': {p[2]}}",
    "{'params': [p[2] * 1]}",
    "{'params': [p[2], p[0]]}",
    "{'params': [('c', p[2])]}",
    "{'params': [p[2], ('d', p[3])]}",
]


def parameters():
    params = [torch.nn.Parameter(draw((4, 2), torch.float32, i)) for i in range(4)]
    for p in params:
        p.grad = torch.ones_like(p)
    return params


def failure(call, *arguments):
    """The type of the error, which has something to say."""
    try:
        call(*arguments)
    except Exception as error:
        kind, text = type(error), str(error)
    else:
        pytest.fail("nothing was raised")
    assert text
    return kind


def same_failure(attempt):
    """The type of error is the same in both libraries."""
    ours, theirs = attempt(minioptim), attempt(torch.optim)
    assert ours is theirs, f"{ours.__name__}, not {theirs.__name__}"


@pytest.mark.parametrize("case", CONSTRUCTOR)
def test_the_constructor_raises(case):
    same_failure(lambda lib: failure(build, lib, case, parameters()[:2]))


@pytest.mark.parametrize(("case", "change"), LATER)
def test_a_step_raises_and_changes_nothing(case, change):
    """PyTorch has by then counted, made state, or moved the groups before the bad one."""

    def attempt(lib):
        params = parameters()[:3]
        good = {"params": params[:1], **({"betas": (0.5, 0.5)} if "Adam" in case else {})}
        o = build(lib, case, [good, {"params": params[1:]}])
        o.step()
        closure = None
        if isinstance(change, dict):
            o.param_groups[1].update(change)
        elif change == "no exp_avg":
            del o.state[params[2]]["exp_avg"]
        elif change == "sparse":
            params[2].grad = params[2].grad.to_sparse()
        else:
            closure = lambda: 1 / 0  # noqa: E731
        before = copy.deepcopy((o.state_dict(), [p.detach() for p in params]))
        error = failure(o.step, closure)
        if lib is minioptim and not case.startswith("SGD(p, weight"):
            assert unlike((o.state_dict(), [p.detach() for p in params]), before) is None
        return error

    same_failure(attempt)


@pytest.mark.parametrize("number", range(len(LOADING)))
def test_loading_raises_and_changes_nothing(number):
    def attempt(lib):
        o = lib.Adam(parameters()[:2])
        o.step()
        before = copy.deepcopy(o.state_dict())
        error = failure(o.load_state_dict, LOADING[number](copy.deepcopy(before)))
        assert unlike(o.state_dict(), before) is None
        return error

    same_failure(attempt)


@pytest.mark.parametrize("case", GROUPS)
def test_adding_a_group_raises_and_changes_nothing(case):
    def attempt(lib):
        p = parameters()
        o = lib.Adam(p[:2])
        group = eval(case, {"p": p})
        before = copy.copy(group)
        error = failure(o.add_param_group, group)
        assert len(o.param_groups) == 1
        if lib is minioptim and isinstance(group, dict):
            assert group.keys() == before.keys()  # PyTorch has filled in options
            assert group.get("params") is before.get("params")
        return error

    same_failure(attempt)


def test_a_pre_hook_that_returns_something_else():
    def attempt(lib):
        o = lib.SGD(parameters())
        o.register_step_pre_hook(lambda *args: 3)
        return failure(o.step)

    same_failure(attempt)


def test_state_of_a_parameter_that_is_in_no_group():
    def attempt(lib):
        o = lib.SGD(parameters()[:2], momentum=0.9)
        o.step()
        o.param_groups[0]["params"].pop()
        return failure(o.state_dict)

    same_failure(attempt)


def test_what_is_not_supported_is_refused_everywhere():
    """PyTorch takes it, and gives a RuntimeError for bad mixtures, of which this is a kind."""
    p, option = parameters(), "capturable"
    with pytest.raises(NotImplementedError, match=f"{option}=True is not supported: leave it"):
        minioptim.Adam(p, **{option: True})
    with pytest.raises(NotImplementedError, match=option):
        minioptim.AdamW([{"params": p, option: True}])
    o = minioptim.Adam(p[:2], **{option: False})
    with pytest.raises(NotImplementedError, match=option):
        o.add_param_group({"params": p[2:], option: True})
    saved = torch.optim.Adam(p[:2], **{option: True}).state_dict()
    before = copy.deepcopy(o.state_dict())
    with pytest.raises(NotImplementedError, match=option):
        o.load_state_dict(saved)
    assert unlike(o.state_dict(), before) is None
    o.param_groups[0][option] = True
    weights = p[0].detach().clone()
    with pytest.raises(NotImplementedError, match=option):
        o.step()
    assert torch.equal(p[0], weights)


@pytest.mark.parametrize(
    ("mistake", "advice"),
    [
        ("SGD(p[0])", "iterable of tensors"),
        ("SGD([])", "nothing to optimize"),
        ("SGD([{'params': {p[0]}}])", "pass a list"),
        ("SGD([p[0] * 2])", "pass its leaves"),
        ("SGD(p, nesterov=True)", "nesterov needs momentum"),
        ("SGD(p, lr=-1.0)", "lr must not be negative, got -1.0"),
        ("SGD(p, momentum=-1.0)", "momentum must not be negative"),
        ("SGD(p, weight_decay=-1.0)", "weight_decay must not be negative"),
        ("Adam(p, lr=-1.0)", "lr must not be negative or nan"),
        ("Adam(p, eps=-1.0)", "eps must not be negative or nan"),
        ("Adam(p, weight_decay=-1.0)", "weight_decay must not be negative or nan"),
        ("SGD(p, lr=None)", "lr must be a number, not None"),
        ("SGD(p, momentum=None)", "momentum must be a number, not None"),
        ("Adam(p, eps='small')", "eps must be a number, not 'small'"),
        ("Adam(p, lr=tensor([0.1, 0.2]))", "lr must be one number, and not 2 in a tensor"),
        ("Adam(p, lr=tensor(0.1), foreach=True)", "leave foreach unset"),
        ("Adam(p, betas=(0.9, 0.99, 0.999))", "two floats or two tensors"),
        ("Adam(p, betas=(0.9, 1.0))", r"below 1, got \(0.9, 1.0\)"),
    ],
)
def test_messages_say_what_to_do(mistake, advice):
    with pytest.raises((TypeError, ValueError), match=advice):
        build(minioptim, mistake, parameters())


def test_a_group_of_the_wrong_size_says_which():
    with pytest.raises(ValueError, match=r"\[3\] parameters and this optimizer's \[2\]: build it"):
        minioptim.SGD(parameters()[:2]).load_state_dict(
            minioptim.SGD(parameters()[:3]).state_dict()
        )


def test_an_optimizer_of_ones_own_has_the_same_checks():
    for case in ("SignDescent([])", "SignDescent([1.0])", "SignDescent([p[0] * 2])"):
        same_failure(lambda lib, case=case: failure(
            eval, case, {"SignDescent": sign_descent(lib), "p": parameters()}))  # fmt: skip
