"""Thinking only where it pays: a cheap first look at every problem, and a chain of thought where a gate asks for one.

A chain of thought helps with symbols and arithmetic, and little elsewhere: Sprague et al. 2024, "To CoT or not to CoT?"
(arXiv 2409.12183).
"""

import math
import re
from collections.abc import Callable

from rlcore.entries import Ask, Kind, Script
from rlcore.types import Problem, Turn

REVIEW = "Think step by step about the problem, then give the whole solution."
LIMIT = 0.5
"""Probability of its least likely token below which a first look is unsure."""
Gate = Callable[[Problem, Turn], bool]
"""From a problem and the first look at it to whether it is worth a chain of thought."""

_SYMBOLS = re.compile(r"[=<>≤≥≠+^×÷√∑∏∫]|\d\s*[-−*/]\s*\d|\\[a-zA-Z]+|\$[^$]+\$")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


def thinking(gate: Gate) -> Kind:
    """The kind of conversation that asks for a chain of thought, by `conversation.review`, where the gate says so.

    Attempt 1 is the first look, attempt 2 the thought-out one; later ones, if the recipe has any, correct it.
    """

    async def think(problem: Problem, ask: Ask, script: Script) -> None:
        look = await ask(None, last=script.attempts == 1)
        if script.attempts == 1 or not gate(problem, look):
            return
        for attempt in range(1, script.attempts):
            message = script.review if attempt == 1 else script.instruction
            await ask(message, last=attempt + 1 == script.attempts)

    return Kind(think, REVIEW, may_end=True)


def has_symbols(problem: Problem, look: Turn) -> bool:
    """Whether the problem has a formula or an operator in it, or at least two numbers, in digits, to reckon with."""
    text = problem.messages[-1]["content"] if problem.text is None else problem.text
    return bool(_SYMBOLS.search(text)) or len(_NUMBER.findall(text)) > 1


def is_unsure(problem: Problem, look: Turn) -> bool:
    """Whether some token of the first look had a probability below `LIMIT`, or none is known, as of a served model."""
    return not look.logprobs or math.exp(min(look.logprobs)) < LIMIT


IF_SYMBOLS = thinking(has_symbols)
IF_UNSURE = thinking(is_unsure)
