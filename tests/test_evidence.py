"""The records of what the checks found: what is written, what is refused, what is shown."""

from __future__ import annotations

import json
import platform
import re
from pathlib import Path

import pytest

from walkthrough import evidence

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "book" / "reference" / "verification.md").read_text(encoding="utf-8")
SHOWN = re.findall(r"^```\{evidence\} (.+)\n```$", PAGE, re.MULTILINE)
RECORDED = sorted(path.stem for path in evidence.FOLDER.glob("*.json"))

SAMPLE = dict(title="Kills", command="make kills", summary="3 of 3 runs ended `equal`.")
TABLE = dict(head=["kill", "result"], rows=[[1, "a|b"], [2, "c\nd"]], notes=["One note."])


def written(folder: Path, **more: object) -> dict[str, object]:
    evidence.record("kills", folder=folder, **SAMPLE | more)
    found = evidence.load("kills", folder)
    assert found is not None
    return found


def test_a_record_says_what_when_and_where(tmp_path: Path) -> None:
    found = written(tmp_path, **TABLE, seconds=61.04, where={"GPU": "one"})
    assert found["rows"] == [["1", "a|b"], ["2", "c\nd"]]
    assert found["seconds"] == 61.0
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", str(found["date"]))
    assert list(found["where"]) == sorted(
        ["processor", "cores", "system", "Python", "torch", "GPU"]
    )
    assert found["code"] == evidence.code()


def test_a_second_record_changes_no_byte(tmp_path: Path) -> None:
    first, second = (
        evidence.record("kills", folder=tmp_path / name, **SAMPLE, **TABLE) for name in "ab"
    )
    assert first.read_bytes() == second.read_bytes()
    assert list(json.loads(first.read_text(encoding="utf-8"))) == sorted(
        json.loads(first.read_text(encoding="utf-8"))
    )


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"summary": ""}, "needs a title"),
        ({"head": ["one"], "rows": [[1, 2]]}, "1 cells"),
        ({"head": ["", "one"], "rows": [[1, 2]]}, "every column needs a name"),
        ({"notes": ["see /" + "home/me/log"]}, "does not name a place: /home" + "/me"),
        ({"notes": [f"on {platform.node()} alone"]}, "does not name a place"),
    ],
)
def test_what_says_nothing_or_too_much_is_refused(tmp_path: Path, more: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        evidence.record("kills", folder=tmp_path, **SAMPLE | more)
    assert list(tmp_path.iterdir()) == []


def test_the_name_is_a_plain_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="small letters"):
        evidence.record("../kills", folder=tmp_path, **SAMPLE)


def test_the_page_shows_text_and_table(tmp_path: Path) -> None:
    text = evidence.markdown("kills", written(tmp_path, **TABLE, seconds=61), evidence.code())
    assert text.startswith("3 of 3 runs ended `equal`.\n\n| kill | result |\n| --- | --- |\n")
    assert "| 1 | a\\|b |\n| 2 | c d |\n\n- One note.\n" in text
    assert "`make kills`, in 1 min 1 s" in text
    assert "changed since" not in text


def test_the_page_says_if_the_code_is_another_one_now(tmp_path: Path) -> None:
    assert "changed since" in evidence.markdown("kills", written(tmp_path), "another")


def test_the_page_says_if_nothing_was_run(tmp_path: Path) -> None:
    assert evidence.load("kills", tmp_path) is None
    assert "not been run yet" in evidence.markdown("kills", None)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "0 s"), (9.4, "9 s"), (60, "1 min"), (61, "1 min 1 s"), (3600, "1 h"),
     (7261, "2 h 1 min")],
)  # fmt: skip
def test_durations(seconds: float, words: str) -> None:
    assert evidence.duration(seconds) == words


def test_the_code_is_what_runs_and_not_what_explains(tmp_path: Path) -> None:
    file = tmp_path / "src" / "minioptim" / "sgd.py"
    file.parent.mkdir(parents=True)

    def code(text: str) -> str:
        file.write_text(text)
        return evidence.code(tmp_path)

    first = code('"""Says."""\ndef f(x):\n    """Says."""\n    return x + 1\n')
    assert code("def f(x: int) -> int:\n    # why\n    return x + 1\n") == first
    assert code("def f(x):\n    return x - 1\n") != first


def test_every_record_is_shown_and_whole() -> None:
    assert len(set(SHOWN)) == len(SHOWN) >= 8
    assert set(RECORDED) <= set(SHOWN)
    for name in RECORDED:
        found = evidence.load(name)
        assert found is not None
        assert {"title", "command", "summary", "date", "commit", "code", "where"} <= found.keys()
        assert all(found["head"]), name
        assert evidence.markdown(name, found)
