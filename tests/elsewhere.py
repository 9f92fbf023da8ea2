"""A device called ``elsewhere``, for machines without a GPU: it mixes with nothing.

Its tensors compute on the CPU, so that every value and every assertion is real. But for PyTorch
they live on a device of their own: an operation on one of them and on a tensor of the CPU is an
error, as on CUDA, and so is NumPy's view of one. What it cannot show is how a GPU rounds, what it
does at the same time as the CPU, and what is compiled: under it `torch.compile` compiles nothing.

    pytest -p elsewhere -m cuda tests/test_cuda.py     the tests for CUDA, on this device
    python tools/execute.py --device elsewhere         the notebooks, on this device

Source: ``torch.utils.backend_registration``, which lets a device be written in Python.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.graph import increment_version
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

import walkthrough
from walkthrough import environment

NAME = "elsewhere"
MOVES = ("aten::_to_copy", "aten::copy_")  # the two operations that may see two devices


class Elsewhere(torch.Tensor):
    """A tensor of the device; ``here`` is the tensor of the CPU that holds its values."""

    here: torch.Tensor

    @staticmethod
    def __new__(cls, here: torch.Tensor) -> Elsewhere:
        made = torch.Tensor._make_wrapper_subclass(
            cls, here.size(), dtype=here.dtype, layout=here.layout, device=torch.device(NAME, 0),
            # the tensor behind it is asked, because some operations change a shape in place
            dispatch_sizes_strides_policy="sizes" if here.layout == torch.strided else None,
        )  # fmt: skip
        made.here = here
        return made

    def __repr__(self) -> str:  # type: ignore[override]
        return f"{self.here!r} elsewhere"

    def __format__(self, form: str) -> str:
        return self.here.__format__(form)

    def tolist(self) -> Any:
        return self.here.tolist()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.here.__reduce_ex__(protocol)  # a file holds it as a tensor of the CPU

    @property
    def data(self) -> torch.Tensor:  # type: ignore[override]
        return torch.Tensor.data.__get__(self)  # type: ignore[attr-defined]

    @data.setter
    def data(self, value: Elsewhere) -> None:
        torch.Tensor.data.__set__(self, value)  # type: ignore[attr-defined]
        self.here = value.here

    @classmethod
    def __torch_dispatch__(cls, operation: Any, types: Any, args: Any = (), kwargs: Any = None):
        return compute(operation, args, kwargs or {})


class Enter(TorchDispatchMode):
    """Sees the operations that make a tensor from none, which no tensor can see."""

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None):
        return compute(operation, args, kwargs or {})


class Convert(TorchFunctionMode):
    """Makes a tensor of numbers here and moves it: ``torch.tensor`` asks nobody."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None):
        kwargs = dict(kwargs or {})
        asked = kwargs.get("device")
        if function is torch.Tensor.__getitem__ and isinstance(args[1], list):
            args = args[0], torch.tensor(args[1])
        if function not in (torch.tensor, torch.as_tensor) or asked is None:
            return function(*args, **kwargs)
        kwargs["device"], follow = "cpu", kwargs.pop("requires_grad", False)
        return function(*args, **kwargs).to(asked).requires_grad_(follow)


def compute(operation: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Do an operation on the CPU, and let its result live where it belongs.

    Raises:
        RuntimeError: it mixes devices. A 0-dim tensor of the CPU counts as a number.
    """
    name = operation._schema.name
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
    ours = [x for x in tensors if isinstance(x, Elsewhere)]
    asked = kwargs.get("device")
    if asked is not None:
        there = torch.device(asked).type == NAME
        kwargs = {**kwargs, "device": torch.device("cpu")} if there else kwargs
    else:
        there = isinstance(args[0], Elsewhere) if name == "aten::copy_" else bool(ours)
    if ours and name not in MOVES:
        indices = tree_leaves(args[1]) if name.startswith("aten::index") else []  # may be anywhere
        foreign = [
            x for x in tensors
            if not isinstance(x, Elsewhere) and x.dim() and not any(x is i for i in indices)
        ]  # fmt: skip
        if foreign:
            raise RuntimeError(f"{name}: all tensors are expected on one device, not two")
    result = operation(*tree_map(_here, args), **tree_map(_here, kwargs))
    if name.startswith("aten::_foreach_") and name.endswith("_"):
        increment_version(args[0])  # on a real device it is; behind Python not, pytorch#191154
    if not there:
        return result
    known = {id(x.here): x for x in ours}  # what an operation in place returns is its argument

    def wrap(x: Any) -> Any:
        if not isinstance(x, torch.Tensor) or isinstance(x, Elsewhere):
            return x
        return known[id(x)] if id(x) in known else Elsewhere(x)

    return tree_map(wrap, result)


def _here(x: Any) -> Any:
    return x.here if isinstance(x, Elsewhere) else x


def device() -> torch.device:
    """Stands for `walkthrough.device`. Processes that are started here compute on the CPU."""
    return torch.device(NAME)


_setup_privateuseone_for_python_backend(NAME)
for mode in (Enter(), Convert()):
    mode.__enter__()  # for the whole process: nothing leaves it
for module in (walkthrough, environment):  # before others take it from there
    module.device = device  # type: ignore[assignment]
