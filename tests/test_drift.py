"""The alarm: what the book shows of PyTorch is what it was written for, and a change is noticed.

The tests after the first change a copy of the installed torch/optim and look at what is said.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from walkthrough import source, sourcemap
from walkthrough.sourcemap import KINDS, Change

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "book"
sys.path.insert(0, str(ROOT / "tools"))

import drift  # noqa: E402

PAGE = """# A page

## The loop

Here is the loop.

```{code-block} python
:class: panel
:name: panel-loop
walkthrough.show("torch.optim.sgd._single_tensor_sgd", start_at="for i, param",
                 end_before="if weight_decay", beside="minioptim.sgd.SGD.rule")
```

It walks over the parameters.

## The base

The base checks for closures.

```{code-block} python
:class: panel
:name: panel-step
walkthrough.show("torch.optim.sgd.SGD.step", start_at="loss = None")
```
"""


# --- the book as it is ----------------------------------------------------------------------------


def test_the_book_shows_what_it_was_written_for() -> None:
    """Under the pinned PyTorch every digest is the recorded one, and every panel is recorded."""
    shown, held = sourcemap.collect(BOOK), sourcemap.load(BOOK)
    pinned = re.search(
        r"^torch==(\S+)$", (ROOT / "requirements.txt").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert pinned is not None
    changes = sourcemap.compare(shown, held["digests"])
    said = "\n".join(drift.report(changes))
    assert not changes, f"{said}\n\nRead these again (make drift), then run: make record"
    assert held["torch"] == pinned[1] == source.version_of("torch"), "run: make record"
    forgotten = held["digests"].keys() - sourcemap.by_name(shown).keys()
    assert not forgotten, f"no panel shows these any more: {forgotten}. Run: make record"


def test_recorded_releases_are_of_this_book() -> None:
    """A comparison with another release is one with the pinned release."""
    held = sourcemap.load(BOOK)
    assert held["releases"]
    for version, release in held["releases"].items():
        assert release["against"] == held["torch"], f"run: make drift TORCH={version} RECORD=1"
        assert set(release["differ"].values()) <= KINDS.keys()
        assert release["differ"].keys() <= sourcemap.functions_in(sourcemap.installed()).keys()


# --- a copy that was changed ----------------------------------------------------------------------


@pytest.fixture
def book(tmp_path: Path) -> Path:
    """A book of one page, whose panels are recorded."""
    (tmp_path / "site" / "book").mkdir(parents=True)
    book = tmp_path / "site" / "book"
    (book / "page.md").write_text(PAGE)
    assert sourcemap.record(book)
    return book


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the installed torch/optim, to be changed."""
    here = sourcemap.installed() / "torch" / "optim"
    there = tmp_path / "copy" / "torch" / "optim"
    shutil.copytree(here, there, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "copy"


def edit(copy: Path, file: str, before: str, after: str) -> None:
    path = copy / "torch" / "optim" / file
    text = path.read_text(encoding="utf-8")
    assert before in text
    path.write_text(text.replace(before, after), encoding="utf-8")


def alarm(book: Path, copy: Path | None = None) -> list[Change]:
    return sourcemap.compare(sourcemap.collect(book), sourcemap.load(book)["digests"], copy)


def move(copy: Path, name: str, before: str, after: str) -> None:
    """Cut a function out of one file and put it at the end of another."""
    place = source.locate(name, copy)
    lines = place.text.split("\n")
    cut = "\n".join(lines[place.first - 1 : place.last])
    rest = "\n".join(lines[: place.first - 1] + lines[place.last :])
    (copy / "torch" / "optim" / before).write_text(rest, encoding="utf-8")
    target = copy / "torch" / "optim" / after
    target.write_text(target.read_text(encoding="utf-8") + "\n\n" + cut + "\n", encoding="utf-8")


def test_an_unchanged_copy_is_quiet(book: Path, copy: Path) -> None:
    assert alarm(book) == []
    assert alarm(book, copy) == []
    assert sourcemap.release_differences(copy) == {}


def test_a_changed_line_is_named_with_its_pages(book: Path, copy: Path) -> None:
    edit(copy, "sgd.py", "grads[i] if not maximize else -grads[i]", "grads[i] * (-1) ** maximize")
    (change,) = alarm(book, copy)
    assert (change.name, change.kind) == ("torch.optim.sgd._single_tensor_sgd", "code")
    said = "\n".join(drift.report([change]))
    for part in (
        "torch.optim.sgd._single_tensor_sgd: the code changed",
        "torch/optim/sgd.py:322-379",
        "(-1) ** maximize",  # the new line
        "book/page.md, under 'The loop', panel panel-loop",
        "Here is the loop.",
        "It walks over the parameters.",
    ):
        assert part in said
    assert "The base" not in said
    assert "its own lines are the same" not in said
    differences = sourcemap.release_differences(copy)
    assert differences == {"torch.optim.sgd._single_tensor_sgd": "code"}


def test_a_change_outside_the_panel_is_said_to_be_there(book: Path, copy: Path) -> None:
    edit(copy, "sgd.py", "if weight_decay != 0:\n            # Nested", "if weight_decay:\n  #")
    (change,) = alarm(book, copy)
    assert change.kind == "code"
    assert "its own lines are the same" in "\n".join(drift.report([change]))


def test_after_an_upgrade_the_lines_come_from_the_old_release(
    book: Path, copy: Path, tmp_path: Path
) -> None:
    """Then the installed PyTorch is the changed one, and the old one lies elsewhere."""
    shutil.copytree(copy, tmp_path / "old")
    edit(copy, "sgd.py", "grads[i] if not maximize else -grads[i]", "grads[i]")
    shown, held = sourcemap.collect(book), sourcemap.load(book)
    (change,) = sourcemap.compare(shown, held["digests"], copy, tmp_path / "old")
    assert [line.strip("+- ") for line in change.lines] == [
        "grad = grads[i] if not maximize else -grads[i]",
        "grad = grads[i]",
    ]
    (change,) = sourcemap.compare(shown, held["digests"], copy, copy)
    assert change.lines == []  # what was recorded lies nowhere


def test_a_changed_annotation_is_told_from_changed_code(book: Path, copy: Path) -> None:
    edit(copy, "sgd.py", "    lr: float,\n", "    lr: float | Tensor,\n")
    (change,) = alarm(book, copy)
    assert change.kind == "types"
    assert set(sourcemap.release_differences(copy).values()) == {"types"}


def test_a_renamed_function_is_found_again(book: Path, copy: Path) -> None:
    edit(copy, "sgd.py", "_single_tensor_sgd", "_loop_sgd")
    (change,) = alarm(book, copy)
    assert (change.kind, change.said) == ("renamed", "to torch.optim.sgd._loop_sgd")
    assert change.again[0].label == "panel-loop"


def test_a_function_moved_to_another_file_is_found_again(book: Path, copy: Path) -> None:
    move(copy, "torch.optim.sgd._single_tensor_sgd", "sgd.py", "optimizer.py")
    (change,) = alarm(book, copy)
    assert (change.kind, change.said) == ("moved", "to torch.optim.optimizer._single_tensor_sgd")


def test_a_function_moved_within_its_file_is_no_change(book: Path, copy: Path) -> None:
    """Line numbers on the pages are those of the installed file; the code is the same."""
    move(copy, "torch.optim.sgd._single_tensor_sgd", "sgd.py", "sgd.py")
    assert source.locate("torch.optim.sgd._single_tensor_sgd", copy).first > 400
    assert alarm(book, copy) == []


def test_a_function_that_is_gone_is_named(book: Path, copy: Path) -> None:
    edit(copy, "sgd.py", "for i, param in enumerate(params):", "for param in params:")
    edit(copy, "sgd.py", "def _single_tensor_sgd", "def _loop_sgd")
    (change,) = alarm(book, copy)
    assert change.kind == "gone"
    assert "no _single_tensor_sgd in torch/optim/sgd.py" in change.said


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("# Nested if is necessary", "# Another remark"),
        ("    for i, param in", "    # a remark\n\n\n    for i, param in"),
        ("grads[i] if not maximize else -grads[i]", "(grads[i] if not maximize\n  else -grads[i])"),
        ('"""Perform a single', '"""Do a single'),
    ],
    ids=["comment", "blank lines", "layout", "docstring"],
)
def test_what_does_not_run_does_not_alarm(book: Path, copy: Path, before: str, after: str) -> None:
    edit(copy, "sgd.py", before, after)
    assert alarm(book, copy) == []


