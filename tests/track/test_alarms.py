"""Alarms sound when they should, say why, and are silent without enough evidence."""

import pytest

from rlcore.track.alarms import ALARMS, WINDOW, recent_mean, window_means

HEALTHY = {
    "train/sandbagging": -0.02,
    "train/answer_change": 0.3,
    "train/i_to_c": 0.1,
    "train/c_to_i": 0.02,
    "train/dead_groups": 0.4,
    "train/t1": 0.5,
    "train/t2": 0.6,
    "train/unscored": 0.0,
    "train/truncated_t1": 0.05,
    "train/tokens_t1": 200.0,
    "train/tokens_t2": 220.0,
    "learner/entropy_t1": 0.4,
    "learner/skipped": 0,
    "learner/grad_norm": 0.7,
    "learner/clip_fraction": 0.02,
    "learner/mismatch_kl": 0.001,
    "learner/mismatch_kl_lag2": 0.002,
    "learner/kl_t1": 0.02,
    "learner/kl_t2": 0.2,
}
ILL = {
    "sandbagging": ({"train/sandbagging": 0.06}, "6 points below the base: sandbagging. What trains attempt 2 moves"),
    "copying": ({"train/answer_change": 0.012}, "only 1.2 % of the answers"),
    "over_correction": ({"train/c_to_i": 0.15}, "spoils 15.0 % and repairs 10.0 %"),
    "reward_failures": ({"train/unscored": 0.03}, "3.0 % of the trajectories were not scored"),
    "truncation": ({"train/truncated_t2": 0.4}, "40 % of the samples of attempt 2"),
    "skipped_steps": ({"learner/skipped": 2}, "20 optimizer steps in the last 10"),
    "dead_groups": ({"train/dead_groups": 0.85}, "85 % of the groups"),
    "ratio": ({"learner/clip_fraction": 0.4}, "40 % of the tokens is clipped"),
    "mismatch": ({"learner/mismatch_kl": 0.25}, "0.25 nats"),
    "runaway_kl": ({"learner/kl_t2": 1.5}, "attempt 2 is 1.5 nats"),
}


CHANGES = {
    "gradient_norm": ({"learner/grad_norm": 9.0}, "norm is 9, usually 0.7"),
    "collapse": ({"train/t2": 0.45}, "attempt 2 fell 15 points below its best"),
    "length_creep": ({"train/tokens_t2": 400.0}, "attempt 2 grew from 220 to 400 tokens"),
    "staleness": ({"learner/mismatch_kl_lag2": 0.05}, "sampled 2 updates before it is learned grew from 0.002 to 0.05"),
    "low_entropy": ({"learner/entropy_t1": 0.04}, "attempt 1 fell from 0.4 to 0.04 nats"),
}
"""What shows only against the steps before."""


def _sounding(history: list[dict]) -> set[str]:
    return {name for name, alarm in ALARMS.items() if alarm(history)}


def test_every_alarm_is_covered_here():
    assert set(ILL) | set(CHANGES) == set(ALARMS)


def test_a_healthy_run_and_an_empty_one_are_silent():
    assert _sounding([]) == set()
    assert _sounding([HEALTHY] * 30) == set()


@pytest.mark.parametrize("name", ILL)
def test_each_illness_sounds_its_own_alarm_only(name: str):
    change, words = ILL[name]
    history = [HEALTHY | change] * WINDOW
    assert _sounding(history) == {name}
    message = ALARMS[name](history)
    assert words in message
    assert ";" in message
    assert "\n" not in message


@pytest.mark.parametrize("name", CHANGES)
def test_each_change_sounds_its_own_alarm_only(name: str):
    change, words = CHANGES[name]
    history = [HEALTHY] * WINDOW + [HEALTHY | change] * WINDOW
    assert _sounding(history) == {name}
    assert words in str(ALARMS[name](history))
    assert _sounding([HEALTHY | change] * (2 * WINDOW)) == set()


@pytest.mark.parametrize(
    "name", ["sandbagging", "copying", "over_correction", "dead_groups", "reward_failures", "truncation"]
)
def test_shares_need_a_full_window(name: str):
    change, _ = ILL[name]
    assert _sounding([HEALTHY | change] * (WINDOW - 1)) == set()
    assert _sounding([HEALTHY] * WINDOW + [HEALTHY | change]) == set()


def test_an_alarm_ends_when_the_run_recovers():
    history = [HEALTHY | ILL["copying"][0]] * WINDOW
    assert _sounding(history + [HEALTHY] * WINDOW) == set()


def test_missing_null_and_nan_values_are_no_evidence():
    history = [{"x": 1.0}, {"x": None}, {}, {"x": float("nan")}, {"x": 3.0}]
    assert recent_mean(history, "x", 2) == 2.0
    assert recent_mean(history, "x", 3) is None
    assert window_means(history, "x", 1) == [1.0, 3.0]
