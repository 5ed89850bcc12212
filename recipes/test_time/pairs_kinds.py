"""Iteration and Diagram of Thought in the words of the quickstart's policy, whose every answer checks itself."""

import re
from collections.abc import Sequence

from rlcore.kinds.diagram import diagram
from rlcore.kinds.iterate import iteration

CHECK = "There might be an error. Please check and answer again."


def found_right(text: str) -> bool | None:
    """Whether the last sum in the text is the target, by the policy's own sign; None if there is no sign."""
    signs = re.findall("[=<>]", text)
    return signs[-1] == "=" if signs else None


def names_the_valid(valid: Sequence[int]) -> str:
    """The summariser's instruction: the policy's own, and the numbers of the valid propositions."""
    return " ".join([CHECK, *map(str, valid)])


DIAGRAM = diagram(review=CHECK, verdict=CHECK, read=found_right, summary=names_the_valid)
ITERATE = iteration(review=CHECK, stops=lambda text: found_right(text) is True)
"""It stops where the sum that the policy writes to itself is the target."""
