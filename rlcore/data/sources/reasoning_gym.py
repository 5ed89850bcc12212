"""Reasoning Gym: generated tasks, each with a verifier of its own (Stojanovski et al. 2025, arXiv 2505.24760).

`data.options` names a task and how hard it is: `{task: chain_sum, settings: {max_terms: 3}, count: 5000}`. A problem's
split depends on its text alone, so no problem is in two of them.
"""

import json
import zlib
from typing import Any

from pydantic import Field

from rewards import RewardError
from rewards.reasoning_gym import generated, generator
from rlcore.data.table import Table
from rlcore.entries import Source
from rlcore.errors import UserError
from rlcore.recipe.mistakes import validated
from rlcore.recipe.schema import Positive, Section

SPLITS = {"test": (0,), "validation": (1,), "train": range(2, 10)}
"""Which tenths of all problems belong to a split."""
MAX_DRY_DRAWS = 2_000
"""Draws in a row without a new problem after which the generator says that there are too few."""


class Options(Section):
    """What is generated."""

    task: str
    settings: dict[str, Any] = Field({}, description="of the task, as Reasoning Gym names them")
    count: Positive = 5_000
    seed: int = 0


def generate(options: dict[str, Any], split: str) -> Table:
    """Distinct problems of one split, in the order in which the task makes them.

    Raises UserError for an unknown split, option, task or setting of it, or when the split has too few problems.
    """
    wanted = validated(Options, options, "data.options")
    task = json.dumps({"name": wanted.task, "seed": wanted.seed, **wanted.settings}, sort_keys=True)
    try:
        generator(task)
    except RewardError as error:
        raise UserError(f"data.options: {error}") from None
    if split not in SPLITS:
        raise UserError(f"data split {split} is unknown to the reasoning_gym source; it has {', '.join(SPLITS)}")
    found: dict[str, int] = {}
    index = dry_draws = 0
    while len(found) < wanted.count:
        try:
            question = generated(task, index)["question"]
        except IndexError:  # some tasks make a list of `size` problems, others any number of them
            raise UserError(f"data.options: {wanted.task} makes only {index:,} problems: raise settings.size") from None
        new = question not in found and zlib.crc32(question.encode()) % 10 in SPLITS[split]
        if new:
            found[question] = index
        dry_draws = 0 if new else dry_draws + 1
        if dry_draws > MAX_DRY_DRAWS:
            raise UserError(
                f"data.options: found only {len(found):,} of {wanted.count:,} different problems of {wanted.task} in "
                f"the {split} split; lower count, or widen settings"
            )
        index += 1
    rows = [
        {"prompt": question, "answer": str(generated(task, index)["answer"]), "task": task, "index": index}
        for question, index in found.items()
    ]
    return Table(f"reasoning_gym {wanted.task} {split}", rows, list(range(1, len(rows) + 1)))


REASONING_GYM = Source(text="prompt", gold=("task", "index"), make=generate, domain="reasoning")
