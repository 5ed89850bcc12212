"""Sampling ahead of the learner: the law, in this process, over engines that answer when they are told to."""

import asyncio
import gc
import random
from contextlib import nullcontext

import pytest
import torch

from rewards import Verdict
from rlcore.data import load_problems
from rlcore.errors import UserError
from rlcore.ranks import Ranks
from rlcore.recipe import load_recipe
from rlcore.recipe.schema import RewardsConfig
from rlcore.rollout import Rollout, Scorer
from rlcore.rollout.sampling import mixed_seed
from rlcore.train.ahead import Ahead
from rlcore.train.base_attempts import BaseAttempts
from rlcore.train.ledger import Ledger
from rlcore.train.made_of import made_of, runs_of
from rlcore.train.step_metrics import TooManyUnscored, check_scored
from tests.rollout.scripted import ScriptedEngine, ScriptedScorer, conversation
from tests.tiny import write_recipe

STAGES = [{"name": "one", "steps": 4, "kl": [0, 0]}, {"name": "two", "steps": 6, "kl": [0, 0], "base_first": 0.5}]
SERVERS = {"engine": "vllm", "mode": "servers", "servers": ["http://nowhere:1"]}
SIZE, GROUP = 4, 4


class Versioned(ScriptedEngine):
    """Answers after a random while with what its conversation's key says, by the weights of that moment."""

    def __init__(self, tokenizer, draw: random.Random):
        super().__init__(tokenizer, lambda key, turn, text: "x" * (1 + (key + turn) % 23))
        self.draw, self.version, self.least = draw, 0, []
        self.stuck: set[str] = set()

    async def sample(self, ids, sampling, *, key, last):
        sample = await super().sample(ids, sampling, key=key, last=last)
        self.least.append((sampling.least_version, self.version))
        begun = self.version
        await asyncio.sleep(self.draw.choice([0, 0, 0.001, 0.004]))
        while any(word in self.tokenizer.decode(list(ids)) for word in self.stuck):
            await asyncio.sleep(0.01)
        cut = self.draw.randrange(len(sample.ids) + 1)
        versions = (begun,) * cut + (self.version,) * (len(sample.ids) - cut)
        return type(sample)(sample.ids, sample.logprobs, sample.finish, versions)

    def together(self):
        return nullcontext()

    def waits_for(self) -> str:
        return "3 requests on http://nowhere:1"


class Launch:
    """One launch of a run on `world` ranks, each with its own part of every step."""

    def __init__(
        self,
        folder,
        ahead: int,
        *,
        at=0,
        past=(),
        world=1,
        servers=True,
        seed=0,
        talk=None,
        scorer=None,
        **changes: object,
    ):
        """`at`: the step of the checkpoint that it goes on from; `past`: what its updates before were made of."""
        settings = {"batch": {"problems": SIZE, "group": GROUP, "branches": 2, "resample": 1, "ahead": ahead}}
        settings |= {"stages": STAGES, "credit": {"baseline": "tree"}, "evaluate": None, **changes}
        settings |= {"rollout": SERVERS | {"deadline": 30.0}} if servers else {}
        self.recipe = load_recipe(write_recipe(folder, **settings))
        self.steps = [stage for stage in self.recipe.stages for _ in range(stage.steps)]
        talk, problems = talk or conversation(attempts=2), load_problems(self.recipe.data)
        self.engine, self.step, self.saved = Versioned(talk.tokenizer, random.Random(seed)), at, 0
        self.engine.version = at
        rollout = Rollout(self.recipe, self.engine, talk, scorer or ScriptedScorer(self.judge))
        self.collectors, self.notes = [], list[str]()
        self.made_of = made_of(self.recipe, {}, at, past or runs_of(made_of(self.recipe, {}).updates))
        for rank in range(world):
            ranks, alone = (Ranks(number, count, torch.device("cpu")) for number, count in ((rank, world), (0, 1)))
            base = BaseAttempts(folder, rollout, alone, lambda *_: nullcontext(id), resumed=at > 0 or rank > 0)
            ledger = Ledger(folder / "ledger", ranks, self.made_of, SIZE)
            self.notes += filter(None, [ledger.passed_over(at)])
            self.collectors.append(Ahead(self.recipe, ranks, rollout, problems, base, ledger, lambda: self.saved))

    @staticmethod
    def judge(problem, text) -> Verdict:
        return Verdict(float(len(text) % 2), "wrong")

    def collect(self):
        """A step of all ranks, learned at once."""
        parts = [made.collect(self.step, self.steps[self.step]) for made in self.collectors]
        self.step += 1
        self.engine.version = self.step
        return [group for part in parts for group in part.groups]

    def close(self) -> None:
        for made in self.collectors:
            made.close()


