"""What runs inside a sandbox: the program under test, or the tests that call it from a sandbox of their own.

Nothing here is trusted by the judging side once a program has run: it can do no more than answer questions.
"""

from __future__ import annotations

import atexit
import builtins
import importlib
import io
import marshal
import os
import sys
import threading
import types
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any

from rewards.sandbox import kernel
from rewards.sandbox.arrays import learn_loaded
from rewards.sandbox.peer import Peer, one_line
from rewards.sandbox.runner import READY, run_tests
from rewards.sandbox.values import MAX_LENGTH
from rewards.wire import Frames, send_file, send_frame

PROGRAM, CASES, TESTS = ("program", "cases", "tests")
PYTEST = "pytest"  # the module that makes a sandbox one that can run files of tests
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
    """Get ready, once for all sandboxes, what programs use most, and pytest: what uses it here no sandbox can see."""
    exec("import abc, cmath, dataclasses, decimal, enum, queue", {})
    builtins.exit = builtins.quit = sys.exit  # type: ignore[assignment]  # an interpreter without `site` has neither
    exec(_IMPORTS, _imported.__dict__)
    _imported.__dict__.update(builtins.__dict__)
    sys.path += dict.fromkeys(map(os.path.dirname, files))
    for name in modules:
        find_spec(name)  # notes what is in these folders, which may not be listed from inside
    if PYTEST in modules:
        from rewards.sandbox.pytest_runner import rehearse

        rehearse()


def load(modules: Sequence[str]) -> None:
    """Import modules from inside, once for all sandboxes: they find there what a program would find."""
    for name in modules:
        importlib.import_module(name)
    learn_loaded()


def forget() -> None:
    """Forget what a rehearsal has left in the interpreter's modules."""
    for name in ("solution", "tests"):
        sys.modules.pop(name, None)


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


def rehearsals() -> tuple[bytes, bytes]:
    """A small program and its tests, as work for two jobs that run with each other."""
    call = "f('To be or noon', [3, 2, 7], far=0.5) == {'be': (1, 2), 'or': (1, 2)}"
    steps = [(compile(f"__reached__.append(1)\nassert {call}", "<test>", "exec"), True)] * 8
    tests = {"kind": "steps", "prelude": "", "names": ["f"], "steps": steps, "total": 8}
    program = {"source": _SAMPLE, "asks": ["f"], "prints": False, "imports": False}
    return marshal.dumps(program), b"\0" + marshal.dumps(tests)


def run(mode: str, channels: Sequence[int], confine: Callable[[], None], new_case: Callable[[], int]) -> None:
    """Run one job; `channels` are descriptors, and the work comes through the first.

    Whatever runs a program goes behind `confine` first; for cases that is a child for each, whose standard input is
    the file that `new_case` returns.
    """
    frames = Frames(partial(os.read, channels[0]))
    if mode == CASES:
        _run_cases(frames, channels[0], confine, new_case)
        return
    confine()
    if mode == PROGRAM:
        _serve_program(frames, channels[0])
    else:
        run_tests(frames.receive(), *channels)


def _new_program(name: str, imports: bool) -> types.ModuleType:
    """The module of a program. With `imports`, what graders import is built in: its own names hide that."""
    module = sys.modules[name] = types.ModuleType(name)  # dataclasses, typing and pickle look it up by name
    if imports:
        sys.modules["builtins"] = module.__dict__["__builtins__"] = _imported
        sys.setrecursionlimit(_DEEP)
    return module


def _serve_program(frames: Frames, channel: int) -> None:
    """Run the program, say whether it could be loaded, then do with it what its tests ask for."""
    job = marshal.loads(frames.receive())
    module = _new_program("solution", job["imports"])
    try:
        exec(compile(job["source"], "<solution>", "exec", dont_inherit=True), module.__dict__)
    except BaseException as error:  # the program may raise anything
        # Once it has what is asked, what else it does decides nothing: sys.exit(), a false test of its own, an example.
        if not isinstance(error, SystemExit) and not any(name in vars(module) for name in job["asks"]):
            send_frame(channel, one_line(error).encode(errors="replace"))
            return
    send_frame(channel, READY)
    peer = Peer(channel, frames, module)
    if job["prints"]:
        sys.stdout, sys.stderr = _Stream(peer, 1), _Stream(peer, 2)
        builtins.input = lambda prompt="": peer.ask("input", prompt)  # type: ignore[assignment]
    peer.serve()


class _Stream(io.TextIOBase):
    """A standard stream that tells the tests what is written to it."""

    def __init__(self, peer: Peer, number: int) -> None:
        self.peer, self.number = peer, number

    def write(self, text: str) -> int:
        self.peer.printed(self.number, text)
        return len(text)


def _run_cases(frames: Frames, channel: int, confine: Callable[[], None], new_case: Callable[[], int]) -> None:
    """Run the program once for each standard input sent, each time in a new process."""
    job = marshal.loads(frames.receive())
    while True:
        read_from, written_to = frames.receive_file(new_case), os.memfd_create("stdout")
        os.lseek(read_from, 0, os.SEEK_SET)
        child = kernel.fork()
        if child == 0:
            os.dup2(read_from, 0)
            os.dup2(written_to, 1)
            os.closerange(3, max(channel, read_from, written_to) + 1)
            code = 1
            try:
                confine()
                code = _run_script(**job)
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        send_file(channel, FAILED if status else ENDED_WELL, written_to)
        os.close(read_from)
        os.close(written_to)


def _run_script(source: str, imports: bool) -> int:
    """Run a program as Python would, to the end of its threads and exit handlers; returns its exit code."""
    stdout, code = sys.stdout, 0
    module = _new_program("__main__", imports)
    try:
        exec(compile(source, "solution.py", "exec", dont_inherit=True), module.__dict__)
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
