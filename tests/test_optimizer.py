"""What programs lean on besides numbers. Each story is told with both libraries and must be equal.

A story takes a library and returns what can be seen: values, orders of calls, texts, whole state
dictionaries. Comparing is exact, to the last bit of every tensor.
"""

import copy
import gc
import importlib
import inspect
import io
import pickle
import weakref

import pytest
import torch
from pair import build, draw, unlike
from torch import nn
from torch.utils._foreach_utils import _get_foreach_kernels_supported_devices

import minioptim
from minioptim import optimizer as our_optimizer

STORIES = []


def story(f):
    STORIES.append(f)
    return f


@pytest.mark.parametrize("f", STORIES, ids=lambda f: f.__name__)
def test_same_story(f):
    ours, theirs = f(minioptim), f(torch.optim)
    assert unlike(ours, theirs) is None
    assert ours  # it says something


def net(*shape):
    """A small model with known weights."""
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    for i, p in enumerate(model.parameters()):
        p.data = draw(p.shape, torch.float32, i)
    return model


def loss_of(model, i=0):
    return model(draw((5, 3), torch.float32, 100 + i)).square().mean()


def train(model, optimizer, steps=3, start=0):
    """A training loop; the weights after every step."""
    seen = []
    for i in range(start, start + steps):
        optimizer.zero_grad()
        loss_of(model, i).backward()
        optimizer.step()
        seen.append([p.detach().clone() for p in model.parameters()])
    return seen


def vectors(n, **options):
    params = [nn.Parameter(draw((3,), torch.float32, i), **options) for i in range(n)]
    for i, p in enumerate(params):
        p.grad = draw((3,), torch.float32, 10 + i)
    return params


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "Optimizer"])
def test_same_names_and_signatures(name):
    """Every public method, and every argument with its kind and default."""
    ours, theirs = getattr(minioptim, name), getattr(torch.optim, name)
    methods = [m for m in dir(theirs) if inspect.isfunction(getattr(theirs, m)) and m[0] != "_"]
    methods.remove("profile_hook_step")  # wraps step when the first instance is made
    assert len(methods) == 11
    for method in ["__init__", *methods]:
        found, expected = (
            [(p.name, p.kind, p.default) for p in inspect.signature(f).parameters.values()]
            for f in (getattr(ours, method), getattr(theirs, method))
        )
        assert found == expected, method


# --- parameters and groups ------------------------------------------------------------------------


@story
def parameters_come_in_many_wrappings(lib):
    a, b, c = vectors(3)
    given = [(a, b), iter([a, b]), {a: 1, b: 2}.keys(), [a], [{"params": a}], [("x", a), ("y", b)],
             [{"params": (p for p in (a, b))}, {"params": [c], "lr": 0.5}],
             [{"params": [a]}, {"params": []}], ({"params": [a]},)]  # fmt: skip
    optimizers = [lib.SGD(params, lr=0.1) for params in given]
    params = {id(a): "a", id(b): "b", id(c): "c"}
    return [[[params[id(p)] for p in g["params"]], {k: g[k] for k in g if k != "params"}]
            for o in optimizers for g in o.param_groups]  # fmt: skip


@story
def every_group_has_every_option(lib):
    a, b, c = vectors(3)
    out = []
    for cls in (lib.SGD, lib.Adam, lib.AdamW):
        o = cls([{"params": [a], "lr": 0.5, "note": "any key will do"}, {"params": [b]}], lr=0.1)
        o.add_param_group({"params": c, "weight_decay": 0.3, "maximize": True})
        o.step()
        out += [o.defaults, o.state_dict(), a.detach().clone(), b.detach().clone(), c.detach()]
    return out


@story
def a_group_that_joins_late_starts_its_own_count(lib):
    a, b = vectors(2)
    o = lib.AdamW([a], lr=0.1, amsgrad=True)
    o.step()
    o.add_param_group({"params": [b], "betas": (0.5, 0.6)})
    o.step()
    return o.state_dict(), a.detach(), b.detach()


@story
def named_parameters(lib):
    o = lib.Adam(net().named_parameters())
    a, b = vectors(2)
    groups = lib.SGD(
        [{"params": [("a", a)]}, {"params": iter([("b", b)]), "lr": 1.0}], momentum=0.9
    )
    groups.step()
    return o.param_groups[0]["param_names"], o.state_dict(), groups.state_dict()


