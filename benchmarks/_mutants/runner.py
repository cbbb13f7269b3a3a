"""Run tests on mutants: everything is imported and collected once, and each mutant gets a forked process of its own.

In the fork the code of the changed function is replaced where it lives, and only tests that execute the changed line
are run, quickest first, until one fails. So a mutant costs as much as a test. Code that runs at import is not mutated,
and tests that start other interpreters do not see the change.
"""

import gc
import importlib
import math
import os
import pickle
import signal
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any

import pytest
from _pytest.runner import runtestprotocol
from _pytest.warnings import catch_warnings_for_item

Changed = dict[tuple[str, int], CodeType]
"""The code of functions, by qualified name and first line."""
KILLED, SURVIVED, TIMEOUT, NOT_COVERED, FAILED = "killed", "survived", "timeout", "not covered", "not applied"
OPTIONS = ["--import-mode=importlib", "--assert=plain", "-q", "-s", "-p", "no:xdist", "-p", "no:cacheprovider"]
LEFT_OUT = (
    "test_harvest.py::test_killed",
    "test_harvest.py::test_two_processes",
    "test_emoji.py",
)
"""Tests that start other processes or take long, and notice nothing that quicker ones do not."""
_SLACK = 20.0
"""Seconds a fork may take beyond what its tests take without a change."""
_PORTION = 20.0
"""Seconds of tests that are traced in one process where traces are kept."""


@dataclass(frozen=True)
class Trace:
    """The lines of watched files that a test executes, its CPU seconds, and whether it fails without a change."""

    lines: set[tuple[str, int]]
    seconds: float
    failed: bool


