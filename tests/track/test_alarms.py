"""Alarms sound when they should, say why, and are silent without enough evidence."""

import pytest

from rlcore.track.alarms import ALARMS, WINDOW, recent_mean

HEALTHY = {
    "train/sandbagging": -0.02,
    "train/answer_change": 0.3,
    "train/i_to_c": 0.1,
    "train/c_to_i": 0.02,
    "train/dead_groups": 0.4,
    "learner/mismatch_kl": 0.001,
    "learner/kl_t1": 0.02,
    "learner/kl_t2": 0.2,
}
ILL = {
    "sandbagging": ({"train/sandbagging": 0.06}, "6 points below the base"),
    "copying": ({"train/answer_change": 0.012}, "only 1.2 % of the answers"),
    "over_correction": ({"train/c_to_i": 0.15}, "spoils 15.0 % and repairs 10.0 %"),
    "dead_groups": ({"train/dead_groups": 0.85}, "85 % of the groups"),
    "mismatch": ({"learner/mismatch_kl": 0.25}, "0.25 nats"),
    "runaway_kl": ({"learner/kl_t2": 1.5}, "attempt 2 is 1.5 nats"),
}


def _sounding(history: list[dict]) -> set[str]:
    return {name for name, alarm in ALARMS.items() if alarm(history)}


def test_every_alarm_is_covered_here():
    assert set(ILL) == set(ALARMS)


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


@pytest.mark.parametrize("name", ["sandbagging", "copying", "over_correction", "dead_groups"])
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