@story
def a_computed_tensor_is_taken_if_its_gradient_is_kept(lib):
    (a,) = vectors(1)
    computed = a * 2
    with pytest.raises(ValueError, match="can't optimize"):
        lib.SGD([computed])
    computed.retain_grad()
    o = lib.SGD([computed], lr=0.1)
    computed.square().sum().backward()
    o.step()
    return computed.detach(), a.grad


def test_a_parameter_given_twice_is_reported_where_the_optimizer_is_made():
    (a,) = vectors(1)
    with pytest.warns(UserWarning, match="a parameter appears twice") as warned:
        minioptim.Optimizer([a, a], {"lr": 0.1})
    assert [warning.filename for warning in warned] == [__file__]


@story
def names_are_loaded_or_else_kept(lib):
    a, b = vectors(2)
    named, nameless = lib.SGD([("a", a)]), lib.SGD([b])
    out = []
    for to, source in [(lib.SGD([("b", b)]), named), (lib.SGD([("b", b)]), nameless),
                       (lib.SGD([b]), named)]:  # fmt: skip
        to.load_state_dict(source.state_dict())
        out.append(to.param_groups[0].get("param_names"))
    assert out == [["a"], ["b"], ["a"]]
    return out


@story
def a_rate_that_foreach_refuses_is_no_matter_where_nothing_is_updated(lib):
    a, b = vectors(2)
    o = lib.Adam([{"params": [a], "lr": 0.2}, {"params": [b]}], foreach=True)
    o.param_groups[1]["lr"] = torch.tensor(0.1)
    b.grad = None
    o.step()
    return a.detach(), b.detach(), o.state_dict()


@story
def frozen_and_gradient_free_parameters_stay(lib):
    a, b, c = vectors(3)
    b.requires_grad_(False).grad = None
    c.grad = None
    o = lib.AdamW([a, b, c], weight_decay=0.5)
    o.step()
    o.load_state_dict(o.state_dict())
    o.step()
    return [a.detach(), b, c.detach(), o.state_dict()]


@story
def steps_are_counted_in_the_wider_default_dtype_and_no_narrower(lib):
    out = []
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        torch.set_default_dtype(dtype)
        try:
            (a,) = vectors(1)
            o = lib.Adam([a])
            o.step()
        finally:
            torch.set_default_dtype(torch.float32)
        out.append(o.state_dict())
    counts = [saved["state"][0]["step"].dtype for saved in out]
    assert counts == [torch.float64, torch.float32, torch.float32]
    return out


@story
def tensor_rates_are_kept_as_given(lib):
    rate = torch.tensor([0.1])
    out = []
    for cls in (lib.SGD, lib.Adam):
        a, b = vectors(2)
        o = cls([{"params": [a]}, {"params": [b], "lr": torch.tensor(0.2)}], lr=rate)
        o.step()
        rate.fill_(0.3)  # the group holds this very tensor
        o.step()
        out.append([o.param_groups[0]["lr"] is rate, o.defaults["lr"] is rate, a, b, rate])
    return out


@story
def state_lies_like_its_parameter(lib):
    p = nn.Parameter(draw((4, 6), torch.float32, 0).t())  # strides (1, 6)
    image = draw((2, 3, 4, 4), torch.float32, 1)
    q = nn.Parameter(image.contiguous(memory_format=torch.channels_last))
    for x in (p, q):
        x.grad = torch.ones_like(x)
    o = lib.Adam([p, q], amsgrad=True)
    o.step()
    return [(key, value.stride(), value.dtype) for x in (p, q) for key, value in o.state[x].items()]


# --- calling a step -------------------------------------------------------------------------------


@story
def closures(lib):
    model, calls = net(), []
    o = lib.SGD(model.parameters(), lr=0.1)

    def closure():
        calls.append(torch.is_grad_enabled())
        o.zero_grad()
        loss = loss_of(model)
        loss.backward()
        return loss

    with torch.no_grad():
        found = [o.step(closure).item(), o.step(closure=closure).item(), o.step()]
    assert calls == [True, True]
    return found, [*model.parameters()], torch.is_grad_enabled()


