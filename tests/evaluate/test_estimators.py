"""pass@k and maj@k against every subset, and against the accuracy of fresh samples."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest

from rlcore.evaluate.estimators import maj_at_k, pass_at_k, vote_rows


def brute_force(answers, correct, k, vote):
    """The mean of a vote over all subsets of size k."""
    subsets = list(itertools.combinations(range(len(answers)), k))
    return sum(vote([answers[i] for i in s], [correct[i] for i in s]) for s in subsets) / len(subsets)


def majority(answers, correct):
    votes = Counter(answer for answer in answers if answer is not None)
    if not votes:
        return 0.0
    top = [answer for answer, count in votes.items() if count == max(votes.values())]
    rights = dict(zip(answers, correct, strict=True))
    return sum(rights[answer] for answer in top) / len(top)


@pytest.mark.parametrize("seed", range(12))
def test_both_equal_the_mean_over_all_subsets(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 10))
    answers = [[None, "a", "b", "c", "d"][i] for i in rng.integers(0, 5, n)]
    right = {"a": True, "b": seed % 3 == 0}  # now and then two different answers are right
    correct = [right.get(answer, False) for answer in answers]
    for k in range(1, n + 1):
        assert maj_at_k(answers, correct, k) == pytest.approx(brute_force(answers, correct, k, majority), abs=1e-12)
        assert pass_at_k(correct, k) == pytest.approx(brute_force(answers, correct, k, lambda a, c: any(c)), abs=1e-12)


def test_hand_worked_votes():
    assert maj_at_k(["4", "4", "5"], [True, True, False], 3) == 1
    assert maj_at_k(["4", "5"], [True, False], 2) == 0.5
    assert maj_at_k([None, None], [False, False], 2) == 0
    assert maj_at_k([None, "4"], [False, True], 2) == 1
    assert pass_at_k([True, False, False, False], 2) == 0.5
    assert math.isnan(maj_at_k(["4"], [True], 2))
    assert math.isnan(pass_at_k([True], 2))


def test_one_sample_is_accuracy_and_many_samples_do_not_overflow():
    answers = [str(i % 7) for i in range(400)]
    correct = [answer == "0" for answer in answers]
    assert maj_at_k(answers, correct, 1) == pytest.approx(sum(correct) / 400)
    assert maj_at_k(answers, correct, 400) == pytest.approx(1.0)
    assert 0 < maj_at_k(answers, correct, 100) < 1
    assert pass_at_k(correct, 400) == 1


def test_unbiased_for_a_vote_of_fresh_samples():
    """Estimates of maj@3 from 8 samples against 3 fresh samples, over many problems of one distribution."""
    rng = np.random.default_rng(0)
    names, chances = ["a", "b", "c", None], [0.4, 0.3, 0.2, 0.1]
    draws = rng.choice(4, (6_000, 11), p=chances)
    answers = [[names[i] for i in row] for row in draws]
    estimates = [maj_at_k(row[:8], [a == "a" for a in row[:8]], 3) for row in answers]
    fresh = [majority(row[8:], [a == "a" for a in row[8:]]) for row in answers]
    assert abs(np.mean(estimates) - np.mean(fresh)) < 0.02


def test_figures_of_all_k_are_over_the_same_problems_though_some_conversations_are_unscored():
    def record(first, second):
        told = {1.0: ("correct", "4"), 0.0: ("wrong", "5"), None: ("failed", None)}
        attempts = [(score, *told[score]) for score in (first, second)]
        return {"attempts": [{"score": score, "status": status, "answer": a} for score, status, a in attempts]}

    easy = vote_rows([record(1.0, 1.0)] * 6 + [record(0.0, 1.0), record(1.0, None)], 2)
    assert [easy[f"pass@{k}_t1"] for k in (2, 4, 8)] == [1.0, 1.0, 1.0]
    assert easy["maj@8_t1"] == easy["maj@8_t2"] == 1.0
    seven = [True] * 6 + [False]
    assert easy["maj@4_t1"] == maj_at_k(["4"] * 6 + ["5"], seven, 4)
    assert easy["pass@2_t1"] == pass_at_k(seven, 2)
    assert all(math.isnan(value) for value in vote_rows([record(1.0, None)] * 4, 2).values())
