"""Plant small faults in minioptim, one at a time, and see whether a test turns red.

    python tools/mutants.py                          every mutant
    python tools/mutants.py --seconds 60 --seed 0    a random sample, as many as the time allows
    python tools/mutants.py --only "adam.py Adam.rule"
    python tools/mutants.py --nbval 40               what the notebooks alone see, of a sample

A mutant that no test sees is a survivor, and an error unless ``tools/mutants.yml`` lists it with
the reason why nobody could see it. An entry there whose mutant is gone, or dies, is an error too.

How it goes so fast: PyTorch is imported once, the tests are collected once, and each mutant lives
in a fork of that process, where the code of one function is replaced before the tests run. A first
run without mutants notes which test runs which function, so that a mutant meets only the tests that
can see it, the quickest first. A mutant of code that runs while modules are imported is imported
anew, in a fork made before that. Tests that start other processes are left out: these would import
the file on the disk, where nothing is mutated.
"""

from __future__ import annotations

import argparse
import ast
import collections
import gc
import hashlib
import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import types
import warnings
from collections.abc import Callable, Container, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from mutate import Mutant, Source, mutants_of

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "minioptim"
LISTED = ROOT / "tools" / "mutants.yml"  # survivors that no input can tell apart
HINTS = ROOT / "tools" / "mutants.json"  # the tests that killed most, by function
CACHE = ROOT / "_build" / "mutants"
AT_ONCE = 2  # children at a time
MEMORY = 6 << 30  # bytes a child may use beyond what it starts with
LEAST = 20.0  # seconds in which a sample asks, however slow the machine was in getting there
GRACE = 5.0  # seconds for what is running when the time of a sample is over
PATIENCE = 10.0  # seconds of CPU time a test may take beyond ten times its own
FROM_FILE = {"__init__": ["test_optimizer.py"], "compat": ["test_optimizer.py", "test_exchange.py"]}
STARTS = "a test that starts a process is not asked further"
OWN = ("minioptim", "walkthrough", "pair", "conftest", "test_")


# --- which tests ----------------------------------------------------------------------------------


def test_files() -> list[Path]:
    """The tests that import minioptim, or something that does."""
    found = []
    for path in sorted((ROOT / "tests").glob("test_*.py")):
        text = path.read_text(encoding="utf-8")
        if path.name == "test_mutants.py":  # it runs this file
            continue
        if re.search(r"^\s*(import|from) (minioptim|walkthrough|test_\w+)\b", text, re.MULTILINE):
            found.append(path)
    return found


class Cover:
    """A pytest plugin: which functions of the package, and how long, each test runs."""

    def __init__(self) -> None:
        self.tests: dict[str, dict[str, dict[str, Any]]] = collections.defaultdict(dict)
        self.files = {str(path): path.name for path in PACKAGE.glob("*.py")}
        self.ran: set[str] = set()
        self.spawned = False
        sys.addaudithook(self.heard)

    def heard(self, event: str, args: Any) -> None:
        if event in ("subprocess.Popen", "os.fork", "os.posix_spawn", "os.exec"):
            self.spawned = True
            raise RuntimeError(STARTS)

    def trace(self, frame: types.FrameType, event: str, arg: Any) -> None:
        code = frame.f_code
        if code.co_filename in self.files:
            self.ran.add(f"{self.files[code.co_filename]} {code.co_qualname}")

    def pytest_runtestloop(self, session: Any) -> bool:
        for item, following in _with_next(session.items):
            self.ran, self.spawned, start = set(), False, time.process_time()
            sys.settrace(self.trace)
            red = _run_test(item, following)
            sys.settrace(None)
            seconds = round(time.process_time() - start, 3)
            if not self.spawned and STARTS not in red:
                runs = sorted({name.replace(".<locals>", "") for name in self.ran})
                found = {"seconds": seconds, "runs": runs, "red": red}
                self.tests[item.path.name][item.nodeid] = found
            if following is None or following.path != item.path:
                self.keep(item.path)
        return True

    def keep(self, path: Path) -> None:
        """Write down what is known of a file of tests; what it costs to ask is not lost."""
        found = {"of": _of(path), "tests": self.tests[path.name]}
        (CACHE / f"{path.stem}.json").write_text(json.dumps(found))


