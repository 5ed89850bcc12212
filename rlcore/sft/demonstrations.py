"""Generated conversations about lettered pairs, by a model that corrects itself now and then.

Attempt 1 is right or wrong; attempt 2 repeats it or changes to another pair. The mixture sets how often, so that a warm
start can resemble a language model before reinforcement learning: it spoils right answers and repairs few wrong ones.
"""

import json
from collections.abc import Iterator, Sequence
from itertools import combinations
from random import Random

from transformers import PreTrainedTokenizerBase

from rlcore.data.sources.arithmetic import answer
from rlcore.rollout import Conversation
from rlcore.sft.schema import Phase
from rlcore.sft.trainer import IGNORED, Row
from rlcore.types import Problem

CHOICE = 3
"""Tokens at the start of an answer that choose it (`b and c`); the rest spells the check."""

Pair = tuple[str, str]


def demonstrations(
    problems: Sequence[Problem], conversation: Conversation, phase: Phase, count: int, seed: int
) -> Iterator[Row]:
    """`count` rows of `input_ids` and `labels` on problems drawn at random.

    Prompts are not learned. Of attempt 1 the choice is learned where it is right, in `learn_first` of the cases, and
    the check always: a wrong choice teaches what its check says, never to choose it. All of attempt 2 is learned.
    """
    rng = Random(f"{seed} {phase.name}")
    prompts = [conversation.open(problem) for problem in problems]
    follow = conversation.follow("stop")
    for _ in range(count):
        at = rng.randrange(len(problems))
        problem, prompt = problems[at], prompts[at]
        lettered, target = json.loads(problem.columns["numbers"]), problem.columns["target"]
        pairs = list(combinations(lettered, 2))
        right = [(x, y) for x, y in pairs if lettered[x] + lettered[y] == target]
        first = _first(rng, pairs, right, phase)
        attempt = _encode(conversation.tokenizer, answer(lettered, *first, target))
        ids = [*prompt, *attempt]
        choice_learned = first in right and rng.random() < phase.mixture.learn_first
        learned = attempt if choice_learned else [IGNORED] * CHOICE + attempt[CHOICE:]
        labels = [IGNORED] * len(prompt) + learned
        if phase.attempts == 2:
            second = _second(rng, pairs, right, first, phase)
            attempt = _encode(conversation.tokenizer, answer(lettered, *second, target))
            ids += [*follow, *attempt]
            labels += [IGNORED] * len(follow) + attempt
        yield {"input_ids": ids, "labels": labels}


def _first(rng: Random, pairs: list[Pair], right: list[Pair], phase: Phase) -> Pair:
    wrong = [pair for pair in pairs if pair not in right]
    return rng.choice(right if rng.random() < phase.mixture.right_first or not wrong else wrong)


def _second(rng: Random, pairs: list[Pair], right: list[Pair], first: Pair, phase: Phase) -> Pair:
    mixture = phase.mixture
    if rng.random() < (mixture.keep_right if first in right else mixture.keep_wrong):
        return first
    if first not in right and rng.random() < mixture.fix:
        return rng.choice(right)
    return rng.choice([pair for pair in pairs if pair not in right and pair != first] or [first])


def _encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """An attempt as it would be sampled: from the space after the role to the end of turn."""
    return [*tokenizer(f" {text}", add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
