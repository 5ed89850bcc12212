"""What the verdicts of computer algebra are remembered for: bounded, by least use, on all threads; failures never."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from rewards import math
from rewards.math import math_reward
from rewards.verdict import Verdict


class CountedAlgebra:
    """In the place of the worker pool: says wrong of everything, fails for what is listed, and counts."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.failing: dict[str, str] = {}

    def score(self, formulas, columns):
        self.asked.extend(formulas)
        return [Verdict(None, self.failing[f]) if f in self.failing else Verdict(0.0, "wrong") for f in formulas]


@pytest.fixture
def algebra(monkeypatch):
    counted = CountedAlgebra()
    monkeypatch.setattr(math, "shared_pool", lambda spec, deadline: counted)
    monkeypatch.setattr(math, "_CACHE_SIZE", 3)
    math._cache.clear()
    yield counted
    math._cache.clear()


def judge(letter: str) -> float | None:
    return math_reward([rf"\boxed{{|{letter}|}}"], answer=["x"])[0]


def test_a_verdict_is_asked_for_once(algebra):
    assert [judge("a"), judge("a")] == [0.0, 0.0]
    assert algebra.asked == ["|a|"]


@pytest.mark.parametrize("status", ["timeout", "error"])
def test_a_failure_is_tried_again(algebra, status):
    algebra.failing["|a|"] = status
    assert [judge("a"), judge("a")] == [None, None]
    algebra.failing.clear()
    assert judge("a") == 0.0
    assert algebra.asked == ["|a|"] * 3


def test_the_verdict_used_longest_ago_goes_first(algebra):
    for letter in "abcad":
        judge(letter)
    assert algebra.asked == ["|a|", "|b|", "|c|", "|d|"]
    judge("a")
    judge("b")
    assert algebra.asked[4:] == ["|b|"]
    assert len(math._cache) == 3


def test_many_threads_at_once(algebra):
    with ThreadPoolExecutor(8) as threads:
        scores = list(threads.map(judge, "abcdefgh" * 50))
    assert scores == [0.0] * 400
    assert len(math._cache) == 3
