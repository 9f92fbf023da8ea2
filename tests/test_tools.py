"""The tools that execute, compare and check: each must see what it is there to see."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

from check_site import check  # noqa: E402
from run_tests import count  # noqa: E402


def notebook(path: Path, *sources: str) -> Path:
    cells = [new_markdown_cell("# A page", id="title")]
    for n, source in enumerate(sources):
        cells.append(new_code_cell(source, id=f"cell-{n}", metadata={"tags": ["keep"]}))
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=cells), path)
    return path


def tool(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "tools" / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


# --- execute --------------------------------------------------------------------------------------


def test_a_second_execution_changes_no_byte(tmp_path: Path) -> None:
    path = notebook(tmp_path / "a.ipynb", "print('x', flush=True)\nprint('y')", "1 / 4")
    assert tool("execute.py", path).returncode == 0
    stored = path.read_bytes()
    nb = nbformat.read(path, as_version=4)
    assert [cell.get("execution_count") for cell in nb.cells] == [None, 1, 2]
    assert [cell.id for cell in nb.cells] == ["title", "cell-0", "cell-1"]
    assert nb.cells[1].metadata == {"tags": ["keep"]}
    assert nb.cells[1].outputs[0].text == "x\ny\n"
    assert "version" not in nb.metadata.language_info
    assert tool("execute.py", "--check", path).returncode == 0
    assert path.read_bytes() == stored


def test_a_cell_that_fails_is_named_and_nothing_is_stored(tmp_path: Path) -> None:
    path = notebook(tmp_path / "a.ipynb", "x = 0", "1 / x")
    before = path.read_bytes()
    run = tool("execute.py", path)
    assert run.returncode == 1
    assert "a.ipynb: FAILED in code cell 2 (id cell-1)" in run.stdout
    assert "ZeroDivisionError" in run.stdout
    assert path.read_bytes() == before


# --- nbval ----------------------------------------------------------------------------------------


def test_a_wrong_digit_fails_and_is_named(tmp_path: Path) -> None:
    path = notebook(tmp_path / "a.ipynb", "0.1 + 0.2", "print('ok')")
    assert tool("execute.py", path).returncode == 0
    path.write_text(
        path.read_text(encoding="utf-8").replace("0.30000000000000004", "0.30000000000000005")
    )
    run = tool("run_tests.py", path)
    assert run.returncode != 0
    assert "::Cell 0 - " in run.stdout
    assert "1 failed, 1 passed" in run.stdout


@pytest.mark.parametrize(("second", "faults"), [("", 0), ("<skipped/>", 1), ("<failure/>", 1)])
def test_every_code_cell_is_counted(tmp_path: Path, second: str, faults: int) -> None:
    path = notebook(tmp_path / "a.ipynb", "1", "2")
    report = tmp_path / "report.xml"
    cases = f'<testcase file="{path}"/><testcase file="{path}">{second}</testcase>'
    report.write_text(f"<testsuite>{cases}</testsuite>")
    assert len(count([path], report)) == faults


def test_a_notebook_that_was_not_collected_is_missed(tmp_path: Path) -> None:
    path = notebook(tmp_path / "a.ipynb", "1", "2")
    (tmp_path / "report.xml").write_text("<testsuite/>")
    assert count([path], tmp_path / "report.xml") == ["a.ipynb: 0 of 2 code cells were compared"]


# --- the finished site ----------------------------------------------------------------------------

PAGE = "<html><body><h1 id='top'>Title</h1>{}</body></html>"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    html = tmp_path / "_build" / "html"
    (html / "book").mkdir(parents=True)
    (html / "_sources" / "book").mkdir(parents=True)
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "one.ipynb").write_text("{}")
    (html / "_sources" / "book" / "one.ipynb").write_text("{}")
    (tmp_path / "_toc.yml").write_text(
        "root: book/index\nparts:\n  - chapters:\n      - file: book/one\n"
    )
    (html / "index.html").write_text("<a href='book/index.html'>in</a>")
    (html / "book" / "index.html").write_text(PAGE.format("<a href='one.html#top'>one</a>"))
    (html / "book" / "one.html").write_text(PAGE.format("<a href='https://pytorch.org'>out</a>"))
    return tmp_path


def test_a_whole_site_passes(site: Path) -> None:
    assert check(site) == []


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("<a href='two.html'>x</a>", "does not exist"),
        ("<a href='index.html#nowhere'>x</a>", "no such anchor"),
        ("<svg><use href='#letter'></use></svg>", "no such anchor"),
        ("<script src='https://cdn.example/x.js'></script>", "another host"),
        ("<link rel='stylesheet' href='//cdn.example/x.css'>", "another host"),
        ("<img src='../_images/x.png' alt='../_images/x.png'>", "alternative text"),
        ("<img src='../_images/x.png'>", "alternative text"),
    ],
)
def test_a_fault_in_a_page_is_seen(site: Path, content: str, fault: str) -> None:
    (site / "_build" / "html" / "book" / "one.html").write_text(PAGE.format(content))
    assert any(fault in found for found in check(site))


@pytest.mark.parametrize("name", ["book/one.html", "_sources/book/one.ipynb", "index.html"])
def test_what_is_missing_is_seen(site: Path, name: str) -> None:
    (site / "_build" / "html" / name).unlink()
    assert check(site)
