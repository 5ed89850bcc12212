"""The trajectories of a step: groups of its problems, with offline first attempts and replacements of dead groups."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rlcore import credit
from rlcore.data import ProblemOrder, rank_slice
from rlcore.ranks import Ranks
from rlcore.recipe import Recipe
from rlcore.recipe.schema import StageConfig
from rlcore.rollout import Rollout
from rlcore.train.base_attempts import BaseAttempts
from rlcore.types import Groups, Problem

SPARE_SEED = 1 << 32
"""Added to the recipe's seed for the order of problems that replace dead groups."""


@dataclass(frozen=True, slots=True)
class Collected:
    """The trajectories of one step on this rank."""

    groups: Groups
    """The groups to train on."""
    measured: Groups
    """All that the policy sampled from the first token on, dead groups included: accuracies are measured on these."""


class Collector:
    """Samples the steps of a run. The samples of a step depend only on the recipe and the weights."""

    def __init__(self, recipe: Recipe, ranks: Ranks, rollout: Rollout, problems: Sequence[Problem], base: BaseAttempts):
        """Draws from `problems`, and prepares `base` for those that need offline first attempts."""
        self._recipe, self._ranks, self._rollout, self._base = recipe, ranks, rollout, base
        self._order = ProblemOrder(problems, recipe.seed)
        self._spares = ProblemOrder(problems, recipe.seed + SPARE_SEED)
        most = max((recipe.offline_first_attempts(stage) for stage in recipe.stages), default=0)
        base.prepare(self._problems_from_base(), most)

    def collect(self, step: int, stage: StageConfig) -> Collected:
        """The groups of a step; in up to `batch.resample` rounds groups of other problems replace dead ones."""
        rounds = self._recipe.batch.resample
        with self._rollout.together():
            groups = self._sample(self._own_problems(self._order, step), stage, ("train", step, self._ranks.rank))
            measured = list(groups)
            for number in range(rounds):
                dead = np.flatnonzero(~credit.live_groups(groups, stage, self._recipe.credit))
                if not len(dead):
                    break
                spares = self._own_problems(self._spares, step * rounds + number)[: len(dead)]
                fresh = self._sample(spares, stage, ("spare", step, number, self._ranks.rank))
                measured += fresh
                for at, group in zip(dead, fresh, strict=True):
                    groups[at] = group
        offline = self._recipe.offline_first_attempts(stage) * self._recipe.batch.branches
        return Collected(groups, [group[offline:] for group in measured])

    def _sample(self, problems: list[Problem], stage: StageConfig, draw: tuple[str | int, ...]) -> Groups:
        return self._rollout.groups(
            problems,
            group=self._recipe.batch.group,
            branches=self._recipe.batch.branches,
            temperature=self._recipe.rollout.temperature,
            draw=draw,
            firsts=[self._base.of(problem, self._recipe.offline_first_attempts(stage)) for problem in problems],
        )

    def _own_problems(self, order: ProblemOrder, number: int) -> list[Problem]:
        batch = order.batch(number, self._recipe.batch.problems)
        return rank_slice(batch, self._ranks.rank, self._ranks.world)

    def _problems_from_base(self) -> list[Problem]:
        """Every problem that a stage with offline first attempts may use, in a fixed order."""
        batch, step = self._recipe.batch, 0
        found: dict[str, Problem] = {}
        for stage in self._recipe.stages:
            for number in range(step, step + stage.steps) if stage.base_first else ():
                reached = self._order.batch(number, batch.problems)
                for spare in range(number * batch.resample, (number + 1) * batch.resample):
                    reached += self._spares.batch(spare, batch.problems)
                found |= {problem.id: problem for problem in reached}
            step += stage.steps
        return [found[name] for name in sorted(found)]
