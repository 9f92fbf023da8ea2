"""Every claim of the article has a verdict, and a cell that settles it.

`book/claims.yml` says where. Here each home is opened: the page has the target once, and the code
cell after it has the tag of the claim and asserts something that it computes.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from walkthrough import audit

BOOK = Path(__file__).resolve().parent.parent / "book"
CLAIMS, SYSTEMS = audit.load(BOOK)


@pytest.mark.parametrize("row", CLAIMS, ids=lambda row: row["id"])
def test_a_claim_is_settled(row: audit.Row) -> None:
    assert audit.claim_faults(BOOK, row) == []


@pytest.mark.parametrize("row", SYSTEMS, ids=lambda row: row["id"])
def test_a_system_has_a_place(row: audit.Row) -> None:
    assert audit.system_faults(BOOK, row) == []


def test_no_claim_and_no_system_is_missing() -> None:
    """All 109 and all 36; the message names those that have no row, or no cell that settles."""
    lacking = {
        "claims without a row": audit.missing(CLAIMS, audit.CLAIMS),
        "systems without a row": audit.missing(SYSTEMS, audit.SYSTEMS),
        "claims that nothing settles": [r["id"] for r in CLAIMS if audit.claim_faults(BOOK, r)],
        "systems without a place": [r["id"] for r in SYSTEMS if audit.system_faults(BOOK, r)],
    }
    said = [f"{what}: {' '.join(ids)}" for what, ids in lacking.items() if ids]
    assert said == []
    assert (len(CLAIMS), len(SYSTEMS)) == (109, 36)


def test_every_id_is_listed_once_and_in_order() -> None:
    held = yaml.safe_load((BOOK / audit.LIST).read_text(encoding="utf-8"))
    for rows in held.values():
        numbers = [int(row["id"][1:]) for row in rows]
        assert numbers == sorted(set(numbers))


def test_nothing_in_a_notebook_is_missing_from_the_list() -> None:
    listed = {f"claim-{row['id']}" for row in CLAIMS} | {f"system-{row['id']}" for row in SYSTEMS}
    written = set()
    for path in BOOK.rglob("*.ipynb"):
        if any(part.startswith(".") for part in path.relative_to(BOOK).parts):
            continue
        for cell in audit.cells(BOOK, path.relative_to(BOOK).with_suffix("").as_posix()):
            pattern = r"^\(((?:claim-a|system-s)\d+)\)=$"
            written |= set(re.findall(pattern, cell["source"], re.MULTILINE))
            written |= {tag for tag in audit.tags(cell) if tag.startswith("claim-")}
    assert written == listed


def said(page: str, name: str) -> str | None:
    """The verdict that a chapter states, in the line under the target of a claim."""
    source = "\n".join(cell["source"] for cell in audit.cells(BOOK, page))
    found = re.search(rf"^\({name}\)=\n\*\*.+?\*\* \*([A-Z][a-z]+)\b", source, re.MULTILINE)
    return found[1].lower() if found else None


@pytest.mark.parametrize("row", CLAIMS, ids=lambda row: row["id"])
def test_the_chapter_and_the_list_say_the_same(row: audit.Row) -> None:
    """Nothing computes a verdict; but it stands in two places, and one error shows."""
    assert said(*row["home"].split("#")) == row["verdict"]


# --- a fault is seen ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "count"),
    [("assert x == 1", 1), ("assert True", 0), ("x = 1", 0), ("assert f(1) < 2, 'a'", 1)],
)
def test_an_empty_assertion_does_not_count(source: str, count: int) -> None:
    assert len(audit.asserts(source)) == count


def test_a_missing_page_target_or_tag_is_seen() -> None:
    page = CLAIMS[0]["home"].partition("#")[0]
    assert audit.faults(BOOK, "no-such-page#claim-a12") != []
    assert audit.faults(BOOK, f"{page}#claim-a999") != []
    assert audit.faults(BOOK, CLAIMS[0]["home"], "claim-a999") != []
    assert audit.faults(BOOK, CLAIMS[0]["home"], f"claim-{CLAIMS[1]['id']}") != []


@pytest.mark.parametrize(
    "change",
    [
        {"verdict": "perhaps"},
        {"correction": "Too short."},
        {"correction": "It has no full stop at the end of it"},
        {"claim": "It goes over\ntwo lines, which is too much."},
        {"home": CLAIMS[1]["home"]},
        {"id": "a110"},
        {"remark": "There is no such key in a row."},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_claim_that_lacks_something_is_seen(change: audit.Row) -> None:
    assert audit.claim_faults(BOOK, CLAIMS[0]) == []
    assert audit.claim_faults(BOOK, CLAIMS[0] | change) != []


def test_a_cell_that_settles_nothing_is_seen(tmp_path: Path) -> None:
    text = (
        '{"cells": [{"cell_type": "markdown", "metadata": {}, "source": ["(claim-a12)="]},'
        '{"cell_type": "code", "metadata": {"tags": ["claim-a12"]}, "source": ["%s"]}]}'
    )
    for source, sound in (("assert 1 + 1 == 2", False), ("assert x == 2", True)):
        (tmp_path / "page.ipynb").write_text(text % source)
        assert (audit.faults(tmp_path, "page#claim-a12", "claim-a12") == []) == sound


# --- the page of the audit ------------------------------------------------------------------------

PAGE = (BOOK / "reference" / "article-audit.md").read_text(encoding="utf-8")


def test_the_page_has_every_claim_once_and_in_order() -> None:
    ranges = re.findall(r"\{article-audit\} claims (\S+)", PAGE)
    shown = [name for text in ranges for name in audit.ranges(text, audit.CLAIMS)]
    assert shown == audit.CLAIMS


@pytest.mark.parametrize("part", ["tally", "filter", "systems"])
def test_the_page_has_its_other_parts_once(part: str) -> None:
    assert PAGE.count(f"{{article-audit}} {part}\n") == 1


def test_the_ids_of_the_page_are_no_targets_of_the_book() -> None:
    """A second target of the name would turn every link to the chapter back onto this page."""
    assert not re.search(r"^\((claim-a|system-s)\d+\)=$", PAGE, re.MULTILINE)
    row = audit.element("li", "text", id="claim-a12", kind="audit-row", data_page="x")
    assert row["ids"] == []
    assert row["names"] == []
    assert row["attributes"] == {"id": "claim-a12", "class": "audit-row", "data-page": "x"}


def test_a_range_that_names_nothing_is_refused() -> None:
    assert audit.ranges("a109", audit.CLAIMS) == ["a109"]
    for text in ("a00-a11", "a12-a1", "b1"):
        with pytest.raises(ValueError, match="no range of ids"):
            audit.ranges(text, audit.CLAIMS)


def test_what_is_missing_is_named() -> None:
    rows = [{"id": "a01"}, {"id": "a03"}]
    assert audit.missing(rows, ["a01", "a02", "a03", "a04"]) == ["a02", "a04"]


def test_every_verdict_has_a_mark_and_a_colour() -> None:
    css = (BOOK / "_static" / "audit.css").read_text(encoding="utf-8")
    assert set(audit.MARKS) == set(audit.VERDICTS)
    for verdict in audit.VERDICTS:
        assert css.count(f"--audit-{verdict}:") == 2  # light and dark
        assert f".audit-{verdict} " in css