def coverage(files: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """Which test runs which functions; asked anew only of test files that changed since.

    A change of the package can make this wrong in one direction only: a mutant misses a test that
    would have killed it, and survives.
    """
    CACHE.mkdir(parents=True, exist_ok=True)

    def known(file: Path) -> Any:
        path = CACHE / f"{file.stem}.json"
        found = json.loads(path.read_text()) if path.is_file() else {}
        return found.get("tests") if found.get("of") == _of(file) else None

    stale = [file for file in files if known(file) is None]
    if stale:
        print(f"Which test runs which function? Asking {len(stale)} files ...", flush=True)
        _in_child(lambda: _pytest(stale, Cover()))
    tests = {name: test for file in files for name, test in (known(file) or {}).items()}
    red = [f"{name}:\n{test['red']}" for name, test in tests.items() if test["red"]]
    if red:
        sys.exit("Red without any mutant: " + "\n\n".join(red))
    return tests


def _of(path: Path) -> str:
    return _digest([path, ROOT / "tests" / "pair.py"])


def _pytest(files: Sequence[Path], plugin: Any) -> int:
    import pytest

    arguments = ["-q", "-p", "no:cacheprovider", f"--rootdir={ROOT}"]
    arguments += ["-c", str(ROOT / "pyproject.toml")]
    arguments += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # pytest is imported early
    if os.environ.get("MUTANTS_SAY"):
        return pytest.main([*arguments, *map(str, files)], plugins=[plugin])
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)  # pytest has nothing to say here
    try:
        return pytest.main([*arguments, *map(str, files)], plugins=[plugin])
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def _run_test(item: Any, following: Any) -> str:
    """Run one test; what it says if it is red."""
    from _pytest.runner import runtestprotocol
    from _pytest.warnings import catch_warnings_for_item

    with catch_warnings_for_item(item.config, item.ihook, "runtest", item):  # what a test ignores
        reports = runtestprotocol(item, nextitem=following, log=False)
    return next((report.longreprtext or "red" for report in reports if report.failed), "")


