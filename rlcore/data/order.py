"""The order of problems in training: a function of seed and step alone, so that it survives a resumption."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from rlcore.errors import UserError
from rlcore.types import Problem

Item = TypeVar("Item")


@dataclass(frozen=True)
class ProblemOrder:
    """Epoch after epoch of all problems, each epoch in a shuffled order of its own."""

    problems: Sequence[Problem]
    seed: int

    def batch(self, step: int, size: int) -> list[Problem]:
        """The `size` problems of step `step` (from 0) when every step takes `size`; a batch may span epochs."""
        count = len(self.problems)
        first = step * size
        batch: list[Problem] = []
        while len(batch) < size:
            epoch, start = divmod(first + len(batch), count)
            shuffled = np.random.default_rng([self.seed, epoch]).permutation(count)
            batch += [self.problems[i] for i in shuffled[start : start + size - len(batch)]]
        return batch


def rank_slice(items: Sequence[Item], rank: int, world: int) -> list[Item]:
    """The contiguous part of `items` for `rank` of `world`. Raises UserError if the parts would not be equal."""
    if len(items) % world:
        raise UserError(f"{len(items)} problems a step do not divide evenly over {world} ranks")
    count = len(items) // world
    return list(items[rank * count : (rank + 1) * count])
