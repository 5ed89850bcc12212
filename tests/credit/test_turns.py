"""Credit of critiques, verdicts and stops, worked by hand, and its bias where the policy ends conversations."""

from dataclasses import replace

import numpy as np
import pytest

from rewards import Verdict
from rlcore.credit import Turns, advantages, assign, turn_returns
from rlcore.recipe.schema import CreditConfig, StageConfig
from rlcore.types import Problem, Trajectory, Turn

SCORE = StageConfig(name="II", steps=1, reward=[1, 1, 1], bonus=10, kl=[0.01, 0.02, 0.03])
NAMES = {"a": "attempt", "c": "critique", "v": "verdict", "s": "stop"}


def told(story: str, *scores: float | None, claims: tuple[bool | None, ...] = ()) -> Trajectory:
    """A trajectory such as "ava": one letter a turn; turn t has t + 1 prompt tokens and two sampled ones."""
    claim = iter(claims)
    turns = tuple(
        Turn((7,) * (t + 1), (8, 9), (-0.1, -0.2), "stop", "", (0, 0), NAMES[r], next(claim) if r == "v" else None)
        for t, r in enumerate(story)
    )
    verdicts = tuple(Verdict(score, "correct" if score else "wrong") for score in scores)
    return Trajectory(Problem("p", ()), turns, verdicts)


def returns(*trajectories: Trajectory, stage: StageConfig = SCORE, discount: float = 0.0) -> list[list[float]]:
    return turn_returns(Turns.of_groups([list(trajectories)]), stage, discount)[0].tolist()


def test_a_critique_is_paid_what_the_attempt_that_heeds_it_is_paid():
    assert returns(told("aca", 0.0, 1.0), told("aca", 1.0, 0.0)) == [[0, 11, 11], [1, -10, -10]]
    assert returns(told("acaca", 0.0, 1.0, 1.0)) == [[0, 11, 11, 1, 1]]
    assert returns(told("aca", 0.0, 1.0), discount=0.5) == [[5.5, 11, 11]]


def test_a_verdict_is_paid_for_being_right_and_nothing_else():
    found = returns(
        told("ava", 0.0, 1.0, claims=(False,)),
        told("ava", 1.0, 0.0, claims=(False,)),
        told("av", 1.0, claims=(True,)),
        told("av", 0.0, claims=(True,)),
        told("av", 0.0, claims=(None,)),
    )
    np.testing.assert_equal(found, [[0, 1, 11], [1, 0, -10], [1, 1, np.nan], [0, 0, np.nan], [0, 0, np.nan]])


def test_a_discount_pays_attempts_for_later_ones_and_verdicts_for_nothing():
    """Saying "wrong" of a right attempt earns nothing, whatever the revision that it causes is paid."""
    stage = SCORE.model_copy(update={"bonus": 0})
    for trajectory, paid in (
        (told("ava", 1.0, 1.0, claims=(False,)), [1.5, 0, 1]),
        (told("av", 1.0, claims=(True,)), [1, 1]),
        (told("avava", 0.0, 0.0, 1.0, claims=(False, False)), [0.25, 1, 0.5, 1, 1]),
        (told("acva", 0.0, 1.0, claims=(True,)), [0.5, 0, 0, 1]),
        (told("as", 1.0), [1.5, 1]),
    ):
        assert returns(trajectory, stage=stage, discount=0.5) == [paid]


def test_a_stop_is_paid_what_an_attempt_that_changes_nothing_is_paid():
    found = returns(told("as", 1.0), told("as", 0.0), told("aa", 1.0, 1.0), told("aaa", 0.0, 0.0, 1.0))
    np.testing.assert_equal(found, [[1, 1, np.nan], [0, 0, np.nan], [1, 1, np.nan], [0, 0, 11]])


def test_what_cannot_be_scored_has_no_return_and_what_depends_on_it_neither():
    found = returns(told("ava", None, 1.0, claims=(True,)), told("as", None), told("aca", 1.0, None))
    np.testing.assert_equal(found, [[np.nan] * 3, [np.nan] * 3, [1, np.nan, np.nan]])


