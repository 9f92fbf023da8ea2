"""What a build was made with: a directive for the page of the build's status.

``{build-versions}`` becomes a table of the pinned packages that are installed, read when the book
is built. Execution times of the notebooks come from `myst_nb`'s own directive.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from . import evidence
from .environment import device


def pinned(requirements: str) -> list[str]:
    """The packages that a file of requirements pins, in its order."""
    return re.findall(r"^([A-Za-z0-9][\w.-]*)==", requirements, re.MULTILINE)


def versions(requirements: str) -> Iterator[tuple[str, str]]:
    """What was installed of each pinned package."""
    for name in pinned(requirements):
        found = importlib.metadata.metadata(name)
        yield found["Name"], found["Version"]


def machine() -> Iterator[tuple[str, str]]:
    """What the notebooks ran on, as far as a result can depend on it."""
    yield "Python", platform.python_version()
    yield "system", f"{platform.system()}, {platform.machine()}"
    yield "device of the notebooks", str(device())
    yield "CPU instructions used by PyTorch", torch.backends.cpu.get_cpu_capability()
    yield "threads", os.environ.get("WALKTHROUGH_THREADS", "1")
    yield "CUDA available", "yes" if torch.cuda.is_available() else "no"
    yield "tests and notebooks on CUDA", on_cuda()


def on_cuda(folder: Path = evidence.FOLDER) -> str:
    """What `make test-cuda` has found, wherever it was run."""
    found = evidence.load("cuda", folder)
    if found is None:
        return "not run on CUDA yet"
    return f"{found['date']}, {found['where']['GPU']}: {found['summary']}"


def table(rows: Iterator[tuple[str, str]], head: tuple[str, str]) -> str:
    """Two columns of markdown."""
    lines = [f"| {head[0]} | {head[1]} |", "|---|---|"]
    return "\n".join(lines + [f"| {name} | {value} |" for name, value in rows])


class BuildVersions(SphinxDirective):
    """``{build-versions} packages`` or ``machine``."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The table, made afresh in every build."""
        self.env.note_reread()
        requirements = Path(self.env.srcdir) / "requirements.txt"
        if self.arguments[0] == "packages":
            text = table(versions(requirements.read_text(encoding="utf-8")), ("package", "version"))
        else:
            text = table(machine(), ("what", "value"))
        return self.parse_text_to_nodes(text)


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by the builder."""
    app.add_directive("build-versions", BuildVersions)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
