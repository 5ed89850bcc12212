"""Test source made ready for the tests' sandbox: which names are the program's, and which statements are tests.

The row says what the program's names are: what its tests call or import. Every other name in them, be it a built-in
function, the standard library or a helper of their own, is the tests', whatever the program defines.
"""

from __future__ import annotations

import ast
import builtins
import collections
import datetime
import decimal
import fractions
import functools
import itertools
import marshal
import math
import sys
import types
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

_LIBRARIES = (collections, datetime, decimal, fractions, functools, itertools, math)
_LIBRARY = {name: module.__name__ for module in _LIBRARIES for name in dir(module) if name[0] != "_"}
_COMMON = {
    function.__name__
    for function in (abs, all, any, bool, complex, dict, float, frozenset, int, isinstance, len, list, max, min, range,
                     round, set, sorted, str, sum, tuple)
}  # fmt: skip
_PREPARATIONS = (ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef,
                 ast.AsyncFunctionDef, ast.Delete, ast.Global, ast.Pass)  # fmt: skip


@dataclass(frozen=True)
class Tests:
    """A job for the tests' sandbox, see `rewards.sandbox.runner`; `total` is 0 for a module, whose tests pytest counts.

    `names` are the program's, as far as it has them; `prelude` runs before they are there.
    """

    kind: str
    total: int
    prelude: Any = ""
    names: tuple[str, ...] = ()
    steps: Any = ()
    calls: Any = ()
    module: Any = None

    @cached_property
    def payload(self) -> bytes:
        """The job as the sandbox reads it, made once for all programs of the problem."""
        return marshal.dumps(vars(self))


def steps(prelude: str | ast.Module, names: Iterable[str], body: Sequence[ast.stmt]) -> Tests:
    """Statements that run one after another in one namespace. Those that are more than preparations are tests."""
    made = []
    for statement in body:
        if not _says_something(statement):
            continue
        made.append((_compiled([statement]), not isinstance(statement, _PREPARATIONS)))
    total = sum(counts for _, counts in made)
    return Tests("steps", total, compile(prelude, "<tests>", "exec"), tuple(sorted(names)), made)


def module(prelude: str, tree: ast.Module, names: Iterable[str]) -> Tests:
    """A file of pytest's or unittest's. What it imports from `solution` by a star it gets by name."""
    ready = compile(f"{library_imports(tree)}\n{prelude}", "<tests>", "exec")
    code = _compiled([node for node in tree.body if not _is_star(node)])
    return Tests("module", 0, ready, tuple(sorted(names)), module=code)


def calls(name: str, cases: Sequence[tuple[list[Any], Any, bool]]) -> Tests:
    """Calls of one function, or method of `Solution`: arguments, expected value, whether that may be in a list."""
    return Tests("calls", len(cases), "", (name, "Solution"), calls=list(cases))


def program_names(tree: ast.AST, own: Collection[str] = ()) -> set[str]:
    """Names that tests use and the program must define: not the tests' `own`, not Python's or its library's.

    If there are no others, those are the program's that are called and not among the commonest functions, or else all
    that are called: then `sum` is.
    """
    nodes = list(ast.walk(tree))
    bound = set(own) | set(_bound(nodes))
    used = {node.id for node in nodes if isinstance(node, ast.Name)} - bound
    functions = [node.func for node in nodes if isinstance(node, ast.Call)]
    called = {function.id for function in functions if isinstance(function, ast.Name)} - bound
    foreign = set(dir(builtins)) | set(_LIBRARY) | _modules(nodes)
    return used - foreign or called - _COMMON or called


def defined(tree: ast.Module) -> set[str]:
    """Functions, classes, imports and variables of the tests' own code."""
    return set(_bound(tree.body)) | {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and _stored(n)}


def library_imports(tree: ast.AST) -> str:
    """Imports of what tests use of the standard library as if the program had imported it for them."""
    nodes = list(ast.walk(tree))
    used = {node.id for node in nodes if isinstance(node, ast.Name)} & set(_LIBRARY) - _modules(nodes)
    imports = [f"import {name}" for name in sorted(_modules(nodes))]
    return "\n".join(imports + [f"from {_LIBRARY[name]} import {name}" for name in sorted(used)])


def _modules(nodes: Iterable[ast.AST]) -> set[str]:
    owners = {n.value.id for n in nodes if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name)}
    return owners & sys.stdlib_module_names


def _bound(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Names that nodes bind, wherever that is."""
    for node in nodes:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from ((alias.asname or alias.name).partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and _stored(node):
            yield node.id
        elif isinstance(node, ast.ExceptHandler) and node.name:
            yield node.name


def _stored(node: ast.Name) -> bool:
    return not isinstance(node.ctx, ast.Load)


def _is_star(node: ast.AST) -> bool:
    return isinstance(node, ast.ImportFrom) and node.module == "solution" and node.names[0].name == "*"


def _says_something(statement: ast.stmt) -> bool:
    """False for a docstring, `pass`, and an assertion of nothing, such as `assert True`."""
    if isinstance(statement, ast.Assert):
        return any(isinstance(node, ast.Name) for node in ast.walk(statement.test))
    return not isinstance(statement, ast.Pass) and not (
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    )


_IS = (ast.Is, ast.IsNot)
_REACHED = ast.parse("__reached__.append(1)").body


class _Prepared(ast.NodeTransformer):
    """Has every assertion note that it was reached, and `is` ask whether two stand for one object of the program's."""

    def visit_Assert(self, node: ast.Assert) -> list[ast.stmt]:
        self.generic_visit(node)
        return [*_REACHED, node]

    def visit_Compare(self, node: ast.Compare) -> ast.expr:
        self.generic_visit(node)
        sides = [node.left, *node.comparators]
        if not isinstance(node.ops[0], _IS) or any(isinstance(s, ast.Constant) for s in sides[:2]):
            return node
        same: ast.expr = ast.Call(ast.Name("__same__", ast.Load()), sides, [])
        same = ast.UnaryOp(ast.Not(), same) if isinstance(node.ops[0], ast.IsNot) else same
        return ast.fix_missing_locations(ast.copy_location(same, node))


def _compiled(body: list[ast.stmt]) -> types.CodeType:
    if [type(node) for node in body] == [ast.Assert] and not any(isinstance(node, _IS) for node in ast.walk(body[0])):
        body = [*_REACHED, *body]  # as most tests are; visiting each node is slow
    else:
        body = _Prepared().visit(ast.Module(body, [])).body
    return compile(ast.Module(body, []), "<tests>", "exec", dont_inherit=True)
