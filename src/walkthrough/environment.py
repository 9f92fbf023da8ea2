"""How a notebook of the book starts: the same way everywhere, so that its numbers are the same."""

import os
import warnings

import numpy as np
import torch


def setup(seed: int = 0) -> None:
    """Fix what a result could depend on, and how it is printed and drawn.

    Seeds, one thread (``WALKTHROUGH_THREADS`` asks for another number), warnings as errors, the
    print options of torch and numpy, the style of the figures.
    """
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - libraries that draw from the global generator
    torch.set_num_threads(int(os.environ.get("WALKTHROUGH_THREADS", "1")))
    torch.backends.cudnn.deterministic = True  # on CUDA a convolution may add in any order else
    torch.set_printoptions(precision=4, sci_mode=False, linewidth=88)
    np.set_printoptions(precision=4, suppress=True, linewidth=88)
    warnings.simplefilter("error")
    # a kernel warns of itself while it shuts down
    warnings.filterwarnings("ignore", module="ipykernel")
    # PyTorch's compiler, while it is loaded, uses something that PyTorch declares old
    warnings.filterwarnings("ignore", ".torch.jit.script_method", DeprecationWarning)
    from . import plots  # matplotlib is needed from here on, not before

    plots.style()


def device() -> torch.device:
    """The device the book computes on: the CPU, unless ``WALKTHROUGH_DEVICE`` names another."""
    return torch.device(os.environ.get("WALKTHROUGH_DEVICE", "cpu"))
