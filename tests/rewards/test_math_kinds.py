r"""Kinds of answers once judged wrongly: paid without being right, or right and refused."""

import pytest

from rewards import RewardPool
from rewards.math import _cache, math_reward
from tests.rewards.pairs_that_agree import REFUSED_WRONGLY
from tests.rewards.pairs_that_differ import PAID_WRONGLY

PATIENT = 30.0  # seconds, on a machine that may be busy


def judge(gold: str, found: str) -> float | None:
    return math_reward([rf"so it is \boxed{{{found}}}."], answer=[gold], deadline=PATIENT)[0]


@pytest.mark.parametrize(("gold", "found"), PAID_WRONGLY)
def test_different(gold, found):
    assert judge(gold, found) == 0.0


@pytest.mark.parametrize(("gold", "found"), REFUSED_WRONGLY)
def test_equal(gold, found):
    assert judge(gold, found) == 1.0


@pytest.mark.parametrize(
    ("attempt", "expected"),
    [
        (r"\boxed{3} and so \boxed{}", 1.0),
        (r"\boxed{3} or \boxed{5} and so \boxed{ }", 0.0),
        (r"$\\boxed{3}$, then \{", 1.0),
        (r"\\\boxed{3}", 1.0),
        (r"$\\boxed{5}$", 0.0),
        (r"The final answer is $\$3$. I hope it is correct.", 1.0),
        (r"The final answer is $\$5$. I hope it is correct.", 0.0),
        ("#### : 3", 1.0),
        ("####: 3", 1.0),
        ("#### : 5", 0.0),
        ("#### Answer: 3", 1.0),
        ("#### = 3", 1.0),
    ],
)
def test_where_the_answer_is(attempt, expected):
    assert math_reward([attempt], answer=["3"]) == [expected]


@pytest.mark.parametrize(
    ("policy", "attempt", "gold", "expected"),
    [
        ("boxes", r"\boxed{3} or \boxed{5}", "3,5", 1.0),
        ("boxed", r"\boxed{3} or \boxed{5}", "3,5", 0.0),
        ("boxes", r"\boxed{3} or \boxed{5}", "5", 0.0),
        ("boxes", r"\boxed{\boxed{3}}", "3", 1.0),
        ("plain", "The final answer is 18.", "18", 1.0),
        ("plain", r"The answer is \(18\). Done.", "18", 1.0),
        ("plain", "The final answer is $1.5$", "1.5", 1.0),
        ("plain", "Final Answer: The final answer is 7.78. I hope it is correct.", "7.78", 1.0),
        ("plain", r"Final Answer: The final answer is \((-6, 10)\).", "(-6,10)", 1.0),
        ("plain", "The answer is 18, not 17", "17", 0.0),
        ("plain", r"so \boxed 7", "7", 1.0),
        ("final_answer", "The final answer is 18.", "18", 0.0),
    ],
)
def test_policies_to_ask_for(policy, attempt, gold, expected):
    assert math_reward([attempt], answer=[gold], policy=[policy]) == [expected]


def test_a_timeout_has_no_score_or_the_one_that_was_asked_for():
    attempt = r"\boxed{99999999!}"
    with RewardPool(["math", {"name": "math", "kwargs": {"late": 0.0}}], deadline=2.0) as pool:
        parts = pool.score([attempt], {"answer": ["5"]})[0].parts
    assert {name: (part.score, part.status) for name, part in parts.items()} == {
        "math": (None, "timeout"),
        "math#2": (0.0, "timeout"),
    }
    assert math_reward([attempt], answer=["5"], deadline=0.5, late=0.0) == [0.0]


def test_a_timeout_is_tried_again():
    attempt, gold = r"\boxed{(x+y+z+w+1)^{100}}", "x+y+1"
    assert math_reward([attempt], answer=[gold], deadline=0.5) == [None]
    assert not [pair for pair in _cache if "^{100}" in pair[1]]
