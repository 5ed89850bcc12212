"""Iteration of Thought: an inner dialogue writes the next prompt from the problem and the present answer.

Radha et al. 2024 (arXiv 2409.12618). Autonomous: the dialogue may end the conversation; guided: all rounds are held.
"""

from collections.abc import Callable

from rewards.answers import without_thoughts
from rlcore.entries import Ask, Kind, Script
from rlcore.kinds.stop import WORD, accepts
from rlcore.types import Problem, Role

GUIDE = (
    "Write the next instruction to yourself: say in a few sentences what in the solution above to check, what is still "
    "missing, or what to try instead. Do not solve the problem in it."
)
AUTONOMOUS = f"{GUIDE} If the solution needs nothing more, reply with the one word {WORD}."


def iteration(*, review: str, stops: Callable[[str], bool] | None = None) -> Kind:
    """The kind whose later attempts each follow an instruction that the policy writes to itself.

    It is asked for one by `conversation.review` or else `review`. Where `stops` says so of what it wrote, the
    conversation ends there; without `stops` all rounds are held.
    """

    def role(text: str) -> Role:
        return "stop" if stops and stops(text) else "critique"

    async def converse(problem: Problem, ask: Ask, script: Script) -> None:
        await ask(None, last=script.attempts == 1)
        for attempt in range(1, script.attempts):
            thought = await ask(script.review, role)
            if thought.role == "stop":
                return
            message = f"{without_thoughts(thought.text).strip()}\n\n{script.instruction}"
            await ask(message.strip(), last=attempt + 1 == script.attempts)

    return Kind(converse, review, between=1, may_end=stops is not None, reviews=True, quotes=True)


ITERATE = iteration(review=AUTONOMOUS, stops=accepts)
ITERATE_GUIDED = iteration(review=GUIDE)
