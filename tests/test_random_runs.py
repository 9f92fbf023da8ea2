"""Random configurations, for the cell of the table that nobody thought of.

A run has any optimizer and options, parameters of any shapes, dtypes and strides in any groups, and
a story: steps with missing, sparse, infinite or undefined gradients, steps with a closure, rates
and options written by hand, groups that join, schedulers, and saving into the other library. Both
sides are compared to the last bit after every event.

The search is the same each time. ``make search`` looks elsewhere, and further.

What is left out is what the documentation of `minioptim` names: parameters of shape () with tensor
betas; of `minioptim.more`, Adagrad in half precision with foreach, Adagrad with sparse gradients,
NAdam with complex parameters, Muon in bfloat16 without Nesterov. RAdam is compared in float64, to
1e-12 of the largest value.
"""

import copy
import types
import warnings

import hypothesis.strategies as st
import torch
from hypothesis import event, given, note
from pair import build, draw, random_runs, unlike
from test_lr_scheduler import singles

import minioptim
from minioptim import more

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
DTYPES += [torch.complex64, torch.complex128]
ODD = [float("nan"), float("inf"), float("-inf"), 0.0, -0.0, 1e-40, 3e38]
FORMS = ["plain", "plain", "strided", "transposed"]  # how a parameter lies in memory
SHAPES = [(), (1,), (5,), (4, 3), (0,), (17,), (2, 1, 3)]
numbers = st.floats(0.0, 1.0, allow_subnormal=False)
rates = st.one_of(st.floats(1e-3, 1.0), st.just(0.0), st.integers(1, 2))
betas = st.tuples(st.floats(0.0, 0.999), st.floats(0.0, 0.999))
decays = st.one_of(st.just(0), st.floats(0.001, 0.5))


def as_code(options):
    return ", ".join(f"{key}={value!r}" for key, value in options.items())


@st.composite
def sgd(draw):
    options = {"lr": draw(rates), "weight_decay": draw(decays), "maximize": draw(st.booleans())}
    options["momentum"] = draw(st.one_of(st.just(0), st.floats(0.1, 1.1)))
    if options["momentum"] and draw(st.booleans()):
        options["nesterov"] = True
    elif draw(st.booleans()):
        options["dampening"] = draw(numbers)
    return "SGD", options


@st.composite
def adam(draw):
    options = {"lr": draw(rates), "weight_decay": draw(decays), "maximize": draw(st.booleans())}
    options |= {"betas": draw(betas), "amsgrad": draw(st.booleans())}
    options["eps"] = draw(st.sampled_from([1e-8, 1e-3, 0.0]))
    name = draw(st.sampled_from(["Adam", "AdamW"]))
    if name == "Adam" and draw(st.booleans()):
        options["decoupled_weight_decay"] = True
    return name, options


@st.composite
def layouts(draw, shapes=SHAPES, dtypes=DTYPES):
    """One parameter after the other: shape, dtype, and how it lies in memory."""
    one = st.tuples(st.sampled_from(shapes), st.sampled_from(dtypes), st.sampled_from(FORMS))
    return draw(st.lists(one, min_size=1, max_size=5))


@st.composite
def configurations(draw):
    name, options = draw(st.one_of(sgd(), adam()))
    options["foreach"] = draw(st.sampled_from([None, False, True]))
    forms = ["{}", "{}", "tensor({})", "tensor([{}], dtype=torch.float64)"]
    shapes = SHAPES
    if name == "SGD" or not options["foreach"]:  # Adam's foreach takes no tensors
        options["lr"] = Code(draw(st.sampled_from(forms)).format(options["lr"]))
    if name == "SGD" and draw(st.booleans()):
        form = draw(st.sampled_from(forms))
        options["weight_decay"] = Code(form.format(options["weight_decay"]))
    elif "betas" in options and not options["foreach"] and draw(st.integers(0, 3)) == 0:
        form = draw(st.sampled_from(forms[2:]))
        options["betas"] = Code(", ".join(form.format(x) for x in options["betas"]).join("()"))
        shapes = SHAPES[1:]  # a parameter of shape () is a named exception
    layout = draw(layouts(shapes))
    params = "p"
    cut = draw(st.integers(0, len(layout)))
    if 0 < cut < len(layout):
        _, others = draw(sgd() if name == "SGD" else adam())
        others.pop("decoupled_weight_decay", None)
        params = f"[{{'params': p[:{cut}]}}, {{'params': p[{cut}:], **dict({as_code(others)})}}]"
    schedule = draw(st.one_of(st.none(), st.none(), singles))
    return f"{name}({params}, {as_code(options)})", layout, schedule


