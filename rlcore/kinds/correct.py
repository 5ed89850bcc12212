"""The same instruction before every later attempt: SCoRe's two (Kumar et al. 2024, arXiv 2409.12917), or more."""

from rlcore.entries import Ask, Kind, Script
from rlcore.types import Problem


async def correct(problem: Problem, ask: Ask, script: Script) -> None:
    """Attempt, instruction, attempt, and so on."""
    for attempt in range(script.attempts):
        message = script.instruction if attempt else None
        await ask(message, last=attempt + 1 == script.attempts)


CORRECT = Kind(correct)
