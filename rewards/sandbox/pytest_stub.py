"""As much of pytest as generated unit tests use, for a sandbox that has only the standard library."""

from __future__ import annotations

import math
import re
import types
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any


class _Raises:
    def __init__(self, expected: Any, match: str | None = None) -> None:
        self.expected, self.match = expected, match
        self.value: BaseException | None = None

    def __enter__(self) -> _Raises:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> bool:
        if error is None:
            raise AssertionError(f"did not raise {self.expected}")
        self.value = error
        if not isinstance(error, self.expected):
            return False
        if self.match is not None and not re.search(self.match, str(error)):
            raise AssertionError(f"{error!r} does not match {self.match!r}")
        return True


class _Approx:
    def __init__(self, expected: Any, rel: float = 1e-6, abs: float = 1e-12) -> None:
        self.expected, self.rel, self.abs = expected, rel, abs

    def __eq__(self, other: object) -> bool:
        return self._near(self.expected, other)

    def _near(self, expected: Any, found: Any) -> bool:
        if isinstance(expected, dict):
            return expected.keys() == found.keys() and all(self._near(expected[key], found[key]) for key in expected)
        if isinstance(expected, (list, tuple)):
            return len(expected) == len(found) and all(map(self._near, expected, found))
        return expected == found or math.isclose(expected, found, rel_tol=self.rel, abs_tol=self.abs)


def _parametrize(names: str | list[str], values: list[Any], **_: Any) -> Callable[[Any], Any]:
    split = [name.strip() for name in names.split(",")] if isinstance(names, str) else names

    def mark(function: Any) -> Any:
        rows = [dict(zip(split, value if len(split) > 1 else (value,), strict=True)) for value in values]
        earlier = getattr(function, "parameters", [{}])
        function.parameters = [{**row, **other} for row in rows for other in earlier]
        return function

    return mark


def module() -> types.ModuleType:
    """A module to stand as `pytest`."""
    stub: Any = types.ModuleType("pytest")
    stub.raises = _Raises
    stub.approx = _Approx
    stub.mark = types.SimpleNamespace(parametrize=_parametrize)
    return stub


def collect(tests: types.ModuleType) -> Iterator[Callable[[], Any]]:
    """Every call of a test function, or of a test method on a fresh object, in the order of definition."""
    for name, item in list(vars(tests).items()):
        if name.startswith("test") and callable(item):
            yield from _calls(item)
        elif name.startswith("Test") and isinstance(item, type):
            for method, function in vars(item).items():
                if method.startswith("test"):
                    yield from _calls(function, item)


def _calls(function: Any, owner: type | None = None) -> Iterator[Callable[[], Any]]:
    for parameters in getattr(function, "parameters", [{}]):
        yield partial(function, *([owner()] if owner else []), **parameters)
