"""The fourth engine: the same update rule, compiled into one pass over memory.

The loop goes through memory once for each operation of its rule, seven times for Adam. One compiled
pass reads ``p, g, m, v``, computes, and writes ``p, m, v``: 28 bytes for each element of a float32
parameter. PyTorch wrote that pass by hand for four optimizers (``torch._fused_adam_`` and its kin);
here ``torch.compile`` writes it from the rule that the other engines run, in C++ for the CPU and in
Triton for CUDA.

What could change from one step to the next must not be built into the machine code, or it would be
compiled again at every step:

- numbers (``lr``, ``betas``, the bias corrections, ...) are handed in as one small tensor;
- every tensor is seen as a flat one, so one piece of code serves all shapes and sizes;
- what is left, such as ``nesterov`` or which state is missing, tells one *kind* of step from
  another. Each kind is compiled once, when it first occurs.

The results are not those of `loop` to the last bit: a compiler may join a product and a sum into
one operation with one rounding. In half precision the whole rule is computed in float32 and rounded
once at the end, as PyTorch's kernels do.
"""

import functools
import importlib.util
import os
import shutil
import sys
import sysconfig
import types
from array import array
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .blocks import flat, is_one_block
from .engines import Penalty, Pure, Row, Rule, _unwrap, loop

DEVICES = ("cpu", "cuda")
HALF = (torch.float16, torch.bfloat16)
INDEXABLE = 2**31  # elements: for more, CUDA needs other code, with longer indices
USUAL = 2**20  # elements to compile for. Else the first tensor decides how a GPU shares its work


def fused(
    rule: Rule, rows: list[Row], penalty: Penalty, options: dict, pairs: bool = False
) -> list[Any]:
    """Run the compiled rule on one tensor after the other.

    The first row of a kind costs a compilation of some seconds; see `clear`. A row goes through
    `loop` instead if it has fewer than two elements, or if its tensors cannot be walked through in
    the order of their memory: gaps, other strides than the parameter's, shared memory, classes of
    their own. Arguments and result are those of `loop`.

    Raises:
        RuntimeError: there is no compiler; see `require_compiler`.
    """
    numbers: list[Any] = []
    constants = _without_numbers((penalty, tuple(options.values())), numbers)
    names = tuple(options)
    ready: dict[tuple[torch.device, torch.dtype], Tensor] = {}
    results: list[Any] = []
    for row in rows:
        # A compiler takes sizes 0 and 1 for constants, and would start anew.
        if row[0].numel() < 2 or not is_one_block(row):
            results += loop(rule, [row], penalty, options, pairs)
            continue
        p = row[0]
        place = p.device, p.dtype
        if place not in ready:
            ready[place] = _as_tensor(numbers, *place)
        dtypes = tuple([None if t is None else t.dtype for t in row])
        tensors = [t if t.dim() == 1 else flat(t) for t in row if t is not None]
        result = _kernel(rule, names, constants, dtypes, p.device)(ready[place], *tensors)
        results.append(None if result is None else result.as_strided(p.size(), p.stride()))
    return results


@functools.cache
def _kernel(
    rule: Rule,
    names: tuple[str, ...],
    constants: tuple,
    dtypes: tuple[torch.dtype | None, ...],
    device: torch.device,
) -> Callable[..., Any]:
    """The compiled step of one kind. It is compiled at its first call."""
    require_compiler(device.type)

    def step(numbers: Tensor, *tensors: Tensor) -> Any:
        values = list(map(Number, *map(Tensor.unbind, numbers.chunk(2))))
        penalty, options = _with_numbers(constants, values)
        given = iter(tensors)
        row = [None if dtype is None else next(given) for dtype in dtypes]
        p, g, *state = operands = [
            None if t is None else Pure(t.float() if t.dtype in HALF else t) for t in row
        ]
        options = dict(zip(names, options, strict=True))
        result = rule(p, Penalty(*penalty)(p, g), *state, **options)
        for t, operand in zip(row, operands, strict=True):
            if t is not None and operand is not g:
                t.copy_(operand.tensor)
        # State that was there has been written to; only a new one is handed out.
        is_new = result is not None and dtypes[2] is None
        return result.tensor.to(dtypes[0]) if is_new else None

    # A code object of its own: the compiler counts versions per code object, and stops at eight.
    step = types.FunctionType(step.__code__.replace(), step.__globals__, closure=step.__closure__)
    return Compiled(step)


class Compiled:
    """``torch.compile(step)`` without the questions that come before each of its calls.

    What ``torch.compile`` returns asks first whether its machine code fits: the classes, dtypes,
    devices and sizes it was made for. On small tensors that takes longer than the step. Here the
    answer is known, since `_kernel` keeps one step for each kind, and tensors are flat. So the
    questions are asked once; from the second call on the machine code is called directly.
    """

    def __init__(self, step: Callable[..., Any]) -> None:
        self.checked = torch.compile(step, fullgraph=True, dynamic=True, backend=self._compile)
        self.code: Callable[..., Any] | None = None  # what `checked` ends in
        self.order: list[int] = []  # what it takes, as places in (size, numbers, *tensors)
        self.places: dict[int, int] = {}  # the places of the tensors of a checked call, by id

    def __call__(self, *tensors: Tensor) -> Any:
        """The step, on its numbers and its flat tensors, of which the first is a parameter."""
        size = tensors[1].numel()
        if self.code is None or size >= INDEXABLE:
            with torch.no_grad():
                tensors = tuple(t.detach() for t in tensors)  # no classes, no history
                torch._dynamo.mark_static(tensors[0])  # how many numbers: the kind says it
                for t in tensors[1:]:
                    torch._dynamo.mark_dynamic(t, 0, hint_override=USUAL)
                self.places = {id(t): place for place, t in enumerate(tensors, start=1)}
                return self.checked(*tensors)
        given = (size, *tensors)
        results = self.code(*[given[place] for place in self.order])
        return results[0] if results else None

    def _compile(self, graph: Any, examples: list[Any]) -> Callable[..., Any]:
        """What ``torch.compile`` calls to have machine code made of a graph of operations."""
        from torch._inductor import compile  # not above: that would take a second or two

        # How many threads is asked at each call. Else the size of the first tensor decides it.
        code = compile(graph, examples, options={"cpp.dynamic_threads": True})

        def first(*given: Any) -> Any:
            order = [0 if isinstance(x, int) else self.places.get(id(x)) for x in given]
            if 0 in order and None not in order:  # else the size was taken for a constant
                self.code, self.order = code, order
            return code(*given)

        return first


