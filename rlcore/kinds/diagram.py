"""Diagram of Thought: propositions, each criticised and verified by the same model; the valid ones are summed up.

Zhang et al. 2024 (arXiv 2409.10038). The propositions and what was said of each are the nodes of a graph; an invalid
one leads on to the next, which is to mend it, the valid ones lead to the summary.
"""

from collections.abc import Callable, Sequence

from rlcore.entries import Ask, Kind, Script
from rlcore.kinds import critique, verify
from rlcore.types import Problem


def diagram(
    *, review: str, verdict: str, read: Callable[[str], bool | None], summary: Callable[[Sequence[int]], str]
) -> Kind:
    """The kind whose propositions are criticised, by `conversation.review` or else `review`, and verified.

    The verifier is asked `verdict`, and its reply read by `read`. `summary` says what the summariser is asked, from the
    numbers of the valid propositions, counted from 1.
    """

    async def converse(problem: Problem, ask: Ask, script: Script) -> None:
        valid = []
        for number in range(1, script.attempts):
            await ask(script.instruction if number > 1 else None)
            await ask(script.review, "critique")
            if (await ask(verdict, "verdict", claim=read)).claim:
                valid.append(number)
        await ask(summary(valid) if script.attempts > 1 else None, last=True)

    def says(attempts: int) -> Sequence[str]:
        return verdict, summary(()), summary(range(1, attempts))

    return Kind(converse, review, between=2, judges=True, says=says)


def summary_of(valid: Sequence[int]) -> str:
    """What the summariser is asked: to use the propositions of these numbers, counted from 1, and no others."""
    if not valid:
        return "None of the solutions above was found right. Leave them all aside, and give the whole solution anew."
    *others, last = map(str, valid)
    named = f"Solutions {', '.join(others)} and {last} above were" if others else f"Solution {last} above was"
    return f"{named} found right. Use nothing else of what was said, and give the whole solution."


DIAGRAM = diagram(review=critique.REVIEW, verdict=verify.REVIEW, read=verify.read_verdict, summary=summary_of)
