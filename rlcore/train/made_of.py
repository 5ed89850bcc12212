"""What a run's groups and weights are made of, step by step, which tells what of an earlier launch is the run's own.

The weights of version v are made by the updates before v. What a run changes as it resumes holds from there on, so two
launches have the same weights up to the first update that they are made of differently.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from rlcore.recipe import Recipe
from rlcore.recipe.compare import SPEED
from rlcore.recipe.schema import StageConfig
from rlcore.session.inputs import Inputs

SAMPLES: dict[str, bool | set[str]] = {
    "seed": True,
    "model": True,
    "data": True,
    "conversation": True,
    "rewards": {"functions"},
    "batch": True,
    "rollout": {"temperature", "top_p", "top_k", "min_p", "stop"},
}
"""What of a recipe decides its samples, beside its stages."""
Runs = list[tuple[str, int]]
"""Digests in the order of the steps, each with how many steps in a row have it."""


@dataclass(frozen=True, slots=True)
class MadeOf:
    """Digests of all that decides the groups of each step, beside the weights, and of all that decides each update."""

    groups: list[str]
    updates: list[str]

    def same_until(self, other: "MadeOf") -> int:
        """The newest version of the weights that both have."""
        both = enumerate(zip(self.updates, other.updates, strict=False))
        shorter = min(len(self.updates), len(other.updates))
        return next((update for update, (mine, its) in both if mine != its), shorter)


def made_of(recipe: Recipe, inputs: Inputs, step: int = 0, before: Sequence[tuple[str, int]] = ()) -> MadeOf:
    """Of a run that goes on after `step` updates, which were made of `before`."""
    read = {name: digest for name, digest in inputs.items() if name != "evaluate.data"}
    samples = [recipe.model_dump(mode="json", include=SAMPLES), read]
    learner = recipe.model_dump(mode="json", include={"learner": True, "credit": True}, exclude={"learner": SPEED})
    learner["steps"] = recipe.steps if recipe.learner.decay else None
    groups, updates = list[str](), list[str]()
    for stage in recipe.stages:
        groups += [_digest([samples, _chooses(recipe, stage)])] * stage.steps
        updates += [_digest([samples, learner, stage.model_dump(mode="json", exclude={"name", "steps"})])] * stage.steps
    return MadeOf(groups, [*steps_of(before), *[""] * step][:step] + updates[step:])


def runs_of(digests: Sequence[str]) -> Runs:
    """The digests of steps, in short."""
    return [(digest, len(list(same))) for digest, same in groupby(digests)]


def steps_of(runs: Sequence[tuple[str, int]]) -> list[str]:
    """The digest of each step."""
    return [digest for digest, count in runs for _ in range(count)]


def _chooses(recipe: Recipe, stage: StageConfig) -> list[Any]:
    """What of a stage decides its samples: with `batch.resample` also the credit by which a group is dead."""
    first = recipe.offline_first_attempts(stage)
    if not recipe.batch.resample:
        return [first]
    paid = stage.model_dump(mode="json", include={"reward", "bonus", "trains"})
    return [first, paid, recipe.credit.model_dump(mode="json")]


def _digest(parts: Any) -> str:
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16).hexdigest()
