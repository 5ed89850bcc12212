"""Diagram of Thought: propositions, each criticised and verified by the same model; the valid ones are summed up.

Zhang et al. 2024 (arXiv 2409.10038). The propositions and what was said of each are the nodes of a graph; an invalid
one leads on to the next, which is to mend it, the valid ones lead to the summary.
"""

from collections.abc import Sequence

from rlcore.entries import Ask, Kind, Script
from rlcore.kinds import critique, verify
from rlcore.types import Problem


async def diagram(problem: Problem, ask: Ask, script: Script) -> None:
    """Proposer, critic and verifier in turn; the last attempt is the summariser's, who is told which are valid."""
    valid = []
    for number in range(1, script.attempts):
        await ask(script.instruction if number > 1 else None)
        await ask(script.review, "critique")
        verdict = await ask(verify.REVIEW, "verdict", claim=verify.read_verdict)
        if verdict.claim:
            valid.append(number)
    await ask(summary_of(valid) if script.attempts > 1 else None, last=True)


def summary_of(valid: Sequence[int]) -> str:
    """What the summariser is asked: to use the propositions of these numbers, counted from 1, and no others."""
    if not valid:
        return "None of the solutions above was found right. Leave them all aside, and give the whole solution anew."
    *others, last = map(str, valid)
    named = f"Solutions {', '.join(others)} and {last} above were" if others else f"Solution {last} above was"
    return f"{named} found right. Use nothing else of what was said, and give the whole solution."


def _says(attempts: int) -> Sequence[str]:
    return verify.REVIEW, summary_of(()), summary_of(range(1, attempts))


DIAGRAM = Kind(diagram, critique.REVIEW, between=2, judges=True, says=_says)
