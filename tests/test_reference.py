"""The reference pages: the API of walkthrough, the glossary, errata, status, conventions."""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import walkthrough
from walkthrough import conventions, status
from walkthrough.adaptive import feed

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "book" / "reference"
sys.path.insert(0, str(ROOT / "tools"))

import link_terms  # noqa: E402


def page(name: str) -> str:
    return (REFERENCE / name).read_text(encoding="utf-8")


# --- the API of walkthrough -----------------------------------------------------------------------

MODULES = sorted(found.name for found in pkgutil.iter_modules(walkthrough.__path__))


def described() -> dict[str, str | None]:
    """The modules on the page, and which members of each: None for none, "" for all."""
    text = page("walkthrough.md")
    found: dict[str, str | None] = {}
    for name, options in re.findall(
        r"^\.\. automodule:: walkthrough\.(\w+)\n((?: +.*\n)*)", text, re.MULTILINE
    ):
        members = re.search(r":members:(.*)", options)
        found[name] = members[1].strip() if members else None
    return found


def public(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Names of the module itself, and the methods of its classes."""
    for name, value in vars(module).items():
        own = inspect.getmodule(value) is module and not name.startswith("_")
        if own and (inspect.isclass(value) or inspect.isfunction(value)):
            yield name, value
            for key, member in vars(value).items() if inspect.isclass(value) else ():
                member = getattr(member, "fget", None) or getattr(member, "__func__", member)
                if not key.startswith("_") and inspect.isfunction(member):
                    yield f"{name}.{key}", member


def undocumented(module: ModuleType) -> list[str]:
    """What has no docstring, its own or one of a class above it or of what it stands in for."""
    said = {"value", "gradient", "hessian", "rule", "scalars"}  # described once, by their class
    return [
        name
        for name, value in public(module)
        if not inspect.getdoc(value) and name.rpartition(".")[2] not in said
    ]


def test_every_module_stands_on_the_page() -> None:
    assert set(described()) == set(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_what_the_page_shows_is_documented(name: str) -> None:
    module = importlib.import_module(f"walkthrough.{name}")
    assert module.__doc__
    members = described()[name]
    if members == "":
        assert undocumented(module) == []
    elif members is not None:
        for member in members.split(", "):
            assert getattr(module, member).__doc__, member


def test_a_missing_docstring_is_seen() -> None:
    module = ModuleType("bare")
    exec("def f(): pass\nclass C:\n    '''A class.'''\n    def m(self): pass", vars(module))
    for value in (module.f, module.C):
        value.__module__ = "bare"
    sys.modules["bare"] = module
    try:
        assert undocumented(module) == ["f", "C.m"]
    finally:
        del sys.modules["bare"]


# --- the glossary ---------------------------------------------------------------------------------

TERMS = link_terms.terms(page("glossary.md"))
CHAPTERS = sorted((ROOT / "book").glob("0*.ipynb"))


def markdown(path: Path) -> list[str]:
    nb = json.loads(path.read_text(encoding="utf-8"))
    return ["".join(c["source"]) for c in nb["cells"] if c["cell_type"] == "markdown"]


def test_terms_are_listed_once_and_in_order() -> None:
    names = [name for group in TERMS.values() for name in group]
    assert len({name.lower() for name in names}) == len(names)
    first = [group[0].lower() for group in TERMS.values()]
    assert first == sorted(first)
    assert len(first) > 80


def test_every_term_is_used() -> None:
    pages = [path for path in REFERENCE.glob("*.md") if path.name != "glossary.md"]
    text = (ROOT / "book" / "index.md").read_text(encoding="utf-8")
    text += "\n".join(path.read_text(encoding="utf-8") for path in pages)
    text += "\n".join(source for path in CHAPTERS for source in markdown(path))
    linked = set(link_terms.LINKED.findall(text))
    unused = [
        term
        for term, group in TERMS.items()
        if not any(name in linked or link_terms.pattern(name).search(text) for name in group)
    ]
    assert unused == []


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.name)
def test_terms_are_linked_where_a_chapter_first_uses_them(path: Path) -> None:
    """If this fails, run `python tools/link_terms.py`."""
    text = [source for source in markdown(path) if not re.search("^# ", source, re.MULTILINE)]
    done = set(link_terms.EVERYDAY)
    assert link_terms.link(text, TERMS, done) == text


SOME = {"saddle point": ["saddle point", "saddle"], "hook": ["hook"], "SGD": ["SGD"]}
SOME |= {"rule": ["rule"]}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("A hook, a hook.", "A {term}`hook`, a hook."),
        ("Hooks are run.", "{term}`Hooks <hook>` are run."),
        ("A saddle point. A saddle.", "A {term}`saddle point`. A saddle."),
        ("Two saddles.", "Two {term}`saddles <saddle point>`."),
        ("Use SGD, not sgd.", "Use {term}`SGD`, not sgd."),
        ("`hook` and **a hook** and [a hook](#x) and {ref}`hook`", None),
        ("# A hook\n| hook |\n$hook$\n(hook)=", None),
        ("```python\nhook\n```\nunhooked", None),
        ("$$\nhook\n$$\n```{note}\nhook\n```", None),
        ("A {term}`hooks <hook>` and a hook.", None),
        ("**A12. A claim.** of a hook", None),
        ("pre-hook and hook.py", None),
        ("the chain rule", None),
    ],
)
def test_only_running_text_is_linked(before: str, after: str | None) -> None:
    linked = link_terms.link([before], SOME, set())
    assert linked == [before if after is None else after]
    assert link_terms.link(linked, SOME, set()) == linked


# --- errata ---------------------------------------------------------------------------------------


def test_every_guard_exists() -> None:
    named = re.findall(r"`(tests/\w+\.py)(?:::(\w+))?`", page("errata.md"))
    assert len(named) > 15
    for file, function in named:
        text = (ROOT / file).read_text(encoding="utf-8")
        assert not function or f"def {function}(" in text, (file, function)


def test_every_erratum_has_a_date_and_a_guard() -> None:
    section = page("errata.md").split("## In this book")[1].split("\n## ")[0]
    rows = re.split(r"^- ", section, flags=re.MULTILINE)[1:]
    assert len(rows) > 4
    for row in rows:
        assert re.match(r"\*\*20\d\d-\d\d-\d\d\.\*\* .*\n  \*Guard:\* ", row), row


# --- status ---------------------------------------------------------------------------------------


def test_every_pinned_package_is_listed_with_what_is_installed() -> None:
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    listed = dict(status.versions(text))
    assert len(listed) == len(re.findall("==", text))
    assert listed["torch"] == torch.__version__
    shown = status.table(iter(listed.items()), ("package", "version"))
    assert f"| torch | {torch.__version__} |" in shown


# --- conventions ----------------------------------------------------------------------------------

GRADIENTS = torch.randn(50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("eps", [1e-8, 1e-2])
def test_the_form_of_pytorch_is_pytorchs(eps: float, amsgrad: bool) -> None:
    theirs = feed(lambda p: torch.optim.Adam(p, lr=1.0, eps=eps, amsgrad=amsgrad), GRADIENTS)
    ours = conventions.adam_steps(GRADIENTS, eps=eps, amsgrad="raw" if amsgrad else "")
    assert torch.allclose(ours, -theirs.steps, rtol=0, atol=1e-12)


@pytest.mark.parametrize("change", [{"place": "before"}, {"place": "inside"}, {"counted": 1}])
def test_the_other_forms_are_others(change: dict[str, Any]) -> None:
    one = conventions.adam_steps(GRADIENTS, eps=1e-2)
    other = conventions.adam_steps(GRADIENTS, eps=1e-2, **change)
    assert (one - other).abs().max() > 1e-3


def test_the_form_of_keras_is_that_of_its_documentation() -> None:
    m = v = 0.0
    steps = []
    for t, g in enumerate(GRADIENTS.tolist(), 1):
        m += (g - m) * 0.1
        v += (g * g - v) * 0.001
        steps.append((1 - 0.999**t) ** 0.5 / (1 - 0.9**t) * m / (v**0.5 + 1e-2))
    ours = conventions.adam_steps(GRADIENTS, eps=1e-2, place="before")
    assert torch.allclose(ours, torch.tensor(steps, dtype=torch.float64), rtol=1e-10, atol=0)


def test_a_place_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="is none of after, before, inside"):
        conventions.adam_steps(GRADIENTS, place="beneath")
