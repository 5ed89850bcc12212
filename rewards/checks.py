"""Assertions taken apart: what the program under test must compute, and what the judge then checks itself.

`assert sorted(f([3, 1])) == [1, 3]` becomes the call `f([3, 1])`, which the sandbox answers with plain data, and the
expression `sorted(_0) == [1, 3]`, which is evaluated here. The program never sees an expected value.
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
import math
import types
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_FUNCTIONS = {
    function.__name__: function
    for function in (abs, all, any, bool, complex, dict, float, frozenset, int, isinstance, len, list, max, min, range,
                     round, set, sorted, str, sum, tuple)
}  # fmt: skip
_MODULES = {"math": math}
_LIBRARIES = (collections, datetime, decimal, fractions, functools, itertools, math)
LIBRARY = {name: module.__name__ for module in _LIBRARIES for name in dir(module) if name[0] != "_"}
_UNBOUNDED = {"range", "math.comb", "math.factorial", "math.perm"}  # one number can keep these busy for hours
_NODES = (
    ast.Compare, ast.cmpop, ast.BoolOp, ast.boolop, ast.UnaryOp, ast.unaryop, ast.BinOp, ast.operator, ast.Constant,
    ast.Name, ast.Load, ast.Tuple, ast.List, ast.Set, ast.Dict, ast.Subscript, ast.Slice, ast.Call, ast.keyword,
    ast.Attribute, ast.IfExp,
)  # fmt: skip
_TRUSTED: dict[str, Any] = {"__builtins__": {}, **_FUNCTIONS, **_MODULES}


@dataclass(frozen=True)
class Check:
    """One assertion. `calls` are expressions for the sandbox; `verdict` is the rest, with `_0`, `_1`, ... for them."""

    calls: tuple[ast.expr, ...]
    verdict: types.CodeType

    def holds(self, values: Sequence[Any]) -> bool:
        """Whether the assertion is true of what the calls returned, which must be plain data."""
        names = {f"_{number}": value for number, value in enumerate(values)}
        try:
            return bool(eval(self.verdict, {**_TRUSTED, **names}))
        except Exception:  # plain data of the wrong type, such as len() of a number: the assertion does not hold
            return False


def read_asserts(statements: Sequence[ast.stmt], names: Mapping[str, str]) -> list[Check] | None:
    """The checks of a list of statements; None if one is more than an assertion over calls of the program.

    `names` are the program's functions as the statements call them, and what the program calls them, as `candidate` of
    HumanEval stands for the entry point. Docstrings and `pass` are skipped. The statements are used up.
    """
    checks = []
    for statement in statements:
        if isinstance(statement, ast.Pass) or (
            isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        ):
            continue
        check = _read(statement.test, names) if isinstance(statement, ast.Assert) else None
        if check is None:
            return None
        if check.calls:  # `assert True` asks nothing of the program
            checks.append(check)
    return checks


def called_names(tree: ast.AST, own: Collection[str] = ()) -> set[str]:
    """Names called as functions that must be the program's: not the tests' `own`, not Python's or its library's.

    If there are no others, those are the program's that are none of the judge's functions, or else all: then `sum` is.
    """
    calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    names = {function.id for function in calls if isinstance(function, ast.Name)} - set(own)
    return names - set(dir(builtins)) - set(LIBRARY) or names - set(_FUNCTIONS) or names


def _read(test: ast.expr, names: Mapping[str, str]) -> Check | None:
    holes = _Holes(names)
    rest = holes.visit(test)
    if not all(map(_known, ast.walk(rest))):
        return None
    expression = ast.fix_missing_locations(ast.Expression(rest))
    return Check(tuple(holes.calls), compile(expression, "<check>", "eval"))


def _known(node: ast.AST) -> bool:
    if isinstance(node, ast.Call) and ast.unparse(node.func) in _UNBOUNDED:
        return all(isinstance(argument, ast.Constant) for argument in node.args)
    if isinstance(node, ast.Attribute):
        return isinstance(node.value, ast.Name) and node.value.id in _MODULES
    if isinstance(node, ast.Name):
        return node.id in _TRUSTED or (node.id[0] == "_" and node.id[1:].isdigit())
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Pow, ast.LShift)):
        return isinstance(node.left, ast.Constant) and isinstance(node.right, ast.Constant)
    return isinstance(node, _NODES)


class _Holes(ast.NodeTransformer):
    """Replaces every outermost call of the program's functions by a name, and keeps the call."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self.names = names
        self.calls: list[ast.expr] = []

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if not (isinstance(node.func, ast.Name) and node.func.id in self.names):
            return self.generic_visit(node)
        self.calls.append(_Renamer(self.names).visit(node))
        return ast.Name(f"_{len(self.calls) - 1}", ast.Load())


class _Renamer(ast.NodeTransformer):
    def __init__(self, aliases: Mapping[str, str]) -> None:
        self.aliases = aliases

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name(self.aliases.get(node.id, node.id), node.ctx)
