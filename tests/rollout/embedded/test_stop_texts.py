"""Texts that end a reply, as stop tokens do, in an engine that can look for them and in one that cannot."""

import asyncio

import pytest
import torch

from rlcore.policy import load_policy, stop_ids
from rlcore.recipe import schema
from rlcore.rollout import Conversation, Sampling, TorchEngine, sample_groups
from rlcore.rollout.stopping import StopTexts
from tests.rollout.scripted import ScriptedEngine, conversation, problem


def looking_for(talk: Conversation, *texts: str) -> Sampling:
    return Sampling(40, stop=StopTexts(texts, talk.said))


@pytest.mark.parametrize("last", [" Question: 1", " Questions"])
def test_a_reply_is_cut_after_the_token_with_which_the_text_is_whole(last):
    talk = conversation()
    engine = ScriptedEngine(talk.tokenizer, lambda *_: f"The answer is 5.{last} and so on and on.")
    ((trajectory,),) = sample_groups(engine, talk, [problem()], 1, looking_for(talk, "Quest", "never"), deadline=60)
    for turn in trajectory.turns:
        assert turn.text == "The answer is 5. "
        said = talk.said(turn.response_ids)
        assert said.startswith("The answer is 5. Quest")
        assert "Quest" not in talk.said(turn.response_ids[:-1])
        assert turn.finish == "stop"
        assert len(turn.response_ids) == len(turn.logprobs) == len(turn.versions)
    assert trajectory.turns[1].prompt_ids == talk.follow("length"), "the end of turn was not sampled"


def test_a_reply_without_the_text_is_as_it_was():
    talk = conversation()
    engine = ScriptedEngine(talk.tokenizer, lambda *_: "The answer is 5.")
    ((trajectory,),) = sample_groups(engine, talk, [problem()], 1, looking_for(talk, "Quest"), deadline=60)
    assert trajectory.turns[0].text == "The answer is 5."
    assert trajectory.turns[1].prompt_ids == talk.follow("stop")


def test_the_embedded_engine_stops_at_once_and_goes_on_from_there():
    """What it samples after that is what it samples where the whole conversation so far is a prompt."""
    sizes = schema.ScratchConfig(hidden_size=32, layers=2, intermediate_size=32, vocab_size=300, init_std=0.3)
    policy = load_policy(schema.ModelConfig(scratch=sizes), ["What is 1 + 1?"])
    section = schema.ConversationConfig(instruction="Again.", max_attempt_tokens=40)
    talk = Conversation(policy.tokenizer, section, stop_ids(policy))

    def engine() -> TorchEngine:
        return TorchEngine(policy.model, stop_ids(policy), slots=4, max_tokens=200)

    greedy = Sampling(40, temperature=0)
    plain = asyncio.run(engine().sample([5, 6, 7], greedy, key=0, last=True))
    text = next(character for character in talk.said(plain.ids[4:]) if character.isascii() and character.isprintable())
    stop = StopTexts([text], talk.said)
    stopping = Sampling(40, temperature=0, stop=stop)

    async def two_turns():
        one = engine()
        first = await one.sample([5, 6, 7], stopping, key=0, last=False)
        return first, await one.sample([5, 6, 7, *first.ids, 8, 9], greedy, key=0, last=True)

    first, second = asyncio.run(two_turns())
    assert first == plain.stopped_after(stop.end(plain.ids))
    assert first.finish == "stop"
    assert len(first.ids) < len(plain.ids)
    anew = asyncio.run(engine().sample([5, 6, 7, *first.ids, 8, 9], greedy, key=0, last=True))
    assert second.ids == anew.ids
    assert torch.allclose(torch.tensor(second.logprobs), torch.tensor(anew.logprobs), atol=1e-4)
