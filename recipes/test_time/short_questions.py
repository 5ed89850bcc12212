"""A data source and its reward: sums, which want a chain of thought, and comparisons, which want none.

`What is 7+5+8?` is thought out as `7+5=12 12+8=20 so 20`, and `Which is the biggest: cup, bus or pin?` as `pin cup bus
so bus`. Some sums are in words, without a symbol, and some comparisons are of numbers: a gate that looks for symbols
errs there.
"""

import zlib
from collections.abc import Sequence
from itertools import accumulate, pairwise
from random import Random
from typing import Any

from pydantic import Field

from rewards.reward import Completion, scored, text_of
from rewards.verdict import Verdict
from rlcore.data.table import Row, Table
from rlcore.entries import Source
from rlcore.errors import UserError
from rlcore.recipe.mistakes import validated
from rlcore.recipe.schema import Section

SUBJECTS = {"sum in digits": 7, "sum in words": 3, "biggest thing": 7, "biggest number": 3}
"""What questions are about, and of how many in twenty."""
SPLITS = {"test": (0,), "validation": (1,), "train": range(2, 10), "lessons": range(2, 10)}
"""Which tenths of all questions belong to a split; `lessons` show how those for training are answered."""
AT_ONCE, THINK = "At once: ", "Think first."
"""What stands before a question that is answered straight away, and what asks for a chain of thought after that."""
TERMS = [4, 5]
"""How many numbers a sum may have."""
WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
_SMALL = ["pin", "pea", "bean", "coin", "key", "pen", "spoon", "cup", "shoe", "hat", "book", "lamp", "box", "bag"]
_BIG = ["chair", "dog", "desk", "bed", "cow", "horse", "car", "boat", "van", "bus", "house", "barn"]
_HUGE = ["ship", "tower", "hill", "moon"]
THINGS = [*_SMALL, *_BIG, *_HUGE]
"""From the smallest to the biggest."""


class Options(Section):
    """Settings of the generator."""

    count: int = Field(20_000, ge=1, le=40_000)
    seed: int = 0


def generate(options: dict[str, Any], split: str) -> Table:
    """Distinct questions of one split, which is chosen by what they sum or compare in whatever order.

    A lesson is one of three: a question to answer at once, one that is free, of which half are thought out, or one that
    was answered at once, rightly or not, and is to be thought out. Raises UserError for an unknown split or option.
    """
    settings = validated(Options, options, "data.options")
    if split not in SPLITS:
        raise UserError(f"data split {split} is unknown to short_questions; it has {', '.join(SPLITS)}")
    rng, found = Random(f"{settings.seed} {split}"), dict[str, Row]()
    while len(found) < settings.count:
        (subject,) = rng.choices(list(SUBJECTS), list(SUBJECTS.values()))
        asked = _drawn(rng, subject)
        if zlib.crc32(repr(sorted(asked)).encode()) % 10 in SPLITS[split]:
            row = _row(subject, asked)
            found[row["prompt"]] = row
    rows = [_lesson(rng, row) if split == "lessons" else row for row in found.values()]
    return Table(f"short_questions {split}", rows, list(range(1, len(rows) + 1)))


def _drawn(rng: Random, subject: str) -> list[Any]:
    """The numbers of a sum, or three things or numbers to compare."""
    if subject.startswith("sum"):
        return rng.choices(range(1, 10), k=rng.choice(TERMS))
    return rng.sample(THINGS if subject == "biggest thing" else range(10, 100), 3)


def _row(subject: str, asked: list[Any]) -> Row:
    """The question, its answer, and both together as they are thought out."""
    if subject.startswith("sum"):
        sums = list(accumulate(asked))
        steps = zip(pairwise(sums), asked[1:], strict=True)
        thought, answer = [f"{before}+{term}={after}" for (before, after), term in steps], sums[-1]
        question = "+".join(map(str, asked)) if "digits" in subject else " plus ".join(WORDS[n - 1] for n in asked)
        question = f"What is {question}?"
    else:
        thought = sorted(asked, key=THINGS.index if subject == "biggest thing" else None)
        answer = thought[-1]
        question = "Which is the biggest: {}, {} or {}?".format(*asked)
    lesson = f"{' '.join(map(str, thought))} so {answer}"
    return {"prompt": question, "subject": subject, "answer": str(answer), "lesson": lesson}


def _lesson(rng: Random, row: Row) -> Row:
    """The question as it is put in one of the three ways, and the answer to learn."""
    way = rng.choice(["at once", "free", "after a look"])
    if way == "free":
        return row if rng.random() < 0.5 else row | {"lesson": row["answer"]}
    if way == "at once":
        return row | {"prompt": AT_ONCE + row["prompt"], "lesson": row["answer"]}
    look = row["answer"] if rng.random() < 0.5 else _wrong(rng, row)
    said = [("user", AT_ONCE + row["prompt"]), ("assistant", look), ("user", THINK)]
    return row | {"prompt": [{"role": role, "content": content} for role, content in said]}


def _wrong(rng: Random, row: Row) -> str:
    """A number near the sum, or another of what is compared."""
    if row["subject"].startswith("sum"):
        return str(int(row["answer"]) + rng.choice([-3, -2, -1, 1, 2, 3]))
    return rng.choice([word for word in row["lesson"].split() if word not in ("so", row["answer"])])


@scored
def last_word(completions: Sequence[Completion], answer: Sequence[str]) -> list[Verdict]:
    """1 where the last word is the answer, else 0."""
    return [_judge(text_of(completion), gold) for completion, gold in zip(completions, answer, strict=True)]


def _judge(text: str, gold: str) -> Verdict:
    said = text.split()[-1] if text.split() else ""
    right = said == gold
    return Verdict(float(right), "correct" if right else "wrong", answer=said)


SOURCE = Source(text="prompt", gold=("answer",), make=generate)
