"""Verify, then revise only what was judged wrong: the policy as generative verifier (PAG, arXiv 2506.10406)."""

import re

from rlcore.entries import Ask, Kind, Script
from rlcore.types import Problem

REVIEW = (
    "Check the solution above step by step. End with one line that says either 'Verdict: right' or 'Verdict: wrong'."
)
_VERDICT = re.compile(r"verdict\W*(right|wrong)", re.IGNORECASE)


async def verify(problem: Problem, ask: Ask, script: Script) -> None:
    """Attempts and verdicts in turn, until a verdict is not "wrong" or attempts run out."""
    await ask(None, last=script.attempts == 1)
    for attempt in range(1, script.attempts):
        verdict = await ask(script.review, "verdict", claim=read_verdict)
        if verdict.claim is not False:
            return
        await ask(script.instruction, last=attempt + 1 == script.attempts)


def read_verdict(text: str) -> bool | None:
    """Whether the last verdict in the text is "right"; None if there is none."""
    found = _VERDICT.findall(text)
    return found[-1].lower() == "right" if found else None


VERIFY = Kind(verify, REVIEW, between=1, may_end=True, judges=True)
