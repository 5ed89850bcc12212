"""The data source of recipes/small/largest_smollm2_135m.yaml."""

import re

from rlcore.data import load_problems
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
