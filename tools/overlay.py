"""Put another torch/optim in the place of the installed one: a plugin for pytest.

    WALKTHROUGH_TORCH_OPTIM=FOLDER python -m pytest -p overlay tests/test_parity.py

FOLDER holds torch/optim. The rest of PyTorch stays the installed one, so this shows what other
Python code does, not other kernels. It must be imported before torch is.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

FOLDER = Path(os.environ["WALKTHROUGH_TORCH_OPTIM"]) / "torch"


class Elsewhere(importlib.abc.MetaPathFinder):
    """Finds the package torch.optim in FOLDER; its modules follow from that."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != "torch.optim":
            return None
        return importlib.machinery.PathFinder.find_spec(name, [str(FOLDER)], target)


def check() -> str:
    """Where torch.optim came from.

    Raises:
        ImportError: not from FOLDER.
    """
    import torch.optim.lr_scheduler

    place = Path(torch.optim.lr_scheduler.__file__)
    if not place.is_relative_to(FOLDER):
        raise ImportError(f"torch.optim came from {place}")
    return str(place.parent)


if "torch" in sys.modules:
    raise ImportError("torch was imported before the overlay")
sys.meta_path.insert(0, Elsewhere())


def pytest_report_header() -> str:
    return f"torch.optim: {check()}"
