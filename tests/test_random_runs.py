"""Random configurations, for the cell of the table that nobody thought of.

A run has any optimizer and options, parameters of any shapes and dtypes in any groups, and a story:
steps with missing gradients, rates and options written by hand, groups that join, schedulers, and
saving into the other library. Both sides are compared to the last bit after every event.

The search is the same each time. ``RANDOM_RUNS=5000 pytest tests/test_random_runs.py`` looks
further, and the same variable enlarges the search over schedulers in ``test_lr_scheduler.py``.
"""

import copy
import warnings

import hypothesis.strategies as st
import torch
from hypothesis import event, given, note
from pair import build, draw, random_runs, unlike
from test_lr_scheduler import singles

import minioptim

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.complex64]
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
def configurations(draw):
    name, options = draw(st.one_of(sgd(), adam()))
    options["foreach"] = draw(st.sampled_from([None, False, True]))
    if name == "SGD" or not options["foreach"]:  # Adam's foreach takes no tensors
        form = draw(
            st.sampled_from(["{}", "{}", "tensor({})", "tensor([{}], dtype=torch.float64)"])
        )
        options["lr"] = Code(form.format(options["lr"]))
    layout = draw(st.lists(st.tuples(st.sampled_from(SHAPES), st.sampled_from(DTYPES)), min_size=1,
                           max_size=5))  # fmt: skip
    cut = draw(st.integers(0, len(layout)))
    if 0 < cut < len(layout):
        _, others = draw(sgd() if name == "SGD" else adam())
        others.pop("decoupled_weight_decay", None)
        params = f"[{{'params': p[:{cut}]}}, {{'params': p[{cut}:], **dict({as_code(others)})}}]"
    else:
        params = "p"
    schedule = draw(st.one_of(st.none(), st.none(), singles))
    return f"{name}({params}, {as_code(options)})", layout, schedule


class Code(str):
    """A piece of a case, written as it is."""

    __repr__ = str.__str__


events = st.lists(
    st.tuples(
        st.sampled_from(["step"] * 6 + ["lr", "option", "save", "group", "zero_grad"]),
        st.integers(0, 2**10),
    ),
    min_size=3,
    max_size=12,
)


class Side:
    """One library's run; after a "save" it goes on in the other, if there is another."""

    def __init__(self, libraries, case, layout, schedule):
        self.libraries, self.case, self.schedule = libraries, case, schedule
        self.params = [torch.nn.Parameter(draw(s, d, i)) for i, (s, d) in enumerate(layout)]
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
        if event == "step":
            for k, p in enumerate(self.params):
                g = draw(p.shape, p.dtype, 10_000 + 100 * t + k)
                p.grad = None if n >> k & 1 and n % 3 == 0 else g
            self.optimizer.step()
            if self.scheduler:
                self.scheduler.step()
        elif event == "lr":
            group["lr"] = group["lr"] * 0.7
        elif event == "option":
            group["maximize"] = not group["maximize"]
            group["weight_decay"] = (0, 0.1)[n & 1]
            group["foreach"] = (
                None if isinstance(group["lr"], torch.Tensor) else (False, True)[n & 1]
            )
            if "momentum" in group and not group["nesterov"]:
                group["momentum"] = (0.0, 0.5, 0.9)[n % 3]
        elif event == "zero_grad":
            self.optimizer.zero_grad(set_to_none=bool(n & 1))
            self.optimizer.step()
        elif event == "group" and not self.schedule:
            self.params.append(torch.nn.Parameter(draw((3,), torch.float32, n)))
            self.optimizer.add_param_group({"params": [self.params[-1]]})
        elif event == "save":
            parts = [self.optimizer, *([self.scheduler] if self.scheduler else [])]
            saved = copy.deepcopy([x.state_dict() for x in parts])
            self.libraries = [*self.libraries[1:], self.libraries[0]]
            groups = 2 if "p[:" in self.case else 1
            self.build(saved, joined=len(self.optimizer.param_groups) - groups)

    def seen(self):
        groups = self.optimizer.state_dict()
        for group in groups["param_groups"]:
            for key in sorted(group):
                group[key] = group.pop(key)  # schedulers may write their entries in another order
        return [p.detach() for p in self.params], groups, [p.grad for p in self.params]


class Halve:
    """A callable with a state, for schedulers that take one."""

    def __init__(self, speed):
        self.speed = speed

    def __call__(self, t):
        return 0.5 + self.speed / (1 + t)


@random_runs(120)
@given(configurations(), events)
def test_any_run(configuration, story):
    case, _, schedule = configuration
    note(f"{case} with {schedule}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the order of calls, and of casts to real numbers
        sides = [
            Side([minioptim, torch.optim], *configuration),
            Side([torch.optim], *configuration),
        ]
        for t, (name, n) in enumerate(story):
            errors = []
            for side in sides:
                try:
                    side.tell(name, n, t)
                except (RuntimeError, ValueError, ZeroDivisionError, OverflowError) as error:
                    errors.append(type(error))
            if errors:
                event(f"both raise {errors[0].__name__}")
                assert errors in ([kind] * 2 for kind in errors)
                return
            a, b = (side.seen() for side in sides)
            if "nesterov" in case and "foreach=True" in case:
                a, b = a[:2], b[:2]  # PyTorch writes into the gradients
            assert unlike(a, b) is None, name
            event(name)
