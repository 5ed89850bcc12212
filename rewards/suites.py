"""The tests of a programming problem, read from the columns of the usual data sets.

| form | columns |
| --- | --- |
| MBPP | `test_list`, and `test_setup_code`, `test_imports`, `challenge_test_list` |
| HumanEval | `prompt`, `test` with `check(candidate)`, `entry_point` |
| KodCode | `test`, a pytest file that imports from `solution` |
| LiveCodeBench | `public_test_cases`, `private_test_cases`, and `metadata` with `func_name` |
| DeepCoder | `tests`, a list of cases |
| TACO, APPS | `input_output` (or `tests`) with `inputs`, `outputs` and, for functions, `fn_name` |
"""

from __future__ import annotations

import ast
import base64
import builtins
import io
import json
import pickle
import sys
import types
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

from rewards import forms
from rewards.checks import LIBRARY, Check, called_names, read_asserts
from rewards.forms import BadTests, parsed, usual

COLUMNS = (
    "prompt", "test", "entry_point", "test_list", "test_setup_code", "test_imports", "challenge_test_list", "tests",
    "input_output", "public_test_cases", "private_test_cases", "metadata", *forms.COLUMNS,
)  # fmt: skip
_MAX_UNPACKED = 256 << 20  # bytes of compressed private tests


@dataclass(frozen=True)
class Case:
    """A program's standard input and the standard output that it must give, if `near` with decimals near enough."""

    stdin: str
    stdout: str
    near: bool = False


@dataclass(frozen=True)
class CallCase:
    """An expression for the sandbox and the value that it must have, or if `wrapped` may have inside a list."""

    call: ast.expr
    expected: Any
    wrapped: bool = False


@dataclass(frozen=True)
class Driver:
    """Tests that run in a sandbox of their own: `prelude` and `tests` are source, `names` come from the program.

    `check` is the function handed to HumanEval's `check`, or empty for pytest's test functions.
    """

    prelude: str
    tests: str
    names: tuple[str, ...]
    check: str = ""


@dataclass(frozen=True)
class Suite:
    """How to test a program: `before` and `after` are source put around it, then one of the next four is run.

    A program must define one of `asks`, or anything where that is empty.
    """

    before: str = ""
    after: str = ""
    checks: list[Check] = field(default_factory=list)
    calls: list[CallCase] = field(default_factory=list)
    cases: list[Case] = field(default_factory=list)
    driver: Driver | None = None
    asks: frozenset[str] = frozenset()

    @cached_property
    def questions(self) -> list[types.CodeType]:
        """The calls that the sandbox is to make, in order, compiled here once for all programs of the problem."""
        calls = [call for check in self.checks for call in check.calls] + [case.call for case in self.calls]
        return [compile(ast.Expression(_placeless(call)), "<call>", "eval", dont_inherit=True) for call in calls]


def _placeless(call: ast.expr) -> ast.expr:
    """The same call, all at one place: where it stood in an assertion would tell how long the expected value is."""
    for node in ast.walk(call):
        if "lineno" in node._attributes:
            node.lineno = node.end_lineno = 1  # type: ignore[attr-defined]
            node.col_offset = node.end_col_offset = 0  # type: ignore[attr-defined]
    return call


def read_suite(row: Mapping[str, Any], challenge: bool) -> Suite:
    """The tests in one row's columns. Raises BadTests, in one line, for none or unreadable ones."""
    given = {name: value for name, value in row.items() if value is not None and name in COLUMNS}
    try:
        suite = _read_once(json.dumps(given, sort_keys=True), challenge)
    except BadTests:
        raise
    except (SyntaxError, ValueError, KeyError, TypeError, zlib.error, pickle.UnpicklingError, EOFError) as error:
        raise BadTests(f"the tests cannot be read: {type(error).__name__}: {error}") from error
    if not (suite.checks or suite.calls or suite.cases or suite.driver):
        raise BadTests("there are no tests")
    return suite


@lru_cache(maxsize=256)
def _read_once(row: str, challenge: bool) -> Suite:
    # The attempts of a group share their problem's tests.
    return _read(usual(json.loads(row)), challenge)


def _read(row: Mapping[str, Any], challenge: bool) -> Suite:
    if "test_list" in row:
        return _mbpp(row, challenge)
    if "test" in row:
        return _humaneval(row) if row.get("entry_point") else _pytest(row["test"])
    if "input_output" in row or "tests" in row:
        tests = parsed(row.get("input_output", row.get("tests")))
        return _apps(tests) if isinstance(tests, Mapping) else _deepcoder(tests, row.get("metadata"))
    if "public_test_cases" in row or "private_test_cases" in row:
        return _livecodebench(row)
    raise BadTests(f"no column with tests; known: {', '.join(COLUMNS)}")


def _mbpp(row: Mapping[str, Any], challenge: bool) -> Suite:
    tests = [*row["test_list"], *(row.get("challenge_test_list") or [] if challenge else [])]
    imports = "\n".join(row.get("test_imports") or [])
    setup = row.get("test_setup_code") or ""
    tree = ast.parse("\n".join(tests))
    own = _defined(ast.parse(f"{imports}\n{setup}"))
    names = called_names(tree, own)
    checks = read_asserts(ast.parse("\n".join(tests)).body, {name: name for name in names})
    if checks is not None:
        return Suite(after=f"{imports}\n{setup}", checks=checks, asks=frozenset(names))
    bodies = "\n".join(f"def test_{n}():\n    {ast.unparse(statement)}" for n, statement in enumerate(tree.body))
    called = names | called_names(ast.parse(setup), own) - set(dir(builtins))
    prelude = f"{_library(tree)}\n{imports}"
    return Suite(driver=Driver(prelude, f"{setup}\n{bodies}", tuple(sorted(called))), asks=frozenset(names))


