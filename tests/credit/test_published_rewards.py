"""Pass@k's and MaxRL's advantages against enumeration and against the formulas of their papers."""

from itertools import combinations
from math import comb

import numpy as np
import pytest

from rewards import Verdict
from rlcore.credit import Turns, advantages, assign
from rlcore.credit.returns import best_of
from rlcore.errors import UserError
from rlcore.recipe.load import load_recipe
from rlcore.recipe.schema import CreditConfig, StageConfig
from rlcore.types import Problem, Trajectory, Turn


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_the_best_of_k_is_the_mean_over_all_draws_of_the_others(k):
    returns_PGT = np.random.default_rng(0).integers(0, 4, (3, 6, 2)).astype(float)
    returns_PGT[0, 2, 1] = np.nan
    found = best_of(returns_PGT, k)
    for problem, one, turn in np.ndindex(returns_PGT.shape):
        own = returns_PGT[problem, one, turn]
        if np.isnan(own):
            assert np.isnan(found[problem, one, turn])
            continue
        others = [r for g, r in enumerate(returns_PGT[problem, :, turn]) if g != one and not np.isnan(r)]
        bests = [max(own, *drawn) if drawn else own for drawn in combinations(others, k - 1)]
        assert found[problem, one, turn] == pytest.approx(np.mean(bests))


@pytest.mark.parametrize(("right", "group", "k"), [(1, 8, 4), (3, 8, 4), (7, 8, 2), (2, 16, 8)])
def test_pass_at_k_advantages_are_those_of_the_paper(right, group, k):
    """arXiv 2508.10751, times their σ: A⁺ = 1 - R̄ and A⁻ = 1 - R̄ - C(N⁻ - 1, k - 1) / C(N - 1, k - 1)."""
    wrong = group - right
    mean = 1 - comb(wrong, k) / comb(group, k)
    returns = np.array([1.0] * right + [0.0] * wrong).reshape(1, group, 1)
    found = advantages(best_of(returns, k), Turns.of_attempts(returns), CreditConfig(baseline="group"))[0, :, 0]
    np.testing.assert_allclose(found[:right], 1 - mean, atol=1e-12)
    np.testing.assert_allclose(found[right:], 1 - mean - comb(wrong - 1, k - 1) / comb(group - 1, k - 1), atol=1e-12)


def test_maxrl_divides_by_the_mean_and_gives_a_group_without_success_nothing():
    returns = np.array([[1.0, 0, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0]])[..., None]
    found = advantages(returns, Turns.of_attempts(returns), CreditConfig(scale="mean"))[..., 0]
    np.testing.assert_allclose(found, [[3, -1, -1, -1], [1 / 3, 1 / 3, 1 / 3, -1], [0, 0, 0, 0]], atol=1e-12)


def test_reflect_retry_reward_trains_critiques_of_failed_attempts_alone(repository):
    """arXiv 2505.24726: a critique's advantage is whether its retry succeeds, less the mean of others after the same
    failure; attempts, and all after an attempt that succeeded, have none."""

    def tried(first: float, second: float, *, trained: bool) -> Trajectory:
        roles = ("attempt", "critique", "attempt")
        turns = tuple(
            Turn((7,), (8,), (-0.5,), "stop", "", (0,), role, trained=trained or place > 0)
            for place, role in enumerate(roles)
        )
        verdicts = (Verdict(score, "correct" if score else "wrong") for score in (first, second))
        return Trajectory(Problem("p", ()), turns, tuple(verdicts))

    retries = [1.0, 0.0, 0.0, 1.0]
    groups = [[tried(first, second, trained=not g) for g, second in enumerate(retries)] for first in (0.0, 1.0)]
    stage = StageConfig(name="s", steps=1, reward=[0, 1], kl=[0.0, 0.0], trains="critiques")
    batch = assign(groups, stage, CreditConfig(baseline="tree"))
    learned_GT = batch.loss_mask_N.reshape(2, 4, 6)[..., 1::2]
    assert learned_GT[0].tolist() == [[False, True, False]] * 4
    assert not learned_GT[1].any()
    assert not batch.kl_weight_N[~batch.loss_mask_N].any()
    np.testing.assert_allclose(batch.advantage_N[batch.loss_mask_N], [2 / 3, -2 / 3, -2 / 3, 2 / 3], rtol=1e-5)
    stages = "stages=[{name: s, steps: 1, kl: [0, 0], trains: critiques}]"
    with pytest.raises(UserError, match=r"stage s: trains critiques needs conversation.kind critique"):
        load_recipe(repository / "recipes" / "quickstart.yaml", [stages])


def test_a_recipes_best_of_reaches_the_batch_and_a_group_too_small_for_it_is_refused(repository):
    def answer(score: float) -> Trajectory:
        turn = Turn((1, 2), (3,), (-0.5,), "stop", "", (0,))
        return Trajectory(Problem("p", ()), (turn,), (Verdict(score, "correct" if score else "wrong"),))

    groups = [[answer(1.0), answer(0.0), answer(0.0)]]
    stage = StageConfig(name="s", steps=1, reward=[1.0], kl=[0.0])
    batch = assign(groups, stage, CreditConfig(best_of=2))
    # Best of two of {1, 0, 0}: the right one is always paid 1, a wrong one 1 in one draw of two; their mean is 2/3.
    np.testing.assert_allclose(batch.advantage_N[batch.loss_mask_N], [1 / 3, -1 / 6, -1 / 6], rtol=1e-5)
    recipe = load_recipe(repository / "recipes" / "quickstart.yaml", [])
    assert recipe.credit.best_of == 1
    with pytest.raises(UserError, match=r"credit.best_of 99 needs a batch.group above it"):
        load_recipe(repository / "recipes" / "quickstart.yaml", ["credit.best_of=99"])
