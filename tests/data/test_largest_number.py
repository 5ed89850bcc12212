"""The data source of recipes/small/largest_smollm2_135m.yaml."""

import re

import pytest

from rlcore.data import load_problems
from rlcore.errors import UserError
from rlcore.recipe import load_recipe


def test_answers_are_the_largest_and_no_problem_is_in_two_splits(repository):
    recipe = load_recipe(repository / "recipes/small/largest_smollm2_135m.yaml", ["data.options.count=500"])
    found = []
    for section in (recipe.data, recipe.evaluate.data):
        problems = load_problems(section)
        numbers = [[int(text) for text in re.findall(r"\d+", problem.messages[-1]["content"])] for problem in problems]
        assert [str(max(each)) for each in numbers] == [problem.columns["answer"] for problem in problems]
        assert all(len(each) == 6 and max(each) - min(each) < 300 for each in numbers)
        found.append({frozenset(each) for each in numbers})
    assert [len(each) for each in found] == [500, 1000]
    assert not found[0] & found[1]


def test_a_split_with_too_few_problems_says_so(repository):
    few = ["data.options.numbers=20", "data.options.spread=20"]
    recipe = load_recipe(repository / "recipes/small/largest_smollm2_135m.yaml", few)
    with pytest.raises(UserError, match=r"train has only \d+ different problems"):
        load_problems(recipe.data)
