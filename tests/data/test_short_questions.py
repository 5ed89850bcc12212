"""Sums and comparisons, the source of recipes/test_time/short_questions_policy.yaml."""

import re
from collections import Counter
from pathlib import Path

import pytest

from rlcore.data import load_problems
from rlcore.errors import UserError
from rlcore.kinds.think import has_symbols
from rlcore.recipe.schema import DataConfig
from rlcore.types import Problem, Turn

FILE = Path(__file__).parents[2] / "recipes" / "test_time" / "short_questions.py"
VALUE = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9}


def questions(split: str, count: int = 400) -> list[Problem]:
    return load_problems(DataConfig(source=f"{FILE}:SOURCE", split=split, options={"count": count}), print)


def parts(text: str) -> list[str]:
    """What a question sums or compares."""
    listed = text.removeprefix("At once: ").removeprefix("What is ").removeprefix("Which is the biggest: ")
    return re.split(r"\+| plus |, | or ", listed.removesuffix("?"))


def test_questions_have_their_answers():
    bigger = set()
    for problem in questions("test", 1000):
        subject, answer, given = problem.columns["subject"], problem.columns["answer"], parts(problem.text)
        if subject.startswith("sum"):
            assert int(answer) == sum(VALUE.get(term) or int(term) for term in given)
        elif subject == "biggest number":
            assert int(answer) == max(map(int, given))
        else:
            bigger |= {(answer, other) for other in given if other != answer}
    assert {("bus", "cup"), ("moon", "pin")} <= bigger
    assert not any((y, x) in bigger for x, y in bigger)


def test_lessons_are_thought_out_step_by_step_to_the_answer():
    for problem in questions("lessons", 1000):
        thought, _, answer = problem.columns["lesson"].rpartition(" so ")
        assert answer == problem.columns["answer"]
        assert all(int(x) + int(y) == int(z) for x, y, z in re.findall(r"(\d+)\+(\d+)=(\d+)", thought))
        ways = [message["content"].startswith("At once: ") for message in problem.messages]
        assert (len(ways), thought == "") in {(1, True), (1, False), (3, False)}
        assert not (ways == [True] and thought), "what is to be answered at once is thought out"


def test_symbols_are_in_sums_in_digits_and_where_numbers_are_compared():
    found = questions("test", 1000)
    look = Turn((), (), (), "stop", "7", ())
    gate = {(p.columns["subject"], has_symbols(p, look)) for p in found}
    assert gate == {
        ("sum in digits", True),
        ("sum in words", False),
        ("biggest thing", False),
        ("biggest number", True),
    }
    shares = Counter(p.columns["subject"] for p in found)
    assert {name: count / 1000 for name, count in shares.items()} == pytest.approx(
        {"sum in digits": 0.35, "sum in words": 0.15, "biggest thing": 0.35, "biggest number": 0.15}, abs=0.05
    )


def test_what_is_asked_in_a_test_is_in_no_lesson_in_any_order():
    def of(problem: Problem) -> tuple[str, ...]:
        return tuple(sorted(str(VALUE.get(part, part)) for part in parts(problem.messages[0]["content"])))

    asked = {of(p) for p in questions("test", 2000)}
    assert asked.isdisjoint({of(p) for split in ("train", "lessons", "validation") for p in questions(split, 4000)})


def test_an_unknown_split_is_named():
    with pytest.raises(UserError, match="data split tests is unknown to short_questions; it has test, validation"):
        questions("tests")
