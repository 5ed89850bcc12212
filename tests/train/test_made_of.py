"""What of a recipe decides a run's samples and its weights, and what may change without either being lost."""

import pytest

from rlcore.recipe import load_recipe
from rlcore.train.made_of import MadeOf, made_of, runs_of
from tests.tiny import write_recipe

INPUTS = {"data": {"content": "a"}, "evaluate.data": {"content": "b"}}
CREDIT = ["credit.baseline=group", "credit.best_of=2", "stages.1.reward=[0,1]", "stages.1.bonus=1"]
"""What decides which groups are dead, and with that the samples, but only where others take their place."""
ELSEWHERE = [
    "rewards.max_failed=0.3",
    "rewards.workers=8",
    "rewards.deadline=20",
    "evaluate.problems=4",
    "evaluate=null",
]
ELSEWHERE += [
    "stages.1.name=b",
    "learner.micro_batch_tokens=999",
    "learner.deadline=9",
    "checkpoint.every=1",
    "output=x",
]
SAMPLING = ["seed=1", "rollout.temperature=2", "batch.group=8", "batch.ahead=2", "conversation.instruction=x"]


@pytest.fixture
def made(tmp_path):
    path = write_recipe(tmp_path)

    def make(*overrides: str, **changed: object) -> MadeOf:
        return made_of(load_recipe(path, ["batch.ahead=1", *overrides]), INPUTS | changed)

    return make


@pytest.mark.parametrize("change", ELSEWHERE)
def test_what_touches_neither_samples_nor_weights_may_change(made, change):
    assert made(change) == made()


@pytest.mark.parametrize("change", [*CREDIT, "learner.lr=1", "learner.clip=[1,1]", "stages.1.kl=[1,1]"])
def test_what_only_the_weights_depend_on_leaves_the_samples(made, change):
    assert made(change).groups == made().groups
    assert made(change).same_until(made()) == (3 if change.startswith("stages") else 0)


@pytest.mark.parametrize("change", CREDIT)
def test_credit_decides_samples_where_dead_groups_are_replaced(made, change):
    rounds = "batch.resample=1"
    assert made(rounds, change).groups != made(rounds).groups


@pytest.mark.parametrize("change", [*SAMPLING, "stages.0.base_first=0.5", "rewards.functions.0.weight=2"])
def test_what_the_samples_depend_on_the_weights_depend_on_too(made, change):
    assert made(change).groups[0] != made().groups[0]
    assert made(change).same_until(made()) == 0


def test_the_data_count_and_the_held_out_data_do_not(made):
    assert made(data={"content": "c"}).groups[0] != made().groups[0]
    assert made(**{"evaluate.data": {"content": "c"}}) == made()


def test_more_steps_leave_those_before_as_they_are_unless_the_learning_rate_falls_over_all_of_them(made):
    assert made("stages.1.steps=9").same_until(made()) == 6
    assert made("stages.1.steps=9").groups[:6] == made().groups
    falls = "learner.decay=0.5"
    assert made("stages.1.steps=9", falls).same_until(made(falls)) == 0


def test_updates_before_a_checkpoint_stay_what_they_were_made_of(tmp_path):
    path = write_recipe(tmp_path)
    first = made_of(load_recipe(path), INPUTS)
    second = made_of(load_recipe(path, ["learner.lr=1"]), INPUTS, 2, runs_of(first.updates))
    assert second.same_until(first) == 2
    third = made_of(load_recipe(path), INPUTS, 4, runs_of(second.updates))
    assert (third.same_until(second), third.same_until(first)) == (4, 2)
    assert made_of(load_recipe(path), INPUTS, 2).same_until(first) == 0, "a checkpoint that does not say"
