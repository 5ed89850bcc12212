"""What runs inside a sandbox: the program under test, or the tests that call it from a sandbox of their own.

Nothing here is trusted by the judging side once a program has run: it can do no more than answer questions.
"""

from __future__ import annotations

import atexit
import builtins
import importlib
import json
import marshal
import os
import sys
import threading
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rewards.sandbox import kernel, pytest_stub
from rewards.sandbox.values import MAX_LENGTH, dumps, loads
from rewards.wire import copy_bytes, framed, recv_frame, recv_size, send_file, send_frame, write_all

CALLS, CASES, DRIVER = MODES = ("calls", "cases", "driver")
READY = b"r"  # what a program's process says when the program has been loaded
ENDED_WELL, FAILED = b"0", b"1"  # how a script ended, told before what it printed
OUTPUT_LIMIT = MAX_LENGTH  # bytes of one value
# What the graders of LiveCodeBench, APPS and TACO import for a program, in their order: later names hide earlier ones.
_IMPORTS = """
from string import *; from re import *; from datetime import *; from collections import *; from heapq import *
from bisect import *; from copy import *; from math import *; from random import *; from statistics import *
from itertools import *; from functools import *; from operator import *; from io import *; from sys import *
from json import *; from builtins import *; from typing import *
import string, re, datetime, collections, heapq, bisect, copy, math, random, statistics, itertools, functools, operator
import io, sys, json, time, fractions
"""
_DEEP = 50_000  # their limit of recursion
_imported = types.ModuleType("builtins")


def preload(modules: Sequence[str], files: Sequence[str]) -> None:
    """Get ready, once for all sandboxes, what programs use most, and the third-party modules that are in `files`."""
    sys.path += dict.fromkeys(map(os.path.dirname, files))
    for name in modules:
        importlib.import_module(name)
    exec("import abc, cmath, dataclasses, decimal, enum, queue", {})
    builtins.exit = builtins.quit = sys.exit  # type: ignore[assignment]  # an interpreter without `site` has neither
    exec(_IMPORTS, _imported.__dict__)
    _imported.__dict__.update(builtins.__dict__)


_SAMPLE = """
from typing import Dict, List, Optional, Tuple
def f(text: str, numbers: List[int], far: float = 0.5) -> Dict[str, Tuple[int, ...]]:
    \'\'\' Count.
    >>> f("a b", [1, 2])
    \'\'\'
    found = {}
    for number, word in enumerate(text.lower().split()):
        if len(word) >= 2 and word != word[::-1]:
            found[word] = tuple(sorted(n % 3 for n in numbers if n > number or abs(n - far) < 1e-9))
    return found
"""


def sample() -> bytes:
    """A small job, for a rehearsal."""
    expressions = [*(f"f('To be or noon {n}', [{n}, 2, 7], far={n}.5)" for n in range(8)), "unknown()"]
    calls = [compile(expression, "<call>", "eval") for expression in expressions]
    return marshal.dumps({"sources": [_SAMPLE, ""], "calls": calls, "handles": False, "imports": False})


def run(
    mode: str, payload: bytes, channels: Sequence[int], confine: Callable[[], None], new_case: Callable[[], int]
) -> None:
    """Run one job; `channels` are descriptors, and an empty `payload` comes through the first.

    Whatever runs a program goes behind `confine` first; for cases that is a child for each, whose standard input is
    the file that `new_case` returns.
    """
    if mode == CASES:
        _run_cases(payload, channels[0], confine, new_case)
        return
    confine()
    if mode == CALLS:
        _answer_calls(payload, channels[0])
    else:
        _drive(payload, *channels)


def _new_module(name: str) -> types.ModuleType:
    # dataclasses, typing and pickle look a class's module up by name
    module = types.ModuleType(name)
    sys.modules[name] = module
    return module


def _new_program(name: str, imports: bool) -> types.ModuleType:
    """The module of a program. With `imports`, what graders import is built in: its own names hide that."""
    module = _new_module(name)
    if imports:
        sys.modules["builtins"] = module.__dict__["__builtins__"] = _imported
        sys.setrecursionlimit(_DEEP)
    return module


def _raised(error: BaseException) -> bytes:
    return b"e" + json.dumps({"raised": type(error).__name__, "message": str(error)[:200]}).encode()


class _Objects:
    """Objects that stay in this sandbox and are spoken of by number."""

    def __init__(self) -> None:
        self.held: list[Any] = []

    def hold(self, value: Any) -> int:
        self.held.append(value)
        return len(self.held) - 1


def _answer_calls(payload: bytes, channel: int) -> None:
    """Run the program and answer the job's calls; then, if it may hold objects, questions until the asker hangs up."""
    job = marshal.loads(payload or recv_frame(channel))
    module = _new_program("solution", job["imports"])
    try:
        for source in job["sources"]:
            _execute(source, module)
    except BaseException as error:  # the program may raise anything; that is an answer too
        send_frame(channel, _raised(error))
        return
    unsent = framed(READY)
    for call in job["calls"]:
        write_all(channel, unsent + framed(_answer(None, eval, call, module.__dict__)))
        unsent = b""
    write_all(channel, unsent)
    if job["handles"]:
        objects = _Objects()
        while True:
            question = loads(recv_frame(channel), lambda number, name: objects.held[number])
            send_frame(channel, _answer(objects.hold, _evaluate, question, module))


def _answer(hold: Callable[[Any], int] | None, function: Callable[..., Any], *of: Any) -> bytes:
    try:
        return b"v" + dumps(function(*of), hold)
    except BaseException as error:
        return _raised(error)


