"""Does the program pass its tests? Judged from outside: it runs in a sandbox and answers with plain data.

The sandbox gets the program and the arguments of the calls; the expected values stay in the judging process, which
compares. Exit codes, printed text (where the problem asks for none) and objects beside the program decide nothing.
"""

from __future__ import annotations

import ast
import json
import marshal
import math
import re
import time
from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Any

from rewards.pool import shared_pool
from rewards.program import find_program, joined
from rewards.reward import Completion, text_of
from rewards.sandbox import Job, JobOver, Sandbox
from rewards.sandbox.guest import CALLS, CASES, DRIVER, ENDED_WELL, READY
from rewards.sandbox.values import loads
from rewards.suites import COLUMNS, BadTests, Case, Driver, Suite, read_suite
from rewards.verdict import Verdict

TIMEOUT = 10.0
_MOST_PRINTED = 65 << 20  # bytes: the sandbox lets no file grow that large
_NEAR, _NEAR_ZERO = 1e-5, 1e-8  # as numpy.allclose, which the graders of APPS and TACO use
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]*)?(?:[eE][+-]?[0-9]{1,4})?")  # 0101 is a text of four digits


def code_reward(
    completions: Sequence[Completion],
    *,
    partial: bool = False,
    challenge: bool = False,
    timeout: float = TIMEOUT,
    memory_mb: int = 512,
    modules: Sequence[str] = (),
    unsafe: bool = False,
    **columns: Any,
) -> list[float | None]:
    """1 where the program in the completion passes all its tests, else 0; None where there are no tests to pass.

    The columns are the data set's own, see `rewards.suites`. With `partial` the score is the fraction of tests passed;
    with `challenge` MBPP's challenge tests count too. A program has `timeout` seconds for all its tests together, and
    `memory_mb` MiB. Programs and tests may import the standard library and the third-party `modules`. Where the machine
    allows no sandbox it refuses to run, unless `unsafe`.
    """
    sandbox = {"memory_mb": memory_mb, "modules": list(modules), "unsafe": unsafe}
    options = {"partial": partial, "challenge": challenge, "timeout": timeout, **sandbox}
    rows = {name: column for name, column in columns.items() if name in COLUMNS}
    verdicts = shared_pool({"name": "code", "kwargs": options}).score(completions, rows)
    return [verdict.score for verdict in verdicts]


def code_verdicts(
    completions: Sequence[Completion],
    *,
    partial: bool = False,
    challenge: bool = False,
    timeout: float = TIMEOUT,
    memory_mb: int = 512,
    modules: Sequence[str] = (),
    unsafe: bool = False,
    **columns: Any,
) -> list[Verdict]:
    """The verdicts behind `code_reward`, one program after another from this process. Identical ones run once."""
    judge = _judge_with(memory_mb, unsafe, tuple(modules))
    seen: dict[str, Verdict] = {}
    verdicts = []
    for row, completion in enumerate(completions):
        values = {name: column[row] for name, column in columns.items() if name in COLUMNS}
        text = text_of(completion)
        key = json.dumps([text, values], default=repr, sort_keys=True)
        if key not in seen:
            seen[key] = judge.judge(text, values, partial, challenge, timeout)
        verdicts.append(seen[key])
    return verdicts


code_reward.verdicts = code_verdicts  # type: ignore[attr-defined]


@lru_cache(maxsize=1)
def _judge_with(memory_mb: int, unsafe: bool, modules: tuple[str, ...]) -> Judge:
    return Judge(memory_mb, unsafe, modules=modules)


class Judge:
    """Runs programs against their tests, in sandboxes that it keeps warm."""

    def __init__(
        self, memory_mb: int = 512, unsafe: bool = False, tier: str | None = None, modules: Sequence[str] = ()
    ) -> None:
        self._options = (memory_mb, unsafe, tier, modules)
        self.programs = Sandbox(*self._options)
        self._tests: Sandbox | None = None

    @property
    def tests(self) -> Sandbox:
        """Where tests run that cannot be taken apart: never where a program does."""
        if self._tests is None:
            self._tests = Sandbox(*self._options)
        return self._tests

    def close(self) -> None:
        """End the sandboxes."""
        self.programs.close()
        if self._tests is not None:
            self._tests.close()

    def judge(
        self,
        text: str,
        row: Mapping[str, Any],
        partial: bool = False,
        challenge: bool = False,
        timeout: float = TIMEOUT,
    ) -> Verdict:
        """Judge the program in a text by the tests in a row's columns."""
        began = time.perf_counter()
        try:
            suite = read_suite(row, challenge)
        except BadTests as error:
            return Verdict(None, "error", str(error))
        program = find_program(text, suite.asks, suite.before)
        if not program.strip():
            return Verdict(0.0, "no_answer", "no program", time.perf_counter() - began)
        tally = Tally(suite, partial)
        status, detail = "wrong", ""
        try:
            self._run(suite, program, tally, timeout)
        except TimeoutError:
            status, detail = "timeout", f"not done after {timeout:g} s"
        except JobOver as error:
            detail = str(error)
        except (ValueError, KeyError, TypeError, RecursionError):
            detail = "the program broke into the conversation with the judge"
        return tally.verdict(status, detail, time.perf_counter() - began)

    def _run(self, suite: Suite, program: str, tally: Tally, timeout: float) -> None:
        mode = CASES if suite.cases else CALLS
        sources = [source for source in (joined(suite.before, program), suite.after) if source.strip()]
        handles = suite.driver is not None
        imports = bool(suite.calls or suite.cases)
        work = {"sources": sources, "calls": suite.questions, "handles": handles, "imports": imports}
        with self.programs.start_job(mode, timeout, marshal.dumps(work)) as job:
            if suite.cases:
                _run_cases(job, suite.cases, tally)
                return
            answer = job.receive()
            if answer != READY:
                told = json.loads(answer[1:])
                raise JobOver(f"{told['raised']}: {told['message']}")
            if suite.driver:
                self._drive(job, suite.driver, tally, timeout)
            else:
                _read_answers(job, suite, tally)

    def _drive(self, job: Job, driver: Driver, tally: Tally, timeout: float) -> None:
        job.channel.settimeout(None)  # it is the tests' now, and they wait on it without a clock of their own
        plan = {"prelude": driver.prelude, "tests": driver.tests, "names": driver.names, "check": driver.check}
        with self.tests.start_job(DRIVER, timeout, json.dumps(plan).encode(), [job.channel]) as tests:
            result = json.loads(tests.receive())
        tally.total, tally.passed, tally.first = result["total"], result["passed"], result["first"]


