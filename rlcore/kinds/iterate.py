"""Iteration of Thought: an inner dialogue writes the next prompt from the problem and the present answer.

Radha et al. 2024 (arXiv 2409.12618). Autonomous: the dialogue may end the conversation; guided: all rounds are held.
"""

from collections.abc import Callable
from functools import partial

from rewards.answers import without_thoughts
from rlcore.entries import Ask, Kind, Script
from rlcore.kinds.stop import WORD, read_role
from rlcore.types import Problem, Role

GUIDE = (
    "Write the next instruction to yourself: say in a few sentences what in the solution above to check, what is still "
    "missing, or what to try instead. Do not solve the problem in it."
)
AUTONOMOUS = f"{GUIDE} If the solution needs nothing more, reply with the one word {WORD}."


async def iterate(problem: Problem, ask: Ask, script: Script, *, role: Role | Callable[[str], Role]) -> None:
    """An attempt, then for each later one an instruction that the policy writes, which may be a stop, and the attempt.

    `role` is that of the instruction.
    """
    await ask(None, last=script.attempts == 1)
    for attempt in range(1, script.attempts):
        thought = await ask(script.review, role)
        if thought.role == "stop":
            return
        message = f"{without_thoughts(thought.text).strip()}\n\n{script.instruction}"
        await ask(message.strip(), last=attempt + 1 == script.attempts)


def _stop_or_go_on(text: str) -> Role:
    return "stop" if read_role(text) == "stop" else "critique"


ITERATE = Kind(partial(iterate, role=_stop_or_go_on), AUTONOMOUS, between=1, may_end=True, reviews=True, quotes=True)
ITERATE_GUIDED = Kind(partial(iterate, role="critique"), GUIDE, between=1, reviews=True, quotes=True)
