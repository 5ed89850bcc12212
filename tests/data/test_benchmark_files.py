"""The real benchmark files load, whole."""

import pytest

from rlcore.data import load_problems
from rlcore.recipe.schema import DataConfig

CASES = [
    ("gsm8k", "gsm8k_train.jsonl", "train", 7473, "answer"),
    ("gsm8k", "gsm8k_test.jsonl", "test", 1319, "answer"),
    ("math", "math_test5000.jsonl", "test", 5000, "answer"),
    ("math", "math500.jsonl", "test", 500, "answer"),
    ("mbpp", "mbpp.jsonl", "train", 374, "test_list"),
    ("mbpp", "mbpp.jsonl", "test", 500, "test_list"),
    ("mbpp", "mbpp.jsonl", "all", 974, "test_list"),
    ("humaneval", "HumanEval.jsonl.gz", "test", 164, "test"),
]


@pytest.mark.parametrize(("source", "file", "split", "count", "gold"), CASES)
def test_a_benchmark_file_loads(benchmark_data, source, file, split, count, gold):
    problems = load_problems(DataConfig(source=source, path=str(benchmark_data / file), split=split))
    assert len(problems) == count
    assert all(problem.columns[gold] for problem in problems)


def test_math_test_problems_without_math_500_are_those_score_trains_on(benchmark_data):
    math_500 = str(benchmark_data / "math500.jsonl")
    problems = load_problems(
        DataConfig(source="math", path=str(benchmark_data / "math_test5000.jsonl"), exclude=math_500)
    )
    assert len(problems) == 4500