@story
def zero_grad_in_all_its_forms(lib):
    out = []
    for to_none in (True, False):
        for foreach in (False, True):
            a, b, c, d, e = vectors(5)
            b.grad = None
            e.grad = torch.ones(6)[3:]
            d.grad = torch.ones(3, requires_grad=True)
            c.grad = c.square().sum().mul(2) * torch.ones(3)  # a gradient with a history
            kept = a.grad
            o = lib.SGD([a, b, c, d, e], foreach=foreach)
            o.zero_grad(set_to_none=to_none)
            out.append([a.grad, b.grad, c.grad, d.grad, e.grad, kept, kept is a.grad])
            out.append([p.grad is not None and p.grad.requires_grad for p in (a, c, d)])
    return out


@story
def a_step_leaves_gradients_and_modes_alone(lib):
    out = []
    for case in ("SGD(p, momentum=0.9)", "SGD(p, weight_decay=0.1, maximize=True)", "AdamW(p)"):
        params = vectors(3)
        before = [p.grad.clone() for p in params]
        o = build(lib, case, params)
        for enabled in (True, False):
            with torch.set_grad_enabled(enabled):
                o.step()
                out.append(torch.is_grad_enabled())
        assert unlike([p.grad for p in params], before) is None
        out.append([p.requires_grad and p.is_leaf for p in params])
    return out


# --- hooks ----------------------------------------------------------------------------------------


@story
def hooks_around_a_step(lib):
    (a,) = vectors(1)
    o, log = lib.SGD([a], lr=0.1), []

    def hook(name):
        return lambda optimizer, args, kwargs: log.append((name, optimizer is o, len(args), kwargs))

    handles = [
        o.register_step_pre_hook(hook("pre 1")),
        o.register_step_pre_hook(hook("pre 2")),
        o.register_step_post_hook(hook("post 1")),
        lib.Optimizer.register_step_post_hook(o, hook("post 2")),
        register(lib, "pre")(hook("global pre")),
        register(lib, "post")(hook("global post")),
    ]
    try:
        o.step()
        o.step(None)
        o.step(closure=lambda: 3.0)
        handles[1].remove()
        handles[4].remove()
        o.step()
    finally:
        [handle.remove() for handle in handles]
    o.step()  # nobody listens
    return [(name, same, n, sorted(kwargs)) for name, same, n, kwargs in log]


def register(lib, when):
    home = importlib.import_module(f"{lib.__name__}.optimizer")
    return getattr(home, f"register_optimizer_step_{when}_hook")


@story
def a_pre_hook_may_change_the_arguments(lib):
    (a,) = vectors(1)
    o = lib.SGD([a], lr=0.1)
    o.register_step_pre_hook(lambda optimizer, args, kwargs: (args, {"closure": lambda: "changed"}))
    seen = []
    o.register_step_post_hook(lambda optimizer, args, kwargs: seen.append(sorted(kwargs)))
    return o.step(), seen


@story
def hooks_that_write_and_read(lib):
    """A pre-hook sees the old parameters, a post-hook the new ones."""
    (a,) = vectors(1)
    o = lib.SGD([a], lr=0.1)
    seen = []
    for register in (o.register_step_pre_hook, o.register_step_post_hook):
        register(lambda optimizer, args, kwargs: seen.append(a.detach().clone()))
    o.step()
    return seen


@story
def hooks_around_saving_and_loading(lib):
    (a,) = vectors(1)
    o, log = lib.SGD([a], lr=0.1, momentum=0.9), []
    o.step()

    def note(name, result=None):
        return lambda *args: (log.append((name, len(args))), result and result(args[1]))[1]

    for kind in [f"{what}_{when}" for what in ("state_dict", "load_state_dict")
                 for when in ("pre", "post")]:  # fmt: skip
        add = getattr(o, f"register_{kind}_hook")
        add(note(f"{kind} 1"))
        add(note(f"{kind} 0"), prepend=True)
        add(note(f"{kind} 2")).remove()
    o.register_state_dict_post_hook(note("replaces", lambda state: {**state, "extra": 1}))
    o.register_load_state_dict_pre_hook(note("also", lambda state: {**state, "state": {}}))
    saved = o.state_dict()
    o.load_state_dict(saved)
    return log, saved, o.state_dict()


