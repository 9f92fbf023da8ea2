"""The package as a whole: it needs nothing of torch.optim, it is small, it says what it does."""

import ast
import functools
import importlib
import inspect
import io
import json
import pkgutil
import re
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest
import torch
from test_lr_scheduler import CASES as SCHEDULES
from test_parity import ADAM, GROUPS, SGD, TENSORS, with_engine

import minioptim

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted((ROOT / "src/minioptim").glob("*.py"))
MODULES = [minioptim] + [
    importlib.import_module(f"minioptim.{module.name}")
    for module in pkgutil.iter_modules(minioptim.__path__)
]

# --- independence ---------------------------------------------------------------------------------

ALONE = """
import copy, io, json, pickle, sys, warnings
import torch
import torch._dynamo  # both touch torch.optim when they are first used
from torch._subclasses.fake_tensor import FakeTensorMode
with FakeTensorMode(), torch.no_grad():
    torch.ones(1).add_(1)


class Forbidden:
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        raise RuntimeError(f"touched {name}")


def forbidden(*args, **kwargs):
    raise RuntimeError("touched a fused function")


for name in [name for name in sys.modules if name.split(".")[:2] == ["torch", "optim"]]:
    sys.modules[name] = Forbidden()
torch.optim = Forbidden()
for name in [name for name in dir(torch) if name.startswith("_fused_")]:
    setattr(torch, name, forbidden)
for touch in (lambda: torch.optim.SGD, lambda: torch._fused_adam_([])):
    try:
        touch()
    except RuntimeError:
        print("guarded")

import minioptim


class Decay:
    def __init__(self, speed):
        self.speed = speed

    def __call__(self, t):
        return 1 / (1 + self.speed * t)


def params(dtype=torch.float32):
    made = [torch.nn.Parameter(torch.ones(shape, dtype=dtype)) for shape in ((), (3,), (2, 2))]
    for p in made:
        p.grad = torch.ones_like(p)
    return made


work = json.load(sys.stdin)
names = {"torch": torch, "tensor": torch.tensor, **vars(minioptim)}
for case in work["optimizers"]:
    for dtype in (torch.float32, torch.bfloat16, torch.complex64):
        p = params(dtype)
        o = eval(case, {**names, "p": p})
        handles = [o.register_step_pre_hook(lambda *a: None),
                   minioptim.register_optimizer_step_post_hook(lambda *a: None)]
        for missing in (None, 0, 1):
            if missing is not None:
                p[missing].grad = None
            o.step()
        for handle in handles:
            handle.remove()
        again = eval(case, {**names, "p": params(dtype)})
        file = io.BytesIO()
        torch.save(o.state_dict(), file)
        file.seek(0)
        again.load_state_dict(torch.load(file, weights_only=True))
        again.zero_grad(), again.step(lambda: None), repr(again)
        copy.deepcopy(again), pickle.loads(pickle.dumps(again))
        again.add_param_group({"params": [torch.ones(2, requires_grad=True)]})
for case in work["schedulers"]:
    p = params()
    o = minioptim.SGD([{"params": p[:1]}, {"params": p[1:], "lr": 0.2}], lr=0.1, momentum=0.9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        s = eval(case, {**vars(minioptim.lr_scheduler), "o": o, "Decay": Decay})
        for t in range(12):
            o.step()
            s.step(1.0) if "Plateau" in case else s.step()
    s.load_state_dict(copy.deepcopy(s.state_dict())), s.get_last_lr()
for case in ("SGD(p, lr=lr, momentum=0.9)", "Adam(p, lr=lr, amsgrad=True)"):
    lr = torch.tensor(0.1, requires_grad=True)
    q = torch.ones(2, requires_grad=True).clone()
    o = eval(case[:-1] + ", differentiable=True)", {**names, "p": [q], "lr": lr})
    for _ in range(3):
        q.grad = torch.ones(2)
        o.step()
    q.sum().backward()
p = [torch.nn.Parameter(torch.ones(4, 2))]
p[0].grad = torch.ones(4, 2).to_sparse()
minioptim.SGD(p, momentum=0.9).step()
try:
    minioptim.Adam(p, capturable=True)
except NotImplementedError:
    print("done")
"""


def test_it_works_where_torch_optim_and_fused_kernels_cannot_be_touched():
    cases = [with_engine(case, foreach) for case in SGD + ADAM + GROUPS for foreach in (None, True)]
    work = {"optimizers": cases[::2] + cases[1::6] + TENSORS, "schedulers": SCHEDULES}
    run = subprocess.run(
        [sys.executable, "-c", ALONE], input=json.dumps(work), capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == ["guarded", "guarded", "done"]


# --- size -----------------------------------------------------------------------------------------


def docstrings(tree):
    """The docstring nodes of everything in a module."""
    places = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, places) and ast.get_docstring(node, clean=False) is not None:
            yield node.body[0]


def code_lines(text):
    """The lines of code: all but blank lines, comments and docstrings."""
    no_code = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
               tokenize.ENDMARKER)  # fmt: skip
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in no_code:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in docstrings(ast.parse(text)):
        lines.difference_update(range(node.lineno, node.end_lineno + 1))
    return len(lines)


def formatted(text):
    """As ruff writes it, also where a comment asks it to keep away."""
    ruff = [sys.executable, "-m", "ruff", "format", "--line-length", "100", "-"]
    text = re.sub(r"# fmt: \w+", "", text)
    return subprocess.run(ruff, input=text, capture_output=True, text=True, check=True).stdout