def test_a_lost_text_alarms_although_the_code_is_the_same(book: Path, copy: Path) -> None:
    page = (book / "page.md").read_text(encoding="utf-8")
    page = page.replace('"for i, param"', '"# Nested if is"')
    page = page.replace('"if weight_decay"', '"if momentum"')
    (book / "page.md").write_text(page)
    assert alarm(book) == []
    edit(copy, "sgd.py", "# Nested if is necessary", "# A nested condition is necessary")
    (change,) = alarm(book, copy)
    assert change.kind == "text"
    assert "no line contains '# Nested if is'" in change.said


def test_a_new_panel_is_to_be_recorded(book: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = (book / "page.md").read_text(encoding="utf-8")
    page = page.replace("sgd.SGD.step", "adam.Adam.step").replace("loss = None", "loss =")
    (book / "page.md").write_text(page)
    (change,) = alarm(book)
    assert (change.name, change.kind) == ("torch.optim.adam.Adam.step", "unrecorded")
    assert command("--book", book, "--no-tests") == 1
    assert "New panels are recorded by: make record" in capsys.readouterr().out


# --- the command ----------------------------------------------------------------------------------


def command(*arguments: object) -> int:
    return drift.main([str(argument) for argument in arguments])


def test_recording_says_what_is_new_and_changes_nothing_twice(
    book: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = book / sourcemap.RECORD
    record.unlink()
    assert command("--book", book, "--record") == 0
    assert "new:     torch.optim.sgd._single_tensor_sgd" in capsys.readouterr().out
    before = record.read_bytes()
    assert not sourcemap.record(book)
    assert record.read_bytes() == before
    assert command("--book", book, "--no-tests") == 0


def test_a_changed_copy_ends_the_command_with_an_error(book: Path, copy: Path) -> None:
    """As it is called from the Makefile."""
    edit(copy, "sgd.py", "grads[i] if not maximize else -grads[i]", "grads[i]")
    tool = [sys.executable, str(ROOT / "tools" / "drift.py"), "--no-tests"]
    run = subprocess.run(
        [*tool, "--book", str(book), "--root", str(copy)], capture_output=True, text=True
    )
    assert run.returncode == 1
    assert "under 'The loop', panel panel-loop" in run.stdout


def test_a_lost_panel_does_not_stop_the_command(
    book: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The installed PyTorch may be the one in which a text is gone."""
    page = (book / "page.md").read_text(encoding="utf-8").replace("loss = None", "loss = nothing")
    (book / "page.md").write_text(page)
    assert command("--book", book, "--no-tests") == 1
    assert KINDS["text"] in capsys.readouterr().out


@pytest.mark.parametrize("sign", [pytest.param("-lr", marks=pytest.mark.long), "+lr"])
def test_the_parity_tests_run_with_the_copy(copy: Path, sign: str) -> None:
    """A copy with one sign changed fails them; so it is the copy that they run with."""
    edit(copy, "sgd.py", "param.add_(grad, alpha=-lr)", f"param.add_(grad, alpha={sign})")
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "overlay", "-x"]
    environment = {
        "WALKTHROUGH_TORCH_OPTIM": str(copy),
        "PYTHONPATH": os.pathsep.join([str(ROOT / "tools"), str(ROOT / "src")]),
    }
    run = subprocess.run(
        [*tests, str(ROOT / "tests" / "test_parity.py"), "-k", "default_engine and SGD"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | environment,
    )
    assert run.returncode == (0 if sign == "-lr" else 1), run.stdout
    assert ("1 passed" if sign == "-lr" else "1 failed") in run.stdout


def test_what_cannot_be_imported_is_said(
    copy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(copy, "sgd.py", "from .optimizer import", "from .optimizer_of_tomorrow import")
    ran: list[list[str]] = []
    real = subprocess.run

    def run(command: list[str], **options: object) -> object:
        ran.append(command)
        return real(command, **options)

    monkeypatch.setattr(drift.subprocess, "run", run)
    assert drift.run_parity("9.9.9", copy) == 0
    said = capsys.readouterr().out
    assert "The parity tests were not run" in said
    assert "optimizer_of_tomorrow" in said
    assert "TORCH_PYTHON" in said
    assert len(ran) == 1  # the attempt to import, no tests


def test_the_parity_tests_are_found() -> None:
    names = {path.name for path in drift.parity_files()}
    assert {"test_parity.py", "test_lr_scheduler.py"} <= names
    assert not names & {"test_drift.py", "test_panels.py", "test_notebooks.py"}


# --- another release ------------------------------------------------------------------------------


def wheel(folder: Path, copy: Path, version: str = "9.9.9") -> Path:
    """A file as a release comes in, with torch/optim and other things in it."""
    folder.mkdir(parents=True, exist_ok=True)
    info = f"torch-{version}.dist-info"
    path = folder / f"torch-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(copy.rglob("*.py")):
            archive.write(file, file.relative_to(copy))
        archive.writestr("torch/other.py", "")
        archive.writestr("torch/lib/large.so", b"0" * 100_000)
        archive.writestr(
            f"{info}/METADATA",
            f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\nRequires-Dist: nowhere\n",
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Callable[[], str]]:
    """Serves a folder as a package index on this machine."""
    folder = tmp_path / "index"
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    handler.func.log_message = lambda *_: None  # type: ignore[attr-defined]
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield lambda: f"http://127.0.0.1:{server.server_address[1]}/simple/"
    server.shutdown()
    server.server_close()


def alone(monkeypatch: pytest.MonkeyPatch, **settings: str) -> None:
    """pip with these settings and no others."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)


def test_the_size_is_said_before_a_release_is_downloaded(
    tmp_path: Path,
    copy: Path,
    index: Callable[[], str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = wheel(tmp_path / "index" / "simple" / "torch", copy)
    alone(monkeypatch, PIP_INDEX_URL=index(), PIP_NO_CACHE_DIR="1")
    drift.fetch("9.9.9", tmp_path / "there", set())
    said = capsys.readouterr().out.splitlines()
    size = re.search(r"about to download one file of (\d+)", said[0])
    assert size is not None
    assert abs(int(size[1]) - path.stat().st_size / 1000) <= 1
    assert said[1].startswith("Unpacked")


def test_only_torch_optim_is_unpacked_and_no_dependency_is_fetched(
    tmp_path: Path, copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wheel(tmp_path / "wheels", copy)
    alone(monkeypatch, PIP_NO_INDEX="1", PIP_FIND_LINKS=str(tmp_path / "wheels"))
    there = tmp_path / "there"
    drift.fetch("9.9.9", there, {"torch/other.py"})
    assert "on this disk; nothing is downloaded" in capsys.readouterr().out
    found = {path.relative_to(there).as_posix() for path in there.rglob("*") if path.is_file()}
    assert "torch/other.py" in found  # asked for: the book shows something of it
    assert {name for name in found if not name.startswith("torch/optim/")} == {"torch/other.py"}
    assert sourcemap.release_differences(there) == {}


def test_a_release_that_does_not_exist_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone(monkeypatch, PIP_NO_INDEX="1", PIP_FIND_LINKS=str(tmp_path))
    with pytest.raises(SystemExit, match=r"torch 9\.9\.8 was not fetched"):
        drift.fetch("9.9.8", tmp_path / "there", set())
    with pytest.raises(SystemExit):
        command("--torch", "9.9; rm")


def test_a_release_is_recorded_once(book: Path, copy: Path) -> None:
    edit(copy, "adam.py", "betas = tuple(map(_to_scalar, betas))", "betas = list(betas)")
    assert sourcemap.record_release(book, "9.9.9", copy)
    release = sourcemap.load(book)["releases"]["9.9.9"]
    assert release["differ"] == {"torch.optim.adam.Adam.__init__": "code"}
    assert release["against"] == source.version_of("torch")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", release["compared"])
    assert not sourcemap.record_release(book, "9.9.9", copy)
    assert sourcemap.load(book)["digests"]  # what the panels show is still recorded
