"""State lives where its parameter lives, and no operation mixes devices.

Without a GPU, this is proved on fake tensors: they have a device, a dtype and a shape, but no
values. A list operation on them does not complain when devices are mixed, so every operation is
watched. With a GPU, everything is compared there too, to the last bit.
"""

import subprocess
import sys
import textwrap

import pytest
import torch
from pair import Pair, draw
from test_parity import ADAM, GROUPS, SGD, SHAPES, with_engine

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


cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@cuda
@pytest.mark.parametrize("foreach", [None, False, True])
@pytest.mark.parametrize("case", [*SGD, *ADAM, *GROUPS])
def test_equal_to_torch_on_cuda(case, foreach):
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        pair = Pair(
            with_engine(case, foreach), [draw(s, dtype, i).cuda() for i, s in enumerate(SHAPES)]
        )
        for step in range(3):
            grads = [draw(s, dtype, 100 * step + k).cuda() for k, s in enumerate(SHAPES, start=10)]
            pair.step([None if (step + k) % 3 == 0 else g for k, g in enumerate(grads)])
            pair.check()
        for p in pair.params[0]:
            for key, value in pair.ours.state[p].items():
                assert value.device == (torch.device("cpu") if key == "step" else p.device)


@cuda
def test_the_default_engine_on_cuda_is_foreach():
    p = torch.nn.Parameter(torch.ones(3, device="cuda"))
    for o in (minioptim.SGD([p]), minioptim.AdamW([p])):
        assert minioptim.optimizer.choose_engine(o.param_groups[0], [p]) is (
            minioptim.engines.foreach
        )


@cuda
def test_state_saved_on_the_cpu_is_loaded_to_the_gpu():
    pair = Pair("AdamW(p, lr=0.1)", [draw((5,), torch.float32, 0)])
    pair.step([draw((5,), torch.float32, 1)])
    there = Pair("AdamW(p, lr=0.1)", [pair.params[0][0].detach().cuda()])
    for o in there.optimizers:
        o.load_state_dict(pair.theirs.state_dict())
    there.step([draw((5,), torch.float32, 2).cuda()])
    there.check()