def told(groups) -> list:
    """What tells groups from each other, and what is trained on."""
    return [[(t.problem.id, t.turns, t.verdicts) for t in group] for group in groups]


def texts(groups) -> list:
    return [[[turn.text for turn in t.turns] for t in group] for group in groups]


def lags(groups, step: int) -> set[int]:
    return {step - v for group in groups for t in group for turn in t.turns if turn.trained for v in turn.versions}


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    """Ranks in one process: what the first has to say is there for the others."""
    said = []

    def all_gather(value, ranks):
        if ranks.first:
            said[:] = [value]
        return said

    monkeypatch.setattr("rlcore.train.ledger.all_gather", all_gather)


@pytest.mark.parametrize("servers", [True, False], ids=["servers", "in process"])
@pytest.mark.parametrize("ahead", [1, 2, 4])
def test_a_step_is_what_it_is_without_running_ahead_but_for_the_age_of_its_weights(tmp_path, ahead, servers):
    run = Launch(tmp_path, ahead, servers=servers)
    found = [run.collect() for _ in run.steps]
    asked = run.engine.least
    run.close()
    ages = [lags(groups, step) for step, groups in enumerate(found)]
    assert all(0 <= age <= ahead for step in ages for age in step)
    assert max(map(max, ages)) == ahead
    if servers:
        assert all(least <= version for least, version in asked if least is not None)
    else:
        assert ages == [{min(step, ahead)} for step in range(len(found))], "K updates ahead, no more and no less"
    (tmp_path / "other").mkdir()
    other = Launch(tmp_path / "other", ahead, servers=servers, seed=1, world=2)
    assert [texts(other.collect()) for _ in other.steps] == [texts(groups) for groups in found], "on any ranks"
    other.close()


def test_problems_are_those_of_the_run_that_does_not_run_ahead(tmp_path):
    run = Launch(tmp_path, 2, batch={"problems": SIZE, "group": GROUP, "branches": 2, "ahead": 2})
    order = run.collectors[0]._order
    for step in range(len(run.steps)):
        assert [group[0].problem for group in run.collect()] == order.batch(step, SIZE)
    run.close()


def test_trained_lengths_are_the_drawn_lengths_though_long_answers_take_longer(tmp_path):
    class Slow(Versioned):
        async def sample(self, ids, sampling, *, key, last):
            sample = await super().sample(ids, sampling, key=key, last=last)
            await asyncio.sleep(0.0005 * len(sample.ids))
            return sample

    batch, plain = {"problems": SIZE, "group": GROUP, "ahead": 2}, [{"name": "one", "steps": 8}]
    run = Launch(tmp_path, 2, batch=batch, stages=plain, credit={"baseline": "leave_one_out"})
    run.engine.__class__ = Slow
    trained = [len(turn.text) for _ in run.steps for group in run.collect() for t in group for turn in t.turns]
    run.close()
    keys = [mixed_seed(f"{serial}/0/{at}") for serial in range(8 * SIZE) for at in range(GROUP)]
    assert trained == [1 + (key + turn) % 23 for key in keys for turn in (0, 1)]