class Runner:
    """A pytest plugin that hands the collected tests to `work` instead of running them.

    Args:
        watched: files whose lines are watched.
        budget: CPU seconds of tests run on one mutant, at most; the quickest tests come first.
        work: what to do; gets this runner.
        kept: file in which what each test executes is kept, so that an interrupted run continues; None keeps nothing.
        until: when to stop tracing, as `time.monotonic()` counts; the rest is traced in the next run.
    """

    def __init__(
        self,
        watched: Sequence[Path],
        budget: float,
        work: Callable[["Runner"], None],
        kept: Path | None = None,
        until: float = math.inf,
    ) -> None:
        self._watched = {str(path.resolve()) for path in watched}
        self._kept, self._until = kept, until
        self._budget, self._work, self._loud = budget, work, "CLIPLENS_LOUD" in os.environ
        self.items: list[pytest.Item] = []
        self.seconds: list[float] = []
        self._tests_of: dict[tuple[str, int], list[int]] = {}
        self._functions: dict[tuple[str, str, int], list[FunctionType]] = {}

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Find out which test executes what, then work."""
        self.items = [item for item in session.items if not any(name in item.nodeid for name in LEFT_OUT)]
        for path in sorted(self._watched):
            importlib.import_module(module_of(Path(path)))
        self._functions = functions_in(self._watched)
        gc.collect()
        gc.freeze()
        traces = self._traces()
        missing = sum(item.nodeid not in traces for item in self.items)
        if missing:
            print(f"{missing} of {len(self.items)} tests are still to be traced: run again to go on")
            return True
        seen = [traces[item.nodeid] for item in self.items]
        self.seconds = [trace.seconds for trace in seen]
        failed = [item.nodeid for item, trace in zip(self.items, seen, strict=True) if trace.failed]
        print(f"{len(self.items)} tests, {sum(self.seconds):.0f} s traced; failing without a change: {failed}")
        of_line: dict[tuple[str, int], list[int]] = defaultdict(list)
        for test, trace in enumerate(seen):
            if not trace.failed:
                for place in trace.lines:
                    of_line[place].append(test)
        self._tests_of = {p: sorted(tests, key=self.seconds.__getitem__) for p, tests in of_line.items()}
        self._work(self)
        return True

    def tests_of(self, path: Path, lines: Sequence[int]) -> list[int]:
        """Return the tests that execute one of some lines, quickest first, as many as the budget holds."""
        held = {t for line in lines for t in self._tests_of.get((str(path.resolve()), line), ())}
        chosen: list[int] = []
        spent = 0.0
        for test in sorted(held, key=self.seconds.__getitem__):
            spent += self.seconds[test]
            if chosen and spent > self._budget:
                break
            chosen.append(test)
        return chosen

    def outcome(self, path: Path, lines: Sequence[int], changed: Changed) -> tuple[str, str]:
        """Return what became of a change of a file, and the test that noticed it."""
        tests = self.tests_of(path, lines)
        if not tests:
            return NOT_COVERED, ""
        limit = _SLACK + 10 * sum(self.seconds[t] for t in tests)
        try:
            return self._forked(lambda: self._run_on(path, changed, tests), timeout=limit)
        except TimeoutError:
            return TIMEOUT, ""

    def _run_on(self, path: Path, changed: Changed, tests: Sequence[int]) -> tuple[str, str]:
        for place, code in changed.items():
            functions = self._functions.get((str(path.resolve()), *place), [])
            try:
                for function in functions:
                    function.__code__ = code
            except ValueError:  # it closes over other variables than before
                return FAILED, ""
            if not functions:
                return FAILED, ""
        for n, test in enumerate(tests):
            after = self.items[tests[n + 1]] if n + 1 < len(tests) else None
            reports = reports_of(self.items[test], after)
            if any(report.failed for report in reports):
                return KILLED, self.items[test].nodeid
        return SURVIVED, ""

    def _traces(self) -> "dict[str, Trace]":
        """Return what each test executes, by its id; tests are traced in portions, each in a process of its own."""
        print(f"tracing {len(self.items)} tests", flush=True)
        held: dict[str, Trace] = pickle.loads(self._kept.read_bytes()) if self._kept and self._kept.exists() else {}
        while time.monotonic() < self._until and (todo := [i for i in self.items if i.nodeid not in held]):
            held |= self._forked(lambda todo=todo: self._traced(todo), timeout=3600.0)
            if self._kept:
                self._kept.write_bytes(pickle.dumps(held))
        return held

    def _traced(self, items: Sequence[pytest.Item]) -> "dict[str, Trace]":
        """Run tests for some seconds; return what each executes, its seconds, and whether it fails."""
        found: dict[str, Trace] = {}
        of_fixture: dict[tuple[str, str], set[tuple[str, int]]] = defaultdict(set)
        watcher = _FixtureWatcher(of_fixture)
        items[0].config.pluginmanager.register(watcher)
        begun = time.monotonic()
        for n, item in enumerate(items):
            if found and self._kept and time.monotonic() - begun > _PORTION:
                break
            after = items[n + 1] if n + 1 < len(items) else None
            watcher.test = set()
            started = time.process_time()
            with _tracing(self._watched, watcher):
                reports = reports_of(item, after)
            seconds = time.process_time() - started
            found[item.nodeid] = Trace(watcher.test, seconds, any(report.failed for report in reports))
        for item in items[: len(found)]:
            named = getattr(item, "fixturenames", ())
            found[item.nodeid].lines.update(*(of_fixture.get((str(item.path), name), ()) for name in named))
        return found

    def _forked(self, work: Callable[[], Any], timeout: float) -> Any:
        """Return what `work` returns in a forked process.

        Raises:
            TimeoutError: it took too long, and was ended.
            RuntimeError: it ended without a result.
        """
        reading, writing = os.pipe()
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            os.setpgid(0, 0)
            os.close(reading)
            if not self._loud:
                silent = os.open(os.devnull, os.O_WRONLY)
                os.dup2(silent, 1)
                os.dup2(silent, 2)
            status = 1
            try:
                found = pickle.dumps(work())
                with os.fdopen(writing, "wb") as pipe:
                    pipe.write(found)
                status = 0
            finally:
                os._exit(status)
        os.close(writing)
        return _result(pid, reading, timeout)


def reports_of(item: pytest.Item, after: pytest.Item | None) -> list[pytest.TestReport]:
    """Run a test with the warnings that it ignores or expects, and return its reports."""
    with catch_warnings_for_item(item.config, item.ihook, when="runtest", item=item):
        return runtestprotocol(item, log=False, nextitem=after)


def functions_in(files: set[str]) -> dict[tuple[str, str, int], list[FunctionType]]:
    """Return the live functions of some files, by file, qualified name and first line."""
    found: dict[tuple[str, str, int], list[FunctionType]] = defaultdict(list)
    for thing in gc.get_objects():
        if isinstance(thing, FunctionType) and thing.__code__.co_filename in files:
            code = thing.__code__
            found[code.co_filename, code.co_qualname, code.co_firstlineno].append(thing)
    return found


def module_of(path: Path) -> str:
    """Return the name of the module in a file.

    >>> module_of(Path("src/cliplens/tally/sums.py"))
    'cliplens.tally.sums'
    """
    parts = path.with_suffix("").parts
    start = max(
        n
        for n, part in enumerate(parts)
        if part in ("src", "hooks", "plugins") and n + 1 < len(parts) and parts[n + 1].startswith("cliplens")
    )
    return ".".join(parts[start + 1 :]).removesuffix(".__init__")


class _FixtureWatcher:
    """Record the lines that each fixture runs, and credit them to every test that uses the fixture."""

    def __init__(self, of_fixture: dict[tuple[str, str], set[tuple[str, int]]]) -> None:
        self._of_fixture = of_fixture
        self.test: set[tuple[str, int]] = set()
        self._fixture: list[set[tuple[str, int]]] = []

    @property
    def lines(self) -> set[tuple[str, int]]:
        return self._fixture[-1] if self._fixture else self.test

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any, request: Any) -> Iterator[None]:
        self._fixture.append(self._of_fixture[str(request.node.path), fixturedef.argname])
        try:
            return (yield)
        finally:
            self.test |= self._fixture.pop()


@contextmanager
def _tracing(watched: set[str], watcher: _FixtureWatcher) -> Iterator[None]:
    def on_line(frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line":
            watcher.lines.add((frame.f_code.co_filename, frame.f_lineno))
        return on_line

    def on_call(frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename not in watched:
            return None
        watcher.lines.add((frame.f_code.co_filename, frame.f_lineno))
        return on_line

    threading.settrace(on_call)  # the threads that a test starts
    sys.settrace(on_call)
    try:
        yield
    finally:
        sys.settrace(None)
        threading.settrace(None)  # type: ignore[arg-type]


def _result(pid: int, reading: int, timeout: float) -> Any:
    def too_long(*_: object) -> None:
        raise TimeoutError

    previous = signal.signal(signal.SIGALRM, too_long)
    signal.setitimer(signal.ITIMER_REAL, timeout)
    try:
        with os.fdopen(reading, "rb") as pipe:
            content = pipe.read()
    except TimeoutError:
        os.killpg(pid, signal.SIGKILL)
        raise
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
        os.waitpid(pid, 0)
    if not content:
        raise RuntimeError(f"process {pid} ended without a result")
    return pickle.loads(content)
