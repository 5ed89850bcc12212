"""Lettered pairs: name two letters whose numbers add up to a target."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

from rewards.reward import Completion, scored, text_of
from rewards.verdict import Verdict

_PAIR = re.compile(r"\s*([a-z]) and ([a-z])\b")


@scored
def pair_sum_reward(
    completions: Sequence[Completion], numbers: Sequence[str | Mapping[str, int]], target: Sequence[int]
) -> list[Verdict]:
    """1 where the completion begins with two different letters of the problem whose numbers add up to the target.

    A completion reads like "b and c, because 8 + 5 = 13."; only the two letters count. `numbers` maps each letter of
    the problem to its number, as a mapping or as its JSON; `target` is the sum asked for.
    """
    rows = zip(completions, numbers, target, strict=True)
    return [_judge(text_of(completion), given, total) for completion, given, total in rows]


# The attempts of a group share their problem.
_loads = lru_cache(maxsize=1024)(json.loads)


def _judge(text: str, numbers: str | Mapping[str, int], target: int) -> Verdict:
    values = _loads(numbers) if isinstance(numbers, str) else numbers
    pair = _PAIR.match(text)
    if pair is None:
        return Verdict(0.0, "no_answer", "does not begin with a pair like 'b and c'")
    first, second = pair.groups()
    if first == second or first not in values or second not in values:
        return Verdict(0.0, "wrong", f"'{first} and {second}' are not two letters of the problem")
    right = values[first] + values[second] == target
    answer = " and ".join(sorted((first, second)))
    return Verdict(1.0, "correct", answer=answer) if right else Verdict(0.0, "wrong", answer=answer)