def test_every_serial_is_trained_once_in_the_history_that_survives_whatever_is_killed(tmp_path):
    """Random stories of updates, saves, kills and other numbers of ranks; replays are equal to what was killed."""
    for seed in range(12):
        draw = random.Random(seed)
        folder = tmp_path / str(seed)
        folder.mkdir()
        ahead, saved, history = draw.choice([1, 2, 3]), 0, {}
        run = Launch(folder, ahead, world=draw.choice([1, 2, 4]), seed=seed)
        while run.step < len(run.steps):
            event = draw.choice(["update", "update", "update", "save", "kill"])
            if event == "update":
                step = run.step
                groups = run.collect()
                assert max(lags(groups, step)) <= ahead
                assert min(lags(groups, step)) >= 0
                if step in history:
                    assert told(groups) == history[step], "a replay trains what was trained"
                history[step] = told(groups)
            elif event == "save":
                saved = run.saved = run.step
            else:
                for made in run.collectors:  # no close: what is in flight is lost
                    made._thread.close()
                run = Launch(folder, ahead, at=saved, world=draw.choice([1, 2, 4]), seed=draw.random())
                run.saved = saved
        run.close()
        assert sorted(history) == list(range(len(run.steps)))


@pytest.mark.parametrize("servers", [True, False], ids=["servers", "in process"])
def test_a_run_that_an_outage_of_the_rewards_has_stopped_goes_on_with_the_same_samples_once_they_answer(
    tmp_path, servers
):
    """The judge is down for every third attempt, of the steps ahead too."""

    def outage(problem, text) -> Verdict:
        return Launch.judge(problem, text) if len(text) % 3 else Verdict(None, "timeout")

    run = Launch(tmp_path, 2, servers=servers, scorer=ScriptedScorer(outage))
    before = run.collect()
    with pytest.raises(TooManyUnscored):
        check_scored(before, run.recipe.rewards.max_failed)
    run.close()
    run = Launch(tmp_path, 2, servers=servers)
    steps = [run.collect() for _ in range(4)]
    run.close()
    for groups in steps:
        check_scored(groups, 0)
    assert texts(steps[0]) == texts(before)
    again = Launch(tmp_path, 2, servers=servers, scorer=ScriptedScorer(outage))
    assert told(again.collect()) == told(steps[0]), "a replay trains what was trained"
    again.close()


def test_a_step_that_nothing_comes_of_names_its_serials_and_where_they_are(tmp_path):
    waits = tmp_path / "runs" / "waiting"
    waits.mkdir(parents=True)
    (waits / "rank-7.txt").write_text("an earlier launch")
    run = Launch(tmp_path, 1, output=str(tmp_path / "runs"))
    assert not waits.exists()
    run.collect()
    problem = run.collectors[0]._order.batch(2, SIZE)[1]
    run.engine.stuck = {problem.messages[-1]["content"]}
    run.recipe.rollout.__dict__["deadline"] = 1.5
    run.collect()
    said = (
        r"^rollout.deadline: no group ended within 1.5 s; step 3 waits for the serials 9: 3 requests on http://nowhere"
    )
    with pytest.raises(UserError, match=said):
        run.collect()
    run.close()


def test_a_failure_of_a_later_step_ends_the_run_at_once_and_a_dead_collector_is_named(tmp_path, recwarn):
    run = Launch(tmp_path, 2)
    run.collect()

    async def broken(*_, **__):
        raise UserError("a request failed 8 times")

    run.engine.sample = broken

    def go_on() -> None:
        for _ in range(3):
            run.collect()

    with pytest.raises(UserError, match="a request failed 8 times"):
        go_on()
    run.close()
    run = Launch(tmp_path, 1, at=1)
    run.engine.stuck = {"Write"}
    thread = run.collectors[0]._thread
    thread.loop.call_soon_threadsafe(thread.loop.stop)
    with pytest.raises(UserError, match=r"the collector of rank 0 has ended; step 2 waits for the serials 4, 5, 6, 7"):
        run.collect()
    run.close()
    gc.collect()
    assert not recwarn.list, "what a dead collector was to sample is given up too"


