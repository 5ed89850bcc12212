"""Lettered pairs with solved ones beside them, the source of recipes/test_time/adapt_pairs.yaml."""

from pathlib import Path

from rewards.arithmetic import pair_sum_reward
from rlcore.data import load_problems
from rlcore.data.sources import arithmetic
from rlcore.recipe.schema import DataConfig

SOURCE = f"{Path(__file__).parents[2] / 'recipes' / 'test_time' / 'solved_pairs.py'}:SOLVED_PAIRS"


def test_the_problems_of_the_arithmetic_source_have_right_solutions_of_others_beside_them():
    found = load_problems(DataConfig(source=SOURCE, split="test", options={"count": 40, "solved": 5}))
    plain = load_problems(DataConfig(source="arithmetic", split="test", options={"count": 40}))
    assert [(p.id, p.messages) for p in found] == [(p.id, p.messages) for p in plain]
    pairs = [pair for problem in found for pair in problem.columns["train"]]
    assert len(pairs) == 200
    targets, numbers = zip(*(_read(pair["input"]) for pair in pairs), strict=True)
    assert pair_sum_reward([pair["output"] for pair in pairs], numbers, targets) == [1.0] * 200
    tenths = {arithmetic.tenth(tuple(each.values()), target) for each, target in zip(numbers, targets, strict=True)}
    assert tenths <= set(arithmetic.SPLITS["train"])


def _read(question: str) -> tuple[int, dict[str, int]]:
    """The target and the numbers of `Which two add up to 13: a = 3, b = 8?`."""
    target, listed = question.removeprefix("Which two add up to ").removesuffix("?").split(": ")
    given = (part.split(" = ") for part in listed.split(", "))
    return int(target), {letter: int(number) for letter, number in given}
