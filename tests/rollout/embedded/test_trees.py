"""Trees: several conversations that go on from one first attempt, sampled once."""

import asyncio

import pytest

from rlcore.policy import Policy, stop_ids
from rlcore.policy.scratch import scratch_model
from rlcore.recipe import schema
from rlcore.rollout import Sampling, TorchEngine, sample_groups
from tests.rollout.scripted import ScriptedEngine, ScriptedScorer, conversation, problem


def sample(engine, talk, **settings):
    return sample_groups(engine, talk, [problem(), problem()], 4, Sampling(6), deadline=60, branches=2, **settings)


def test_branches_share_a_first_attempt_that_is_sampled_and_trained_once():
    talk, judged = conversation(attempts=2), []
    scorer = ScriptedScorer(lambda problem, text: judged.append(text))
    engine = ScriptedEngine(talk.tokenizer, lambda key, turn, text: f"{key}{turn}")
    groups = sample(engine, talk, judge=scorer.start)
    assert [len(engine.asked[key]) for key in range(8)] == [2, 1] * 4
    assert not engine.open
    for at, group in enumerate(groups):
        for g, trajectory in enumerate(group):
            leader, key = at * 4 + g - g % 2, at * 4 + g
            first, second = trajectory.turns
            assert (first.text, second.text) == (f"{leader}0", f"{key}{1 if key == leader else 0}")
            assert (first.trained, second.trained) == (g % 2 == 0, True)
            assert engine.asked[key][-1] == (*first.prompt_ids, *first.response_ids, *second.prompt_ids)
    assert len(judged) == 16, "every trajectory's attempts are handed to the rewards"


@pytest.mark.parametrize("kind", ["correct", "critique", "stop"])
def test_branches_in_the_embedded_engine(kind):
    """More branches than slots: everyone is served, and second attempts are drawn independently."""
    talk = conversation(kind=kind, attempts=2, max_attempt_tokens=6)
    model = scratch_model(schema.ScratchConfig(hidden_size=32, layers=1, heads=2, kv_heads=1), talk.tokenizer, seed=0)
    policy = Policy(model, talk.tokenizer)
    engine = TorchEngine(model, stop_ids(policy), slots=3, max_tokens=talk.max_tokens)
    groups = sample(engine, talk)
    pairs = [(group[g], group[g + 1]) for group in groups for g in (0, 2)]
    assert all(a.turns[0].response_ids == b.turns[0].response_ids for a, b in pairs)
    assert len({pair[0].turns[0].response_ids for pair in pairs}) > 1
    assert any(a.turns[1].response_ids != b.turns[1].response_ids for a, b in pairs)


def test_a_first_attempt_that_fails_fails_its_branches():
    class Broken(ScriptedEngine):
        async def sample(self, *arguments, **settings):
            await asyncio.sleep(0)
            raise RuntimeError("the engine broke")

    talk = conversation(attempts=2)
    with pytest.raises(RuntimeError, match="the engine broke"):
        sample(Broken(talk.tokenizer, lambda *_: ""), talk)
