"""Reward functions of other libraries, unchanged, in worker processes."""

from pathlib import Path

import pytest

from rewards import RewardError, RewardPool, load_reward, score

FUNCTIONS = f"{Path(__file__).parent / 'functions.py'}:"


def messages(*texts):
    return [[{"role": "assistant", "content": text}] for text in texts]


def test_trl_accuracy_and_format_rewards():
    completions = messages(r"<think>hm</think> \boxed{\frac{1}{2}}", r"\boxed{3}")
    columns = {"solution": ["$0.5$", "$0.5$"]}
    with RewardPool(["trl.rewards:accuracy_reward", "trl.rewards:think_format_reward"], deadline=60) as pool:
        verdicts = pool.score(completions, columns)
    assert [verdict.score for verdict in verdicts] == [2.0, 0.0]
    assert [verdict.parts["think_format_reward"].score for verdict in verdicts] == [1.0, 0.0]


def test_named_columns_only():
    verdicts = score(FUNCTIONS + "asks_for_columns", ["a"], prompts=["12345"], completion_ids=[[1, 2]], other=["x"])
    assert verdicts[0].score == 7.0


def test_missing_and_ragged_columns():
    with pytest.raises(RewardError, match="needs column 'prompts'; the data has: other"):
        score(FUNCTIONS + "asks_for_columns", ["a"], other=["x"])
    with pytest.raises(RewardError, match="column 'answer' has 1 rows for 2 completions"):
        score("math", ["a", "b"], answer=["1"])
    with pytest.raises(RewardError, match="column 'answer' is a str"):
        score("math", ["a", "b"], answer="12")


def test_async_function():
    verdicts = score(FUNCTIONS + "asynchronous", ["good", "bad"])
    assert [verdict.score for verdict in verdicts] == [1.0, 0.0]
    assert load_reward(FUNCTIONS + "asynchronous")(["good"]) == [1.0]


def test_a_worker_has_one_event_loop_for_its_life():
    with RewardPool([FUNCTIONS + "asks_a_client"], workers=1) as pool:
        for texts in (["a", "bb"], ["ccc", "dd"], ["e", "f"]):
            assert [verdict.score for verdict in pool.score(texts, {})] == [len(text) for text in texts]
    reward = load_reward(FUNCTIONS + "asks_a_client")
    assert reward(["a"]) + reward(["bb"]) == [1.0, 2.0]


def test_verl_form():
    verdicts = score(FUNCTIONS + "compute_score", messages("4", "5"), data_source=["set"] * 2, ground_truth=["4", "4"])
    assert [verdict.score for verdict in verdicts] == [1.0, 0.0]
    nested = score(FUNCTIONS + "compute_score", ["4"], data_source=["set"], reward_model=[{"ground_truth": "4"}])
    assert nested[0].score == 1.0


def test_openrlhf_form():
    verdicts = score(FUNCTIONS + "reward_func", ["4", "5"], prompts=["2+2=", "2+2="], labels=["4", "4"])
    assert [verdict.score for verdict in verdicts] == [1.0, 0.0]


def test_function_of_an_importable_module_as_it_is():
    from rewards.arithmetic import pair_sum_reward

    assert score(pair_sum_reward, ["a and b"], numbers=[{"a": 1, "b": 2}], target=[3])[0].score == 1.0
