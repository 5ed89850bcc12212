"""Returns, baselines and streams against numbers worked by hand, and the bias of baselines by simulation."""

from dataclasses import replace

import numpy as np
import pytest

from rewards import Verdict
from rlcore.credit import Turns, assign, compares, live_groups, turn_returns
from rlcore.credit import advantages as turn_advantages
from rlcore.recipe.schema import CreditConfig, StageConfig
from rlcore.types import Problem, Trajectory, Turn

SCORE = StageConfig(name="II", steps=1, reward=[1, 1], bonus=10, kl=[0.01, 0.02])
PLAIN = StageConfig(name="plain", steps=1)
ONE_GROUP = np.array([[[1.0, 1.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]])  # c→c, c→i, i→c, i→i


def attempt_returns(rewards: np.ndarray, stage: StageConfig, discount: float = 0.0) -> np.ndarray:
    return turn_returns(Turns.of_attempts(rewards), stage, discount)


def advantages(returns: np.ndarray, rewards: np.ndarray, credit: CreditConfig) -> np.ndarray:
    return turn_advantages(returns, Turns.of_attempts(rewards), credit)


def trajectory(r1: float | None, r2: float | None) -> Trajectory:
    turns = (
        Turn((5, 6, 7), (10, 11), (-0.1, -0.2), "stop", "", (0, 0)),
        Turn((8,), (12, 13, 14), (-0.3, -0.4, -0.5), "length", "", (0, 0, 0)),
    )
    verdicts = tuple(Verdict(score, "wrong" if score == 0 else "correct") for score in (r1, r2))
    return Trajectory(Problem("p", ()), turns, verdicts)


def test_bonus_is_paid_to_the_second_attempt_alone():
    returns = attempt_returns(ONE_GROUP, SCORE)
    np.testing.assert_allclose(returns[0], [[1, 1], [1, -10], [0, 11], [0, 0]])


def test_stage_one_pays_only_the_second_attempt():
    stage = StageConfig(name="I", steps=1, reward=[0, 1], kl=[0.1, 0.01])
    np.testing.assert_allclose(attempt_returns(ONE_GROUP, stage)[0], [[0, 1], [0, 0], [0, 1], [0, 0]])


def test_one_advantage_for_the_trajectory_charges_a_right_first_attempt():
    """At α = 10 right-then-right returns 2 in all, wrong-then-right 11: attempt 1 learns to be wrong."""
    credit = CreditConfig(unit="trajectory")
    returns = attempt_returns(ONE_GROUP, SCORE)
    np.testing.assert_allclose(returns.sum(-1)[0], [2, -9, 11, 0])
    joint = advantages(returns, ONE_GROUP, credit)[0]
    np.testing.assert_allclose(joint, np.repeat([[1], [-10], [10], [-1]], 2, axis=1))
    per_attempt = advantages(returns, ONE_GROUP, CreditConfig())[0]
    right_first = ONE_GROUP[0, :, 0] == 1
    assert joint[right_first, 0].sum() < 0 < per_attempt[right_first, 0].sum()


def test_discount_pays_the_first_attempt_for_the_second():
    returns = attempt_returns(ONE_GROUP, SCORE, discount=0.5)
    np.testing.assert_allclose(returns[0, :, 0], [1.5, -4, 5.5, 0])


def test_group_and_leave_one_out_baselines():
    returns = np.array([[[1.0], [0.0], [0.0], [3.0]]])
    np.testing.assert_allclose(advantages(returns, returns, CreditConfig())[0, :, 0], [0, -1, -1, 2])
    loo = advantages(returns, returns, CreditConfig(baseline="leave_one_out"))[0, :, 0]
    np.testing.assert_allclose(loo, [1 - 1, 0 - 4 / 3, 0 - 4 / 3, 3 - 1 / 3])


def test_outcome_baseline_compares_second_attempts_with_the_same_first_outcome():
    rewards = np.array([[[1.0, 1.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [0.0, 0.0]]])
    found = advantages(attempt_returns(rewards, SCORE), rewards, CreditConfig(baseline="outcome"))[0]
    np.testing.assert_allclose(found[:, 1], [11, -11, 11, -5.5, -5.5])
    np.testing.assert_allclose(found[:, 0], [0.75, 0.75, -0.5, -0.5, -0.5])


def test_batch_outcome_compares_over_groups_but_first_attempts_within_theirs():
    rewards = np.array([[[1.0, 1.0], [0.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]])
    found = advantages(rewards, rewards, CreditConfig(baseline="batch_outcome"))
    np.testing.assert_allclose(found[..., 1], [[1, -1], [-1, 1]])
    np.testing.assert_allclose(found[..., 0], [[1, -1], [1, -1]])


def test_an_attempt_without_peers_is_compared_with_its_class_in_the_batch():
    rewards = np.array([[[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]], [[1.0, 1.0], [0.0, 1.0], [0.0, 1.0]]])
    found = advantages(attempt_returns(rewards, PLAIN), rewards, CreditConfig(baseline="outcome"))
    np.testing.assert_allclose(found[:, 0, 1], [-1, 1])


@pytest.mark.parametrize("baseline", ["outcome", "batch_outcome"])
def test_the_only_one_of_its_class_in_the_batch_is_compared_with_all_others(baseline):
    rewards = np.array([[[1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [0.0, 1.0]]])
    found = advantages(attempt_returns(rewards, PLAIN), rewards, CreditConfig(baseline=baseline))
    np.testing.assert_allclose(found[0, :, 1], [-2 / 3, 0.5, -1, 0.5])
    alone = advantages(attempt_returns(rewards[:, :1], PLAIN), rewards[:, :1], CreditConfig(baseline=baseline))
    assert alone.tolist() == [[[0, 0]]]


@pytest.mark.parametrize("scale", ["group", "batch"])
def test_group_std_removes_alpha_where_the_first_reward_is_constant(scale):
    rewards = np.array([[[0.0, 1.0], [0.0, 0.0], [0.0, 1.0]]])
    small, large = (
        advantages(
            attempt_returns(rewards, StageConfig(name="s", steps=1, bonus=a)), rewards, CreditConfig(scale=scale)
        )
        for a in (1, 10)
    )
    np.testing.assert_allclose(small[..., 1], large[..., 1], rtol=1e-5)
    np.testing.assert_allclose(np.std(small[0, :, 1], ddof=1), 1, rtol=1e-5)


def test_unscored_attempts_leave_loss_and_baseline():
    rewards = np.array([[[1.0, np.nan], [0.0, 1.0], [np.nan, 0.0], [1.0, 0.0]]])
    found = advantages(attempt_returns(rewards, PLAIN), rewards, CreditConfig())[0]
    np.testing.assert_allclose(found[:, 0], [1 / 3, -2 / 3, np.nan, 1 / 3])
    np.testing.assert_allclose(found[:, 1], [np.nan, 2 / 3, -1 / 3, -1 / 3])
    with_bonus = attempt_returns(rewards, SCORE)[0]
    assert np.isnan(with_bonus[2, 1]), "progress over an unscored attempt is not known"


def test_a_group_is_dead_when_nothing_in_it_can_be_compared():
    stage_one = StageConfig(name="I", steps=1, reward=[0, 1])
    groups = [
        [trajectory(0, 0), trajectory(0, 0)],
        [trajectory(1, 0), trajectory(0, 0)],
        [trajectory(0, 1), trajectory(0, 0)],
        [trajectory(0, 1), trajectory(0, None)],
        [trajectory(1, 0), trajectory(0, 1)],
    ]
    assert live_groups(groups, PLAIN, CreditConfig()).tolist() == [False, True, True, False, True]
    assert live_groups(groups, stage_one, CreditConfig()).tolist() == [False, False, True, False, True]
    assert live_groups(groups, PLAIN, CreditConfig(unit="trajectory")).tolist() == [False, True, True, False, False]


def test_a_group_is_dead_when_all_that_differs_was_cut_and_leaves_the_loss():
    """The second attempt of `trajectory` is cut."""
    groups = [[trajectory(0, 1), trajectory(0, 0)], [trajectory(1, 1), trajectory(0, 0)]]
    assert live_groups(groups, PLAIN, CreditConfig()).tolist() == [True, True]
    assert live_groups(groups, PLAIN, CreditConfig(mask_truncated=True)).tolist() == [False, True]


def branch(response: tuple[int, ...], r1: float, r2: float, trained: bool) -> Trajectory:
    one = trajectory(r1, r2)
    return replace(one, turns=(replace(one.turns[0], response_ids=response, trained=trained), one.turns[1]))


def ended(one: Trajectory) -> Trajectory:
    """The conversation, had it ended after its first attempt."""
    return replace(one, turns=one.turns[:1], verdicts=one.verdicts[:1])


@pytest.mark.parametrize(
    ("settings", "live"),
    [
        ({"baseline": "leave_one_out"}, [True, False, False, True]),
        ({"baseline": "group"}, [False, False, False, True]),
        ({"baseline": "tree"}, [True, True, False, False]),
        ({"baseline": "leave_one_out", "scale": "group"}, [False, False, False, True]),
        ({"baseline": "leave_one_out", "best_of": 3}, [True, False, False, False]),
    ],
)
def test_a_group_is_live_just_where_the_batch_has_an_advantage_of_it(settings, live):
    first, second = (10, 11), (20, 21)
    one, other = branch(first, 0, 1, True), branch(first, 0, 1, False)
    groups = [
        [one, ended(other), ended(branch(second, 0, 0, True)), ended(branch(second, 0, 0, False))],
        [one, ended(other), branch(second, 0, 1, True), ended(branch(second, 0, 1, False))],
        [branch(ids, 0, 0, trained) for ids in (first, second) for trained in (True, False)],
        [one, other, branch(second, 0, 0, True), branch(second, 0, 0, False)],
    ]
    credit = CreditConfig(**settings)
    assert live_groups(groups, PLAIN, credit).tolist() == live
    batch = assign(groups, PLAIN, credit)
    starts = batch.offsets_B1[:-1:4].tolist()
    assert [bool(part.any()) for part in np.split(batch.advantage_N, starts[1:])] == live


def test_a_comparison_needs_two_scores_that_differ():
    nan = np.nan
    groups = [[1, 1, 1], [0, 0, 1], [nan, 2, 2], [nan, nan, 3], [nan, nan, nan], [nan, 1, 2], [0.1 + 0.2, 0.3, nan]]
    found_PT = compares(np.array(groups)[..., None])
    assert found_PT[:, 0].tolist() == [False, True, False, False, False, True, False]


def test_streams_line_up_with_tokens():
    groups = [[trajectory(1, 1), trajectory(0, None)]]
    batch = assign(groups, SCORE, CreditConfig())
    assert batch.offsets_B1.tolist() == [0, 9, 18]
    assert batch.ids_N[:9].tolist() == groups[0][0].ids == [5, 6, 7, 10, 11, 8, 12, 13, 14]
    assert batch.turn_N[:9].tolist() == [1] * 5 + [2] * 4
    assert (
        batch.loss_mask_N.tolist()
        == [False] * 3 + [True] * 2 + [False] + [True] * 3 + [False] * 3 + [True] * 2 + [False] * 4
    )
    np.testing.assert_allclose(batch.advantage_N[[3, 4, 12, 13]], [0.5, 0.5, -0.5, -0.5])
    np.testing.assert_allclose(batch.kl_weight_N[[2, 3, 6, 15]], [0, 0.01, 0.02, 0])
    np.testing.assert_allclose(batch.sampler_logprob_N[:9], [0, 0, 0, -0.1, -0.2, 0, -0.3, -0.4, -0.5], rtol=1e-6)


def test_trees_train_a_first_attempt_once_and_compare_siblings():
    group = [branch((10, 11), 1, 1, True), branch((10, 11), 1, 0, False), branch((20, 21), 0, 1, True)]
    group.append(branch((20, 21), 0, 1, False))
    turns = Turns.of_groups([group])
    found = turn_advantages(turn_returns(turns, SCORE), turns, CreditConfig(baseline="tree"))[0]
    np.testing.assert_allclose(found, [[1, 11], [np.nan, -11], [-1, 0], [np.nan, 0]])
    batch = assign([group], SCORE, CreditConfig(baseline="tree"))
    assert [batch.loss_mask_N[start : start + 9].sum() for start in batch.offsets_B1[:-1]] == [5, 3, 5, 3]
    # With a discount the first attempt is paid for what follows it on average: (1 + -10) / 2 and (11 + 11) / 2.
    np.testing.assert_allclose(turn_returns(turns, SCORE, 0.5)[0, :, 0], [1 - 2.25, np.nan, 5.5, np.nan])


@pytest.mark.parametrize(
    "credit",
    [CreditConfig(baseline=name) for name in ("batch", "batch_outcome", "outcome", "tree")]
    + [
        CreditConfig(baseline="leave_one_out", scale="batch"),
        CreditConfig(unit="trajectory", baseline="batch", scale="batch"),
    ],
    ids=str,
)
def test_statistics_of_the_batch_are_those_of_all_ranks(credit):
    """Each rank gets its part of what one process would compute, also where its conversations are shorter."""
    rng = np.random.default_rng(0)
    parts = [[[trajectory(*rng.integers(0, 2, 2).tolist()) for _ in range(3)] for _ in range(2)] for _ in range(3)]
    parts[1] = [[replace(t, turns=t.turns[:1], verdicts=t.verdicts[:1]) for t in group] for group in parts[1]]
    whole = assign([group for part in parts for group in part], SCORE, credit)
    sent: list[np.ndarray] = []
    for part in parts:  # what every rank hands in

        def record(array: np.ndarray) -> list[np.ndarray]:
            sent.append(array)
            return [array]

        assign(part, SCORE, credit, record)
    found = [assign(part, SCORE, credit, lambda _, r=r: [*sent[r:], *sent[:r]]) for r, part in enumerate(parts)]
    np.testing.assert_allclose(np.concatenate([batch.advantage_N for batch in found]), whole.advantage_N, atol=1e-6)


def test_outcomes_are_right_and_wrong_whatever_a_penalty_makes_of_the_scores():
    def penalised(r1: float, right: bool, r2: float) -> Trajectory:
        first = Verdict(r1, "correct" if right else "wrong")
        return replace(trajectory(r1, r2), verdicts=(first, Verdict(r2, "wrong")))

    group = [penalised(0.9, True, 1), penalised(0.7, True, 0), penalised(-0.1, False, 0.5), penalised(0, False, 0.2)]
    turns = Turns.of_groups([group])
    found = turn_advantages(turn_returns(turns, PLAIN), turns, CreditConfig(baseline="outcome"))[0, :, 1]
    np.testing.assert_allclose(found, [1, -1, 0.3, -0.3])


def test_truncated_attempts_leave_the_loss_and_stay_in_the_baseline():
    """The second attempt of `trajectory` is cut: its tokens leave the loss, those of all others are as they were."""
    whole = trajectory(0.0, 1.0)
    whole = replace(whole, turns=(whole.turns[0], replace(whole.turns[1], finish="stop")))
    groups = [[trajectory(1.0, 0.0), whole]]
    plain, masked = (assign(groups, PLAIN, CreditConfig(mask_truncated=mask)) for mask in (False, True))
    cut = np.zeros(len(plain.ids_N), dtype=bool)
    cut[[6, 7, 8]] = True  # after 3 tokens of prompt, 2 of attempt, 1 of prompt
    np.testing.assert_array_equal(masked.loss_mask_N, plain.loss_mask_N & ~cut)
    np.testing.assert_array_equal(masked.advantage_N, np.where(cut, 0, plain.advantage_N))
    np.testing.assert_array_equal(masked.ids_N, plain.ids_N)
    assert plain.advantage_N[~cut & plain.loss_mask_N].any()