@story
def hooks_may_edit_the_dictionary_they_get(lib):
    (a,) = vectors(1)
    o = lib.SGD([a], lr=0.1, momentum=0.9)
    o.step()
    o.register_state_dict_post_hook(lambda o, state: state.update(extra=1))
    handle = o.register_load_state_dict_pre_hook(lambda o, state: state.pop("extra"))  # returns 1
    saved = o.state_dict()
    with pytest.raises(TypeError):
        o.load_state_dict(saved)
    assert saved["extra"] == 1  # the hook was given a copy
    handle.remove()
    o.register_load_state_dict_pre_hook(lambda o, state: state.update(state={}))
    o.load_state_dict(saved)
    return saved, o.state_dict()


def test_global_hooks_of_one_library_do_not_see_the_other():
    seen = []
    handles = [register(lib, "pre")(lambda o, *_: seen.append(type(o)))
               for lib in (minioptim, torch.optim)]  # fmt: skip
    try:
        for lib in (minioptim, torch.optim):
            lib.Adam(vectors(1)).step()
    finally:
        [handle.remove() for handle in handles]
    assert seen == [minioptim.Adam, torch.optim.Adam]


# --- texts and copies -----------------------------------------------------------------------------


@story
def repr_(lib):
    a, b = vectors(2)
    groups = [{"params": [a]}, {"params": [b], "lr": torch.tensor(0.5), "z": None}]
    return [repr(lib.SGD([("a", a)], lr=0.1, momentum=0.9)), repr(lib.AdamW(groups))]


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda x: pickle.loads(pickle.dumps(x)),
    "torch.save": lambda x: torch.load(saved(x), weights_only=False),
}


def saved(x):
    file = io.BytesIO()
    torch.save(x, file)
    file.seek(0)
    return file


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("case", ["SGD(p, lr=0.1, momentum=0.9)", "AdamW(p, amsgrad=True)"])
def test_copies_live_on_alone(how, case):
    stories = []
    for lib in (minioptim, torch.optim):
        model = net()
        o = build(lib, case, model.parameters())
        o.register_step_pre_hook(lambda *_: pytest.fail("hooks are not copied"))
        o._optimizer_step_pre_hooks.clear()
        o.register_load_state_dict_post_hook(print)
        train(model, o, 2)
        before = copy.deepcopy(o.state_dict())
        other_model, other = COPIES[how]((model, o))
        stories.append(train(other_model, other, 2, start=2))
        assert not other._optimizer_load_state_dict_post_hooks
        assert unlike(o.state_dict(), before) is None
        assert unlike(train(model, o, 2, start=2), stories[-1]) is None
        stories.append([repr(other), other.state_dict()])
    assert unlike(stories[:2], stories[2:]) is None


@pytest.mark.parametrize("case", ["SGD(p, momentum=0.9)", "SGD(p, lr=tensor(0.1))", "Adam(p)",
                                  "AdamW(p, amsgrad=True, lr=tensor([0.1]))"])  # fmt: skip
def test_state_dict_survives_a_file_with_weights_only(case):
    model = net()
    o = build(minioptim, case, [*model.named_parameters()])
    train(model, o, 2)
    loaded = torch.load(saved(o.state_dict()), weights_only=True)
    assert unlike(loaded, o.state_dict()) is None


def test_no_reference_cycle():
    gc.collect()
    gc.disable()
    try:
        for case in ("SGD(p, momentum=0.9)", "Adam(p)"):
            model = net()
            o = build(minioptim, case, model.parameters())
            minioptim.lr_scheduler.StepLR(o, 1)
            train(model, o, 2)
            o.load_state_dict(o.state_dict())
            gone = weakref.ref(o)
            del o
            assert gone() is None
    finally:
        gc.enable()


# --- with other parts of PyTorch ------------------------------------------------------------------


@story
def clipping(lib):
    model = net()
    o = lib.SGD(model.parameters(), lr=0.5, momentum=0.9)
    out = []
    for i in range(3):
        o.zero_grad()
        loss_of(model, i).backward()
        out.append(nn.utils.clip_grad_norm_(model.parameters(), 0.1))
        nn.utils.clip_grad_value_(model.parameters(), 0.05)
        o.step()
    return out, [*model.parameters()]


@story
def parametrized_weights(lib):
    model = net()
    nn.utils.parametrizations.weight_norm(model[0])
    nn.utils.parametrizations.orthogonal(model[2], use_trivialization=False)
    o = lib.AdamW(model.parameters(), lr=0.1)
    seen = train(model, o, 3)
    return seen, sorted(dict(model.named_parameters())), model[0].weight.detach()


