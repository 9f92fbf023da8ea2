"""The repository is in order: pages, pins, imports, targets, style."""

from __future__ import annotations

import ast
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from test_no_copied_source import tracked

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

from check_site import toc_pages  # noqa: E402

TEXT = {".py", ".md", ".yml", ".toml", ".txt", ".css", ".js", ".ipynb", ".bib", ".json", ""}


def lines(name: str) -> list[str]:
    found = (line.strip() for line in (ROOT / name).read_text(encoding="utf-8").splitlines())
    return [line for line in found if line and not line.startswith("#")]


def pins(name: str) -> dict[str, str]:
    found = (line.split("==") for line in lines(name) if "==" in line)
    return {re.sub(r"[-_.]+", "-", package).lower(): version for package, version in found}


# --- pages ----------------------------------------------------------------------------------------


def test_every_page_of_the_table_of_contents_exists() -> None:
    pages = toc_pages(ROOT)
    here = [p for p in pages if any((ROOT / f"{p}{kind}").is_file() for kind in (".md", ".ipynb"))]
    assert here == pages
    assert len(set(pages)) == len(pages)


def test_every_page_stands_in_the_table_of_contents() -> None:
    written = {
        path.relative_to(ROOT).with_suffix("").as_posix()
        for kind in ("*.md", "*.ipynb")
        for path in (ROOT / "book").rglob(kind)
        if not any(part.startswith((".", "_")) for part in path.relative_to(ROOT).parts)
    }
    assert written == set(toc_pages(ROOT))


def test_the_first_page_lists_every_chapter() -> None:
    listed = re.findall(r"^\| \[\]\((\d\d-[\w-]+)\.ipynb\)", first_page(), re.MULTILINE)
    assert listed == [p.removeprefix("book/") for p in toc_pages(ROOT) if re.match(r"book/\d", p)]


def first_page() -> str:
    return (ROOT / "book" / "index.md").read_text(encoding="utf-8")


def test_the_builder_never_lets_an_error_pass() -> None:
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    assert config["execute"]["execute_notebooks"] in ("cache", "force")
    assert not config["execute"].get("allow_errors", False)
    assert not config["execute"].get("exclude_patterns")


# --- pins -----------------------------------------------------------------------------------------


def test_every_requirement_is_pinned_and_locked() -> None:
    direct, locked = pins("requirements.txt"), pins("constraints.txt")
    assert {name: locked.get(name) for name in direct} == direct
    loose = [line for line in lines("requirements.txt") if "==" not in line]
    assert loose == ["-c constraints.txt", "-e ."]


def test_the_lock_holds_exact_versions_and_nothing_else() -> None:
    for line in lines("constraints.txt"):
        assert re.fullmatch(r"[\w.-]+==[\w.]+", line), line


# --- imports --------------------------------------------------------------------------------------


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
        elif isinstance(node, ast.Attribute):
            names.add(ast.unparse(node))
    return names


@pytest.mark.parametrize(
    "path", sorted((ROOT / "src/minioptim").glob("*.py")), ids=lambda p: p.name
)
def test_minioptim_stands_alone(path: Path) -> None:
    """It builds on torch, and borrows nothing from what it rebuilds."""
    for name in imported(path):
        top = name.split(".")[0]
        assert not name.startswith("torch.optim"), name
        assert top not in ("matplotlib", "walkthrough", "numpy"), name


def test_no_module_of_the_book_is_needed_to_import_the_packages() -> None:
    """A reader without the site's tools can run a notebook."""
    code = (
        "import sys\n"
        "for name in ('sphinx', 'docutils', 'myst_nb', 'jupyter_book'): sys.modules[name] = None\n"
        "import minioptim, walkthrough\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


# --- commands -------------------------------------------------------------------------------------


def targets() -> set[str]:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE))


def test_make_help_and_phony_agree() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = " ".join(re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)).split()
    assert sorted(phony) == sorted(targets())


