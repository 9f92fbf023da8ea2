"""A script that uses only names of both libraries, with ``torch.optim`` made ``minioptim``."""

from pair import unlike
from test_exchange import in_order

SCRIPT = """
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, SequentialLR
from torch.optim.optimizer import register_optimizer_step_post_hook

torch.manual_seed(0)
x = torch.randn(64, 8)
y = x[:, :2].prod(1, keepdim=True).sign().add(1).div(2)
model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 1))
decayed = [p for p in model.parameters() if p.dim() > 1]
others = [p for p in model.parameters() if p.dim() == 1]
optimizer: Optimizer = AdamW(
    [{"params": decayed}, {"params": others, "weight_decay": 0.0}], lr=3e-3, betas=(0.9, 0.95)
)
scheduler: LRScheduler = SequentialLR(
    optimizer, [LinearLR(optimizer, 0.1, total_iters=4), CosineAnnealingLR(optimizer, 20)], [4]
)
plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=3)
steps = []
handle = register_optimizer_step_post_hook(lambda o, args, kwargs: steps.append(type(o).__name__))

log = []
for epoch in range(3):
    for batch in torch.arange(64).split(16):
        def closure():
            optimizer.zero_grad()
            loss = F.binary_cross_entropy_with_logits(model(x[batch]), y[batch])
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            return loss

        loss = optimizer.step(closure)
        scheduler.step()
        log.append((loss.item(), scheduler.get_last_lr()))
    plateau.step(loss.item())

checkpoint = {"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}
optimizer.add_param_group({"params": [torch.zeros(2, requires_grad=True)], "lr": 1.0})
other = SGD(model.named_parameters(), lr=0.1, momentum=0.9, nesterov=True, foreach=True)
F.binary_cross_entropy_with_logits(model(x), y).backward()
other.step()
handle.remove()
assert isinstance(other, torch.optim.Optimizer) and issubclass(SGD, Optimizer)
print(optimizer, other, len(steps), f"{log[-1][0]:.6f}")
"""


def outcome(script):
    """What a run of the script leaves behind."""
    names = {}
    exec(compile(script, "script", "exec"), names)
    weights = [p.detach() for p in names["model"].parameters()]
    found = [
        names["log"],
        names["checkpoint"],
        names["steps"],
        weights,
        names["other"].state_dict(),
    ]
    return names["SGD"].__module__, in_order(found)


def test_a_script_runs_unchanged_and_gives_the_same_bits(capsys):
    home, theirs = outcome(SCRIPT)
    printed = capsys.readouterr().out
    assert home == "torch.optim.sgd"
    home, ours = outcome("import minioptim\n" + SCRIPT.replace("torch.optim", "minioptim"))
    assert home == "minioptim.sgd"
    assert unlike(ours, theirs) is None
    assert capsys.readouterr().out == printed
    assert "weight_decay: 0.0" in printed
