"""The tests of a programming problem, read from the columns of the usual data sets: README.md has a table of them."""

from __future__ import annotations

import ast
import json
import pickle
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from rewards import forms
from rewards.assertions import Tests, calls, defined, library_imports, module, program_names, steps
from rewards.forms import BadTests, completed, entry_name, parsed, usual

COLUMNS = (
    "prompt", "test", "entry_point", "test_list", "test_setup_code", "test_imports", "challenge_test_list", "tests",
    "input_output", "public_test_cases", "private_test_cases", "metadata", *forms.COLUMNS,
)  # fmt: skip
_SHORT = 1 << 15  # characters of a row
_MOST_INPUT = 64 << 20  # bytes that the scratch folder of a sandbox holds
_FILES = {"tmp_path", "tmp_path_factory", "tmpdir", "tmpdir_factory", "tempfile", "shutil", "open", "os.mkdir",
          "os.makedirs"}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A program's standard input and the standard output that it must give, if `near` with decimals near enough."""

    stdin: str
    stdout: str
    near: bool = False


@dataclass(frozen=True)
class Suite:
    """How to test a program: by `cases`, or by `tests` in a sandbox of their own. `before` is source put before it.

    A program must define one of `asks`, or anything where that is empty.
    """

    before: str = ""
    cases: list[Case] = field(default_factory=list)
    tests: Tests | None = None
    asks: frozenset[str] = frozenset()


def read_suite(row: Mapping[str, Any], challenge: bool) -> Suite:
    """The tests in one row's columns. Raises BadTests, in one line, for none or unreadable ones."""
    given = {name: value for name, value in row.items() if value is not None and name in COLUMNS}
    try:
        text = json.dumps(given, sort_keys=True)
        suite = (_read_short if len(text) < _SHORT else _read_long)(text, challenge)
    except BadTests:
        raise
    except (SyntaxError, ValueError, KeyError, TypeError, zlib.error, pickle.UnpicklingError, EOFError) as error:
        raise BadTests(f"the tests cannot be read: {type(error).__name__}: {error}") from error
    if not suite.cases and (suite.tests is None or not (suite.tests.total or suite.tests.module)):
        raise BadTests("there are no tests")
    if any(len(case.stdin) >= _MOST_INPUT for case in suite.cases):
        raise BadTests("a case has more than 64 MiB of input")
    return suite


def _read_text(row: str, challenge: bool) -> Suite:
    return _read(usual(json.loads(row)), challenge)


# The attempts of a group share their problem's tests, and so do those of the next epoch unless they take much memory.
_read_short, _read_long = lru_cache(maxsize=1024)(_read_text), lru_cache(maxsize=32)(_read_text)


def _read(row: Mapping[str, Any], challenge: bool) -> Suite:
    if "test" in row:
        tree = ast.parse(row["test"])
        check = next((n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "check"), None)
        if check and row.get("entry_point"):
            return _humaneval(row["prompt"], row["entry_point"], tree, check)
        return _pytest(tree, row["prompt"]) if any(map(_is_a_test, tree.body)) else _asserts("", "", tree)
    if "test_list" in row:
        tests = [*row["test_list"], *(row.get("challenge_test_list") or [] if challenge else [])]
        imports = "\n".join(row.get("test_imports") or [])
        return _asserts(imports, row.get("test_setup_code") or "", ast.parse("\n".join(tests)))
    if "input_output" in row or "tests" in row:
        tests = parsed(row.get("input_output", row.get("tests")))
        if isinstance(tests, Mapping):
            return _cases(list(zip(tests["inputs"], tests["outputs"], strict=True)), tests.get("fn_name"), apps=True)
        return _listed(tests, row.get("metadata"))
    raise BadTests(f"no column with tests; known: {', '.join(COLUMNS)}")


def _asserts(imports: str, setup: str, tree: ast.Module) -> Suite:
    """Assertions as MBPP has them, and the whole script that MBPP+ has."""
    prepare = ast.parse(setup)
    own = defined(ast.parse(imports)) | defined(prepare)
    names = program_names(tree, own)
    called = names | program_names(prepare, own)
    tests = steps(f"{library_imports(tree)}\n{imports}", called, [*prepare.body, *tree.body])
    return Suite(tests=tests, asks=frozenset(names))


def _humaneval(prompt: str, entry: str, tree: ast.Module, check: ast.FunctionDef) -> Suite:
    candidate, name = check.args.args[0].arg, entry_name(entry)
    body: list[ast.stmt] = ast.parse(f"{candidate} = {entry}").body
    if any(isinstance(node, (ast.Return, ast.Yield, ast.Nonlocal)) for node in ast.walk(check)):
        body += [check, *ast.parse(f"check({candidate})\nreached = __reached__[0]").body]
    else:
        body += check.body
    own = ast.Module([*completed(prompt).body, *(node for node in tree.body if node is not check)], [])
    return Suite(prompt, tests=steps(own, {name}, body), asks=frozenset({name}))


def _is_a_test(node: ast.stmt) -> bool:
    """What pytest would collect, if this is a file for it and no script."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return isinstance(node, ast.ClassDef) or (isinstance(node, functions) and node.name.startswith("test"))


def _pytest(tree: ast.Module, prompt: str) -> Suite:
    nodes = list(ast.walk(tree))
    before = completed(prompt)
    imported = [node for node in before.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = program_names(tree, defined(ast.Module(list(imported), [])))
    imports = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.module == "solution"]
    attributes = [n for n in nodes if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name)]
    asks = names | {alias.name for node in imports for alias in node.names} - {"*"}
    asks |= {n.attr for n in attributes if ast.unparse(n.value) == "solution"}
    asserting = [n for n in attributes if n.attr == "raises" or n.attr.startswith("assert")]
    if not asserting and not any(isinstance(node, ast.Assert) for node in nodes):
        raise BadTests("the tests assert nothing")
    used = {getattr(node, "id", getattr(node, "arg", "")) for node in nodes} | set(map(ast.unparse, attributes))
    if files := sorted(_FILES & used):
        raise BadTests(f"the program cannot read the files that the tests have by {files[0]}")
    return Suite(prompt, tests=module(ast.unparse(before), tree, names), asks=frozenset(asks))


def _listed(tests: Iterable[Mapping[str, Any]], metadata: Any = None) -> Suite:
    """A list of cases: of a function where they, or the metadata of the row, name one."""
    tests = list(tests)
    named = [test.get("fn_name") for test in tests]  # by PrimeIntellect, of problems that are mostly APPS's
    described = [metadata, *(test.get("metadata") for test in tests)]
    methods = [parsed(data or "{}").get("func_name") for data in described]
    name = next(filter(None, named + methods), None)
    return _cases([(test["input"], test["output"]) for test in tests], name, apps=name is not None and name in named)


def _cases(pairs: Sequence[tuple[Any, Any]], name: str | None, apps: bool) -> Suite:
    """Inputs and outputs of a script, or of a function by its name.

    In APPS, and what was made of it, a value that a function returns may be in a list of its own.
    """
    if not name:
        return Suite(cases=[Case(_text(given), _text(expected), near=apps) for given, expected in pairs])
    if not name.isidentifier():
        raise BadTests(f"'{name}' is not the name of a function")
    values = [_loaded(expected) for _, expected in pairs]
    wrapped = apps and all(isinstance(value, list) and len(value) == 1 for value in values)
    cases = [(_arguments(given), value, wrapped) for (given, _), value in zip(pairs, values, strict=True)]
    return Suite(tests=calls(name, cases), asks=frozenset({name, "Solution"}))


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
