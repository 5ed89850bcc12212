"""The measurements of one training step."""

import math
import time
from collections import Counter
from collections.abc import Sequence

import numpy as np

from rlcore import credit
from rlcore.errors import UserError
from rlcore.evaluate.measure import standing, trajectory_rows
from rlcore.evaluate.metrics import row_means
from rlcore.learner import LearnerReport
from rlcore.ranks import Ranks, all_gather, gather_rows
from rlcore.recipe import Recipe
from rlcore.recipe.schema import ConversationConfig
from rlcore.types import Groups, Trajectory
from rlcore.watchdog import enter_phase


class Clock:
    """Measures the phases of a step, and tells the watchdog of each."""

    def __init__(self, step: int) -> None:
        self._step = step
        self._starts: dict[str, float] = {}

    def start(self, phase: str) -> None:
        """Begins a phase and ends the one before."""
        enter_phase(f"{phase} of step {self._step + 1}")
        self._starts[phase] = time.perf_counter()

    def metrics(self) -> dict[str, float]:
        """Seconds by `time/PHASE`, of the last phase up to now, and `time/step`, their sum."""
        stops = [*self._starts.values(), time.perf_counter()]
        laps = {f"time/{phase}": stops[at + 1] - start for at, (phase, start) in enumerate(self._starts.items())}
        return {**laps, "time/step": stops[-1] - stops[0]}


def step_metrics(
    groups: Groups, recipe: Recipe, report: LearnerReport, clock: Clock, ranks: Ranks, base_t1: float
) -> dict[str, float]:
    """The `train/`, `learner/` and `time/` figures of a step, over the trajectories of all ranks.

    `train/dead_groups` is the share of comparisons (a group and an attempt) in which all rewards are equal,
    `train/resampled` the groups sampled in place of dead ones as a share of a step's groups, `train/sandbagging` how
    far attempt 1 is below that of the base policy, `base_t1`.
    """
    section = recipe.conversation
    flat = [trajectory for group in groups for trajectory in group]
    rows = trajectory_rows(flat, section)
    rewards_PGA = _rewards(flat, section).reshape(len(groups), -1, section.attempts)
    rows["dead_groups"] = np.full(len(flat), (~credit.compares(rewards_PGA)).mean())
    rows["reward"] = rewards_PGA[..., -1].reshape(-1)
    rows = gather_rows(rows, ranks)
    means = row_means(rows)
    if recipe.batch.resample:
        means["resampled"] = len(rows["reward"]) / len(groups[0]) / recipe.batch.problems - 1
    if not math.isnan(base_t1):
        means["sandbagging"] = base_t1 - means["t1"]
    return {
        **{f"train/{name}": value for name, value in means.items()},
        **{f"learner/{name}": value for name, value in report.items()},
        **clock.metrics(),
    }


def reward_counts(counts: Counter[str], ranks: Ranks) -> dict[str, float]:
    """The rewards' counters, summed over ranks, by `rewards/REWARD/COUNTER`."""
    total = sum(all_gather(counts, ranks), Counter[str]())
    return {f"rewards/{name}": float(count) for name, count in total.items()}


def distributions(trajectories: Sequence[Trajectory], section: ConversationConfig) -> dict[str, np.ndarray]:
    """Values `[N]` for histograms of N trajectories: reward_tA and tokens_tA of each attempt, and edit_ratio."""
    rows = trajectory_rows(trajectories, section)
    rewards_NA = _rewards(trajectories, section)
    shown = {name: rows[name] for name in rows if name.startswith("tokens_t") or name == "edit_ratio"}
    return {**{f"reward_t{a + 1}": rewards_NA[:, a] for a in range(rewards_NA.shape[1])}, **shown}


def _rewards(trajectories: Sequence[Trajectory], section: ConversationConfig) -> np.ndarray:
    """Scores after each attempt, `[N, A]`."""
    return np.array([standing(trajectory.rewards_A.tolist(), section.attempts) for trajectory in trajectories])


class TooManyUnscored(UserError):
    """Rewards failed too often. All ranks raise it together between steps, so that the run can be saved."""


def check_scored(groups: Groups, limit: float, ranks: Ranks | None = None) -> None:
    """Raises TooManyUnscored if more than `limit` of the attempts have no score.

    With `ranks` it is collective and counts the attempts of all ranks.
    """
    verdicts = [verdict for group in groups for trajectory in group for verdict in trajectory.verdicts]
    reasons = Counter(f"{verdict.status}: {verdict.detail}" for verdict in verdicts if verdict.score is None)
    counted = len(verdicts), reasons
    parts = all_gather(counted, ranks) if ranks else [counted]
    total, failed = sum(count for count, _ in parts), sum((part for _, part in parts), Counter[str]())
    if failed.total() > limit * total:
        (reason, _), *_ = failed.most_common(1)
        raise TooManyUnscored(
            f"rewards gave no score for {failed.total()} of {total} attempts, more than rewards.max_failed "
            f"{limit:g}; most often {reason}"
        )