def _with_next(items: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
    return zip(items, [*items[1:], None], strict=True)


def _digest(paths: Sequence[Path]) -> str:
    text = b"".join(path.read_bytes() for path in sorted(paths))
    return hashlib.sha256(text).hexdigest()[:12]


# --- a mutant in a running process ----------------------------------------------------------------


class Imported:
    """Notes which functions of the package run while it is imported, and which when tests are."""

    def __init__(self) -> None:
        self.left: set[tuple[str, str]] = set()  # may have left something behind in the package
        self.ran: set[tuple[str, str]] = set()

    def __call__(self, frame: types.FrameType, event: str, arg: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(str(PACKAGE)):
            place = code.co_filename, code.co_qualname
            self.ran.add(place)
            if place not in self.left and self.importing(frame):
                self.left.add(place)

    @staticmethod
    def importing(frame: types.FrameType | None) -> bool:
        while frame is not None:
            code = frame.f_code
            if code.co_name == "<module>" and code.co_filename.startswith(str(PACKAGE)):
                return True
            frame = frame.f_back
        return False


class Live:
    """The functions of the package that live in this process, and how they came there."""

    def __init__(self, sources: Sequence[Source], imported: Imported) -> None:
        self.left, self.ran = imported.left, imported.ran
        self.code = {str(s.path): compile(s.tree, str(s.path), "exec") for s in sources}
        self.functions: dict[str, list[types.FunctionType]] = collections.defaultdict(list)
        for f in gc.get_objects():
            if type(f) is types.FunctionType and f.__code__.co_filename in self.code:
                self.functions[f.__code__.co_filename].append(f)


def graft(source: Source, mutant: Mutant, live: Live) -> bool:
    """Replace the code of the one function that differs, everywhere it lives in this process.

    Returns False if that is not possible: the fault is outside of functions, or in one that has
    run already and left something behind.
    """
    path = str(source.path)
    after = compile(source.mutated(mutant), path, "exec")
    if mutant.is_default:
        return _graft_default(mutant, path, live)
    changed = list(_changed(live.code[path], after))
    if None in changed or not changed:
        return False
    for new in changed:
        place = new.co_qualname, new.co_firstlineno
        own = [
            f for f in live.functions[path]
            if (f.__code__.co_qualname, f.__code__.co_firstlineno) == place
        ]  # fmt: skip
        if not own or (path, new.co_qualname) in live.left:
            return False
        for f in own:
            if f.__code__.co_freevars != new.co_freevars:
                return False
            f.__code__ = new
    return True


def _changed(before: types.CodeType, after: types.CodeType) -> Iterator[types.CodeType | None]:
    """The outermost functions that differ; None if something outside of functions does."""
    own = [[c for c in x.co_consts if not isinstance(c, types.CodeType)] for x in (before, after)]
    inner = [[c for c in x.co_consts if isinstance(c, types.CodeType)] for x in (before, after)]
    same = before.co_code == after.co_code and before.co_names == after.co_names
    if not same or list(map(repr, own[0])) != list(map(repr, own[1])):
        yield None
        return
    for a, b in zip(*inner, strict=True):
        if a != b:
            is_function = a.co_flags & 1  # CO_OPTIMIZED: not the body of a class
            yield from [b] if is_function else _changed(a, b)


def _graft_default(mutant: Mutant, path: str, live: Live) -> bool:
    arguments, name, i = mutant.place
    if not isinstance(arguments, ast.arguments) or i is None:
        return False
    value = eval(compile(ast.Expression(getattr(arguments, name)[i]), "default", "eval"))
    own = [f for f in live.functions[path] if f.__qualname__ == mutant.where]
    for f in own:
        if name == "kw_defaults":
            f.__kwdefaults__ = {**(f.__kwdefaults__ or {}), arguments.kwonlyargs[i].arg: value}
        else:
            f.__defaults__ = (*(f.__defaults__ or ())[:i], value, *(f.__defaults__ or ())[i + 1 :])
    return bool(own) and (path, mutant.where) not in live.left


class MutantFinder:
    """Imports one file of the package with its fault; everything else as ever."""

    def __init__(self, source: Source, mutant: Mutant) -> None:
        self.path, self.code = source.path, compile(source.mutated(mutant), source.path, "exec")
        stem = source.path.stem
        self.name = "minioptim" if stem == "__init__" else f"minioptim.{stem}"

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        from importlib.util import spec_from_file_location

        if name != self.name:
            return None
        where = [str(PACKAGE)] if name == "minioptim" else None
        spec = spec_from_file_location(name, self.path, submodule_search_locations=where)
        assert spec is not None
        assert spec.loader is not None
        spec.loader.get_code = lambda _: self.code  # type: ignore[attr-defined]
        return spec


# --- one child, many children ---------------------------------------------------------------------


# no fault at all: every test must stay green where the mutants live
CONTROL = Mutant("", "", "control", "the program", "the program", (None, "", None), None)

Verdict = dict[str, Any]  # {"name": ..., "end": "killed" | "survived" | "import", "by": test}


class Run:
    """A pytest plugin: runs the given tests in order until one is red, within their time."""

    def __init__(self, order: Callable[[list[Any]], list[Any]], seconds: dict[str, float]) -> None:
        self.order, self.seconds = order, seconds
        self.by: str | None = None
        self.said = ""
        self.collected = False

    def pytest_runtestloop(self, session: Any) -> bool:
        self.collected = not session.testsfailed  # a test file could not be imported
        self.by = self.run(self.order(session.items)) if self.collected else None
        return True

    def run(self, items: Sequence[Any]) -> str | None:
        for item, following in _with_next(items):
            limit = 10 * self.seconds.get(item.nodeid, 1.0) + PATIENCE
            signal.setitimer(signal.ITIMER_PROF, limit)  # its signal ends this child
            self.report(item.nodeid)
            self.said = _run_test(item, following)
            if self.said:
                return item.nodeid
        return None

    def tried(self, items: list[Any]) -> str | None:
        """As `run`; what breaks even the running of tests is seen as well."""
        order = self.order(items)
        try:
            return self.run(order)
        except BaseException as error:
            return f"{type(error).__name__} beyond the test"

    @staticmethod
    def report(name: str) -> None:
        """Overwritten where the parent wants to know which test is running."""


def _children(
    mutants: Sequence[Mutant],
    work: Callable[[Mutant, Callable[[str], None]], Verdict],
    done: Callable[[Verdict], None],
    deadline: float,
    limited: bool = True,
) -> None:
    """Fork a child for each mutant, two at a time. One that is killed by its time is a kill."""
    waiting, running = list(mutants)[::-1], {}
    while waiting or running:
        while waiting and len(running) < AT_ONCE and time.monotonic() < deadline:
            mutant = waiting.pop()
            # a pipe would be full at 64 KB
            answer = tempfile.TemporaryFile("w+b", buffering=0)  # noqa: SIM115
            child = os.fork()
            if child == 0:
                _child(mutant, work, answer.fileno(), limited)
            running[child] = (mutant, answer)
        if not running:
            return
        child, status = os.waitpid(-1, os.WNOHANG if deadline < float("inf") else 0)
        if time.monotonic() > deadline + GRACE:  # a sample does without those that take long
            alive = [pid for pid, (m, _) in running.items() if m is not CONTROL and pid != child]
            for late in alive:
                os.kill(late, signal.SIGKILL)
                os.waitpid(late, 0)
                running.pop(late)[1].close()
        if child not in running:
            time.sleep(0.02)
            continue
        mutant, answer = running.pop(child)
        with answer:
            answer.seek(0)
            said = answer.read().decode().splitlines()
        if said and said[-1].startswith("{"):
            done(json.loads(said[-1]) | {"name": mutant.name})
        elif os.WIFSIGNALED(status):
            how = signal.Signals(os.WTERMSIG(status)).name  # SIGPROF: its time was over
            done({"name": mutant.name, "end": "killed", "by": (said or [""])[-1], "how": how})
        else:
            raise RuntimeError(f"no answer about {mutant.name}: see {CACHE / 'errors.txt'}")


def _child(mutant: Mutant, work: Any, writer: int, limited: bool) -> None:
    code = 1
    try:
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        used = (
            int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0])
            * resource.getpagesize()
        )
        if limited:
            resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
        random.seed(0)
        verdict = work(mutant, lambda name: os.write(writer, f"{name}\n".encode()) and None)
        os.write(writer, (json.dumps(verdict) + "\n").encode())
        code = 0
    except BaseException:
        with (CACHE / "errors.txt").open("a") as file:
            print(mutant.name, traceback.format_exc(), file=file)
    finally:
        os._exit(code)


