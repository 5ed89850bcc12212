"""Lettered pairs: a few letters stand for numbers, and two of them add up to a target.

`Which two add up to 13: a = 3, b = 8, c = 5, d = 9?` is answered by `b and c: 8 + 5 = 13`; a wrong answer that
checks itself reads `b and d: 8 + 9 > 13`. An answer is easier to check than to find, which is what makes
self-correction worth learning.
"""

import json
import random
import zlib
from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

from rlcore.data.table import Row, Table
from rlcore.entries import Source
from rlcore.errors import UserError
from rlcore.recipe.mistakes import validated
from rlcore.recipe.schema import Positive, Section

SPLITS = {"test": (0,), "validation": (1,), "train": range(2, 10)}
"""Which tenths of all problems belong to a split."""
MAX_DRY_DRAWS = 10_000
"""Draws in a row without a new problem after which the generator says that there are too few."""


class Options(Section):
    """Settings of the generator."""

    letters: int = Field(4, ge=3, le=26)
    max_number: int = Field(12, ge=3, le=99, description="numbers are drawn without repetition from 1 to this")
    count: Positive = 20_000
    seed: int = 0

    @model_validator(mode="after")
    def _numbers_suffice(self) -> "Options":
        if self.letters > self.max_number:
            raise ValueError(f"{self.letters} letters need max_number of at least {self.letters}")
        return self


def generate(options: dict[str, Any], split: str) -> Table:
    """Distinct problems of one split. A split is chosen by the numbers and target, whatever letters they stand at.

    Raises UserError for an unknown split or option, or when the split has fewer problems than asked for.
    """
    settings = validated(Options, options, "data.options")
    if split not in SPLITS:
        raise UserError(f"data split {split} is unknown to the arithmetic source; it has {', '.join(SPLITS)}")
    rng = random.Random(f"{settings.seed} {split}")
    problems: dict[tuple[tuple[int, ...], int], None] = {}
    dry_draws = 0
    while len(problems) < settings.count:
        numbers = tuple(rng.sample(range(1, settings.max_number + 1), settings.letters))
        target = sum(rng.sample(numbers, 2))
        new = tenth(numbers, target) in SPLITS[split] and (numbers, target) not in problems
        if new:
            problems[numbers, target] = None
        dry_draws = 0 if new else dry_draws + 1
        if dry_draws > MAX_DRY_DRAWS:
            raise UserError(
                f"data.options: found only {len(problems):,} of {settings.count:,} different problems in the {split} "
                f"split; lower count, or raise letters {settings.letters} or max_number {settings.max_number}"
            )
    rows = [_row(numbers, target) for numbers, target in problems]
    return Table(f"arithmetic {split}", rows, list(range(1, len(rows) + 1)))


def answer(lettered: Mapping[str, int], first: str, second: str, target: int) -> str:
    """An answer that names two letters and checks their sum: `b and c: 8 + 5 = 13`, or `b and d: 8 + 9 > 13`."""
    x, y = lettered[first], lettered[second]
    relation = "=" if x + y == target else ">" if x + y > target else "<"
    return f"{first} and {second}: {x} + {y} {relation} {target}"


def phrases(letters: int, max_number: int) -> list[str]:
    """The words of questions and answers, each with the space before it; a phrase that never varies is one word."""
    names = [chr(ord("a") + i) for i in range(letters)]
    given = [f"{':' if name == 'a' else ','} {name} =" for name in names]
    numbers = [f" {number}" for number in range(1, 2 * max_number)]
    signs = ["?", " and", ":", " +", " =", " >", " <"]
    return [" Which two add up to", *given, *(f" {name}" for name in names), *signs, *numbers]


def tenth(numbers: tuple[int, ...], target: int) -> int:
    """The tenth of all problems, 0 to 9, that these numbers in any order and this target belong to."""
    return zlib.crc32(f"{sorted(numbers)} {target}".encode()) % 10


def _row(numbers: tuple[int, ...], target: int) -> Row:
    lettered = {chr(ord("a") + i): number for i, number in enumerate(numbers)}
    listed = ", ".join(f"{letter} = {number}" for letter, number in lettered.items())
    return {
        "prompt": f"Which two add up to {target}: {listed}?",
        "numbers": json.dumps(lettered),
        "target": target,
    }


ARITHMETIC = Source(text="prompt", gold=("numbers", "target"), make=generate)
