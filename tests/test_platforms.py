"""The tools around the tests: circumstances, phases and their times. Each must see a failure."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from walkthrough import evidence

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import platforms  # noqa: E402
import timed  # noqa: E402

CASE = '<testcase file="{}" name="{}">{}</testcase>'


def report(folder: Path, *cases: str) -> Path:
    path = folder / "report.xml"
    path.write_text(f"<testsuite>{''.join(cases)}</testsuite>")
    return path


@pytest.mark.parametrize(
    ("cells", "code", "content", "good"),
    [(2, 0, "", True), (1, 0, "", False), (2, 1, "", False), (2, 0, "<failure/>", False),
     (2, 0, "<skipped/>", True)],
)  # fmt: skip
def test_a_row_is_good_only_if_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cells: int, code: int, content: str, good: bool
) -> None:
    """All code cells of the notebooks must have been compared; a test may be skipped."""
    cell = {"cell_type": "code", "metadata": {}, "source": "1", "outputs": []}
    book = {"cells": [cell | {"execution_count": n, "id": f"c{n}"} for n in (1, 2)]}
    book |= {"metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (tmp_path / "a.ipynb").write_text(json.dumps(book))
    monkeypatch.setattr(platforms, "ROOT", tmp_path)
    cases = [CASE.format("a.ipynb", n, "") for n in range(cells)]
    path = report(tmp_path, *cases, CASE.format("tests/test_a.py", "test_b", content))
    row = platforms.Circumstance("here")
    found = platforms.judged(row, code, path, ["a.ipynb", "tests/test_a.py"])
    assert found["good"] == good
    assert found["failed"] == (["test_a.py test_b"] if "failure" in content else [])
    assert ("**" in platforms.result(found)) == (not good)


def test_a_run_without_a_report_has_failed(tmp_path: Path) -> None:
    found = platforms.judged(
        platforms.Circumstance("here"), 0, tmp_path / "no.xml", ["x.ipynb"][:0]
    )
    assert not found["good"]
    assert platforms.result(found) == "**not whole**"


# variables of the environment, and in how many ways they are set
VARIED = {"ATEN_CPU_CAPABILITY": 3, "OMP_NUM_THREADS": 1, "PYTHONHASHSEED": 2, "LC_ALL": 2, "TZ": 1}
VARIED |= {"HOME": 1}


def test_every_circumstance_differs_or_says_why_not() -> None:
    rows = platforms.circumstances({"Python-3.99": "another"})
    assert len({row.says for row in rows.values()}) == len(rows)
    values = [{row.set[key] for row in rows.values() if key in row.set} for key in VARIED]
    assert list(map(len, values)) == list(VARIED.values())
    assert any(row.before for row in rows.values())
    assert any(row.place for row in rows.values())
    for name, row in rows.items():
        changes = row.set or row.before or row.place or row.python != sys.executable
        assert changes or row.missing, name


def test_instructions_that_a_processor_lacks_are_not_claimed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(platforms.torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    missing = {name: platforms.instructions(name) for name in ("default", "avx2", "avx512")}
    assert missing == {"default": "", "avx2": "", "avx512": "this processor has AVX2"}


def test_the_copy_is_whole_and_its_path_is_awkward() -> None:
    with platforms.copied() as place:
        assert " " in str(place)
        assert not str(place).isascii()
        for name in ("src/minioptim/sgd.py", "book/02-momentum.ipynb", "pyproject.toml"):
            assert (place / name).read_bytes() == (ROOT / name).read_bytes()


def test_phases_are_timed_and_a_failure_is_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(timed, "PHASES", tmp_path / "build" / "times.json")
    monkeypatch.setattr(evidence, "FOLDER", tmp_path)
    monkeypatch.setattr(evidence.record, "__kwdefaults__",
                        evidence.record.__kwdefaults__ | {"folder": tmp_path})  # fmt: skip
    assert timed.main(["good", "--", sys.executable, "-c", "pass"]) == 0
    assert timed.main(["bad", "--", sys.executable, "-c", "raise SystemExit(3)"]) == 3
    assert "== bad: 0 s, FAILED with 3" in capfd.readouterr().out
    assert timed.main(["--record", ".ci/run"]) == 0
    found = evidence.load("time", tmp_path)
    assert found is not None
    assert [row[0] for row in found["rows"]] == ["good", "bad"]
    assert "**failed: bad**" in found["summary"]
    assert timed.main(["--forget"]) == 0
    assert timed.main(["--record", ".ci/run"]) == 2


def test_timing_needs_no_package() -> None:
    """It may be what runs the installation."""
    code = (
        "import sys; sys.path.insert(0, 'tools'); import timed; assert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-I", "-S", "-c", code], cwd=ROOT).returncode == 0