class Tally:
    """Tests passed so far, and the first one that was not."""

    def __init__(self, suite: Suite, partial: bool) -> None:
        self.total = len(suite.checks) + len(suite.calls) + len(suite.cases)
        self.partial = partial
        self.passed = 0
        self.first = ""

    def add(self, passed: bool, what: str) -> bool:
        """Count one test. Returns whether it is worth going on."""
        self.passed += passed
        if not passed and not self.first:
            self.first = what
        return passed or self.partial

    def verdict(self, status: str, detail: str, seconds: float) -> Verdict:
        """`status` says what a program that did not pass everything did instead."""
        if self.total and self.passed == self.total and not detail:
            return Verdict(1.0, "correct", f"{self.total} tests passed", seconds)
        score = self.passed / self.total if self.partial and self.total else 0.0
        reason = detail or self.first or "a test failed"
        return Verdict(score, status, f"{self.passed} of {self.total} tests passed; {reason}"[:300], seconds)


def _read_answers(job: Job, suite: Suite, tally: Tally) -> None:
    """Judge the answers as they come, in the order of the calls."""
    for check in suite.checks:
        answers = [_value(job.receive()) for _ in check.calls]
        told = next((reason for _, reason in answers if reason), "")
        passed = not told and check.holds([value for value, _ in answers])
        if not tally.add(passed, "" if passed else told or _gave(check.calls[0], answers[0][0])):
            return
    for case in suite.calls:
        value, told = _value(job.receive())
        passed = not told and (
            _same_json(value, case.expected) or (case.wrapped and _same_json([value], case.expected))
        )
        if not tally.add(passed, "" if passed else told or _gave(case.call, value)):
            return


def _value(reply: bytes) -> tuple[Any, str]:
    """A call's value, or what went wrong instead."""
    if reply[:1] == b"v":
        return loads(reply[1:]), ""
    told = json.loads(reply[1:])
    return None, f"raised {told['raised']}: {told['message']}"[:200]


def _gave(call: ast.expr, value: Any) -> str:
    readable = isinstance(value, (float, str)) or (isinstance(value, int) and value.bit_length() < 256)
    shown = f"{value!r}"[:80] if readable else f"a value of type {type(value).__name__}"
    return f"{ast.unparse(call)[:100]} gave {shown}"


def _same_json(value: Any, expected: Any) -> bool:
    """Whether a value is what JSON can say of it: tuples are lists, keys are strings, true is not 1."""
    if isinstance(expected, list):
        alike = isinstance(value, (list, tuple)) and len(value) == len(expected)
        return alike and all(map(_same_json, value, expected))
    if isinstance(expected, dict):
        items = {str(key): item for key, item in value.items()} if isinstance(value, dict) else None
        return (
            items is not None
            and items.keys() == expected.keys()
            and all(_same_json(items[key], item) for key, item in expected.items())
        )
    return isinstance(value, bool) == isinstance(expected, bool) and bool(value == expected)


def _run_cases(job: Job, cases: Sequence[Case], tally: Tally) -> None:
    for number, case in enumerate(cases):
        job.send(case.stdin.encode("utf-8", "surrogatepass"))
        reply = job.receive(_MOST_PRINTED)
        failed, printed = reply[:1] != ENDED_WELL, reply[1:].decode("utf-8", "replace")
        passed = not failed and _same_output(printed, case)
        if not tally.add(passed, f"case {number} {'failed and ' * failed}printed {printed[:60]!r}"):
            return


def _same_output(printed: str, case: Case) -> bool:
    """Line by line, token by token; numbers may be written differently if they are equal, or near where that counts."""
    if len(printed) > 8 * len(case.stdout) + 4096:
        return False  # not worth taking apart
    lines, wanted = printed.strip().splitlines(), case.stdout.strip().splitlines()
    return len(lines) == len(wanted) and all(_same_line(*pair, case.near) for pair in zip(lines, wanted, strict=True))


def _same_line(printed: str, expected: str, near: bool) -> bool:
    if printed == expected:
        return True
    tokens, wanted = printed.split(), expected.split()
    return len(tokens) == len(wanted) and all(_same_token(*pair, near) for pair in zip(tokens, wanted, strict=True))


def _same_token(printed: str, expected: str, near: bool) -> bool:
    if printed == expected:
        return True
    if not (_NUMBER.fullmatch(printed) and _NUMBER.fullmatch(expected)):
        return False
    if near and not expected.lstrip("-").isdigit():
        return math.isclose(float(printed), float(expected), rel_tol=_NEAR, abs_tol=_NEAR_ZERO)
    return Decimal(printed) == Decimal(expected)