def test_lines_of_code_are_counted_as_they_should_be():
    text = '"""Doc\n\nstring."""\n\nx = 1  # one\n# comment\n\n\ndef f():\n    """Doc."""\n'
    assert code_lines(text + "    return (\n        1\n    )\n") == 5


def test_the_package_is_small():
    names = ("__init__", "adam", "compat", "engines", "lr_scheduler", "optimizer", "sgd")
    core = [path for path in FILES if path.stem in names]
    assert len(core) == len(names)
    size = sum(code_lines(formatted(path.read_text(encoding="utf-8"))) for path in core)
    assert size <= 1150
    theirs = Path(inspect.getfile(torch.optim.Optimizer)).parent
    names = ("optimizer.py", "sgd.py", "adam.py", "adamw.py", "lr_scheduler.py")
    assert 2.8 * size < sum(code_lines((theirs / name).read_text("utf-8")) for name in names)


@pytest.mark.parametrize("cls", [minioptim.SGD, minioptim.Adam])
def test_no_rule_is_long(cls):
    assert code_lines(inspect.cleandoc("\n" + inspect.getsource(cls.rule))) <= 15


# --- documentation --------------------------------------------------------------------------------


def public(module):
    """Names that a module defines itself, of things that can have a docstring."""
    for name, value in vars(module).items():
        if not name.startswith("_") and inspect.getmodule(value) is module:
            yield name, value
            if inspect.isclass(value):
                for key, member in vars(value).items():
                    member = getattr(member, "__func__", getattr(member, "fget", member))
                    if not key.startswith("_") and inspect.isfunction(member):
                        yield f"{name}.{key}", member


EVERYTHING = [(module, name, x) for module in MODULES for name, x in public(module)]


def test_everything_public_is_documented():
    inherited = ("check", "init_state", "scalars", "ratio", "next_lrs", "step")
    made = re.compile(r"(Pure|TensorList)\.\w+")  # one-line stand-ins for tensor methods
    bare = [
        f"{module.__name__}.{name}"
        for module, name, x in EVERYTHING
        if not inspect.getdoc(x) and name.split(".")[-1] not in inherited and not made.match(name)
    ]
    assert bare == []
    assert len(EVERYTHING) > 80


def test_everything_has_type_hints():
    bare = []
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                hinted = all(a.annotation for a in arguments if a.arg not in ("self", "cls"))
                if not (hinted and node.returns):
                    bare.append(f"{path.name}:{node.lineno} {node.name}")
    assert bare == []


def described(section):
    """The arguments that the section "Args" of a docstring names."""
    found = re.search(r"\nArgs:\n(.*?)(?:\n\n|\n\S|\Z)", section, re.DOTALL)
    names = re.findall(r"^ {4}(\w[\w, *]*):", found.group(1), re.MULTILINE) if found else []
    return {name.strip() for line in names for name in line.split(",")}


CLASSES = [minioptim.SGD, minioptim.Adam]
CLASSES += [getattr(minioptim.lr_scheduler, name) for name in torch.optim.lr_scheduler.__all__]
FUNCTIONS = [x for _, name, x in EVERYTHING if name.endswith("_lr") and "." not in name]


@pytest.mark.parametrize("x", CLASSES + FUNCTIONS, ids=lambda x: x.__name__)
def test_every_argument_is_described(x):
    text = inspect.getdoc(x)
    assert described(text) == set(inspect.signature(x).parameters), x
    if inspect.isclass(x):
        assert re.search(r"Sources?:", text)


@functools.cache
def api_page():
    return (ROOT / "book/reference/minioptim.md").read_text(encoding="utf-8")


def test_the_page_of_the_api_has_every_public_name():
    page = api_page()
    directives = re.findall(r"^\.\. auto(\w+):: (\S+)\n((?: +.*\n)*)", page, re.MULTILINE)
    shown = set()
    for kind, name, options in directives:
        shown.add(name)
        members = re.search(r":members:(.*)", options)
        if members is not None:
            listed = [m.strip() for m in members.group(1).split(",") if m.strip()]
            if kind == "module" and not listed:
                listed = [n for n, _ in public(importlib.import_module(name))]
            shown |= {f"{name}.{member}" for member in listed}
    wanted = {f"minioptim.{name}" for name in minioptim.__all__} - {"minioptim.lr_scheduler"}
    wanted |= {f"minioptim.lr_scheduler.{name}" for name in torch.optim.lr_scheduler.__all__}
    wanted |= {f"minioptim.lr_scheduler.{f.__name__}" for f in FUNCTIONS}
    wanted |= {f"minioptim.engines.{name}" for name in ("loop", "foreach", "differentiable")}
    wanted |= {"minioptim.fused.fused", "minioptim.fused.require_compiler"}
    assert wanted <= shown
    for name in shown:  # and nothing that does not exist
        parts = name.split(".")
        assert functools.reduce(getattr, parts[1:], minioptim) is not None


def test_the_page_names_what_differs():
    for words in ("capturable=True", "fused=True", "tests/test_fused.py",
                  "differentiable=True", "shape `()` with tensor `betas`",
                  "torch.distributed.checkpoint", "TypeError", "twice in one group",
                  "tests/test_exchange.py", "tests/test_findings_optimizers.py"):  # fmt: skip
        assert words in api_page(), words
    for path in re.findall(r"`(tests/\w+\.py)`", api_page()):
        assert (ROOT / path).is_file()
