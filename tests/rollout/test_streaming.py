"""Many conversations at once: nobody waits for a straggler, and what is sampled does not depend on who else is."""

import asyncio
import threading
from concurrent.futures import Future
from functools import partial

import pytest

from rewards import Verdict
from rlcore.errors import UserError
from rlcore.policy import Policy, stop_ids
from rlcore.policy.scratch import scratch_model
from rlcore.recipe import load_recipe, schema
from rlcore.rollout import Rollout, TorchEngine
from rlcore.rollout.streaming import every, finished, grouped, iterated
from rlcore.types import Problem
from tests.rollout.scripted import ScriptedEngine, ScriptedScorer, conversation
from tests.tiny import write_recipe

PROBLEMS = [Problem(name, ({"role": "user", "content": f"What is 2 + {name}?"},)) for name in "abcdef"]


class Held(ScriptedEngine):
    """The first conversation on problem a ends when `held` others have; it counts how many go on at once."""

    def __init__(self, tokenizer, held: int):
        super().__init__(tokenizer, lambda key, turn, text: "5")
        self.left, self.free, self.most = held, asyncio.Event(), 0

    async def sample(self, ids, sampling, *, key, last):
        first_turn = key not in self.turns
        sample = await super().sample(ids, sampling, key=key, last=last)
        self.most = max(self.most, len(self.open))
        if first_turn and len(self.turns) == 1:
            self.straggler = key
            await self.free.wait()
        await asyncio.sleep(0)
        if last and key != self.straggler:
            self.left -= 1
            if not self.left:
                self.free.set()
        return sample


def rollout(folder, engine, talk, scorer=None, **settings) -> Rollout:
    recipe = load_recipe(write_recipe(folder, rollout=settings))
    return Rollout(recipe, engine, talk, scorer or ScriptedScorer())


@pytest.mark.parametrize("window", [2, 3])
def test_a_straggler_holds_up_nobody(tmp_path, window):
    talk = conversation(attempts=2)
    engine = Held(talk.tokenizer, held=11)
    stream = rollout(tmp_path, engine, talk, slots=window).stream(every(PROBLEMS, 2), temperature=1.0, draw=("x",))
    places = [place for place, _ in stream]
    assert places[-1] == 0, "the straggler comes last, and all others came while it went on"
    assert sorted(places) == list(range(12))
    assert engine.most <= window
    assert not engine.open


def test_groups_come_as_their_last_conversation_ends(tmp_path):
    talk = conversation(attempts=2)
    stream = rollout(tmp_path, Held(talk.tokenizer, held=11), talk, slots=3).stream(
        every(PROBLEMS, 2), temperature=1.0, draw=("x",)
    )
    told = []
    groups = dict(grouped(stream, 2, told.append))
    assert list(groups)[-1] == 0
    assert told == [1] * 12
    for place, group in groups.items():
        assert [trajectory.problem.id for trajectory in group] == [PROBLEMS[place].id] * 2
        assert all(len(trajectory.verdicts) == 2 for trajectory in group)


def test_random_numbers_depend_on_the_problem_and_the_number_alone(tmp_path):
    """In the embedded engine: windows of 1, 3 and 64, in another order, and one conversation by itself."""
    talk = conversation(attempts=2, max_attempt_tokens=6)
    model = scratch_model(schema.ScratchConfig(hidden_size=32, layers=1, heads=2, kv_heads=1), talk.tokenizer, seed=0)

    def sampled(requests, slots, draw="x") -> dict:
        engine = TorchEngine(model, stop_ids(Policy(model, talk.tokenizer)), slots=slots, max_tokens=talk.max_tokens)
        held = rollout(tmp_path, engine, talk, slots=slots)
        ended = held.stream(requests, temperature=1.0, draw=(draw,))
        return {(requests[at][0].id, requests[at][1]): [t.response_ids for t in tr.turns] for at, tr in ended}

    requests = every(PROBLEMS, 3)
    whole = sampled(requests, 64)
    assert len({str(turns) for turns in whole.values()}) == 18, "all conversations differ"
    assert sampled(requests, 3) == sampled(requests[::-1], 1) == whole
    assert sampled(requests[7:8], 3).items() <= whole.items()
    assert sampled(requests, 64, draw="y") != whole


def test_results_come_as_they_are_scored(tmp_path):
    """A reward that does not answer for problem f until all others are out."""
    released = threading.Event()

    class Slow(ScriptedScorer):
        def start(self, problem, attempt):
            if problem.id != "f" or released.is_set():
                return super().start(problem, attempt)
            coming.append(Future())
            return coming[-1]

    talk, seen, coming = conversation(attempts=2), [], []
    engine = ScriptedEngine(talk.tokenizer, lambda key, turn, text: "5")
    held = rollout(tmp_path, engine, talk, Slow(lambda problem, text: Verdict(1.0, "correct")), slots=8)
    for place, trajectory in held.stream(every(PROBLEMS[::-1], 1), temperature=1.0, draw=("x",)):
        assert trajectory.rewards_A.tolist() == [1, 1]
        seen.append(place)
        if len(seen) == 5:
            released.set()
            for verdict in coming:
                verdict.set_result(Verdict(1.0, "correct"))
    assert seen[-1] == 0


def test_a_failure_ends_the_others_and_an_end_without_news_is_said():
    ended = []

    async def waits():
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("waits")

    async def fails():
        await asyncio.sleep(0)
        raise RuntimeError("the engine broke")

    with pytest.raises(RuntimeError, match="the engine broke"):
        list(iterated(finished([waits, fails], window=2, deadline=60)))
    assert ended == ["waits"]
    with pytest.raises(
        UserError, match=r"rollout\.deadline: sampling 2 conversations took longer than 0\.01 s, and none ended"
    ):
        list(iterated(finished([waits, waits], window=2, deadline=0.01)))
    assert len(ended) == 3


def test_a_slow_engine_that_takes_steps_is_waited_for():
    """With eight deadlines to a conversation, as of a large model on a CPU."""
    steps = 0

    async def answers():
        nonlocal steps
        for _ in range(40):
            await asyncio.sleep(0.02)
            steps += 1
        return "answer"

    assert list(iterated(finished([answers], window=1, deadline=0.1, steps=lambda: steps))) == [(0, "answer")]


def test_who_stops_reading_ends_what_goes_on():
    ended = []

    async def converse(seconds: float):
        try:
            await asyncio.sleep(seconds)
        finally:
            ended.append(seconds)

    stream = iterated(finished([lambda: converse(0), lambda: converse(60)], window=2, deadline=60))
    assert next(stream)[0] == 0
    stream.close()
    assert ended == [0, 60]


def test_a_signal_in_the_round_in_which_an_item_comes_ends_the_others():
    """The loop then still holds the finished item's order to stop, which is not to stop the end of the others."""
    ended = []

    async def item(number: int) -> int:
        try:
            await asyncio.sleep(600 * number)
        finally:
            ended.append(number)
        return number

    def interrupt() -> None:
        raise KeyboardInterrupt

    async def items():
        async for found in finished([partial(item, 0), partial(item, 1)], window=2, deadline=600):
            asyncio.get_running_loop().call_soon(interrupt)
            yield found

    with pytest.raises(KeyboardInterrupt):
        list(iterated(items()))
    assert ended == [0, 1]
