"""Reasoning Gym's problems as data, and its verifiers as a reward."""

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from rewards import RewardPool
from rewards.pool import DEADLINE
from rlcore.data import load_problems
from rlcore.errors import UserError
from rlcore.recipe.schema import DataConfig

pytest.importorskip("reasoning_gym", reason="the extra reasoning-gym is not installed")
TASKS = ["chain_sum", "number_sorting", "spell_backward"]


def problems(task: str = "chain_sum", split: str = "train", count: int = 40, **options):
    section = {"source": "reasoning_gym", "split": split, "options": {"task": task, "count": count, **options}}
    return load_problems(DataConfig.model_validate(section))


def verdicts(asked, texts: list[str], deadline: float = DEADLINE):
    columns = {name: [problem.columns[name] for problem in asked] for name in ("task", "index")}
    with RewardPool([{"name": "reasoning_gym"}], workers=1, deadline=deadline) as pool:
        return pool.score(texts, columns)


def test_splits_share_no_problem_and_the_same_seed_makes_the_same():
    asked = {(split, seed): problems(split=split, seed=seed) for split in ("train", "test") for seed in (0, 1)}
    texts = {key: {problem.messages[-1]["content"] for problem in found} for key, found in asked.items()}
    assert all(len(found) == 40 for found in texts.values())
    assert not (texts["train", 0] | texts["train", 1]) & (texts["test", 0] | texts["test", 1])
    assert texts["train", 0] != texts["train", 1]
    assert problems() == asked["train", 0]


@pytest.mark.parametrize("task", TASKS)
def test_a_tasks_own_answers_are_right_and_others_wrong(task):
    asked = problems(task, count=8)
    answers = [problem.columns["answer"] for problem in asked]
    right = verdicts(asked, [f"So it is <answer> {answer} </answer>" for answer in answers])
    assert {(verdict.status, verdict.score) for verdict in right} == {("correct", 1.0)}
    others = verdicts(asked, [f"<answer>{answer}</answer>, no: <answer>nothing</answer>" for answer in answers])
    assert {(verdict.status, verdict.score) for verdict in others} == {("wrong", 0.0)}


def test_no_rows_deadline_pays_for_the_import():
    asked = problems(count=2)
    texts = [f"<answer>{problem.columns['answer']}</answer>" for problem in asked]
    assert [verdict.status for verdict in verdicts(asked, texts, deadline=1)] == ["correct", "correct"]


def test_the_package_is_imported_without_a_word(tmp_path):
    installed = Path(find_spec("cellpylib").submodule_search_locations[0])
    shutil.copytree(installed, tmp_path / "cellpylib", ignore=shutil.ignore_patterns("__pycache__"))  # to be compiled
    use = """from rewards.reasoning_gym import generator; generator('{"name": "chain_sum", "seed": 0}')"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.getcwd()])}
    done = subprocess.run([sys.executable, "-c", use], env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_answer_that_is_not_said_to_be_one_has_no_marks():
    (asked, *_) = problems(count=1)
    answer = asked.columns["answer"]
    texts = [answer, f"<think><answer>{answer}</answer></think>", f"The answer is {answer}."]
    assert [verdict.status for verdict in verdicts([asked] * 3, texts)] == ["no_answer", "no_answer", "correct"]


def test_a_mixture_of_tasks_is_judged_by_the_verifier_of_each():
    parts = [{"name": "chain_sum", "weight": 2}, {"name": "spell_backward", "config": {"min_word_len": 3}}]
    asked = problems("composite", settings={"datasets": parts})
    assert {"Spell" in problem.messages[-1]["content"] for problem in asked} == {True, False}
    judged = verdicts(asked, [f"<answer>{problem.columns['answer']}</answer>" for problem in asked])
    assert {verdict.status for verdict in judged} == {"correct"}


def test_settings_go_to_the_task():
    lengths = {len(json.loads(p.columns["task"])) for p in problems(settings={"min_terms": 2, "max_terms": 2})}
    assert lengths == {4}
    assert all(p.messages[-1]["content"].count(" + ") + p.messages[-1]["content"].count(" - ") == 1
               for p in problems(settings={"min_terms": 2, "max_terms": 2}))  # fmt: skip


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"task": "chain_summ"}, "did you mean 'chain_sum'"),
        ({"settings": {"terms": 3}}, "terms"),
        ({"settings": {"min_terms": 9, "max_terms": 2}}, "max_terms must be >= min_terms"),
        ({"counts": 3}, "counts"),
        ({"task": "composite", "settings": {"datasets": [{"name": "chain_summ"}]}}, "chain_summ"),
        ({"task": "composite", "settings": {"datasets": [{"name": "gsm_symbolic"}]}, "count": 900}, "settings.size"),
        ({"settings": {"min_terms": 2, "max_terms": 2, "max_digits": 1}, "count": 5000}, "lower count"),
    ],
)
def test_mistakes_end_in_one_line(options, said):
    with pytest.raises(UserError, match=said) as told:
        problems(**options)
    assert str(told.value).startswith("data.options: ")
    assert "\n" not in str(told.value)
