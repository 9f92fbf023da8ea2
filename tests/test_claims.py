"""Every claim of the article has a verdict, and a cell that settles it.

`book/claims.yml` says where. Here each home is opened: the page has the target once, and the code
cell after it has the tag of the claim and asserts something that it computes.
"""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

BOOK = Path(__file__).resolve().parent.parent / "book"
VERDICTS = ("right", "imprecise", "wrong", "unsupported", "outdated")
LISTED = yaml.safe_load((BOOK / "claims.yml").read_text(encoding="utf-8"))
CLAIMS, SYSTEMS = LISTED["claims"], LISTED["systems"]


def cells(page: str) -> list[dict[str, Any]]:
    path = BOOK / f"{page}.ipynb"
    if not path.is_file():
        text = path.with_suffix(".md").read_text(encoding="utf-8")
        return [{"cell_type": "markdown", "source": text, "metadata": {}}]
    nb = json.loads(path.read_text(encoding="utf-8"))
    return [cell | {"source": "".join(cell["source"])} for cell in nb["cells"]]


def tags(cell: dict[str, Any]) -> list[str]:
    return cell["metadata"].get("tags", [])


def asserts(source: str) -> list[str]:
    """The assertions of a cell that depend on a name: `assert True` settles nothing."""
    found = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Assert))
    return [
        ast.unparse(node)
        for node in found
        if any(isinstance(part, ast.Name) for part in ast.walk(node.test))
    ]


def faults(home: str, tag: str = "") -> list[str]:
    """What is wrong with a home: its page, its target and, if a tag is given, its cell."""
    page, _, target = home.partition("#")
    here = cells(page)
    places = [
        i
        for i, cell in enumerate(here)
        for _ in re.finditer(rf"^\({re.escape(target)}\)=$", cell["source"], re.MULTILINE)
        if cell["cell_type"] == "markdown"
    ]
    if len(places) != 1:
        return [f"{home}: the target stands there {len(places)} times"]
    if not tag:
        return []
    code = [i for i, cell in enumerate(here) if cell["cell_type"] == "code" and tag in tags(cell)]
    if len(code) != 1:
        return [f"{home}: {len(code)} code cells have the tag {tag}"]
    following = next(
        (i for i in range(places[0], len(here)) if here[i]["cell_type"] == "code"), None
    )
    if code[0] != following:
        return [f"{home}: the cell with the tag is not the one after the target"]
    if not asserts(here[code[0]]["source"]):
        return [f"{home}: the cell asserts nothing"]
    return []


@pytest.mark.parametrize("row", CLAIMS, ids=lambda row: row["id"])
def test_a_claim_is_settled(row: dict[str, str]) -> None:
    assert set(row) == {"id", "verdict", "claim", "correction", "home"}
    assert row["verdict"] in VERDICTS
    for text in (row["claim"], row["correction"]):
        assert "\n" not in text
        assert 20 < len(text) < 200
        assert text.endswith(".")
    assert re.fullmatch(r"a\d\d\d?", row["id"])
    assert row["home"].endswith(f"#claim-{row['id']}")
    assert faults(row["home"], f"claim-{row['id']}") == []


@pytest.mark.parametrize("row", SYSTEMS, ids=lambda row: row["id"])
def test_a_system_has_a_place(row: dict[str, str]) -> None:
    assert set(row) == {"id", "system", "home"}
    assert row["home"].endswith(f"#system-{row['id']}")
    assert faults(row["home"]) == []


def test_every_id_is_listed_once_and_in_order() -> None:
    for rows in (CLAIMS, SYSTEMS):
        numbers = [int(row["id"][1:]) for row in rows]
        assert numbers == sorted(set(numbers))


def test_nothing_in_a_notebook_is_missing_from_the_list() -> None:
    listed = {f"claim-{row['id']}" for row in CLAIMS} | {f"system-{row['id']}" for row in SYSTEMS}
    written = set()
    for path in BOOK.rglob("*.ipynb"):
        if any(part.startswith(".") for part in path.relative_to(BOOK).parts):
            continue
        for cell in cells(path.relative_to(BOOK).with_suffix("").as_posix()):
            pattern = r"^\(((?:claim-a|system-s)\d+)\)=$"
            written |= set(re.findall(pattern, cell["source"], re.MULTILINE))
            written |= {tag for tag in tags(cell) if tag.startswith("claim-")}
    assert written == listed


@pytest.mark.parametrize(
    ("source", "count"),
    [("assert x == 1", 1), ("assert True", 0), ("x = 1", 0), ("assert f(1) < 2, 'a'", 1)],
)
def test_an_empty_assertion_does_not_count(source: str, count: int) -> None:
    assert len(asserts(source)) == count


def test_a_missing_target_or_tag_is_seen() -> None:
    page = CLAIMS[0]["home"].partition("#")[0]
    assert faults(f"{page}#claim-a999") != []
    assert faults(CLAIMS[0]["home"], "claim-a999") != []
    assert faults(CLAIMS[0]["home"], f"claim-{CLAIMS[1]['id']}") != []