def _in_child(function: Callable[[], Any]) -> Any:
    """What the function returns, computed in a fork, so that nothing of it stays."""
    with tempfile.NamedTemporaryFile("r+", encoding="utf-8") as file:
        child = os.fork()
        if child == 0:
            try:
                file.write(json.dumps(function()))
                file.flush()
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        file.seek(0)
        text = file.read()
    if not text:
        sys.exit("A child process ended without an answer.")
    return json.loads(text)


class Plan:
    """The mutants, and which tests each meets."""

    def __init__(self, only: str = "", quick: bool = False) -> None:
        self.sources = [mutants_of(path) for path in sorted(PACKAGE.glob("*.py"))]
        self.source_of = {m.name: s for s in self.sources for m in s.mutants}
        self.mutants = [m for s in self.sources for m in s.mutants if only in m.name]
        self.files = test_files()
        self.hints = json.loads(HINTS.read_text()) if HINTS.is_file() else {}
        self.tests = {} if quick else coverage(self.files)
        if self.tests:  # a file none of whose tests runs the package need not be read
            useful = {name.split("::")[0] for name, test in self.tests.items() if test["runs"]}
            self.files = [file for file in self.files if f"tests/{file.name}" in useful]
        self.seconds = {name: test["seconds"] for name, test in self.tests.items()}
        self.ran: set[tuple[str, str]] = set()

    def order(self, mutant: Mutant, at_import: bool) -> Callable[[list[Any]], list[Any]]:
        """The tests for a mutant: those that killed its like before, then the quickest."""
        rank = {name: i for i, name in enumerate(self.killers(mutant))}
        place = f"{mutant.file} {mutant.where}"

        def reached(name: str) -> bool:
            test = self.tests.get(name)
            return test is not None and place in test["runs"]

        def chosen(items: list[Any]) -> list[Any]:
            if mutant is CONTROL:  # without a measured time for each test, some of them will do
                some = {names[0] for names in self.hints.values() if names}
                return [x for x in items if x.nodeid in (self.tests or some)] or items[::20]
            if self.tests:
                items = [x for x in items if x.nodeid in self.tests]
                if not at_import:
                    items = [x for x in items if reached(x.nodeid)]
            near = {f"tests/{name}" for name in near_files(mutant.file)}

            def key(item: Any) -> tuple[Any, ...]:
                name = item.nodeid
                here = name.split("::")[0] in near
                return rank.get(name, len(rank)), not (here or self.tests), self.cost(name)

            return sorted(items, key=key)

        return chosen

    def killers(self, mutant: Mutant) -> list[str]:
        """The tests that killed most of its like before, then those that killed most of all."""
        own = self.hints.get(f"{mutant.file} {mutant.where}".strip(), [])
        return list(dict.fromkeys([*own, *self.hints.get("", [])]))

    def cost(self, name: str) -> float:
        return self.seconds.get(name, 1.0)


