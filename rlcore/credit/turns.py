"""Scored groups as arrays over turns, padded where a trajectory has fewer turns than others."""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from rlcore.types import CORRECT_SCORE, Groups, Trajectory

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Turns:
    """T turns of P x G trajectories. Without critiques, verdicts and stops, turns are attempts."""

    rewards_PGT: np.ndarray
    """A turn's own reward, or NaN. Attempt: its score. Verdict: 1 if it agrees with the score of the attempt it judges,
    else 0. Stop: the score of the attempt before it. Critique: none."""
    before_PGT: np.ndarray
    """Score of the last attempt before the turn, NaN if it has none; 0 before the first attempt."""
    outcome_PGT: np.ndarray
    """1 if that attempt was correct, else 0; NaN if it has no score."""
    attempt_PGT: np.ndarray
    """int: the attempt that a turn is, leads to or declines, counted from 0."""
    role_PGT: np.ndarray
    """Role of the turn (`rlcore.types.Role`), "" if absent."""
    trained_PGT: np.ndarray
    """bool: whether the reply is trained; False if absent."""
    truncated_PGT: np.ndarray
    """bool: whether the reply was cut at the token limit."""
    first_PG: np.ndarray
    """int: the first trajectory of the group with the same first reply, the same for all siblings of a tree."""

    @property
    def present_PGT(self) -> np.ndarray:
        return self.role_PGT != ""

    @property
    def stands_for_PG(self) -> np.ndarray:
        """int: how many trajectories continue a trained first reply: this one, and those right after it that do not
        train theirs. 1 without branches; undefined where the first reply is not trained."""
        tree_PG = self.trained_PGT[..., 0].cumsum(axis=1)
        return (tree_PG[:, :, None] == tree_PG[:, None]).sum(-1)

    @classmethod
    def of_groups(cls, groups: Groups) -> "Turns":
        """The turns of scored groups of equal size."""
        longest = max(len(trajectory.turns) for group in groups for trajectory in group)
        numbers = np.array([[_numbers(t, longest) for t in group] for group in groups])
        rewards, before, outcome, attempt = np.moveaxis(numbers, -1, 0)
        role = np.array([[_padded([turn.role for turn in t.turns], "", longest) for t in group] for group in groups])
        trained = [[_padded([turn.trained for turn in t.turns], False, longest) for t in group] for group in groups]
        cut = [[_padded([turn.finish == "length" for turn in t.turns], False, longest) for t in g] for g in groups]
        first = [[[t.turns[0].response_ids for t in g].index(one.turns[0].response_ids) for one in g] for g in groups]
        return cls(
            rewards, before, outcome, attempt.astype(int), role, np.array(trained), np.array(cut), np.array(first)
        )

    @classmethod
    def of_attempts(cls, rewards_PGA: np.ndarray) -> "Turns":
        """Turns that are all attempts, from their scores; full marks are correct."""
        rewards_PGA = np.asarray(rewards_PGA, dtype=np.float64)
        before_PGA = np.concatenate([np.zeros_like(rewards_PGA[..., :1]), rewards_PGA[..., :-1]], axis=-1)
        attempt_PGA = np.broadcast_to(np.arange(rewards_PGA.shape[-1]), rewards_PGA.shape)
        first_PG = np.broadcast_to(np.arange(rewards_PGA.shape[1]), rewards_PGA.shape[:2])
        role_PGA = np.full(rewards_PGA.shape, "attempt")
        outcome_PGA = np.where(np.isnan(before_PGA), np.nan, before_PGA >= CORRECT_SCORE)
        yes_PGA = np.full(rewards_PGA.shape, True)
        return cls(rewards_PGA, before_PGA, outcome_PGA, attempt_PGA, role_PGA, yes_PGA, ~yes_PGA, first_PG)


def _numbers(trajectory: Trajectory, longest: int) -> list[tuple[float, float, float, int]]:
    """`rewards`, `before`, `outcome` and `attempt` of each turn."""
    scores, marks = iter(trajectory.rewards_A), iter(trajectory.marks_A)
    before, outcome, attempt, rows = 0.0, 0.0, 0, []
    for turn in trajectory.turns:
        reward = np.nan
        if turn.role == "attempt":
            reward = next(scores)
        elif turn.role == "verdict":
            reward = np.nan if np.isnan(before) else float(turn.claim is bool(outcome))
        elif turn.role == "stop":
            reward = before
        rows.append((reward, before, outcome, attempt))
        if turn.role == "attempt":
            before, outcome, attempt = reward, next(marks), attempt + 1
    return _padded(rows, (np.nan, np.nan, np.nan, 0), longest)


def _padded(values: list[Value], filler: Value, length: int) -> list[Value]:
    return values + [filler] * (length - len(values))