@pytest.mark.parametrize(
    "name", ["README.md", "book/index.md", ".ci/run", ".github/workflows/book.yml"]
)
def test_every_command_that_is_named_exists(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    call = r"""(?:^|`|\brun: |&& )make ([a-z][a-z-]*)|^phase "[^"]*" ([a-z-]+)"""
    named = {a or b for a, b in re.findall(call, text, re.MULTILINE)}
    assert named
    assert named <= targets()


def ci_with(folder: Path, user: int, **stand_ins: str) -> tuple[int, list[str]]:
    """Run .ci/run with stand-ins for every command; its status, and how they were called."""
    log = folder / "log"
    note = f"echo $(basename $0) $@ >> {log}"
    for name, does in (stand_ins | {"python3": note, "id": f"echo {user}"}).items():
        path = folder / name
        path.write_text(f"#!/bin/sh\n{does.replace('NOTE', note)}\n")
        path.chmod(0o755)
    for command in ("bash", "dirname", "basename", "sh", "sleep"):
        (folder / command).symlink_to(shutil.which(command) or "")
    done = subprocess.run([str(ROOT / ".ci" / "run")], env={"PATH": str(folder)})
    return done.returncode, log.read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("browser", ["", "chromium", "google-chrome-stable"])
@pytest.mark.parametrize("user", [0, 1000])
def test_ci_installs_a_browser_where_there_is_none(tmp_path: Path, browser: str, user: int) -> None:
    """It is slow, so what comes after it has waited for it."""
    stand_ins = {"apt-get": "sleep 0.3\nNOTE"} | ({browser: "NOTE"} if browser else {})
    status, called = ci_with(tmp_path, user, **stand_ins)
    assert status == 0
    install = ["apt-get update", "apt-get install -y --no-install-recommends chromium"]
    installed = [line for line in called if line.startswith("apt-get")]
    assert installed == (install if user == 0 and not browser else [])
    others = [line for line in called if line not in installed]
    assert others[0] == "python3 tools/timed.py --forget"
    phases = [line.partition(" -- ")[2] for line in others[1:]]
    assert phases[:3] == ["make book", "make test", "make test-site"]
    assert [phase.split()[1] for phase in phases[3:]] == ["mutants", "search", "kills"]
    assert all(called.index(line) < called.index(others[3]) for line in installed)


def test_ci_fails_where_the_browser_cannot_be_installed(tmp_path: Path) -> None:
    status, called = ci_with(tmp_path, 0, **{"apt-get": "exit 100"})
    assert status == 100
    assert not any("make test-site" in line for line in called)


def test_ci_and_the_tests_look_for_the_same_browsers() -> None:
    browsers = runpy.run_path(str(ROOT / "tests" / "site" / "conftest.py"))["BROWSERS"]
    assert f"in ${{CHROMIUM:-}} {' '.join(browsers)}; do" in (ROOT / ".ci" / "run").read_text(
        encoding="utf-8"
    )


@pytest.mark.parametrize("name", ["README.md", "book/index.md"])
def test_every_file_that_is_linked_exists(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    linked = re.findall(r"\]\(([^)#\s]+)", text)
    missing = [
        p for p in linked if "://" not in p and not (ROOT / name).parent.joinpath(p).exists()
    ]
    assert linked
    assert missing == []


# --- what must not be in the repository -----------------------------------------------------------


def test_no_file_names_a_place_on_one_machine() -> None:
    place = re.compile(r"(?<![\w.:/])/(?:home|root|tmp|work|mnt|Users)/[\w.-]+")
    faults = []
    for path in tracked():
        if path.suffix in TEXT and path.stat().st_size < 2_000_000:
            found = place.search(path.read_text(encoding="utf-8", errors="ignore"))
            if found:
                faults.append(f"{path.relative_to(ROOT)}: {found.group(0)}")
    assert faults == []


def test_no_file_is_heavy() -> None:
    heavy = [str(path) for path in tracked() if path.stat().st_size > 1_500_000]
    assert heavy == []


def test_code_is_formatted_and_clean() -> None:
    ruff = [sys.executable, "-m", "ruff"]
    places = ["src", "tests", "tools"]
    for command in (["check", "--no-cache"], ["format", "--check", "--no-cache"]):
        run = subprocess.run([*ruff, *command, *places], cwd=ROOT, capture_output=True, text=True)
        assert run.returncode == 0, run.stdout + run.stderr
