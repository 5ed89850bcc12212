"""A data source and its reward: what one word is to another, shown by a few pairs of words and nothing else."""

from collections.abc import Sequence
from random import Random
from typing import Any

from pydantic import Field

from rewards.reward import Completion, scored, text_of
from rewards.verdict import Verdict
from rlcore.data.table import Row, Table
from rlcore.data.tasks import GOLD, unlike_a_task, written_row
from rlcore.entries import Source
from rlcore.errors import UserError
from rlcore.recipe.mistakes import validated
from rlcore.recipe.schema import Positive, Section

RELATIONS = {
    "test": {
        "opposite": "hot cold, big small, fast slow, old new, up down, open closed, early late, full empty, day night, "
        "light dark, left right, win lose",
        "past": "go went, see saw, eat ate, take took, write wrote, run ran, give gave, speak spoke, think thought, "
        "buy bought, know knew, find found",
        "capital": "France Paris, Italy Rome, Japan Tokyo, Spain Madrid, Egypt Cairo, Russia Moscow, Greece Athens, "
        "Germany Berlin, Austria Vienna, Ireland Dublin, Poland Warsaw, Portugal Lisbon",
        "last letter": "house e, garden n, table e, river r, cloud d, bread d, music c, window w, stone e, apple e, "
        "paper r, train n",
        "next letter": "a b, c d, f g, h i, k l, m n, p q, r s, t u, w x, e f, i j",
        "doubled": "1 2, 2 4, 3 6, 4 8, 5 10, 6 12, 7 14, 8 16, 9 18, 10 20, 11 22, 12 24",
    },
    "validation": {
        "plural": "mouse mice, foot feet, child children, man men, tooth teeth, goose geese, city cities, box boxes, "
        "knife knives, leaf leaves, baby babies, wolf wolves",
        "number": "one 1, two 2, three 3, four 4, five 5, six 6, seven 7, eight 8, nine 9, ten 10, eleven 11, "
        "twelve 12",
        "first letter": "house h, garden g, table t, river r, cloud c, bread b, music m, window w, stone s, apple a, "
        "paper p, train t",
    },
}


class Options(Section):
    """Settings of the generator."""

    demonstrations: int = Field(6, ge=2, le=11)
    count: Positive = 60
    seed: int = 0


def generate(options: dict[str, Any], split: str) -> Table:
    """Tasks of the relations of one split in turn, each pair at most once in a task.

    Raises UserError for an unknown split or option.
    """
    settings = validated(Options, options, "data.options")
    if split not in RELATIONS:
        raise UserError(f"data split {split} is unknown to relations; it has {', '.join(RELATIONS)}")
    rng, names = Random(f"{settings.seed} {split}"), list(RELATIONS[split])
    rows = [_row(number, split, names[number % len(names)], settings, rng) for number in range(settings.count)]
    return Table(f"relations {split}", rows, list(range(1, len(rows) + 1)))


def _row(number: int, split: str, name: str, settings: Options, rng: Random) -> Row:
    pairs = [pair.split() for pair in RELATIONS[split][name].split(", ")]
    *shown, asked = [
        {"input": word, "output": other, "paraphrases": [f"the word {word}", f'"{word}"']}
        for word, other in rng.sample(pairs, settings.demonstrations + 1)
    ]
    return {"id": f"{number}", "relation": name, "train": shown, **asked}


@scored
def same_word(completions: Sequence[Completion], output: Sequence[str]) -> list[Verdict]:
    """1 where the first line is the output, but for capitals, quotes and a full stop, else 0."""
    return [_judge(text_of(completion), gold) for completion, gold in zip(completions, output, strict=True)]


def _judge(text: str, gold: str) -> Verdict:
    answer = text.strip().partition("\n")[0].strip(" .'\"").casefold()
    right = answer == gold.casefold()
    return Verdict(float(right), "correct" if right else "wrong", answer=answer)


SOURCE = Source(text="prompt", gold=GOLD, refusal=unlike_a_task, complete=written_row, make=generate, domain="words")