def near_files(file: str) -> list[str]:
    """The test files named after a file of the package."""
    stem = Path(file).stem
    own = [p.name for p in test_files() if p.name.startswith(f"test_{stem}")]
    return own + FROM_FILE.get(stem, ["test_parity.py", "test_bad_input.py"])


def run(
    plan: Plan,
    mutants: Sequence[Mutant],
    deadline: float,
    show: Any,
    importing: float = float("inf"),
) -> list[Verdict]:
    """The verdict on each mutant, as far as the time goes.

    ``importing`` is the time in seconds for those of code that runs while modules are imported.
    """
    verdicts: dict[str, Verdict] = {}

    def live() -> list[Verdict]:
        found: list[Verdict] = []

        def done(verdict: Verdict) -> None:
            found.append(verdict)
            show(verdict)

        def work(mutant: Mutant, report: Any) -> Verdict:
            if mutant is not CONTROL and not graft(plan.source_of[mutant.name], mutant, alive[0]):
                return {"end": "import"}
            runner = Run(plan.order(mutant, at_import=False), plan.seconds)
            runner.report = report  # type: ignore[method-assign]
            by = runner.tried(items)
            again = by is None and mutant.is_default  # a default may have been read at import
            return {"end": "import" if again else "killed" if by else "survived", "by": by}

        class Collected:
            def pytest_runtestloop(self, session: Any) -> bool:
                sys.setprofile(None)
                if session.testsfailed:
                    raise RuntimeError("a test file cannot be imported, without any mutant")
                items.extend(session.items)
                gc.collect()
                alive.append(Live(plan.sources, imported))
                gc.freeze()
                end = max(deadline, time.monotonic() + LEAST)
                _children([CONTROL, *mutants], work, done, end)
                return True

        items: list[Any] = []
        alive: list[Live] = []
        imported = Imported()
        sys.setprofile(imported)
        code = _pytest(plan.files, Collected())
        if code not in (0, 5) or not items:  # 5: no test was run, in this process
            raise RuntimeError(f"pytest ended with {code}: MUTANTS_SAY=1 shows why")
        return found

    for verdict in _in_child(live):
        verdicts[verdict["name"]] = verdict
    _believe(verdicts.pop(CONTROL.name, None))
    at_import = [m for m in mutants if verdicts.get(m.name, {}).get("end") == "import"]

    def anew(mutant: Mutant, report: Any) -> Verdict:
        if mutant is not CONTROL:
            finder: Any = MutantFinder(plan.source_of[mutant.name], mutant)
            sys.meta_path.insert(0, finder)
        # few files at first: to import them all takes longer than most tests
        near, left = {f"tests/{name}" for name in near_files(mutant.file)}, list(plan.files)
        likely = {name.split("::")[0] for name in plan.killers(mutant)[:10]}
        stages = [near, near | likely, {f"tests/{file.name}" for file in left}]
        for stage in stages[2:] if mutant is CONTROL else stages:
            files = [file for file in left if f"tests/{file.name}" in stage]
            left = [file for file in left if file not in files]
            if not files:
                continue
            for name in [n for n in sys.modules if n.startswith(OWN)]:
                del sys.modules[name]
            runner = Run(plan.order(mutant, at_import=True), plan.seconds)
            runner.report = report  # type: ignore[method-assign]
            report("the import")
            signal.setitimer(signal.ITIMER_PROF, 60)
            _pytest(files, runner)
            if not runner.collected:
                return {"end": "killed", "by": "the import"}
            if runner.by:
                return {"end": "killed", "by": runner.by}
        return {"end": "survived", "by": None}

    def done(verdict: Verdict) -> None:
        verdicts[verdict["name"]] = verdict
        show(verdict)

    end = deadline + (deadline - time.monotonic()) / 4
    end = min(end, time.monotonic() + importing)
    _children([CONTROL, *at_import] if at_import and importing else [], anew, done, end)
    if at_import and importing:
        _believe(verdicts.pop(CONTROL.name, None))
    return [v for v in verdicts.values() if v["end"] != "import"]


