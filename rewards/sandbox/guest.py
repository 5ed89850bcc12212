"""What runs inside a sandbox: the program under test, or the tests that call it from a sandbox of their own.

Nothing here is trusted by the judging side once a program has run: it can do no more than answer questions.
"""

from __future__ import annotations

import builtins
import importlib
import io
import json
import marshal
import os
import sys
import types
from collections.abc import Callable, Sequence

from rewards.sandbox import kernel
from rewards.sandbox.peer import Peer, one_line
from rewards.sandbox.runner import READY, run_tests
from rewards.sandbox.values import MAX_LENGTH
from rewards.wire import recv_frame, send_frame

PROGRAM, CASES, TESTS = MODES = ("program", "cases", "tests")
ENDED_WELL, FAILED = b"0", b"1"  # how a script ended, told before what it printed
OUTPUT_LIMIT = MAX_LENGTH  # bytes of one value or of one case's standard output
_COMMON_MODULES = """
abc bisect cmath collections copy dataclasses datetime decimal enum fractions functools heapq io itertools json math
operator queue random re statistics string threading time typing
"""


def preload() -> None:
    """Get ready, once for all sandboxes, what programs use most."""
    for name in _COMMON_MODULES.split():
        importlib.import_module(name)
    builtins.exit = builtins.quit = sys.exit  # type: ignore[assignment]  # an interpreter without `site` has neither


def preload_pytest(where: str) -> None:
    """Get pytest ready, which is in the folder `where` that no sandbox can see."""
    sys.path.append(where)
    from rewards.sandbox.pytest_runner import rehearse

    rehearse()
    sys.path.remove(where)


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


def rehearsals() -> list[tuple[str, bytes]]:
    """A small program and its tests, as jobs to be run with each other."""
    call = "f('To be or noon', [3, 2, 7], far=0.5) == {'be': (1, 2), 'or': (1, 2)}"
    steps = [(compile(f"__reached__.append(1)\nassert {call}", "<test>", "exec"), True)] * 8
    tests = {"kind": "steps", "prelude": "", "names": ["f"], "steps": steps, "total": 8}
    program = {"sources": [_SAMPLE], "prints": False}
    return [(PROGRAM, marshal.dumps(program)), (TESTS, b"\0" + marshal.dumps(tests))]


def run(mode: str, payload: bytes, channels: Sequence[int], confine: Callable[[], None]) -> None:
    """Run one job; `channels` are descriptors, and an empty `payload` comes through the first.

    Whatever runs a program goes behind `confine` first; for cases that is a child for each.
    """
    if mode == CASES:
        _run_cases(payload, channels[0], confine)
        return
    confine()
    if mode == PROGRAM:
        _serve_program(payload, channels[0])
    else:
        run_tests(payload, *channels)


def _new_module(name: str) -> types.ModuleType:
    # dataclasses, typing and pickle look a class's module up by name
    module = types.ModuleType(name)
    sys.modules[name] = module
    return module


def _serve_program(payload: bytes, channel: int) -> None:
    """Run the program, say whether it could be loaded, then do with it what its tests ask for."""
    job = marshal.loads(payload or recv_frame(channel))
    module = _new_module("solution")
    try:
        for source in job["sources"]:
            _execute(source, module)
    except BaseException as error:  # the program may raise anything; that is an answer too
        send_frame(channel, one_line(error).encode(errors="replace"))
        return
    send_frame(channel, READY)
    peer = Peer(channel, module)
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


def _execute(source: str, module: types.ModuleType) -> None:
    try:  # noqa: SIM105  (contextlib.suppress would write to ten more pages of memory, in each process)
        exec(compile(source, f"<{module.__name__}>", "exec", dont_inherit=True), module.__dict__)
    except SystemExit:
        pass  # a script that ends by sys.exit() has still defined what it defined


def _run_cases(payload: bytes, channel: int, confine: Callable[[], None]) -> None:
    """Run the program once for each standard input sent, each time in a new process."""
    program = marshal.loads(payload or recv_frame(channel))["sources"][0]
    while True:
        given = json.loads(recv_frame(channel))["stdin"]
        read_from, written_to = os.memfd_create("stdin"), os.memfd_create("stdout")
        with os.fdopen(os.dup(read_from), "wb") as file:
            file.write(given.encode("utf-8", "surrogateescape"))
        os.lseek(read_from, 0, os.SEEK_SET)
        child = kernel.fork()
        if child == 0:
            os.dup2(read_from, 0)
            os.dup2(written_to, 1)
            os.close(channel)
            code = 1
            try:
                confine()
                code = _run_script(program)
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        os.lseek(written_to, 0, os.SEEK_SET)
        with os.fdopen(written_to, "rb") as output:
            send_frame(channel, (FAILED if status else ENDED_WELL) + output.read(OUTPUT_LIMIT - 1))
        os.close(read_from)


def _run_script(program: str) -> int:
    """Run a program as Python would; returns its exit code."""
    module = _new_module("__main__")
    try:
        with (
            open(0, encoding="utf-8", errors="surrogateescape", closefd=False) as sys.stdin,
            open(1, "w", encoding="utf-8", errors="surrogateescape", closefd=False) as sys.stdout,
        ):
            exec(compile(program, "<program>", "exec", dont_inherit=True), module.__dict__)
    except SystemExit as ended:
        return int(ended.code not in (None, 0))
    return 0
