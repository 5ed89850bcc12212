"""Critique, then revision: Self-Refine (Madaan et al. 2023, arXiv 2303.17651) with a fixed number of attempts."""

from rlcore.entries import Ask, Kind, Script
from rlcore.types import Problem

REVIEW = "Review the solution above step by step and name every error in it. Do not solve the problem again."


async def critique(problem: Problem, ask: Ask, script: Script) -> None:
    """An attempt, then for each later one a critique and the attempt that follows it."""
    await ask(None, last=script.attempts == 1)
    for attempt in range(1, script.attempts):
        await ask(script.review, "critique")
        await ask(script.instruction, last=attempt + 1 == script.attempts)


CRITIQUE = Kind(critique, REVIEW, between=1, reviews=True)
