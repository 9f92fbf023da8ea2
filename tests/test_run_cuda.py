"""`make test-cuda`: what it says without a GPU, and what it records with one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import run_cuda  # noqa: E402
from test_tools import notebook  # noqa: E402

from walkthrough import evidence, status  # noqa: E402


def main(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["run_cuda.py", *map(str, arguments)])
    return run_cuda.main()


@pytest.fixture
def records(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder for what is recorded, and no way to another one."""
    record = evidence.record
    folder = tmp_path / "records"
    monkeypatch.setattr(evidence, "record", lambda *a, **kw: record(*a, **kw, folder=folder))
    monkeypatch.setattr(run_cuda, "ROOT", tmp_path)
    return folder


@pytest.mark.parametrize(
    ("built", "reason"), [(None, "was built without it"), ("13.0", "finds no GPU")]
)
def test_without_a_gpu_it_says_why_it_did_not_run(
    built: str | None,
    reason: str,
    records: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(torch.version, "cuda", built)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(run_cuda, "run_tests", None)  # must not be called
    monkeypatch.setattr(run_cuda, "run_notebooks", None)
    assert main(monkeypatch) == 0
    out = capsys.readouterr().out
    assert out.startswith("The tests for CUDA did not run: ")
    assert reason in out
    assert torch.__version__ in out
    assert not records.exists()


@pytest.mark.parametrize(
    ("tests", "failed", "status_"),
    [
        ({"passed": 3}, {}, 0),
        ({"passed": 3, "failed": 1}, {}, 1),
        ({"passed": 3}, {"a.ipynb": "code cell 2 (id cell-1), RuntimeError"}, 1),
        ({"skipped": 3}, {}, 1),
    ],
    ids=["all good", "a test failed", "a notebook failed", "nothing ran"],
)
def test_a_result_is_recorded_also_a_bad_one(
    tests: dict[str, int],
    failed: dict[str, str],
    status_: int,
    records: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = [notebook(tmp_path / "a.ipynb", "1", "2"), notebook(tmp_path / "b.ipynb", "3")]
    gpu = {"GPU": "A fast one, compute capability 9.0", "CUDA": "13.0"}
    code = int("failed" in tests)
    bad = {tmp_path / name: text for name, text in failed.items()}
    monkeypatch.setattr(run_cuda, "absent", lambda: "")
    monkeypatch.setattr(run_cuda, "gpu", lambda: gpu)
    monkeypatch.setattr(run_cuda, "find", lambda: found)
    monkeypatch.setattr(run_cuda, "run_tests", lambda *_: (code, Counter(tests)))
    monkeypatch.setattr(run_cuda, "run_notebooks", lambda *_: bad)
    assert main(monkeypatch) == status_

    record = json.loads((records / "cuda.json").read_text(encoding="utf-8"))
    assert record["where"]["GPU"] == gpu["GPU"]
    assert record["where"]["torch"] == torch.__version__
    assert record["rows"][0] == ["`a.ipynb`", "2", failed.get("a.ipynb", "all ran")]
    ran = 1 if failed else 3
    assert (
        f"{2 - len(failed)} of 2 notebooks ran from top to bottom, {ran} code cells"
        in (record["summary"])
    )
    shown = status.on_cuda(records)
    assert shown == f"{record['date']}, {gpu['GPU']}: {record['summary']}"
    assert "A fast one" in evidence.markdown("cuda", record)


def test_the_pretended_device_has_a_record_of_its_own(
    records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_cuda, "find", lambda: [notebook(tmp_path / "a.ipynb", "1")])
    asked: list[Any] = []
    monkeypatch.setattr(
        run_cuda, "run_tests", lambda *how: (asked.append(how[0]), (0, Counter({"passed": 1})))[1]
    )
    monkeypatch.setattr(run_cuda, "run_notebooks", lambda *how: (asked.append(how[0]), {})[1])
    assert main(monkeypatch, "--pretend") == 0
    assert asked == [True, "elsewhere"]
    record = json.loads((records / "elsewhere.json").read_text(encoding="utf-8"))
    assert record["command"] == "make test-cuda PRETEND=1"
    assert "GPU" not in record["where"]
    assert status.on_cuda(records) == "not run on CUDA yet"


def test_without_a_record_the_page_says_so(tmp_path: Path) -> None:
    assert status.on_cuda(tmp_path) == "not run on CUDA yet"
    assert ("tests and notebooks on CUDA", status.on_cuda()) in list(status.machine())


def test_a_part_is_not_recorded(
    records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_cuda, "absent", lambda: "")
    monkeypatch.setattr(run_cuda, "run_tests", lambda *_: (0, Counter({"passed": 1})))
    monkeypatch.setattr(run_cuda, "run_notebooks", lambda *_: {})
    assert main(monkeypatch, notebook(tmp_path / "a.ipynb", "1")) == 0
    assert not records.exists()


MIXED = "import torch, walkthrough\nx = torch.ones(2, device=walkthrough.device())\n"


@pytest.mark.long
def test_a_notebook_that_mixes_devices_is_named(tmp_path: Path) -> None:
    """And nothing is written: what it prints may differ there."""
    good = notebook(tmp_path / "good.ipynb", MIXED + "print(x.device, (x + x).sum().item())")
    bad = notebook(tmp_path / "bad.ipynb", MIXED, "x + torch.ones(2)")
    before = [path.read_bytes() for path in (good, bad)]
    failed = run_cuda.run_notebooks("elsewhere", [good, bad])
    assert failed == {bad: "in code cell 2 (id cell-1), RuntimeError"}
    assert run_cuda.run_notebooks("cpu", [good, bad]) == {}
    assert [path.read_bytes() for path in (good, bad)] == before


TESTS = """
import pytest, torch
pytestmark = pytest.mark.cuda
def test_good(): assert torch.ones(2, device={device!r}).sum() == 2
def test_bad(): assert torch.ones(2, device={device!r}) + torch.ones(2) is None
def test_skipped(): pytest.skip()
"""


@pytest.mark.long
def test_tests_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "test_there.py"
    path.write_text(TESTS.format(device="elsewhere") + "\n@pytest.mark.skip\ndef test_x(): ...\n")
    code, counts = run_cuda.run_tests(True, [path])
    assert code != 0
    assert counts == {"passed": 1, "failed": 1, "skipped": 2}


@pytest.mark.long
def test_the_tests_for_cuda_are_found_by_their_mark() -> None:
    """Without a GPU all of them are skipped, none passes."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "cuda", "--collect-only", "tests"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout
    for name in ("test_cuda.py::test_equal_to_torch", "test_grad_scaler.py::test_equal_to_torch"):
        assert name in run.stdout
    assert "[cpu" not in run.stdout
