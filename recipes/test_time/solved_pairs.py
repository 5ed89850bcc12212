"""A data source: lettered pairs, each with a few others that are solved, to be trained on before it is answered."""

import json
from itertools import combinations
from random import Random
from typing import Any

from pydantic import Field

from rlcore.data.sources import arithmetic
from rlcore.data.table import Row, Table
from rlcore.data.tasks import GOLD
from rlcore.entries import Source
from rlcore.recipe.mistakes import validated

POOL = 20_000
"""Problems of the training split that the solved ones are drawn from."""


class Options(arithmetic.Options):
    """Settings of the generator."""

    solved: int = Field(16, ge=2, description="solved problems beside each, from the training split")


def generate(options: dict[str, Any], split: str) -> Table:
    """The problems of the arithmetic source, with the columns of a task.

    Raises UserError as that source does, also where the training split has fewer problems than `POOL`.
    """
    settings = validated(Options, options, "data.options")
    given = settings.model_dump(exclude={"solved"})
    asked = arithmetic.generate(given, split)
    others = [_solved(row) for row in arithmetic.generate(given | {"count": POOL}, "train").rows]
    rng = Random(f"{settings.seed} {split} solved")
    rows = [{**row, **_solved(row), "train": rng.sample(others, settings.solved)} for row in asked.rows]
    return Table(f"solved_pairs {split}", rows, asked.places)


def _solved(row: Row) -> Row:
    """The problem's text, and its right answer with its check."""
    lettered, target = json.loads(row["numbers"]), row["target"]
    first, second = next(pair for pair in combinations(lettered, 2) if sum(map(lettered.get, pair)) == target)
    return {"input": row["prompt"], "output": arithmetic.answer(lettered, first, second, target)}


SOLVED_PAIRS = Source(text="prompt", gold=(*GOLD, "numbers", "target"), make=generate)