@story
def functional_call(lib):
    model = net()
    params = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}
    o = lib.Adam(params.values(), lr=0.1)
    for i in range(3):
        x = draw((5, 3), torch.float32, i)
        grad = torch.func.grad(lambda w, x=x: torch.func.functional_call(model, w, (x,)).sum())
        for name, g in grad(params).items():
            params[name].grad = g
        o.step()
    return [*params.values()], [*net().parameters()]


@story
def grad_scaler(lib):
    """A step with an infinite gradient is left out, and its scheduler's step still counts."""
    model = net()
    o = lib.Adam(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=2)
    out = []
    for i in range(5):
        o.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(model, i)
        scaler.scale(loss * (float("inf") if i == 2 else 1)).backward()
        if i % 2:
            scaler.unscale_(o)
        scaler.step(o)
        scaler.update()
        out.append([scaler.get_scale(), o.state_dict()["state"][0]["step"].item()])
    assert out[2][1] == out[1][1]
    return out, [*model.parameters()]


@story
def averaged_model(lib):
    model = net()
    average = torch.optim.swa_utils.AveragedModel(model)
    o = lib.SGD(model.parameters(), lr=0.1)
    for i in range(3):
        train(model, o, 1, start=i)
        average.update_parameters(model)
    return [*average.module.parameters()]


# --- an optimizer of one's own --------------------------------------------------------------------


def sign_descent(lib):
    class SignDescent(lib.Optimizer):
        def __init__(self, params, lr=0.1):
            super().__init__(params, {"lr": lr})

        @torch.no_grad()
        def step(self, closure=None):
            for group in self.param_groups:
                for p in group["params"]:
                    if p.grad is not None:
                        self.state[p]["step"] = self.state[p].get("step", 0) + 1
                        p.sub_(p.grad.sign(), alpha=group["lr"])
            return closure and closure()

    return SignDescent


@story
def an_optimizer_of_ones_own(lib):
    a, b = vectors(2)
    b.grad = None
    o = sign_descent(lib)([{"params": [a]}, {"params": [b], "lr": 1.0}])
    log = []
    o.register_step_pre_hook(lambda *args: log.append("pre"))
    o.register_step_post_hook(lambda *args: log.append("post"))
    o.step()
    o.load_state_dict(copy.deepcopy(o.state_dict()))
    found = o.step(lambda: "loss")
    assert type(o.state[a]["step"]) is int  # only what this package counts becomes a tensor
    return log, found, a.detach(), o.state_dict(), repr(o)


@story
def an_optimizer_without_a_step(lib):
    o = lib.Optimizer(vectors(1), {"lr": 0.1, "differentiable": False})
    with pytest.raises(NotImplementedError):
        o.step()
    return o.state_dict()


def test_a_rule_of_ones_own_is_given_the_gradient_as_it_is():
    """Unless there are options that say otherwise."""

    class Plain(minioptim.Optimizer):
        def __init__(self, params, **options):
            super().__init__(params, {"lr": 0.5, **options})

        @staticmethod
        def scalars(*, lr):
            return {"lr": lr}

        @staticmethod
        def rule(p, g, *, lr):
            p.add_(g, alpha=-lr)

    for options in ({}, {"maximize": True}, {"weight_decay": 0.1}):
        a, b = vectors(2)
        b.data, b.grad = a.data.clone(), a.grad.clone()
        Plain([a], **options).step()
        torch.optim.SGD([b], lr=0.5, **options).step()
        assert torch.equal(a, b), options


