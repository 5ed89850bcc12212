"""A data source and its reward: text by demonstration. A few letters are said again with two kinds of them exchanged.

`b a d a` becomes `b c d c` where a and c change places. Splits are by rule, so that no held-out rule was trained on.
"""

from collections.abc import Sequence
from itertools import combinations
from random import Random
from typing import Any

from pydantic import Field

from rewards.reward import Completion, scored, text_of
from rewards.verdict import Verdict
from rlcore.data.table import Row, Table
from rlcore.data.tasks import GOLD, written_row
from rlcore.entries import Source
from rlcore.errors import UserError
from rlcore.recipe.mistakes import validated
from rlcore.recipe.schema import Positive, Section

RULES = Random(0).sample(list(combinations("abcdef", 2)), 15)
SPLITS = {"test": RULES[:4], "validation": RULES[4:6], "train": RULES[6:]}
LENGTH = 4
WORDINGS = ("{}", "letters {}", "say {}")


class Options(Section):
    """Settings of the generator."""

    demonstrations: int = Field(4, ge=2)
    fewest: int = Field(4, ge=2, description="demonstrations, where tasks differ in their number")
    count: Positive = 100
    seed: int = 0


def generate(options: dict[str, Any], split: str) -> Table:
    """Tasks of one split, in each of which every word is another. Raises UserError for an unknown split or option."""
    settings = validated(Options, options, "data.options")
    if split not in SPLITS:
        raise UserError(f"data split {split} is unknown to letters; it has {', '.join(SPLITS)}")
    rng, rows = Random(f"{settings.seed} {split}"), []
    for number in range(settings.count):
        rule = rng.choice(SPLITS[split])
        shown_words = rng.randint(settings.fewest, settings.demonstrations)
        words: dict[str, None] = {}
        while len(words) <= shown_words:
            word = rng.choices("abcdef", k=LENGTH)
            if set(rule) & set(word):
                words[" ".join(word)] = None
        *shown, asked = (_pair(word, rule, rng) for word in words)
        rows.append({"id": f"{number}", "rule": "".join(rule), "train": shown, **asked})
    return Table(f"letters {split}", rows, list(range(1, len(rows) + 1)))


def _pair(word: str, rule: tuple[str, str], rng: Random) -> Row:
    """The word in one of its wordings, the others beside it, and the answer."""
    said, *others = (wording.format(word) for wording in rng.sample(WORDINGS, len(WORDINGS)))
    there = str.maketrans("".join(rule), "".join(reversed(rule)))
    return {"input": said, "paraphrases": others, "output": word.translate(there)}


@scored
def same_letters(completions: Sequence[Completion], output: Sequence[str]) -> list[Verdict]:
    """1 for an answer that is the output, else 0."""
    return [_judge(text_of(completion).strip(), gold) for completion, gold in zip(completions, output, strict=True)]


def _judge(text: str, gold: str) -> Verdict:
    right = text == gold
    return Verdict(float(right), "correct" if right else "wrong", answer=text)


LETTERS = Source(text="prompt", gold=GOLD, complete=written_row, make=generate, domain="letters")