def _defined(tree: ast.Module) -> set[str]:
    """Functions, classes and imports of the tests' own code: never the program's, whatever it defines."""
    names = {node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    imports = (node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom)))
    return names | {alias.asname or alias.name for node in imports for alias in node.names}


def _library(tree: ast.Module) -> str:
    """Imports of what assertions use of the standard library as if the program had imported it for them."""
    nodes = list(ast.walk(tree))
    used = {n.value.id for n in nodes if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name)}
    called = {n.func.id for n in nodes if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    imports = [f"import {name}" for name in sorted(used & sys.stdlib_module_names)]
    return "\n".join(imports + [f"from {LIBRARY[name]} import {name}" for name in sorted(called & set(LIBRARY))])


def _humaneval(row: Mapping[str, Any]) -> Suite:
    prompt, entry = row.get("prompt") or "", row["entry_point"]
    tree = ast.parse(row["test"])
    check = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "check")
    checks = read_asserts(check.body, {"candidate": entry})
    if checks is not None:
        return Suite(before=prompt, checks=checks, asks=frozenset({entry}))
    return Suite(before=prompt, driver=Driver(prompt, row["test"], (entry,), entry), asks=frozenset({entry}))


def _pytest(source: str) -> Suite:
    tree = ast.parse(source)
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module == "solution"]
    names = {alias.name for node in imports for alias in node.names}
    attributes = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute))
    names |= {a.attr for a in attributes if isinstance(a.value, ast.Name) and a.value.id == "solution"}
    if not any(isinstance(node, ast.Assert) for node in ast.walk(tree)) and "raises" not in source:
        raise BadTests("the tests assert nothing")
    return Suite(driver=Driver("", source, tuple(sorted(names))), asks=frozenset(names))


def _apps(tests: Mapping[str, Any]) -> Suite:
    pairs = list(zip(tests["inputs"], tests["outputs"], strict=True))
    if name := tests.get("fn_name"):
        values = [_loaded(expected) for _, expected in pairs]
        wrapped = _all_wrapped(values)
        calls = [
            _call(name, _arguments(given), value, wrapped) for (given, _), value in zip(pairs, values, strict=True)
        ]
        return Suite(calls=calls, asks=frozenset({name, "Solution"}))
    return Suite(cases=[Case(_text(given), _text(expected), near=True) for given, expected in pairs])


def _all_wrapped(values: Iterable[Any]) -> bool:
    """Whether each value is in a list of its own, as in most of APPS and what was made of it."""
    return all(isinstance(value, list) and len(value) == 1 for value in values)


def _deepcoder(tests: Iterable[Mapping[str, Any]], metadata: Any = None) -> Suite:
    """A list of cases: of a function where they, or the metadata of the row, name one."""
    tests = list(tests)
    named = [test.get("fn_name") for test in tests]  # by PrimeIntellect, of problems that are mostly APPS's
    described = [metadata, *(test.get("metadata") for test in tests)]
    methods = [parsed(data or "{}").get("func_name") for data in described]
    if name := next(filter(None, named + methods), None):
        values = [_loaded(test["output"]) for test in tests]
        wrapped = name in named and _all_wrapped(values)
        calls = [_call(name, _arguments(t["input"]), value, wrapped) for t, value in zip(tests, values, strict=True)]
        return Suite(calls=calls, asks=frozenset({name, "Solution"}))
    return Suite(cases=[Case(_text(test["input"]), _text(test["output"])) for test in tests])


def _livecodebench(row: Mapping[str, Any]) -> Suite:
    public = parsed(row.get("public_test_cases") or "[]")
    private = _private(row.get("private_test_cases") or "[]")
    return _deepcoder([*public, *private], row.get("metadata"))


def _private(packed: str) -> Any:
    """LiveCodeBench's hidden tests: JSON, or JSON inside pickle inside zlib inside base64."""
    try:
        return json.loads(packed)
    except ValueError:
        pass
    inflate = zlib.decompressobj()
    data = inflate.decompress(base64.b64decode(packed), _MAX_UNPACKED)
    return parsed(_PlainUnpickler(io.BytesIO(data)).load())


class _PlainUnpickler(pickle.Unpickler):
    """Reads a pickled string. A pickle that names any class or function is refused."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"private tests may not contain {module}.{name}")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "\n".join(map(str, value))


def _arguments(value: Any) -> list[Any]:
    """Arguments of a call: a list of them, or text with the JSON of one on each line."""
    return [json.loads(line) for line in value.splitlines() if line.strip()] if isinstance(value, str) else list(value)


def _loaded(value: Any) -> Any:
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _call(name: str, arguments: list[Any], expected: Any, wrapped: bool = False) -> CallCase:
    if not name.isidentifier():
        raise BadTests(f"'{name}' is not the name of a function")
    own = f"getattr(globals().get({name!r}), '__module__', '') == __name__"  # not one that it imported
    call = f"({name} if {own} or 'Solution' not in globals() else Solution().{name})(*{arguments!r})"
    return CallCase(ast.parse(call, mode="eval").body, expected, wrapped)