@story
def a_changed_adam(lib):
    """Overriding step and calling the old one; hooks run once around the outer one."""

    class Warmup(lib.Adam):
        def step(self, closure=None):
            self.param_groups[0]["lr"] *= 0.5
            return super().step(closure)

    (a,) = vectors(1)
    o, log = Warmup([a], lr=0.1), []
    o.register_step_pre_hook(lambda *args: log.append(o.param_groups[0]["lr"]))
    for _ in range(3):
        o.step()
    return a.detach(), o.state_dict(), log if lib is minioptim else log[:: len(log) // 3]


# --- which engine ---------------------------------------------------------------------------------


class Odd(nn.Parameter):
    """A parameter that may mean something else by its methods."""


@pytest.mark.parametrize(
    ("case", "kind", "foreach"),
    [
        ("SGD(p)", nn.Parameter, True),
        ("SGD(p, foreach=False)", nn.Parameter, False),
        ("SGD(p, fused=False)", nn.Parameter, False),
        ("SGD(p, lr=tensor(0.1))", nn.Parameter, True),
        ("SGD(p)", Odd, False),
        ("SGD(p, foreach=True)", Odd, True),
        ("Adam(p)", nn.Parameter, True),
        ("Adam(p, fused=False)", nn.Parameter, False),
        ("Adam(p, lr=tensor(0.1))", nn.Parameter, False),
        ("AdamW(p, betas=(tensor(0.9), tensor(0.99)))", nn.Parameter, False),
        ("Adam(p)", Odd, False),
    ],
)
def test_the_engine_where_foreach_is_the_default(case, kind, foreach, monkeypatch):
    """As on CUDA: here the CPU counts as such a device, in both libraries."""
    monkeypatch.setattr(our_optimizer, "FOREACH_DEVICES", ("cpu",))
    home = importlib.import_module("torch.optim.optimizer")
    monkeypatch.setattr(home, "_get_foreach_kernels_supported_devices", lambda: ["cpu"])
    p = kind(draw((3,), torch.float32, 0))
    ours = our_optimizer.choose_engine(build(minioptim, case, [p]).param_groups[0], [p])
    assert ours is (minioptim.engines.foreach if foreach else minioptim.engines.loop)

    called = []
    for name in ("_multi_tensor_sgd", "_multi_tensor_adam"):
        module = importlib.import_module(f"torch.optim.{name.split('_')[-1]}")
        real = getattr(module, name)
        wrapped = lambda *a, real=real, **kw: (called.append(1), real(*a, **kw))[1]  # noqa: E731
        monkeypatch.setattr(module, name, wrapped)
    p.grad = torch.ones(3)
    theirs = build(torch.optim, case, [p])
    if "betas" in case:
        with pytest.raises(ValueError, match="beta1 as a Tensor"):
            theirs.step()  # PyTorch chooses foreach, and then cannot run it
    else:
        theirs.step()
        assert bool(called) == foreach


def test_one_parameter_of_a_class_of_its_own_keeps_a_group_out_of_foreach(monkeypatch):
    monkeypatch.setattr(our_optimizer, "FOREACH_DEVICES", ("cpu",))
    a, b = vectors(2)
    group = minioptim.SGD([a]).param_groups[0]
    chosen = [our_optimizer.choose_engine(group, params) for params in ([a, b], [a, Odd(b)])]
    assert chosen == [minioptim.engines.foreach, minioptim.engines.loop]


def test_the_default_engine_is_the_loop_where_devices_are_mixed_or_foreign():
    cpu = torch.ones(1)
    meta = torch.ones(1, device="meta")
    options = minioptim.SGD([cpu]).param_groups[0]
    for params in ([cpu], [meta], [cpu, meta]):
        assert our_optimizer.choose_engine(options, params) is minioptim.engines.loop


def test_a_subclass_without_a_step_of_its_own_has_that_of_its_base():
    class Renamed(minioptim.SGD):
        pass

    assert Renamed.step is minioptim.SGD.step is minioptim.Optimizer.step
    assert "step" not in vars(Renamed)


def test_what_else_a_subclass_inherits_from_hears_of_it():
    heard = []

    class Listens:
        def __init_subclass__(cls, note="", **kwargs):
            super().__init_subclass__(**kwargs)
            heard.append(note)

    class Mine(minioptim.SGD, Listens, note="here"):
        pass

    assert heard == ["here"]
    assert Mine.option_keys == minioptim.SGD.option_keys


def test_every_name_that_is_offered_is_there():
    assert all(hasattr(minioptim, name) for name in minioptim.__all__)


def test_a_pre_hook_may_not_return_three_things():
    optimizer = minioptim.SGD([torch.ones(2, requires_grad=True)])
    optimizer.register_step_pre_hook(lambda *args: (1, 2, 3))
    with pytest.raises(RuntimeError, match=r"not \(1, 2, 3\)"):
        optimizer.step()


def test_lists_are_the_default_where_they_are_in_pytorch():
    """All but devices that others bring along, which PyTorch lists as well."""
    theirs = _get_foreach_kernels_supported_devices()
    assert [*our_optimizer.FOREACH_DEVICES] == [d for d in theirs if d != "privateuseone"]