def _believe(verdict: Verdict | None) -> None:
    """Where the program as it is dies, no death means anything."""
    if verdict and verdict["end"] != "survived":
        raise SystemExit(f"red without any mutant, where mutants live: {verdict['by']}")


# --- the list of those that nobody can see --------------------------------------------------------


def listed(path: Path = LISTED) -> dict[str, str]:
    """The reason for each listed mutant, by its name."""
    rows = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None
    found: dict[str, str] = {}
    for row in rows or ():
        for name in row["mutants"]:
            if name in found:
                raise ValueError(f"listed twice: {name}")
            found[name] = row["why"]
    return found


def judge(verdicts: Sequence[Verdict], excused: dict[str, str], names: set[str]) -> list[str]:
    """What is wrong: survivors without a reason, reasons without a survivor, and no answer."""
    faults = [] if verdicts else ["no mutant was asked about: that says nothing"]
    for verdict in verdicts:
        name, alive = verdict["name"], verdict["end"] == "survived"
        if alive and name not in excused:
            faults.append(f"survived: {name}")
        if not alive and name in excused:
            faults.append(f"listed in {LISTED.name}, but killed by {verdict['by']}: {name}")
    gone = [name for name in excused if name not in names]
    return faults + [f"listed in {LISTED.name}, but there is no such mutant: {n}" for n in gone]