@st.composite
def further(draw):
    """A configuration of one of the optimizers in `minioptim.more`."""
    name = draw(st.sampled_from(["Adagrad", "RMSprop", "NAdam", "RAdam", "Muon"]))
    options = {"lr": draw(rates), "weight_decay": draw(decays)}
    shapes, dtypes = SHAPES, DTYPES
    if name in ("Adagrad", "RMSprop"):
        options["foreach"] = draw(st.sampled_from([None, False, True]))
    if name == "Adagrad":
        options |= {"lr_decay": draw(decays), "initial_accumulator_value": draw(decays)}
        if options["foreach"]:
            dtypes = [dtype for dtype in DTYPES if dtype.itemsize > 2]
    if name == "RMSprop":
        options |= {"alpha": draw(numbers), "centered": draw(st.booleans())}
        options["momentum"] = draw(st.one_of(st.just(0), st.floats(0.1, 1.1)))
    if name in ("NAdam", "RAdam"):
        options |= {"betas": draw(betas), "decoupled_weight_decay": draw(st.booleans())}
        dtypes = [torch.float64] if name == "RAdam" else DTYPES[:4]
    if name == "NAdam":
        options["momentum_decay"] = draw(st.floats(0.0, 0.1))
    if name == "Muon":
        options |= {"momentum": draw(st.floats(0.0, 1.0)), "nesterov": draw(st.booleans())}
        options["adjust_lr_fn"] = draw(st.sampled_from([None, "original", "match_rms_adamw"]))
        options["ns_steps"] = draw(st.integers(1, 6))
        shapes = [(4, 3), (3, 4), (5, 5), (1, 6), (6, 1)]
        dtypes = DTYPES[: 3 if options["nesterov"] else 2]
    else:
        options |= {"maximize": draw(st.booleans())}
        options["eps"] = draw(st.sampled_from([1e-8, 1e-3]))
    schedule = draw(st.one_of(st.none(), st.none(), singles))
    return f"{name}(p, {as_code(options)})", draw(layouts(shapes, dtypes)), schedule


class Code(str):
    """A piece of a case, written as it is."""

    __repr__ = str.__str__


events = st.lists(
    st.tuples(
        st.sampled_from(
            ["step"] * 6
            + ["lr", "option", "save", "group", "zero_grad", "odd", "sparse", "closure"]
        ),
        st.integers(0, 2**10),
    ),
    min_size=3,
    max_size=12,
)


class Side:
    """One library's run; after a "save" it goes on in the other, if there is another."""

    def __init__(self, libraries, case, layout, schedule):
        self.libraries, self.case, self.schedule = libraries, case, schedule
        self.params = [torch.nn.Parameter(laid(*one, i)) for i, one in enumerate(layout)]
        self.seen_losses = []
        self.build()

    def build(self, saved=None, joined=0):
        n = len(self.params) - joined
        self.optimizer = build(self.libraries[0], self.case, self.params[:n])
        for p in self.params[n:]:
            self.optimizer.add_param_group({"params": [p]})
        self.scheduler = None
        if self.schedule:
            names = {**vars(self.libraries[0].lr_scheduler), "Decay": Halve, "o": self.optimizer}
            self.scheduler = eval(self.schedule, names)
        if saved:
            self.optimizer.load_state_dict(saved[0])
            if self.scheduler:
                self.scheduler.load_state_dict(saved[1])

    def tell(self, event, n, t):
        group = self.optimizer.param_groups[n % len(self.optimizer.param_groups)]
        if event in ("step", "odd", "sparse", "closure"):
            self.step(event, n, t)
        elif event == "lr":
            group["lr"] = group["lr"] * 0.7
        elif event == "option":
            self.option(group, n)
        elif event == "zero_grad":
            self.optimizer.zero_grad(set_to_none=bool(n & 1))
            self.optimizer.step()
        elif event == "group" and not self.schedule:
            like = self.params[0]  # a matrix for Muon, and a dtype that the class can have
            self.params.append(torch.nn.Parameter(draw(like.shape, like.dtype, n)))
            self.optimizer.add_param_group({"params": [self.params[-1]]})
        elif event == "save":
            parts = [self.optimizer, *([self.scheduler] if self.scheduler else [])]
            saved = copy.deepcopy([x.state_dict() for x in parts])
            self.libraries = [*self.libraries[1:], self.libraries[0]]
            groups = 2 if "p[:" in self.case else 1
            self.build(saved, joined=len(self.optimizer.param_groups) - groups)

    def step(self, event, n, t):
        def gradients():
            for k, p in enumerate(self.params):
                g = draw(p.shape, p.dtype, 10_000 + 100 * t + k)
                if event == "odd" and g.numel() and n >> k & 1:
                    g.view(-1)[n % g.numel()] = ODD[n % len(ODD)]
                if event == "sparse" and g.dim() and n >> k & 1 and not self.case.startswith("Ada"):
                    g = g.to_sparse()
                p.grad = None if n >> k & 1 and n % 3 == 0 else g
            return float(n)

        if event == "closure":
            self.seen_losses.append(self.optimizer.step(gradients))
        else:
            gradients()
            self.optimizer.step()
        if self.scheduler:
            self.scheduler.step()

    def option(self, group, n):
        tensors = [x for x in (group["lr"], *group.get("betas", ())) if isinstance(x, torch.Tensor)]
        core = self.case.startswith(("SGD", "Adam"))
        group["weight_decay"] = (0, 0.1)[n & 1]
        if "maximize" in group:
            group["maximize"] = not group["maximize"]
        if "foreach" in group and (core or self.case.startswith("RMSprop")):
            group["foreach"] = None if tensors else (False, True)[n & 1]
        if "momentum" in group and not group.get("nesterov"):
            group["momentum"] = (0.0, 0.5, 0.9)[n % 3]

    def seen(self):
        groups = self.optimizer.state_dict()
        for group in groups["param_groups"]:
            for key in sorted(group):
                group[key] = group.pop(key)  # schedulers may write their entries in another order
        grads = [p.grad for p in self.params]
        return [p.detach() for p in self.params], groups, self.seen_losses, grads


