"""Autonomous stop: after each attempt the policy either leaves it as it is or gives another."""

from rlcore.entries import Ask, Kind, Script
from rlcore.types import Problem, Role

WORD = "STOP"
REVIEW = (
    f"If you are sure that the solution above is right, reply with the one word {WORD}. Otherwise correct the error "
    "and give the whole solution again."
)


async def stop(problem: Problem, ask: Ask, script: Script) -> None:
    """Attempts until one reply is the stop word, or the attempts are used up."""
    await ask(None, last=script.attempts == 1)
    for attempt in range(1, script.attempts):
        reply = await ask(script.review, read_role, last=attempt + 1 == script.attempts)
        if reply.role == "stop":
            return


def read_role(text: str) -> Role:
    """ "stop" where the reply is the stop word and nothing else, "attempt" for any other."""
    return "stop" if text.strip().strip(".'\"").upper() == WORD else "attempt"


STOP = Kind(stop, REVIEW, may_end=True)
