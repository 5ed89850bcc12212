"""The embedded engine on SmolLM2-135M-Instruct, in the folder that RLCORE_SMOLLM2 names."""

import asyncio
import os
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlcore.recipe.schema import Conversation as Section
from rlcore.rollout import Conversation, Sampling, TorchEngine, sample_groups
from rlcore.types import Problem

QUESTIONS = ["What is 17 + 25?", "Name three primes below 20.", "Why is the sky blue? Answer in one sentence."]
ANSWER = 24


@pytest.fixture(scope="module")
def folder() -> Path:
    named = os.environ.get("RLCORE_SMOLLM2")
    if not named or not Path(named, "config.json").exists():
        pytest.skip("RLCORE_SMOLLM2 names no folder of SmolLM2-135M-Instruct")
    return Path(named)


@pytest.fixture(scope="module")
def tokenizer(folder):
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def model(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def talk(tokenizer) -> Conversation:
    section = Section(max_prompt_tokens=128, max_attempt_tokens=ANSWER)
    return Conversation(tokenizer, section, [tokenizer.eos_token_id])


def problems() -> list[Problem]:
    return [Problem(str(at), ({"role": "user", "content": text},), {}) for at, text in enumerate(QUESTIONS)]


def trajectories(model, talk, temperature: float):
    engine = TorchEngine(model, list(talk.stop_ids), slots=8, max_tokens=talk.max_tokens)
    engine.seed(0)
    groups = sample_groups(engine, talk, problems(), 1, Sampling(ANSWER, temperature), deadline=600)
    return [trajectory for group in groups for trajectory in group]


def test_greedy_tokens_are_those_of_generate(model, tokenizer, talk):
    engine = TorchEngine(model, list(talk.stop_ids), slots=8, max_tokens=talk.max_tokens)
    prompts = [talk.open(problem) for problem in problems()]

    async def run():
        greedy = Sampling(ANSWER, temperature=0)
        return await asyncio.gather(
            *(engine.sample(ids, greedy, key=key, last=True) for key, ids in enumerate(prompts))
        )

    samples = asyncio.run(run())
    model.set_attn_implementation("sdpa")
    for ids, sample in zip(prompts, samples, strict=True):
        tokens = torch.tensor([ids])
        settings = {"max_new_tokens": ANSWER, "do_sample": False, "repetition_penalty": 1.0}
        out = model.generate(tokens, attention_mask=torch.ones_like(tokens), **settings)
        assert list(sample.ids) == out[0, len(ids) :].tolist()


def test_two_attempts_are_the_rendered_conversation_with_the_models_own_logprobs(model, tokenizer, talk):
    """Token by token what the chat template writes of the same texts, where these are encoded as they were sampled."""
    assert talk.check.exact, talk.check.differences
    model.set_attn_implementation("sdpa")
    compared = 0
    for trajectory in trajectories(model, talk, temperature=1.0):
        first, second = trajectory.turns
        ids = [*first.prompt_ids, *first.response_ids, *second.prompt_ids, *second.response_ids]
        with torch.no_grad():
            logprobs = model(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
        expected = logprobs.gather(-1, torch.tensor(ids[1:])[:, None])[:, 0].tolist()
        start = len(first.prompt_ids) - 1
        assert first.logprobs == pytest.approx(expected[start : start + len(first.response_ids)], abs=1e-3)
        assert second.logprobs == pytest.approx(expected[-len(second.response_ids) :], abs=1e-3)
        messages = [
            *trajectory.problem.messages,
            {"role": "assistant", "content": first.text},
            {"role": "user", "content": talk.script.instruction},
        ]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        rendered = tokenizer(text, add_special_tokens=False)["input_ids"]
        if tokenizer.encode(first.text, add_special_tokens=False) == [
            token for token in first.response_ids if token not in talk.stop_ids
        ]:
            compared += 1
            assert rendered == ids[: len(ids) - len(second.response_ids)]
    assert compared