class Halve:
    """A callable with a state, for schedulers that take one."""

    def __init__(self, speed):
        self.speed = speed

    def __call__(self, t):
        return 0.5 + self.speed / (1 + t)


def laid(shape, dtype, form, seed):
    """A tensor of this shape that lies in memory in this way."""
    if form == "strided":
        return draw((*shape, 2), dtype, seed)[..., 0]
    if form == "transposed":
        return draw(shape[::-1], dtype, seed).permute(tuple(range(len(shape)))[::-1])
    return draw(shape, dtype, seed)


def near(a, b):
    """As `unlike`, for numbers that may differ by 1e-12 of the largest; for RAdam."""
    if isinstance(a, torch.Tensor):
        size = max(1.0, a[a.isfinite()].abs().max().item() if a.isfinite().any() else 0)
        close = torch.allclose(a, b, rtol=0, atol=1e-12 * size, equal_nan=True)
        return None if close else f"{a} and {b}"
    if isinstance(a, list | tuple):
        return next(filter(None, map(near, a, b)), None)
    return None if isinstance(a, dict) else unlike(a, b)  # the state follows the parameters


def compare(libraries, configuration, story, difference=unlike):
    """Tell both libraries one story; both must end alike, also in an error."""
    case, _, schedule = configuration
    note(f"{case} with {schedule}")
    sides = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the order of calls, and of casts to real numbers
        for t, (name, n) in enumerate([("build", 0), *story]):
            errors = []
            for i in range(2):
                try:
                    if name == "build":
                        sides.append(Side([libraries[:], libraries[1:]][i], *configuration))
                    else:
                        sides[i].tell(name, n, t)
                except ERRORS as error:
                    errors.append(type(error))
            if errors:
                event(f"both raise {errors[0].__name__}")
                # Two faults at once, a sparse gradient and state that an option made incomplete:
                # PyTorch names that of the first parameter, we name the gradient before any state.
                both = name == "sparse" and errors == [RuntimeError, KeyError]
                assert both or errors in ([kind] * 2 for kind in errors), (name, errors)
                return
            a, b = (side.seen() for side in sides)
            if "nesterov=True" in case and "foreach" in case:
                a, b = a[:-1], b[:-1]  # PyTorch writes into the gradients
            assert difference(a, b) is None, name
            event(name)


ERRORS = (RuntimeError, TypeError, ValueError, KeyError, ZeroDivisionError, OverflowError)


@random_runs(120)
@given(configurations(), events)
def test_any_run(configuration, story):
    compare([minioptim, torch.optim], configuration, story)


@random_runs(40)
@given(further(), events)
def test_any_run_of_the_others(configuration, story):
    ours = types.SimpleNamespace(**{**vars(minioptim), **vars(more)})
    stays = configuration[0].startswith("RAdam")  # what is saved in one library ends elsewhere
    compare([ours, torch.optim], configuration, story, near if stays else unlike)