@pytest.mark.parametrize("kind", ["correct", "critique", "verify", "stop"])
def test_every_kind_of_conversation_runs_ahead_and_is_read_from_the_ledger_as_it_was(tmp_path, kind):
    plain = {"stages": [{"name": "one", "steps": 4, "kl": [0, 0]}], "credit": {"baseline": "leave_one_out"}}
    plain |= {"batch": {"problems": SIZE, "group": GROUP, "resample": 1, "ahead": 2}}
    talk = conversation(attempts=2, kind=kind)
    found = []
    for _ in range(2):
        run = Launch(tmp_path, 2, talk=talk, **plain)
        found.append([told(run.collect()) for _ in run.steps])
        run.close()
    assert found[0] == found[1]
    replies = 3 if kind == "critique" else 2
    assert {len(turns) for groups in found[0] for group in groups for _, turns, _ in group} == {replies}


def test_code_is_judged_in_its_workers_while_the_learner_is_elsewhere(tmp_path):
    rewards = {"functions": [{"name": "code"}], "deadline": 60}
    scorer = Scorer(RewardsConfig.model_validate(rewards))
    plain = {"stages": [{"name": "one", "steps": 2, "kl": [0, 0]}], "batch": {"problems": 4, "group": 2, "ahead": 1}}
    run = Launch(tmp_path, 1, scorer=scorer, credit={"baseline": "leave_one_out"}, **plain)
    run.engine.replies = lambda key, turn, text: f"def f(x):\n    return x * {1 + (key + turn) % 2}"
    for problem in run.collectors[0]._order.problems:
        problem.columns["test_list"] = ["assert f(3) == 6"]
    try:
        scores = [v.score for _ in run.steps for group in run.collect() for t in group for v in t.verdicts]
    finally:
        run.close()
        scorer.close()
    assert set(scores) == {0.0, 1.0}


def test_rows_of_weights_that_a_change_of_settings_has_undone_are_sampled_anew_and_told_of(tmp_path):
    """Settings change as the run goes on from step 2, and back as it goes on from step 4."""
    plain = {"batch": {"problems": SIZE, "group": GROUP, "ahead": 2}, "credit": {"baseline": "leave_one_out"}}
    plain |= {"stages": [{"name": "one", "steps": 12, "kl": [0, 0]}]}
    rates, sampled = {"first": 0.03, "second": 0.01, "third": 0.03}, dict[str, list[int]]()
    past = ()
    for name, at, steps in (("first", 0, 6), ("second", 2, 5), ("third", 4, 4)):
        run = Launch(tmp_path, 2, servers=False, at=at, past=past, learner={"lr": rates[name]}, **plain)
        sampled[name], notes = [], run.notes
        for _ in range(steps):
            before = len(run.engine.least)
            groups = run.collect()
            assert max(lags(groups, run.step - 1)) <= 2
            sampled[name] += [len(run.engine.least) - before]
            if run.step == at + 2:
                past = runs_of(run.made_of.updates)
        run.close()
        passed = {"first": 0, "second": 3, "third": 2}[name]
        told_of = f"{passed * SIZE} groups that an earlier launch sampled ahead are sampled anew: {passed * SIZE} by "
        assert [note.startswith(told_of) for note in notes] == [True] * bool(passed)
    step = SIZE * GROUP * 2
    assert sampled["first"] == [3 * step, *[step] * 5]
    assert sampled["second"] == [0, step, step, step, step], "steps 2 to 4 were sampled by weights of this run"
    assert sampled["third"] == [0, step, step, step], "steps 4 to 6 were, the later ones by weights learned at 0.01"
