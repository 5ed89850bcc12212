"""Does the program pass its tests? Judged from outside: it runs in a sandbox and answers with plain data.

The program runs in one sandbox and its tests in another, which uses the program's objects from afar; what the tests
found comes here as numbers. Printed text, where none is asked for, and objects beside the program decide nothing.
"""

from __future__ import annotations

import json
import marshal
import math
import re
import time
from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import lru_cache, partial
from typing import Any

from rewards.pool import shared_pool
from rewards.program import find_program, joined
from rewards.reward import Completion, text_of
from rewards.sandbox import JobOver, Sandbox
from rewards.sandbox.guest import CASES, ENDED_WELL, PROGRAM, PYTEST, TESTS
from rewards.suites import COLUMNS, BadTests, Case, Suite, read_suite
from rewards.verdict import Findings, RewardError, Verdict

TIMEOUT = 10.0
_MOST_PRINTED = 65 << 20  # bytes: the sandbox lets no file grow that large
_NEAR, _NEAR_ZERO = 1e-5, 1e-8  # as numpy.allclose, which the graders of APPS and TACO use
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]*)?(?:[eE][+-]?[0-9]{1,4})?")  # 0101 is a text of four digits


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
    """Correct where the program in the completion passes all its tests; an error where there are no tests to pass.

    The columns are the data set's own, see `rewards.suites`. With `partial` the score is the fraction of tests passed;
    with `challenge` MBPP's challenge tests count too. A program has `timeout` seconds for all its tests together, and
    `memory_mb` MiB. Programs and tests may import the standard library and the third-party `modules`. Where the machine
    allows no sandbox it refuses to run, unless `unsafe`. Programs run one after another; identical ones run once.
    """
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


_OPTIONS = code_verdicts.__kwdefaults__ or {}


def code_reward(completions: Sequence[Completion], **arguments: Any) -> list[float | None]:
    """The scores of `code_verdicts`, whose arguments it takes, from a pool of worker processes."""
    columns = {name: value for name, value in arguments.items() if name in COLUMNS}
    options = {name: value for name, value in arguments.items() if name in _OPTIONS}
    verdicts = shared_pool({"name": "code", "kwargs": options}).score(completions, columns)
    return [verdict.score for verdict in verdicts]


code_reward.verdicts = code_reward.__wrapped__ = code_verdicts  # type: ignore[attr-defined]


def _start(**options: Any) -> None:
    given = _OPTIONS | options
    _judge_with(given["memory_mb"], given["unsafe"], tuple(given["modules"])).tests(pytest=False)


code_reward.start = _start  # type: ignore[attr-defined]


@lru_cache(maxsize=1)
def _judge_with(memory_mb: int, unsafe: bool, modules: tuple[str, ...]) -> Judge:
    return Judge(memory_mb, unsafe, modules=modules)


class Judge:
    """Runs programs against their tests, in sandboxes that it keeps warm."""

    def __init__(
        self, memory_mb: int = 512, unsafe: bool = False, tier: str | None = None, modules: Sequence[str] = ()
    ) -> None:
        self._modules, self._sandbox = list(modules), partial(Sandbox, memory_mb, unsafe, tier)
        self.programs = self._sandbox(self._modules)
        self._tests: dict[bool, Sandbox] = {}

    def tests(self, pytest: bool) -> Sandbox:
        """Where tests run, with pytest or without: never where a program does."""
        if pytest not in self._tests:
            self._tests[pytest] = self._sandbox([*self._modules, PYTEST] if pytest else self._modules)
        return self._tests[pytest]

    def close(self) -> None:
        """End the sandboxes."""
        for sandbox in (self.programs, *self._tests.values()):
            sandbox.close()

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
        findings = Findings(len(suite.cases), partial)
        status, detail = "wrong", ""
        try:
            if suite.cases:
                self._run_cases(suite.cases, program, findings, timeout)
            elif suite.tests:
                self._run_tests(suite, joined(suite.before, program), findings, timeout)
        except TimeoutError:
            status, detail = "timeout", f"not done after {timeout:g} s"
        except JobOver as error:
            detail = str(error)
        except RewardError as error:
            return Verdict(None, "error", str(error), time.perf_counter() - began)
        return _verdict(findings, status, detail, time.perf_counter() - began)

    def _run_cases(self, cases: Sequence[Case], program: str, findings: Findings, timeout: float) -> None:
        with self.programs.start_job(CASES, timeout, marshal.dumps({"source": program, "imports": True})) as job:
            for number, case in enumerate(cases):
                job.send(case.stdin.encode("utf-8", "surrogatepass"))
                reply = job.receive(_MOST_PRINTED)
                failed, printed = reply[:1] != ENDED_WELL, reply[1:].decode("utf-8", "replace")
                told = f"case {number} {'failed and ' * failed}printed {printed[:60]!r}"
                if not findings.add(told if failed or not _same_output(printed, case) else None):
                    return

    def _run_tests(self, suite: Suite, program: str, findings: Findings, timeout: float) -> None:
        """The program and its tests start together; the tests have the other end of the program's channel."""
        assert suite.tests
        tests, kind = suite.tests, suite.tests.kind
        sandbox = self.tests(pytest=kind == "module")
        work = {"source": program, "asks": [*suite.asks], "prints": kind == "module", "imports": kind == "calls"}
        with self.programs.start_job(PROGRAM, timeout, marshal.dumps(work)) as job:
            job.channel.settimeout(None)  # they wait on it without a clock of their own
            with sandbox.start_job(TESTS, timeout, bytes([findings.partial]) + tests.payload, [job.channel]) as running:
                findings.hear(running.receive())
        if findings.error:
            raise RewardError(findings.error)


def _verdict(findings: Findings, status: str, detail: str, seconds: float) -> Verdict:
    """`status` and `detail` say what a program that did not pass everything did instead."""
    passed, total, reason = findings.passed, findings.total, detail or findings.first
    if total and passed == total and not reason:
        return Verdict(1.0, "correct", f"{total} tests passed", seconds)
    score = passed / total if findings.partial and total else 0.0
    return Verdict(score, status, f"{passed} of {total} tests passed; {reason}"[:300], seconds)


def _same_output(printed: str, case: Case) -> bool:
    """Line by line, token by token; numbers may be written differently if they are equal, or near where that counts."""
    if len(printed) > 8 * len(case.stdout) + 4096:
        return False  # not worth taking apart
    lines, wanted = printed.strip().splitlines(), case.stdout.strip().splitlines()
    if len(lines) != len(wanted):
        return False
    rows = [(line.split(), other.split()) for line, other in zip(lines, wanted, strict=True) if line != other]
    return all(len(tokens) == len(others) for tokens, others in rows) and all(
        _same_token(*pair, case.near) for row in rows for pair in zip(*row, strict=True)
    )


def _same_token(printed: str, expected: str, near: bool) -> bool:
    if printed == expected:
        return True
    if not (_NUMBER.fullmatch(printed) and _NUMBER.fullmatch(expected)):
        return False
    if near and not expected.lstrip("-").isdigit():
        return math.isclose(float(printed), float(expected), rel_tol=_NEAR, abs_tol=_NEAR_ZERO)
    return Decimal(printed) == Decimal(expected)
