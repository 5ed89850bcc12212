"""A data source: which of a few numbers is the largest, asked of small instruct models."""

import zlib
from random import Random
from typing import Any

from pydantic import Field

from rlcore.data.table import Table
from rlcore.entries import Source
from rlcore.errors import UserError
from rlcore.recipe.mistakes import validated
from rlcore.recipe.schema import Positive, Section

SPLITS = {"test": (0,), "train": range(1, 10)}
"""Which tenths of all problems belong to a split, by the numbers in whatever order."""
MAX_DRY_DRAWS = 10_000
"""Draws in a row without a new problem after which the generator says that there are too few."""


class Options(Section):
    """Settings of the generator."""

    numbers: int = Field(6, ge=2, le=20)
    spread: int = Field(300, ge=20, le=900, description="numbers of a problem are less than this apart")
    count: Positive = 20_000
    seed: int = 0


def generate(options: dict[str, Any], split: str) -> Table:
    """Distinct problems of one split, of numbers of three digits or four; a solution states the answer alone.

    Raises UserError for an unknown split or option, or when the split has fewer problems than asked for.
    """
    settings = validated(Options, options, "data.options")
    if split not in SPLITS:
        raise UserError(f"data split {split} is unknown to largest_number; it has {', '.join(SPLITS)}")
    rng, found, dry_draws = Random(f"{settings.seed} {split}"), {}, 0
    while len(found) < settings.count:
        dry_draws += 1
        if dry_draws > MAX_DRY_DRAWS:
            raise UserError(
                f"data.options: {split} has only {len(found):,} different problems; lower count, or raise spread"
            )
        least = rng.randrange(100, 1000)
        numbers = rng.sample(range(least, least + settings.spread), settings.numbers)
        if zlib.crc32(repr(sorted(numbers)).encode()) % 10 in SPLITS[split] and frozenset(numbers) not in found:
            found[frozenset(numbers)], dry_draws = numbers, 0
    rows = [
        {
            "prompt": f"Which is the largest number: {', '.join(map(str, numbers))}?",
            "answer": str(max(numbers)),
            "solution": f"\\boxed{{{max(numbers)}}}",
        }
        for numbers in found.values()
    ]
    return Table(f"largest_number {split}", rows, list(range(1, len(rows) + 1)))


LARGEST_NUMBER = Source(text="prompt", gold=("answer",), make=generate)