def remember(verdicts: Sequence[Verdict], mutants: dict[str, Mutant], path: Path = HINTS) -> None:
    """Keep, for each function and for all of them, the tests that killed most mutants."""
    killers: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for verdict in verdicts:
        mutant = mutants.get(verdict["name"])
        if mutant and verdict["end"] == "killed" and "::" in (verdict["by"] or ""):
            killers[f"{mutant.file} {mutant.where}".strip()][verdict["by"]] += 1
            killers[""][verdict["by"]] += 1
    hints = {
        where: [name for name, _ in sorted(count.items(), key=lambda x: (-x[1], x[0]))[:12]]
        for where, count in sorted(killers.items())
    }
    path.write_text(json.dumps(hints, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


# --- what the notebooks alone see -----------------------------------------------------------------


CHAPTERS = {"lr_scheduler.py": "04 05", "adam.py": "03 08", "sgd.py": "02 01", "more.py": "08 03"}


def by_notebooks(plan: Plan, mutants: Sequence[Mutant], show: Any) -> list[Verdict]:
    """Run the notebooks, compared strictly, on a copy of src/ with the fault in it."""

    def work(mutant: Mutant, report: Any) -> Verdict:
        import shutil

        first = CHAPTERS.get(mutant.file, "01 02 03").split()
        books = sorted((ROOT / "book").rglob("*.ipynb"))
        books = [b for b in books if ".ipynb_checkpoints" not in b.parts]
        books.sort(key=lambda b: (first.index(b.name[:2]) if b.name[:2] in first else 9, b.name))
        with tempfile.TemporaryDirectory() as folder:
            shutil.copytree(ROOT / "src", Path(folder, "src"))
            target = Path(folder, "src", "minioptim", mutant.file)
            target.write_text(plan.source_of[mutant.name].text(mutant), encoding="utf-8")
            environment = os.environ | {"PYTHONPATH": f"{folder}/src"}
            command = [sys.executable, "-m", "pytest", "-q", "-x", "--nbval"]
            command += ["-p", "no:cacheprovider", f"--rootdir={ROOT}"]
            command += ["-c", str(ROOT / "pyproject.toml")]
            for book in books:
                ended = subprocess.run(
                    [*command, str(book)], env=environment, cwd=ROOT, stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                )  # fmt: skip
                if ended.returncode:
                    return {"end": "killed", "by": book.name}
        return {"end": "survived", "by": None}

    found: list[Verdict] = []

    def done(verdict: Verdict) -> None:
        found.append(verdict)
        show(verdict)

    _children(mutants, work, done, float("inf"), limited=False)
    return found


# --- the command ----------------------------------------------------------------------------------


def preload() -> None:
    """Import what the tests will, but nothing of this project: forks share it."""
    warnings.simplefilter("ignore")
    import hypothesis
    import torch

    torch.set_num_threads(1)  # a process that forks must have no threads of its own
    unshrunk = [p for p in hypothesis.Phase if p not in (hypothesis.Phase.shrink,)]
    unshrunk = [p for p in unshrunk if p.name != "explain"]
    hypothesis.settings.register_profile("mutants", phases=unshrunk)
    hypothesis.settings.load_profile("mutants")
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot
    import torch._dynamo
    import torch._inductor.compile_fx
    import torch._subclasses.fake_tensor


class Show:
    """One line for each survivor, and now and then how far it is."""

    def __init__(self, total: int) -> None:
        self.total, self.count, self.start = total, 0, time.monotonic()
        self.out = os.fdopen(os.dup(2), "w", buffering=1)
        self.log = CACHE / "verdicts.jsonl"
        self.of = _digest([*PACKAGE.glob("*.py")])
        CACHE.mkdir(parents=True, exist_ok=True)

    def known(self, excused: Container[str]) -> dict[str, Verdict]:
        """What an earlier run has killed, for a test more does not raise the dead; and what it
        found alive and is listed, which no test should kill."""
        lines = self.log.read_text().splitlines() if self.log.is_file() else []
        own = [v for v in map(json.loads, lines) if v["of"] == self.of]
        ends = {"killed": lambda v: True, "survived": lambda v: v["name"] in excused}
        return {v["name"]: v for v in own if ends.get(v["end"], lambda v: False)(v)}

    def __call__(self, verdict: Verdict) -> None:
        with self.log.open("a") as file:
            file.write(json.dumps(verdict | {"of": self.of}) + "\n")
        if verdict["end"] == "import" or verdict["name"] == CONTROL.name:
            return
        self.count += 1
        if verdict["end"] == "survived":
            self.out.write(f"survived: {verdict['name']}\n")
        if self.count % 100 == 0:
            took = time.monotonic() - self.start
            self.out.write(f"  {self.count} of {self.total} mutants, {took:.0f} s\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, help="a random sample, in about this time")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--only", default="", help="mutants whose name has this in it")
    parser.add_argument("--names", type=Path, help="a file with the names of the mutants to try")
    parser.add_argument("--nbval", type=int, metavar="N", help="what notebooks see, of N mutants")
    parser.add_argument(
        "--resume", action="store_true", help="ask only about those still alive and not listed"
    )
    parser.add_argument("--record", action="store_true", help="keep the result for the book")
    parser.add_argument(
        "--importing", type=float, default=float("inf"), metavar="SECONDS",
        help="at most so long for faults of code that runs while modules are imported",
    )  # fmt: skip
    options = parser.parse_args()
    start = time.monotonic()
    os.nice(5)
    preload()
    plan = Plan(options.only, quick=options.seconds is not None)
    excused, chosen = listed(), plan.mutants
    if options.names:
        wanted = set(options.names.read_text(encoding="utf-8").splitlines())
        chosen = [m for m in chosen if m.name in wanted]
    random.Random(options.seed).shuffle(chosen)  # so that a run that is stopped is a sample
    if options.seconds or options.nbval:
        chosen = [m for m in chosen if m.name not in excused]
    chosen = chosen[: options.nbval]
    show = Show(len(chosen))
    before = show.known(excused) if options.resume else {}
    deadline = start + 0.7 * options.seconds if options.seconds else float("inf")
    verdicts = [before[m.name] for m in chosen if m.name in before]
    left = [m for m in chosen if m.name not in before]
    verdicts += run(plan, left, deadline, show, options.importing)
    seen = by_notebooks(plan, chosen, Show(len(chosen))) if options.nbval else []
    seconds = time.monotonic() - start
    names = {m.name for s in plan.sources for m in s.mutants}
    faults = judge(verdicts, {} if options.nbval else excused, names)
    killed = sum(v["end"] == "killed" for v in verdicts)
    alive = len(verdicts) - killed
    print(f"{len(verdicts)} mutants, {killed} killed, {alive} alive, in {seconds:.0f} s.")
    if not options.seconds and len(verdicts) < len(chosen):
        print(f"{len(chosen) - len(verdicts)} more were not asked about.")
    if seen:
        dead = sum(v["end"] == "killed" for v in seen)
        print(f"Of these {len(seen)} the notebooks alone kill {dead}.")
    print("\n".join(faults))
    part = options.only or options.names or options.seconds
    if options.record and options.nbval:
        record_notebooks(verdicts, seen, options.seed, seconds)
    elif options.record and not part and not faults:
        remember(verdicts, {m.name: m for m in plan.mutants})
        whole = None if options.resume else seconds  # of a run in parts nobody knows
        record(verdicts, whole, len(chosen) - len(verdicts))
    return bool(faults)


def _score(verdicts: Sequence[Verdict]) -> tuple[int, int]:
    return len(verdicts), sum(v["end"] == "killed" for v in verdicts)


def record(verdicts: Sequence[Verdict], seconds: float | None, missing: int = 0) -> None:
    """Keep the score for the book."""
    from walkthrough import evidence

    rows = []
    for path in sorted(PACKAGE.glob("*.py")):
        own = [v for v in verdicts if v["name"].startswith((f"{path.name}:", f"{path.name} "))]
        if own:
            total, killed = _score(own)
            rows.append([f"`{path.name}`", total, killed, total - killed])
    total, killed = _score(verdicts)
    rows.append(["all", total, killed, total - killed])
    slow = sum("how" in v for v in verdicts)
    evidence.record(
        "mutants",
        title="Faults planted in minioptim",
        command="make mutants RECORD=1",
        summary=f"{total:,} small faults, one at a time; {killed:,} turn a test red "
        f"({100 * killed / total:.1f} %). No input can tell the other {total - killed} from the "
        "program as it is; `tools/mutants.yml` lists them with the reasons."
        + f" **{missing} more were not asked about**: they act while modules are imported, and "
        "every one of them needs all modules imported anew." * bool(missing),
        head=["file", "faults", "seen", "the same program"],
        rows=rows,
        notes=[
            f"{slow} of the faults that were seen made a test run without end, or out of memory.",
            "Each fault met the tests that run the function it is in, up to the first red one. "
            "Tests that start other processes were left out.",
        ],
        seconds=seconds,
    )


def record_notebooks(
    verdicts: Sequence[Verdict], seen: Sequence[Verdict], seed: int, seconds: float
) -> None:
    """Keep what notebooks and tests see of a sample, apart."""
    from walkthrough import evidence

    pytest_sees = {v["name"]: v["end"] == "killed" for v in verdicts}
    rows = collections.Counter((pytest_sees[v["name"]], v["end"] == "killed") for v in seen)
    both, only_tests, only_books = rows[True, True], rows[True, False], rows[False, True]
    evidence.record(
        "mutants-notebooks",
        title="What the notebooks see of the faults planted in minioptim",
        command=f"make mutants NBVAL={len(seen)} SEED={seed} RECORD=1",
        summary=f"Of a random sample of {len(seen)} faults pytest alone sees "
        f"{both + only_tests}, and nbval alone, comparing all notebooks, {both + only_books}.",
        head=["faults", "seen by nbval", "not seen by nbval"],
        rows=[
            ["seen by pytest", both, only_tests],
            ["not seen by pytest", only_books, rows[False, False]],
        ],
        notes=[
            "Faults for which a reason is listed why nobody can see them are not in the sample."
        ],
        seconds=seconds,
    )


if __name__ == "__main__":
    sys.exit(main())
