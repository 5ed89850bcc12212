"""The generator of lettered pairs: solvable, distinct, and split by content."""

import json
import re
from itertools import combinations

import pytest

from rlcore.data import load_problems
from rlcore.data.sources.arithmetic import answer, phrases
from rlcore.errors import UserError
from rlcore.policy import phrase_tokenizer
from rlcore.recipe.schema import DataConfig
from rlcore.types import Problem


def generated(split: str = "train", **options) -> list[Problem]:
    return load_problems(DataConfig(source="arithmetic", split=split, options=options))


def key(problem: Problem) -> tuple[tuple[int, ...], int]:
    """A problem up to the letters its numbers stand at."""
    return tuple(sorted(json.loads(problem.columns["numbers"]).values())), problem.columns["target"]


def test_question_columns_and_answer_agree():
    for problem in generated(count=500):
        numbers, target = json.loads(problem.columns["numbers"]), problem.columns["target"]
        text = problem.messages[0]["content"]
        assert int(re.search(r"add up to (\d+):", text)[1]) == target
        assert {letter: int(number) for letter, number in re.findall(r"([a-z]) = (\d+)", text)} == numbers
        assert len(set(numbers.values())) == 4
        assert set(numbers.values()) <= set(range(1, 13))
        right = [pair for pair in combinations(numbers, 2) if numbers[pair[0]] + numbers[pair[1]] == target]
        assert right
        assert answer(numbers, *right[0], target).endswith(f"= {target}")
        for x, y in combinations(numbers, 2):
            left, relation, stated = re.search(r": (\d+ \+ \d+) ([<=>]) (\d+)$", answer(numbers, x, y, target)).groups()
            assert eval(f"{left} {relation.replace('=', '==')} {stated}"), "every check an answer makes is true"
            assert (relation == "=") == ((x, y) in right)


def test_problems_are_distinct_and_their_order_follows_the_seed():
    problems = generated(count=3000)
    assert len({problem.messages[0]["content"] for problem in problems}) == 3000
    assert len({problem.id for problem in problems}) == 3000
    assert problems == generated(count=3000)
    assert problems != generated(count=3000, seed=1)


def test_splits_share_no_problem_in_any_order_of_its_letters():
    keys = [
        {key(problem) for problem in generated(split, count=3000, seed=4)} for split in ("train", "validation", "test")
    ]
    assert not any(a & b for a, b in combinations(keys, 2))
    assert all(len(keys_of_split) > 100 for keys_of_split in keys)


def test_more_letters_and_numbers():
    problem = generated(count=1, letters=6, max_number=40)[0]
    assert list(json.loads(problem.columns["numbers"])) == list("abcdef")


def test_words_cover_every_question_and_answer():
    tokenizer = phrase_tokenizer(phrases(5, 20))
    for problem in generated(count=200, letters=5, max_number=20):
        text = answer(json.loads(problem.columns["numbers"]), "a", "e", problem.columns["target"])
        for content in (problem.messages[0]["content"], text):
            assert tokenizer.unk_token_id not in tokenizer.encode(f" {content}")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"leters": 4}, "data.options: unknown key leters; did you mean letters?"),
        ({"letters": 40}, "data.options: letters: input should be less than or equal to 26, not 40"),
        ({"letters": 9, "max_number": 5}, "9 letters need max_number of at least 9"),
        ({"count": 5000, "max_number": 5}, r"found only \d+ of 5,000 different problems in the train split"),
        ({"count": 0}, "data.options: count: input should be greater than 0"),
    ],
)
def test_wrong_options_are_one_line(options, message):
    with pytest.raises(UserError, match=message) as error:
        generated(**options)
    assert "\n" not in str(error.value)


def test_an_unknown_split_names_the_known_ones():
    with pytest.raises(UserError, match=r"data split dev is unknown.*test, validation, train"):
        generated("dev", count=1)
