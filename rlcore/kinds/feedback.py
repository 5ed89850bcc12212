"""Execution feedback: the result of public tests on an attempt's program, before the next attempt.

As in RLEF (Gehring et al. 2024, arXiv 2410.02089). Only tests that the data calls public are run; others stay hidden.
"""

import asyncio
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from rewards import RewardPool, Verdict
from rewards.suites import BadTests, read_suite
from rlcore.entries import Ask, Kind, Script
from rlcore.errors import UserError
from rlcore.types import Problem

TIMEOUT = 3.0
"""Seconds for the public tests of one program."""


async def feedback(problem: Problem, ask: Ask, script: Script) -> None:
    """Attempts, each shown the results of the one before, until the public tests pass or attempts run out."""
    attempt = await ask(None, last=script.attempts == 1)
    for number in range(1, script.attempts):
        verdict = await run_public_tests(problem, attempt.text)
        if verdict.status == "correct":
            return
        attempt = await ask(f"{_told(verdict)}\n{script.instruction}", last=number + 1 == script.attempts)


async def run_public_tests(problem: Problem, text: str) -> Verdict:
    """The verdict of the problem's public tests on the program in a text, run in the rewards' sandbox.

    It has no score where they could not be run, as on a machine too busy for the sandbox to answer in time. Raises
    UserError for a problem of which `refusal` says that they never can.
    """
    if reason := refusal(problem):
        raise UserError(reason)
    columns = public_columns(problem)
    return (await asyncio.wrap_future(_pool().submit([text], {k: [v] for k, v in columns.items()})))[0]


def public_columns(problem: Problem) -> Mapping[str, Any]:
    """The columns of public tests, under the names that the code reward reads; hidden tests never leave this function.

    `public_tests` is a list of assertions, `public_test_cases` is LiveCodeBench's.
    """
    columns = problem.columns
    if columns.get("public_tests"):
        given = {"test_list": columns["public_tests"]}
        return given | {name: columns[name] for name in ("test_setup_code", "test_imports") if columns.get(name)}
    if columns.get("public_test_cases"):
        return {name: columns[name] for name in ("public_test_cases", "metadata") if name in columns}
    raise UserError(
        f"problem {problem.id} has no public tests (a column public_tests, a list of assertions, or public_test_cases)"
    )


def refusal(problem: Problem) -> str:
    """Why the problem's public tests cannot be run; empty if they can."""
    try:
        read_suite(public_columns(problem), challenge=False)
    except UserError as error:
        return str(error)
    except BadTests as error:
        return f"problem {problem.id}: {error}"
    return ""


def _told(verdict: Verdict) -> str:
    if verdict.score is None:
        return f"The public tests could not be run: {verdict.status}"
    return f"Result of the public tests: {verdict.detail or verdict.status}"


@lru_cache(maxsize=1)
def _pool() -> RewardPool:
    """This process's workers, which end with it."""
    return RewardPool([{"name": "code", "kwargs": {"partial": True, "timeout": TIMEOUT}}], workers=2)


FEEDBACK = Kind(feedback, may_end=True, writes=True, refusal=refusal)
