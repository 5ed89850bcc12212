"""Metrics against hand-worked numbers and an independent brute-force calculation."""

import math

import numpy as np
import pytest

from rlcore.evaluate.metrics import answer_change, correction_rows, edit_ratio, flip_kind, row_means

NAN = float("nan")


def correction_metrics(rewards_NA: np.ndarray) -> dict[str, float]:
    return row_means(correction_rows(rewards_NA))


def test_hand_worked_flips():
    rewards_NA = np.array([[1, 1], [1, 0], [0, 1], [0, 1], [0, 0]], dtype=float)
    assert correction_metrics(rewards_NA) == pytest.approx(
        {"t1": 0.4, "t2": 0.6, "delta": 0.2, "i_to_c": 0.4, "c_to_i": 0.2, "unscored": 0.0}
    )


def test_rows_without_a_score_are_left_out_and_counted():
    rewards_NA = np.array([[1, 1], [NAN, 1], [0, NAN], [0, 1]])
    got = correction_metrics(rewards_NA)
    assert got == pytest.approx({"t1": 0.5, "t2": 1.0, "delta": 0.5, "i_to_c": 0.5, "c_to_i": 0.0, "unscored": 0.5})


def test_partial_credit_counts_as_wrong():
    got = correction_metrics(np.array([[0.9, 1.0 - 1e-12], [0.5, 0.6]]))
    assert (got["t1"], got["t2"], got["i_to_c"]) == (0.0, 0.5, 0.5)


def test_nothing_scored_gives_nan_not_zero():
    got = correction_metrics(np.full((3, 2), NAN))
    assert got["unscored"] == 1.0
    assert math.isnan(got["t1"])
    assert math.isnan(got["delta"])


@pytest.mark.parametrize("attempts", [1, 2, 4])
def test_last_accuracy_is_first_plus_flips_and_equals_brute_force(attempts):
    rng = np.random.default_rng(attempts)
    rewards_NA = rng.choice([0.0, 0.5, 1.0, NAN], (500, attempts), p=[0.4, 0.1, 0.45, 0.05])
    got = correction_metrics(rewards_NA)
    kept = [row for row in rewards_NA.tolist() if not any(math.isnan(r) for r in row)]
    right = [[r == 1.0 for r in row] for row in kept]
    for a in range(attempts):
        assert got[f"t{a + 1}"] == pytest.approx(sum(row[a] for row in right) / len(right))
    assert got["i_to_c"] == pytest.approx(sum(not row[0] and row[-1] for row in right) / len(right))
    assert got["c_to_i"] == pytest.approx(sum(row[0] and not row[-1] for row in right) / len(right))
    assert got[f"t{attempts}"] == pytest.approx(got["t1"] + got["i_to_c"] - got["c_to_i"])
    assert got["unscored"] == pytest.approx(1 - len(kept) / 500)


def test_answer_change_is_a_share_of_the_steps_between_attempts():
    assert answer_change([["7", "7"], ["7", "8"], ["a", "b", "b"]]).tolist() == [0.0, 1.0, 0.5]
    assert math.isnan(answer_change([["7"]])[0])


def _levenshtein(a, b):
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        previous, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (x != y))
    return row[-1]


def test_edit_ratio_equals_brute_force_on_texts_and_on_token_ids():
    rng = np.random.default_rng(0)
    pairs = [[tuple(rng.integers(0, 5, rng.integers(0, 90)).tolist()) for _ in range(2)] for _ in range(60)]
    expected = [_levenshtein(a, b) / max(len(a) + len(b), 1) for a, b in pairs]
    ids = edit_ratio([a for a, _ in pairs], [b for _, b in pairs])
    texts = edit_ratio(*(["".join(map(str, pair[k])) for pair in pairs] for k in (0, 1)))
    assert ids.tolist() == pytest.approx(expected)
    assert texts.tolist() == pytest.approx(expected)


def test_edit_ratio_of_a_copy_a_rewrite_and_nothing():
    assert edit_ratio(["same", "abc", "", ""], ["same", "xyz", "", "new"]).tolist() == [0.0, 0.5, 0.0, 1.0]


def test_flip_kinds():
    assert [flip_kind(*p) for p in [(1, 1), (1, 0.5), (0, 1), (0, 0)]] == ["c→c", "c→i", "i→c", "i→i"]
    assert flip_kind(None, 1.0) is None
    assert flip_kind(1.0, NAN) is None
