"""Runs tests in their sandbox against a program in another one: the only place where tests run.

Tests come as one of three: *steps*, statements that run one after another in one namespace (MBPP, HumanEval); *calls*
of one function with the values it must return (LiveCodeBench, APPS); or a *module* for pytest, which runs unittest's
classes too (KodCode, BigCodeBench). The source is compiled by the judge. What they find is told as plain numbers.
"""

from __future__ import annotations

import marshal
import os
import sys
import types
from collections.abc import Callable
from functools import partial
from typing import Any

from rewards.sandbox.peer import Ended, Peer, one_line
from rewards.sandbox.remote import CannotTest, same, set_label
from rewards.verdict import Findings
from rewards.wire import Frames, send_frame

READY = b"r"  # what a program's process says when the program has been loaded


def run_tests(work: bytes, channel: int, program: int) -> None:
    """Run tests against the program at the end of `program`, and tell what they find on `channel`.

    The first byte of `work` says whether to go on after a failure; the rest is a job of `rewards.assertions`.
    """
    job = marshal.loads(memoryview(work)[1:])
    frames = Frames(partial(os.read, program))
    peer = Peer(program, frames, wary=True)
    findings = Findings(job["total"], partial=bool(work[0]))
    try:
        findings.first = _await_program(frames)
        if not findings.first:
            _RUNNERS[job["kind"]](job, peer, findings)
    except Ended as error:
        findings.first = findings.first or str(error)
    except CannotTest as error:
        findings.error = str(error)
    send_frame(channel, findings.told())


def _await_program(frames: Frames) -> str:
    """Wait until the program has been loaded. Returns why it could not be, or an empty string."""
    try:
        answer = frames.receive(1 << 16)
    except (EOFError, OSError, ValueError):
        return "the program ended"
    said = " ".join(answer.decode(errors="replace").split())[:200]
    return "" if answer == READY else said or "the program could not be loaded"


class _Reached(list[int]):
    """Where tests note that they have come to an assertion, and are asked whether they ever have."""

    def __getitem__(self, place: Any) -> Any:
        if not self:
            raise CannotTest("the tests end before they assert anything")
        return super().__getitem__(place)


def _namespace(job: dict[str, Any], peer: Peer) -> dict[str, Any]:
    """The tests' module, with what the row has the program define. All else in it is the tests' own, or Python's."""
    module = types.ModuleType("tests")
    module.__dict__.update(__reached__=_Reached(), __same__=same)
    sys.modules["tests"] = module
    try:
        exec(job["prelude"], module.__dict__)
    except Exception as error:
        raise CannotTest(f"the tests cannot be run: {one_line(error)}") from error
    found = peer.ask("names", job["names"])
    for name, value in found.items():
        set_label(value, name)
    module.__dict__.update(found)
    return module.__dict__


def _failure(error: BaseException, job: dict[str, Any], peer: Peer) -> str:
    """Why a test failed: what the program did, never what it should have done.

    Raises CannotTest if it is for want of something that the program does not owe.
    """
    if isinstance(error, CannotTest):
        raise error
    theirs = error is peer.raised or getattr(error, "name", None) in (*job["names"], "solution")
    if isinstance(error, (ImportError, NameError)) and not theirs:
        raise CannotTest(f"the tests cannot be run: {one_line(error)}") from error
    if isinstance(error, Ended):
        return str(error)
    return peer.shown_call() or (type(error).__name__ if isinstance(error, AssertionError) else one_line(error))


def _tried(test: Callable[[], Any], job: dict[str, Any], peer: Peer) -> str | None:
    """Why a test failed, None if it did not."""
    peer.last_call = ()
    try:
        test()
    except BaseException as error:
        return _failure(error, job, peer)
    return None


def _run_steps(job: dict[str, Any], peer: Peer, findings: Findings) -> None:
    namespace = _namespace(job, peer)
    for code, counts in job["steps"]:
        failure = _tried(partial(exec, code, namespace), job, peer)
        if (counts or failure is not None) and not (findings.add(failure) and counts):
            return


def _run_calls(job: dict[str, Any], peer: Peer, findings: Findings) -> None:
    name = job["names"][0]
    found = peer.ask("names", job["names"])
    if not found:
        findings.first = f"NameError: name {name!r} is not defined"
        return
    of_class = "Solution" in found and not peer.ask("own", name)

    def test(arguments: list[Any], expected: Any, wrapped: bool) -> None:
        called = getattr(found["Solution"](), name) if of_class else found.get(name)
        set_label(called, name)
        value = called(*arguments)
        if not (same_json(value, expected) or (wrapped and same_json([value], expected))):
            raise AssertionError

    for case in job["calls"]:
        if not findings.add(_tried(partial(test, *case), job, peer)):
            return


def same_json(value: Any, expected: Any) -> bool:
    """Whether a value is what JSON can say of it: tuples are lists, keys are strings, true is not 1."""
    if isinstance(expected, list):
        alike = isinstance(value, (list, tuple)) and len(value) == len(expected)
        return alike and all(map(same_json, value, expected))
    if isinstance(expected, dict):
        items = {str(key): item for key, item in value.items()} if isinstance(value, dict) else None
        return (
            items is not None
            and items.keys() == expected.keys()
            and all(same_json(items[key], item) for key, item in expected.items())
        )
    return isinstance(value, bool) == isinstance(expected, bool) and bool(value == expected)


def _run_module(job: dict[str, Any], peer: Peer, findings: Findings) -> None:
    from rewards.sandbox.pytest_runner import run_items  # pytest is only there where a judge has needed it

    sys.modules["solution"], peer.makes = peer.ask("root"), True
    namespace = _namespace(job, peer)
    findings.first = _tried(partial(exec, job["module"], namespace), job, peer) or ""
    if findings.first:
        return
    begin = partial(setattr, peer, "last_call", ())
    run_items(findings, begin, lambda error: _failure(error, job, peer))


_RUNNERS: dict[str, Callable[[dict[str, Any], Peer, Findings], None]] = {
    "steps": _run_steps,
    "calls": _run_calls,
    "module": _run_module,
}