def test_streams_of_trajectories_of_different_lengths():
    group = [told("ava", 0.0, 1.0, claims=(False,)), told("av", 1.0, claims=(True,)), told("av", 0.0, claims=(True,))]
    batch = assign([group], SCORE, CreditConfig(baseline="leave_one_out"))
    assert batch.offsets_B1.tolist() == [0, 12, 19, 26]
    assert batch.turn_N.tolist() == [1] * 3 + [2] * 9 + ([1] * 3 + [2] * 4) * 2
    sampled = batch.loss_mask_N.nonzero()[0].tolist()
    assert sampled == [1, 2, 5, 6, 10, 11, 13, 14, 17, 18, 20, 21, 24, 25]
    # turn 1: rewards 0 1 0; turn 2: verdicts 1 1 0; turn 3: a single one, its own baseline
    expected = [-0.5, 0.5, 0.0, 1.0, 0.5, -0.5, -1.0]
    np.testing.assert_allclose(batch.advantage_N[sampled], np.repeat(expected, 2))
    np.testing.assert_allclose(batch.kl_weight_N[sampled], np.repeat([0.01, 0.02, 0.02, 0.01, 0.02, 0.01, 0.02], 2))


def test_one_advantage_a_trajectory_whatever_its_length():
    group = [told("aa", 0.0, 1.0), told("as", 1.0), told("aaa", 0.0, 0.0, 0.0)]
    turns = Turns.of_groups([group])
    found = advantages(turn_returns(turns, SCORE), turns, CreditConfig(unit="trajectory"))[0]
    mean = (11 + 2 + 0) / 3
    np.testing.assert_allclose(
        found, [[11 - mean, 11 - mean, np.nan], [2 - mean, 2 - mean, np.nan], [-mean, -mean, -mean]]
    )


def test_one_advantage_a_trajectory_counts_an_attempt_once_whatever_a_critique_is_paid_for_it():
    turns = Turns.of_groups([[told("as", 1.0), told("aca", 1.0, 1.0), told("aca", 0.0, 0.0)]])
    found = advantages(turn_returns(turns, SCORE), turns, CreditConfig(unit="trajectory"))[0]
    mean = (2 + 2 + 0) / 3
    np.testing.assert_allclose(found, [[2 - mean, 2 - mean, np.nan], [2 - mean] * 3, [-mean] * 3])


@pytest.mark.parametrize(("baseline", "unbiased"), [("leave_one_out", True), ("batch_outcome", True), ("group", False)])
def test_bias_where_the_policy_decides_who_goes_on(baseline, unbiased):
    """Sums over turns against the true gradient of a later turn that the policy reaches one time in four.

    The mean of a group with itself in it shrinks a later turn by (n - 1)/n, where n is how many reach it.
    """
    rng = np.random.default_rng(0)
    groups, size, reached, chance = 40_000, 4, 0.25, 0.6
    first = (rng.random((groups, size)) < 0.5).astype(float)
    there = rng.random((groups, size)) < reached
    second = (rng.random((groups, size)) < chance).astype(float)
    rewards = np.stack([first, np.where(there, second, np.nan)], -1)
    turns = replace(
        Turns.of_attempts(rewards),
        outcome_PGT=np.stack([np.zeros_like(first), np.where(there, first, np.nan)], -1),
        role_PGT=np.where(np.stack([np.ones_like(there), there], -1), "attempt", ""),
    )
    found = advantages(rewards, turns, CreditConfig(baseline=baseline))[..., 1]
    # Bernoulli with logit θ: d log p / dθ = y - p; the mean over all trajectories, a count that no policy controls.
    gradient = np.where(there, found * (second - chance), 0.0).mean()
    truth = reached * chance * (1 - chance)
    assert (abs(gradient - truth) < 0.001) == unbiased
    assert unbiased or gradient < 0.6 * truth
