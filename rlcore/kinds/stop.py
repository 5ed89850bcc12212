"""Autonomous stop: after each attempt the policy either keeps it or gives another."""

from rewards.answers import without_thoughts
from rlcore.entries import Ask, Kind, Script
from rlcore.types import Problem, Role

WORD = "STOP"
REVIEW = (
    f"If you are sure that the solution above is right, reply with the one word {WORD}. Otherwise correct the error "
    "and give the whole solution again."
)


async def stop(problem: Problem, ask: Ask, script: Script) -> None:
    """Attempts until a reply is the stop word or attempts run out."""
    await ask(None, last=script.attempts == 1)
    for attempt in range(1, script.attempts):
        reply = await ask(script.review, read_role, last=attempt + 1 == script.attempts)
        if reply.role == "stop":
            return


def read_role(text: str) -> Role:
    """`stop` if the reply accepts the solution before it, else `attempt`."""
    return "stop" if accepts(text) else "attempt"


def accepts(text: str) -> bool:
    """Whether a reply, its thoughts aside, is the stop word alone."""
    return without_thoughts(text).strip(" \n.!*'\"`").upper() == WORD


STOP = Kind(stop, REVIEW, may_end=True)
