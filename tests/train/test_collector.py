"""What a step is trained on, in this process: offline first attempts, branches, and groups sampled for dead ones."""

from contextlib import nullcontext
from itertools import count

import pytest
import torch

from rewards import Verdict
from rlcore.data import load_problems
from rlcore.errors import UserError
from rlcore.ranks import Ranks
from rlcore.recipe import load_recipe
from rlcore.rollout import Rollout
from rlcore.train.base_attempts import FILE, BaseAttempts
from rlcore.train.collect import Collector
from tests.rollout.scripted import ScriptedEngine, ScriptedScorer, conversation
from tests.tiny import write_recipe

STAGES = [
    {"name": "one", "steps": 1, "kl": [0, 0]},
    {"name": "two", "steps": 2, "kl": [0, 0], "base_first": 0.5},
]
BATCH = {"problems": 4, "group": 4, "branches": 2, "resample": 2}


class Shared(ScriptedEngine):
    """Numbers its replies, and counts the phases that ranks which share an engine leave together."""

    def __init__(self, tokenizer):
        numbers = count()
        super().__init__(tokenizer, lambda key, turn, text: str(next(numbers)))
        self.phases = 0

    def together(self):
        self.phases += 1
        return nullcontext()


class Steps:
    """A recipe's steps as rank `rank` of `world` collects them; rewards differ but at `dead` problems."""

    def __init__(self, folder, *, dead=(), resumed=False, rank=0, world=1):
        talk, ranks = conversation(attempts=2), Ranks(rank, world, torch.device("cpu"))
        self.recipe = load_recipe(
            write_recipe(folder, stages=STAGES, batch=BATCH, credit={"baseline": "tree"}, evaluate=None)
        )
        self.engine, self.problems = Shared(talk.tokenizer), load_problems(self.recipe.data)
        self.dead = {self.problems[at].id for at in dead}
        self.rollout = Rollout(self.recipe, self.engine, talk, ScriptedScorer(self.judge))
        self.told = []
        base = BaseAttempts(folder, self.rollout, ranks, lambda *_: nullcontext(self.told.append), resumed=resumed)
        self.collector = Collector(self.recipe, ranks, self.rollout, self.problems, base)

    def judge(self, problem, text) -> Verdict:
        return Verdict(0.0 if problem.id in self.dead else float(int(text) % 2), "wrong")

    def collect(self, step: int):
        return self.collector.collect(step, self.recipe.stages[min(step, 1)])


@pytest.fixture
def steps(tmp_path) -> Steps:
    return Steps(tmp_path)


def test_half_of_the_first_attempts_are_the_starting_policys_and_branches_share_them(steps):
    sampled_first = max(int(attempt.text) for group in steps.collect(0).groups for t in group for attempt in t.turns)
    collected = steps.collect(1)
    assert len(collected.groups) == 4
    for group, measured in zip(collected.groups, collected.measured, strict=True):
        firsts = [trajectory.turns[0] for trajectory in group]
        assert firsts[0].text == firsts[1].text != firsts[2].text == firsts[3].text
        assert [turn.trained for turn in firsts] == [False, False, True, False]
        assert int(firsts[0].text) < sampled_first < int(firsts[2].text), "sampled before the first step"
        assert measured == group[2:], "accuracies are measured on what the policy sampled from the first token on"
    assert not any(turn.text == "" for group in collected.groups for t in group for turn in t.turns)


def test_base_attempts_are_sampled_once_told_by_conversation_and_read_when_the_run_resumes(steps, tmp_path):
    begun = {problem.id for step in (1, 2) for problem in [g[0].problem for g in steps.collect(step).groups]}
    rows = (tmp_path / FILE).read_text().splitlines()
    assert len(rows) >= len(begun)
    assert steps.told == [1] * len(rows), "one first attempt of each problem, told one by one"
    resumed = Steps(tmp_path, resumed=True)
    assert resumed.told == []
    again, before = ([group[0].turns[0] for group in run.collect(2).groups] for run in (resumed, steps))
    assert [turn.response_ids for turn in again] == [turn.response_ids for turn in before]
    assert [turn.logprobs for turn in again] == [turn.logprobs for turn in before], "a kind may ask how sure they were"
    (tmp_path / FILE).write_text("\n".join(rows[:1]))
    with pytest.raises(UserError, match=f"{FILE} holds 0 first attempts at problem .*, not the 1 that the recipe"):
        Steps(tmp_path, resumed=True)
    (tmp_path / FILE).unlink()
    with pytest.raises(UserError, match=f"first attempts of the policy at the start are lost: cannot read .*{FILE}"):
        Steps(tmp_path, resumed=True)


def test_dead_groups_give_way_to_those_of_other_problems_for_so_many_rounds(tmp_path):
    alive = Steps(tmp_path).collect(0)
    assert alive.groups == alive.measured
    some = Steps(tmp_path, dead=range(16))
    collected = some.collect(0)
    first, fresh = collected.measured[:4], collected.measured[4:]
    dead = [at for at, group in enumerate(first) if group[0].problem.id in some.dead]
    assert 0 < len(dead) < 4, "the seed should give some of both for this to test anything"
    assert all(collected.groups[at] == first[at] for at in range(4) if at not in dead)
    assert all(collected.groups[at] in fresh for at in dead)
    none = Steps(tmp_path, dead=range(32)).collect(0)
    assert len(none.measured) == 4 * (1 + BATCH["resample"]), "all were replaced in every round"
    assert none.groups == none.measured[-4:]


def test_ranks_share_a_step_and_leave_the_engine_once_for_each(tmp_path):
    def asked(rank: int, world: int) -> list[str]:
        steps = Steps(tmp_path, resumed=True, rank=rank, world=world)
        groups = steps.collect(1).measured[: 4 // world]
        assert steps.engine.phases == 1
        return [group[0].problem.id for group in groups]

    Steps(tmp_path)
    assert asked(0, 2) + asked(1, 2) == asked(0, 1)