def _execute(source: str, module: types.ModuleType) -> None:
    try:  # noqa: SIM105  (contextlib.suppress would write to ten more pages of memory, in each process)
        exec(compile(source, f"<{module.__name__}>", "exec", dont_inherit=True), module.__dict__)
    except SystemExit:
        pass  # a script that ends by sys.exit() has still defined what it defined


def _evaluate(question: dict[str, Any], module: types.ModuleType) -> Any:
    if "attribute" in question:
        return getattr(question["of"], question["attribute"])
    target = question["of"] if "of" in question else getattr(module, question["name"])
    return target(*question["args"], **question["kwargs"])


def _run_cases(payload: bytes, channel: int, confine: Callable[[], None], new_case: Callable[[], int]) -> None:
    """Run the program once for each standard input sent, each time in a new process."""
    job = marshal.loads(payload or recv_frame(channel))
    while True:
        size = recv_size(channel)
        read_from, written_to = new_case(), os.memfd_create("stdout")
        copy_bytes(channel, read_from, size)
        os.lseek(read_from, 0, os.SEEK_SET)
        child = kernel.fork()
        if child == 0:
            os.dup2(read_from, 0)
            os.dup2(written_to, 1)
            os.closerange(3, max(channel, read_from, written_to) + 1)
            code = 1
            try:
                confine()
                code = _run_script(job["sources"][0], job["imports"])
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        send_file(channel, FAILED if status else ENDED_WELL, written_to)
        os.close(read_from)
        os.close(written_to)


def _run_script(program: str, imports: bool) -> int:
    """Run a program as Python would, to the end of its threads and exit handlers; returns its exit code."""
    stdout, code = sys.stdout, 0
    module = _new_program("__main__", imports)
    try:
        exec(compile(program, "solution.py", "exec", dont_inherit=True), module.__dict__)
    except SystemExit as ended:
        code = int(ended.code not in (None, 0))
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    _flush(sys.stdout)
    module.__dict__.clear()  # what it left open is written as it is closed
    _flush(stdout)
    return code


def _flush(file: Any) -> None:
    if file is not None and not file.closed:
        file.flush()


class Raised(Exception):
    """An exception in the program that has no namesake among the built-in ones."""


class Proxy:
    """Stands, in the tests' sandbox, for an object in the program's. It is equal to nothing but itself."""

    def __init__(self, ask: Callable[[dict[str, Any]], Any], reference: dict[str, Any]) -> None:
        self.__dict__.update(_ask=ask, _reference=reference)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._ask({**self._reference, "args": args, "kwargs": kwargs})

    def __getattr__(self, name: str) -> Any:
        if "of" not in self._reference:
            raise AttributeError(name)
        return self._ask({**self._reference, "attribute": name})

    def __len__(self) -> int:
        return self.__getattr__("__len__")()

    def __iter__(self) -> Iterator[Any]:
        return iter(self.__getattr__("__iter__")())

    def __getitem__(self, key: Any) -> Any:
        return self.__getattr__("__getitem__")(key)

    def __contains__(self, item: Any) -> bool:
        return bool(self.__getattr__("__contains__")(item))

    def __str__(self) -> str:
        return str(self.__getattr__("__str__")())


def _drive(payload: bytes, channel: int, program: int) -> None:
    """Run trusted tests here against a program that runs in another sandbox, reached through `program`."""
    job = json.loads(payload or recv_frame(channel))

    def ask(question: dict[str, Any]) -> Any:
        send_frame(program, dumps(question, _number))
        reply = recv_frame(program, OUTPUT_LIMIT)
        if reply[:1] == b"v":
            return loads(reply[1:], lambda number, name: Proxy(ask, {"of": _Handle(number)}))
        told = json.loads(reply[1:])
        kind = getattr(builtins, told["raised"], Raised)
        # StopIteration would end the loop that calls the program, as if it had passed all of it.
        ordinary = isinstance(kind, type) and issubclass(kind, Exception) and kind is not StopIteration
        raise (kind if ordinary else Raised)(told["message"])

    solution = _new_module("solution")
    for name in job["names"]:
        setattr(solution, name, Proxy(ask, {"name": name}))
    sys.modules["pytest"] = pytest_stub.module()
    send_frame(channel, json.dumps(_run_tests(job, solution)).encode())


class _Handle:
    """The number of an object in the program's sandbox."""

    def __init__(self, number: int) -> None:
        self.number = number


def _number(value: Any) -> int:
    """How an object among the arguments is spoken of: only one that came from the program can go back there."""
    handle = value.__dict__["_reference"].get("of") if isinstance(value, Proxy) else value
    if not isinstance(handle, _Handle):
        raise TypeError(f"a {type(value).__name__} cannot be passed to the program")
    return handle.number


def _run_tests(job: dict[str, Any], solution: types.ModuleType) -> dict[str, Any]:
    """Run the test source, then the `check` function of HumanEval or every `test_` function of pytest."""
    tests = _new_module("tests")
    names = {name: getattr(solution, name) for name in job["names"]}
    try:
        _execute(job["prelude"], tests)
        tests.__dict__.update(names)
        _execute(job["tests"], tests)
    except BaseException as error:
        return {"passed": 0, "total": 1, "first": _line(error)}
    if job["check"]:
        found: list[Callable[[], Any]] = [lambda: tests.__dict__["check"](names[job["check"]])]
    else:
        found = list(pytest_stub.collect(tests))
    failures = []
    for test in found:
        try:
            test()
        except BaseException as error:
            failures.append(_line(error))
    return {"passed": len(found) - len(failures), "total": len(found), "first": failures[0] if failures else ""}


def _line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
