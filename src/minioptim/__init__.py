"""PyTorch's optimizers and learning-rate schedulers, rebuilt small.

The update rule of each optimizer is written once; engines run it in the modes PyTorch has. Names,
options, state and results are those of ``torch.optim``, to the last bit.
"""

from . import lr_scheduler
from .adam import Adam, AdamW
from .compat import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from .optimizer import Optimizer
from .sgd import SGD

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "Optimizer",
    "lr_scheduler",
    "register_optimizer_step_post_hook",
    "register_optimizer_step_pre_hook",
]
