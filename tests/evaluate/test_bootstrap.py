"""Intervals: coverage by simulation, pairing, clustering by problem."""

import numpy as np
import pytest

from rlcore.evaluate.bootstrap import bootstrap_ci, seeds_ci


def test_intervals_cover_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(1)
    truth, trials, problems = 0.3, 400, 150
    values_NM = (rng.random((problems, trials)) < truth).astype(float)
    _, low, high = bootstrap_ci(values_NM, range(problems), resamples=1000).T
    covered = ((low <= truth) & (truth <= high)).mean()
    assert 0.915 <= covered <= 0.98


def test_samples_of_one_problem_stay_together():
    rng = np.random.default_rng(2)
    truth, trials, problems, samples = 0.5, 300, 60, 8
    values_PM = (rng.random((problems, trials)) < truth).astype(float)
    values_NM = np.repeat(values_PM, samples, axis=0)
    groups = np.repeat(np.arange(problems), samples)
    together = bootstrap_ci(values_NM, groups, resamples=1000)
    apart = bootstrap_ci(values_NM, range(len(values_NM)), resamples=1000)
    covers = [((ci[:, 1] <= truth) & (truth <= ci[:, 2])).mean() for ci in (together, apart)]
    assert covers[0] >= 0.9
    assert covers[1] <= 0.7


def test_a_difference_is_paired():
    rng = np.random.default_rng(3)
    t1 = (rng.random(400) < 0.5).astype(float)
    t2 = t1.copy()
    t2[:8] = 1 - t2[:8]
    ci = bootstrap_ci(np.stack([t1, t2, t2 - t1], axis=1), range(400))
    widths = ci[:, 2] - ci[:, 1]
    assert widths[2] < widths[0] / 3
    assert ci[2, 0] == pytest.approx(ci[1, 0] - ci[0, 0])


def test_agrees_with_a_plain_loop_of_resamples():
    rng = np.random.default_rng(4)
    problems = rng.integers(0, 40, 200)
    values = np.where(rng.random(200) < 0.1, np.nan, rng.normal(size=200))
    by_problem = [values[problems == p] for p in np.unique(problems)]
    means = [
        np.nanmean(np.concatenate([by_problem[i] for i in rng.integers(0, len(by_problem), len(by_problem))]))
        for _ in range(4000)
    ]
    value, low, high = bootstrap_ci(values[:, None], problems, resamples=4000)[0]
    assert value == pytest.approx(np.nanmean(values))
    assert [low, high] == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.02)


def test_the_seed_decides_and_blocks_do_not_matter(monkeypatch):
    values = np.random.default_rng(5).random((50, 2))
    whole = bootstrap_ci(values, range(50), seed=7)
    assert not np.array_equal(whole, bootstrap_ci(values, range(50), seed=8))
    monkeypatch.setattr("rlcore.evaluate.bootstrap._CELLS", 999)
    assert np.allclose(whole, bootstrap_ci(values, range(50), seed=7))


def test_a_measurement_without_values_gives_nan_and_spoils_no_other():
    values = np.stack([np.full(20, np.nan), np.arange(20.0), np.r_[5.0, np.full(19, np.nan)]], axis=1)
    ci = bootstrap_ci(values, range(20))
    assert np.isnan(ci[0]).all()
    assert ci[1, 1] < ci[1, 0] < ci[1, 2]
    assert ci[2].tolist() == [5.0, 5.0, 5.0]


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("difference", [False, True])
def test_intervals_over_seeds_cover_the_truth_as_often_as_they_say(seeds, difference):
    """M experiments, in each problems and seeds drawn anew; accuracies of seeds are some points apart."""
    rng, experiments, problems = np.random.default_rng(6), 400, 300
    hard_PM = rng.normal(0, 0.3, (problems, experiments))
    arms = [_marks(rng, seeds, hard_PM) for _ in range(1 + difference)]
    truth = 0.0 if difference else 0.5
    means_PM = arms[0].mean(0) - (arms[1].mean(0) if difference else 0)
    both = seeds_ci(*arms, resamples=500), bootstrap_ci(means_PM, range(problems), resamples=500)
    crossed, over_problems = [((ci[:, 1] <= truth) & (truth <= ci[:, 2])).mean() for ci in both]
    assert 0.925 <= crossed <= 0.995
    assert over_problems < 0.85, "problems alone are not all that could be otherwise"


def _marks(rng: np.random.Generator, seeds: int, hard_PM: np.ndarray) -> np.ndarray:
    """`[S, P, M]` of 0 and 1 around a mean of 0.5."""
    chance_SPM = np.clip(0.5 + rng.normal(0, 0.08, (seeds, 1, hard_PM.shape[1])) + hard_PM, 0, 1)
    return (rng.random(chance_SPM.shape) < chance_SPM).astype(float)


def test_one_seed_is_the_bootstrap_of_its_problems():
    values = np.random.default_rng(7).random((80, 2))
    problems = [f"{place:02}" for place in range(80)]
    np.testing.assert_allclose(seeds_ci(values[None], seed=3), bootstrap_ci(values, problems, seed=3))


def test_a_difference_from_itself_is_nothing_and_missing_marks_are_left_out():
    values = np.random.default_rng(8).random((1, 60, 1))
    np.testing.assert_allclose(seeds_ci(values, values), 0, atol=1e-12)
    values[0, ::2] = np.nan
    assert seeds_ci(values)[0, 0] == pytest.approx(values[0, 1::2].mean())
