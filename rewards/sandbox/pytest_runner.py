"""pytest in the tests' sandbox, on a module that has no file."""

from __future__ import annotations

import asyncio
import inspect
import os
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from _pytest.fixtures import FixtureLookupError

from rewards.sandbox.remote import CannotTest
from rewards.verdict import Findings, one_line

_OPTIONS = ["--rootdir=/", "-c", "/dev/null", "--noconftest", "--assert=plain", "--capture=sys"]
_ABSENT = ["cacheprovider", "terminal", "junitxml", "faulthandler", "logging", "doctest", "stepwise", "pastebin"]
Explain = Callable[[BaseException], str]


def run_items(findings: Findings, begin: Callable[[], None], explain: Explain) -> None:
    """Run what pytest collects from the module `tests`.

    `begin` is called before each test; `explain` says why an exception failed a test, or raises CannotTest.
    """
    observer = _Observer(findings, begin, explain)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    status = pytest.main([*_OPTIONS, *(f"-pno:{name}" for name in _ABSENT)], plugins=[observer])
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED):
        raise CannotTest(observer.trouble or "the tests cannot be run by pytest")
    if observer.trouble:
        raise CannotTest(observer.trouble)
    if not findings.total:
        raise CannotTest("no test was run")


def rehearse() -> None:
    """Have pytest import here, once for all forks, what it imports on the way."""
    module = sys.modules["tests"] = types.ModuleType("tests")
    exec(_SAMPLE, module.__dict__)
    run_items(Findings(0, partial=True), lambda: None, one_line)
    del sys.modules["tests"]


_SAMPLE = """
import pytest, unittest, unittest.mock
@pytest.fixture
def one(): return 1
@pytest.mark.parametrize("two", [2, pytest.param(3, id="three")])
def test_function(one, two, capsys, monkeypatch): assert one + two == pytest.approx(3.0)
def test_raises():
    with pytest.raises(ValueError, match="in"): int("x")
class TestClass:
    def setup_method(self): self.x = 1
    def test_method(self): assert self.x == 1
class Case(unittest.TestCase):
    def test_equal(self): self.assertEqual([1], [1])
"""


class _Module(pytest.Module):
    """The collector of a module that is already there."""

    def _getobj(self) -> types.ModuleType:
        return sys.modules["tests"]


class _Observer:
    """A plugin that gives pytest its items and counts what becomes of them."""

    def __init__(self, findings: Findings, begin: Callable[[], None], explain: Explain) -> None:
        self.findings, self.begin, self.explain = findings, begin, explain
        self.trouble = ""
        self._failed: dict[str, str] = {}
        self._skipped: set[str] = set()

    def pytest_collection(self, session: pytest.Session) -> bool:
        """In the place of pytest's own, which looks for files."""
        items = list(session.genitems(_Module.from_parent(session, path=Path("/tests.py"))))
        session.items, session.testscollected = items, len(items)
        session.config.hook.pytest_collection_modifyitems(session=session, config=session.config, items=session.items)
        self.findings.total = len(session.items)
        return True

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A test that pytest refuses to collect is no test."""
        if report.failed and not self.trouble:
            self.trouble = f"the tests cannot be run: {' '.join(str(report.longrepr).split())[-150:]}"

    @pytest.hookimpl(tryfirst=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> bool | None:
        """Run a coroutine function to its end."""
        if not inspect.iscoroutinefunction(pyfuncitem.obj):
            return None
        names = pyfuncitem._fixtureinfo.argnames
        asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
        return True

    def pytest_exception_interact(self, node: Any, call: pytest.CallInfo[Any], report: pytest.TestReport) -> None:
        """Note why a test failed."""
        error = call.excinfo.value if call.excinfo else AssertionError()
        try:
            if isinstance(error, FixtureLookupError):
                raise CannotTest(f"the tests cannot be run: no fixture {error.argname!r}")
            self._failed[node.nodeid] = f"{node.name}: {self.explain(error)}"
        except CannotTest as cannot:
            self.trouble = self.trouble or str(cannot)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note the outcome of a part of a test."""
        if report.failed:
            self._failed.setdefault(report.nodeid, f"{report.nodeid.rpartition('::')[2]} failed")
        elif report.skipped:
            self._skipped.add(report.nodeid)

    def pytest_runtest_logfinish(self, nodeid: str, location: Any) -> None:
        """Count a test that has run."""
        if nodeid in self._failed or nodeid not in self._skipped:
            self.findings.add(self._failed.get(nodeid))
        else:
            self.findings.total -= 1

    def pytest_runtest_protocol(self, item: pytest.Item) -> bool | None:
        """Run no more tests than it takes."""
        self.begin()
        return True if self.trouble or (self._failed and not self.findings.partial) else None
