"""Real models sampled: tokens, their log-probabilities, and where a conversation puts them."""

from contextlib import closing, nullcontext
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import trl
from talks import ANSWER, PROBLEMS, ids_of, sampled, talk_of
from transformers import AutoTokenizer

from rlcore.recipe.schema import RolloutConfig

QWEN = Path(trl.__file__).parent / "chat_templates" / "qwen2_5.jinja"
TEXTS = ["17 + 25 = 42.", "Two:\n\n```python\nprint(2)\n```\n", "Blue light scatters more — that is all 🙂"]


@pytest.fixture(scope="module")
def greedy(model):
    """What transformers answers to token ids: the tokens and their log-probabilities."""

    @cache
    def answer(prompt_ids: tuple[int, ...]) -> tuple[list[int], list[float]]:
        ids = torch.tensor([prompt_ids])
        settings = {"max_new_tokens": ANSWER, "do_sample": False, "repetition_penalty": 1.0}
        settings |= {"output_logits": True, "return_dict_in_generate": True}
        out = model.generate(ids, attention_mask=torch.ones_like(ids), **settings)
        answer_N = out.sequences[0, len(prompt_ids) :]
        logprobs_NV = torch.cat(out.logits).log_softmax(-1)
        return answer_N.tolist(), logprobs_NV.gather(1, answer_N[:, None])[:, 0].tolist()

    return answer


@pytest.mark.parametrize("by", ["the embedded engine", "vLLM"])
def test_greedy_tokens_and_log_probabilities_are_those_of_generate(by, model, tokenizer, greedy):
    """In both attempts; the second from the tokens of the first."""
    talk = talk_of(tokenizer)
    with closing(vllm_of(model, talk)) if by == "vLLM" else nullcontext() as engine:
        trajectories = sampled(model, talk, temperature=0, engine=engine)
    for trajectory in trajectories:
        first, second = trajectory.turns
        second_prompt = (*first.prompt_ids, *first.response_ids, *second.prompt_ids)
        for prompt_ids, turn in ((first.prompt_ids, first), (second_prompt, second)):
            ids, logprobs = greedy(tuple(prompt_ids))
            assert list(turn.response_ids) == ids
            assert turn.logprobs == pytest.approx(logprobs, abs=1e-3)


def vllm_of(model, talk):
    if find_spec("vllm") is None:
        pytest.skip("vLLM is not installed (launch/setup_vllm_cpu.sh)")
    from rlcore.rollout.vllm.in_process import InProcessEngine

    section = {"args": {"kv_cache_memory_bytes": 1 << 28}}
    settings = RolloutConfig.model_validate({"engine": "vllm", "slots": 8, "vllm": section})
    return InProcessEngine(settings, model, None, list(talk.stop_ids), talk.max_tokens)


@pytest.mark.parametrize("template", ["its own", "Qwen's"])
def test_conversations_of_smollm2_are_what_the_chat_template_writes(template, tokenizer, smollm2):
    if template == "Qwen's":
        tokenizer = AutoTokenizer.from_pretrained(smollm2, chat_template=QWEN.read_text())
    conversation_is_rendered(tokenizer)


def test_conversations_of_qwen_coder_are_what_the_chat_template_writes(qwen_coder):
    conversation_is_rendered(AutoTokenizer.from_pretrained(qwen_coder))


def conversation_is_rendered(tokenizer):
    """Token by token, where attempts end by themselves and where they are cut."""
    talk = talk_of(tokenizer)
    assert talk.check.exact, talk.check.differences
    for problem, text in zip(PROBLEMS, TEXTS, strict=True):
        first = tokenizer(text, add_special_tokens=False)["input_ids"]
        turns = [{"role": "assistant", "content": text}, {"role": "user", "content": talk.script.instruction}]
        messages = [*problem.messages, *turns]
        rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        expected = tokenizer(rendered, add_special_tokens=False)["input_ids"]
        for end, finish in (([], "length"), ([tokenizer.eos_token_id], "stop")):
            assert [*talk.open(problem), *first, *end, *talk.follow(finish)] == expected


def test_sampled_tokens_that_are_encoded_alike_are_what_the_chat_template_writes(trajectories, tokenizer):
    talk, compared = talk_of(tokenizer), 0
    for trajectory in trajectories:
        first, second = trajectory.turns
        plain = [token for token in first.response_ids if token not in talk.stop_ids]
        if tokenizer.encode(first.text, add_special_tokens=False) != plain:
            continue  # a text can be written in other tokens than those of its encoding
        turns = [{"role": "assistant", "content": first.text}, {"role": "user", "content": talk.script.instruction}]
        messages = [*trajectory.problem.messages, *turns]
        rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        expected = tokenizer(rendered, add_special_tokens=False)["input_ids"]
        assert ids_of(trajectory)[: -len(second.response_ids)] == expected
        compared += 1
    assert compared
