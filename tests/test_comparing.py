"""The comparison that stands at the end of every chapter: what it counts, and what it lets pass."""

from functools import partial

import pytest
import torch

import minioptim
from walkthrough import parity

OURS = partial(minioptim.SGD, lr=0.1)
OTHERS = partial(torch.optim.SGD, lr=0.1 * (1 + 1e-13))  # some last bits away
WRONG = partial(minioptim.SGD, lr=0.2)
INF = float("inf")
WIDE = {"dtypes": (torch.float64,), "cases": [{"momentum": 0.9}], "planted": WRONG}


def test_nothing_passes_unless_a_bound_is_given(capsys):
    with pytest.raises(AssertionError, match=r"momentum=0\.9: ours and PyTorch's differ"):
        parity.table(OURS, OTHERS, **WIDE)
    parity.table(OURS, OTHERS, **WIDE, within=1e-9)
    assert "all within 1e-09. Planted error: seen." in capsys.readouterr().out
    with pytest.raises(AssertionError, match="differ"):
        parity.table(OURS, OTHERS, **WIDE, within=1e-15)


def test_the_sign_of_zero_is_a_difference(monkeypatch):
    """The largest difference is then 0.0, and no bound of 0 may let it pass."""
    monkeypatch.setattr(parity, "compare", lambda *_, **__: parity.Outcome(10, 1, 0.0))
    with pytest.raises(AssertionError, match="differ"):
        parity.table(OURS, OTHERS, **WIDE)


@pytest.mark.parametrize(
    ("a", "b", "found"),
    [
        ({"step 0": torch.tensor(2.0)}, {"step 0": torch.tensor(2.0)}, (1, 0, 0.0)),
        ({"step 0": torch.tensor(2.0)}, {"step 0": torch.tensor(3.0)}, (1, 1, 1.0)),
        ({"step 0": torch.tensor(2.0)}, {"step 0": torch.tensor([2.0])}, (0, 1, INF)),
        ({"step 0": torch.tensor(2.0)}, {"step 0": torch.tensor(2.0).double()}, (0, 1, INF)),
        ({"step 0": None}, {"step 0": torch.tensor(2.0)}, (1, 1, INF)),
        ({"exp_avg 0": torch.ones(2)}, {"exp_avg 0": torch.ones(2, device="meta")},
         (0, 1, INF)),
        ({"parameter 0": torch.ones(2)}, {}, (0, 1, INF)),
    ],
)  # fmt: skip
def test_what_is_counted(a, b, found):
    assert parity._difference(a, b) == found