def clear() -> None:
    """Forget all compiled steps. There is one for each kind, and they are kept for good."""
    _kernel.cache_clear()


def _without_numbers(values: Iterable[Any], numbers: list[Any]) -> tuple:
    """``values`` with its numbers moved to the list, and in their stead their places there."""
    places = []
    for x in values:
        if isinstance(x, (tuple, list)):
            x = _without_numbers(x, numbers)
        elif x is not None and not isinstance(x, (bool, str)):
            numbers.append(x)
            x = len(numbers) - 1
        places.append(x)
    return tuple(places)


def _with_numbers(x: Any, numbers: list["Number"]) -> Any:
    """The reverse: every place becomes the number that stands there."""
    if isinstance(x, tuple):
        return tuple(_with_numbers(item, numbers) for item in x)
    return x if x is None or isinstance(x, (bool, str)) else numbers[x]


class Number(Pure):
    """A number of the rule, as a 0-dim tensor, that knows what it lacks to 1.

    In float32 few digits of ``1 - 0.9999`` would be right, so the host subtracts, in float64.
    """

    def __init__(self, tensor: Tensor, rest: Tensor) -> None:
        super().__init__(tensor)
        self.rest = rest

    def __rsub__(self, other: Any) -> Tensor:
        return self.rest if isinstance(other, int) and other == 1 else other - self.tensor


def _arithmetic(name: str) -> Callable[..., Tensor]:
    return lambda self, other: getattr(self.tensor, name)(_unwrap(other))


for _name in ("add", "radd", "sub", "mul", "rmul", "truediv", "rtruediv", "pow"):
    setattr(Number, f"__{_name}__", _arithmetic(f"__{_name}__"))


def _as_tensor(numbers: list[Any], device: torch.device, dtype: torch.dtype) -> Tensor:
    """The numbers, and after them what each lacks to 1. Half precision is computed in float32."""
    plain = [0.0 if isinstance(x, Tensor) else float(x) for x in numbers]
    code, dtype = ("d", dtype) if dtype == torch.float64 else ("f", torch.float32)
    memory = array(code, [*plain, *[1 - x for x in plain]])  # a list becomes a tensor more slowly
    values = torch.frombuffer(memory, dtype=dtype) if plain else torch.empty(0, dtype=dtype)
    values = values.to(device, non_blocking=True)
    for i, x in enumerate(numbers):
        if isinstance(x, Tensor):  # a tensor stays where it is: reading it would wait for the GPU
            values[i].copy_(x.detach())
            values[len(numbers) + i].copy_(1 - x.detach().double())
    return values


# --- what is refused ------------------------------------------------------------------------------


def check(group: dict[str, Any], params: list[Tensor]) -> None:
    """Raise a RuntimeError if a group with ``fused=True`` can never be stepped; change nothing.

    Another mode is asked for as well, or there is no compiler for the devices of ``params``.
    """
    for other in ("foreach", "differentiable"):
        if group.get(other):
            raise RuntimeError(f"fused=True and {other}=True exclude each other: leave one unset")
    for device in {p.device.type for p in params}:
        require_compiler(device)


def engine_for(params: list[Tensor]) -> Callable[..., list[Any]]:
    """`fused`, if it is for these parameters, which all have a gradient.

    Raises:
        RuntimeError: as in PyTorch, for a parameter that is not floating-point or neither on the
            CPU nor on CUDA, and for a gradient that is not dense.
    """
    for p in params:
        if not p.is_floating_point() or p.device.type not in DEVICES:
            raise RuntimeError(
                f"fused=True needs floating-point parameters on {' or '.join(DEVICES)}, and one "
                f"is {p.dtype} on {p.device.type}"
            )
        if p.grad.layout != torch.strided:
            raise RuntimeError("fused=True needs dense gradients: leave it unset for these")
    return fused


@functools.cache
def require_compiler(device: str) -> None:
    """Raise a RuntimeError that names what to install if nothing can be compiled for a device.

    The CPU needs a C++ compiler (``$CXX``, else g++, on macOS clang++) and the headers of Python;
    CUDA needs Triton, which comes with PyTorch's CUDA builds for Linux, and a C compiler.
    """
    if device == "cuda":
        if importlib.util.find_spec("triton") is None:
            raise RuntimeError(_advice("Triton", "it with pip install triton"))
        if not any(map(shutil.which, (os.environ.get("CC", "gcc"), "clang"))):
            raise RuntimeError(_advice("a C compiler", "gcc, or set CC"))
    if device != "cpu":
        return
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(compiler) is None:
        raise RuntimeError(_advice(f"a C++ compiler ({compiler})", "g++, or set CXX"))
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        raise RuntimeError(_advice("Python.h", "the package python3-dev"))


def _advice(what: str, how: str) -> str:
    return (
        f"fused=True compiles the rule, and {what} was not found. Install {how}; or leave fused "
        "unset, and use foreach=True where speed matters"
    )
