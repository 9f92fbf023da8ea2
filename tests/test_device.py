"""State lives where its parameter lives, and no operation mixes devices.

Without a GPU, this is proved on fake tensors: they have a device, a dtype and a shape, but no
values. A list operation on them does not complain when devices are mixed, so every operation is
watched. With values, and all in all like CUDA, tests run on the device of `elsewhere`.
"""

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from test_parity import with_engine

import minioptim

# Autograd on a fake CUDA tensor ends the process, so this runs in one of its own.
PROOF = '''
import sys
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import minioptim


class OneDevice(TorchDispatchMode):
    """Raise if an operation mixes devices; a 0-dim tensor on the CPU counts as a number."""

    calls = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.calls += 1
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        devices = {x.device for x in tensors if x.dim() or x.device.type != "cpu"}
        assert len(devices) <= 1, f"{function} mixes {devices}"
        return function(*args, **(kwargs or {}))


class Careless(minioptim.Adam):
    """Makes its state on the CPU."""

    def init_state(self, p, group):
        state = super().init_state(p, group)
        return {k: torch.zeros(p.shape) if k == "exp_avg" else v for k, v in state.items()}


def steps(make, devices, dtype, count=2):
    with FakeTensorMode(), torch.no_grad():
        params = [torch.nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
                  for device in devices for shape in ((), (4, 3))]
        o = make(params)
        with OneDevice() as watch:
            for _ in range(count):
                for p in params:
                    p.grad = torch.zeros_like(p)
                o.step()
        saved = o.state_dict()
        again = make(params)
        again.load_state_dict(saved)
        for x in (o, again):
            for p in params:
                for key, value in x.state[p].items():
                    home = "cpu" if key == "step" else p.device.type
                    assert value.device.type == home, (key, value.device)
                    assert key == "step" or (value.dtype, value.shape) == (p.dtype, p.shape)
        assert watch.calls > 0


for case in sys.argv[1:]:
    for devices in (["cuda"], ["cuda:0", "cuda:1", "cpu", "meta"]):
        for dtype in (torch.bfloat16, torch.complex64):
            steps(lambda p: eval(case, {**vars(minioptim), "p": p}), devices, dtype)

for foreach in (False, True):
    try:
        steps(lambda p: Careless(p, foreach=foreach), ["cuda"], torch.float32)
    except (AssertionError, RuntimeError) as error:
        print("seen:", type(error).__name__)
'''


def test_state_follows_its_parameter_and_nothing_mixes_devices():
    cases = ["SGD(p, momentum=0.9, weight_decay=0.1)", "AdamW(p, amsgrad=True, maximize=True)"]
    cases = [with_engine(case, foreach) for case in cases for foreach in (None, False, True)]
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROOF), *cases], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("seen:") == 2  # the careless one, in both engines


def test_steps_are_counted_on_the_cpu_whatever_the_default_device():
    p = torch.ones(3, requires_grad=True)
    p.grad = torch.ones(3)
    optimizer = minioptim.Adam([p])
    with torch.device("meta"):
        optimizer.step()
    assert {key: x.device.type for key, x in optimizer.state[p].items()} == dict.fromkeys(
        ("step", "exp_avg", "exp_avg_sq"), "cpu"
    )


@pytest.mark.long
def test_the_tests_for_cuda_pass_on_a_device_that_only_pretends():
    """The cases whose names are short, in the loop and in foreach."""
    options = ["-p", "elsewhere", "-q", "-m", "cuda", "-k", "not (weight_decay or maximize or eps)"]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "test_cuda.py"],
        capture_output=True, text=True, cwd=Path(__file__).parent,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout
    assert "failed" not in run.stdout
    passed = re.search(r"(\d+) passed", run.stdout)
    assert passed is not None
    assert int(passed.group(1)) > 50
