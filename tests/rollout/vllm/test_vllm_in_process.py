"""vLLM in this process, held against the learner's own model: tokens, log-probabilities, new weights, caches, sleep."""

import asyncio
import math
from dataclasses import replace

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from rlcore.errors import UserError
from rlcore.learner.zero.weights import gathered_adapters
from rlcore.policy.lora import add_lora
from rlcore.policy.scratch import scratch_tokenizer
from rlcore.policy.truncation import Truncation
from rlcore.recipe.schema import LoraConfig, RolloutConfig
from rlcore.rollout import RolloutEngine, Sample, Sampling, TorchEngine
from rlcore.rollout.stopping import StopTexts

pytest.importorskip("vllm", reason="vLLM is not installed (launch/setup_vllm_cpu.sh)")

STOP = 1
PROMPT = list(range(20, 90))  # two whole blocks of the KV cache, and a part of one
TOKENIZER = scratch_tokenizer(["What is 1 + 1?"], 300)
"""The model, of 128 tokens, knows the bytes that have characters."""


def random_model(heads: int, tie: bool = True) -> Qwen2ForCausalLM:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=128,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=heads,
        num_key_value_heads=1,
        intermediate_size=96,
        max_position_embeddings=256,
        initializer_range=0.2,
        tie_word_embeddings=tie,
    )
    return Qwen2ForCausalLM(config).eval()


def started(model: Qwen2ForCausalLM, lora: LoraConfig | None = None, **vllm: object):
    from rlcore.rollout.vllm.in_process import InProcessEngine

    section = {"args": {"kv_cache_memory_bytes": 1 << 26}} | vllm
    settings = RolloutConfig.model_validate({"engine": "vllm", "slots": 32, "stop": ["Quest"], "vllm": section})
    return InProcessEngine(settings, model, None, stop_ids=[STOP], max_tokens=256, lora=lora, tokenizer=TOKENIZER)


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def pair(request):
    """A model, and vLLM with its weights."""
    model = random_model(heads=2, tie=request.param)
    engine = started(model)
    yield model, engine
    engine.close()


def publish(model, engine, version: int = 0) -> None:
    engine.publish(((name, parameter.data) for name, parameter in model.named_parameters()), version)


def samples(engine: RolloutEngine, prompts: list[list[int]], sampling: Sampling, seed: int = 0) -> list[Sample]:
    async def run() -> list[Sample]:
        asked = [engine.sample(ids, seeded, key=key, last=True) for key, ids in enumerate(prompts)]
        return await asyncio.gather(*asked)

    seeded = replace(sampling, seed=seed)
    return asyncio.run(run())


def learners_logprobs(
    model, prompt: list[int], sample: Sample, temperature: float, top_p: float = 1, min_p: float = 0
) -> list[float]:
    """By the definition: the whole sequence at once, the smallest set of tokens that reaches `top_p`, renormalised."""
    with torch.no_grad():
        logits_NV = model(torch.tensor([[*prompt, *sample.ids]])).logits[0, len(prompt) - 1 : -1].double() / temperature
    logprobs = []
    for logits_V, token in zip(logits_NV, sample.ids, strict=True):
        probability_V = logits_V.softmax(-1)
        probability_V = probability_V * (probability_V >= min_p * probability_V.max())
        probability_V = probability_V / probability_V.sum()
        kept, reached = 0.0, 0.0
        for p in probability_V.sort(descending=True).values.tolist():
            if reached >= top_p:
                break
            kept, reached = kept + p, reached + p
        logprobs.append(math.log(probability_V[token].item() / kept))
    return logprobs


def test_greedy_tokens_are_those_of_the_embedded_engine(pair):
    model, engine = pair
    publish(model, engine)
    prompts = [PROMPT[:n] for n in (1, 7, 31, 32, 33, 64, 70)]
    greedy = Sampling(24, temperature=0)
    embedded = samples(TorchEngine(model, [STOP], slots=8, max_tokens=256), prompts, greedy)
    for mine, theirs in zip(samples(engine, prompts, greedy), embedded, strict=True):
        assert mine.ids == theirs.ids
        assert mine.finish == theirs.finish
        assert mine.logprobs == pytest.approx(theirs.logprobs, abs=1e-4)
    assert engine.steps >= 24  # whoever waits sees that it works


@pytest.mark.parametrize(("temperature", "top_p", "min_p"), [(1, 1, 0), (0.7, 1, 0), (0.7, 0.8, 0), (0.7, 0.8, 0.05)])
def test_logprobs_are_those_of_the_distribution_that_was_sampled(pair, temperature, top_p, min_p):
    model, engine = pair
    publish(model, engine)
    for sample in samples(engine, [PROMPT] * 8, Sampling(16, temperature, Truncation(top_p=top_p, min_p=min_p))):
        expected = learners_logprobs(model, PROMPT, sample, temperature, top_p, min_p)
        assert sample.logprobs == pytest.approx(expected, abs=1e-4)


def test_the_same_seed_draws_the_same_and_a_group_draws_different_ones(pair):
    _, engine = pair
    first = samples(engine, [PROMPT] * 8, Sampling(16), seed=5)
    assert samples(engine, [PROMPT] * 8, Sampling(16), seed=5) == first
    assert samples(engine, [PROMPT] * 8, Sampling(16), seed=6) != first
    assert len({sample.ids for sample in first}) == 8


def test_an_attempt_ends_at_a_stop_token_or_at_its_length(pair):
    _, engine = pair
    by_finish = {"stop": 0, "length": 0}
    for sample in samples(engine, [PROMPT[:n] for n in range(1, 65)], Sampling(40, temperature=1.5)):
        by_finish[sample.finish] += 1
        assert (sample.ids[-1] == STOP) == (sample.finish == "stop")
        assert STOP not in sample.ids[:-1]
        assert len(sample.ids) == len(sample.logprobs) == 40 or sample.finish == "stop"
    assert all(by_finish.values())


def test_a_reply_ends_with_the_token_that_ends_a_text(pair):
    _, engine = pair
    (plain,) = samples(engine, [PROMPT], Sampling(60))
    said = TOKENIZER.decode(plain.ids[10:])
    text = next(character for character in said if character.isascii() and character.isprintable())
    stop = StopTexts([text], TOKENIZER.decode)
    (stopped,) = samples(engine, [PROMPT], Sampling(60, stop=stop))
    assert stopped == plain.stopped_after(stop.end(plain.ids))
    assert len(stopped.ids) < len(plain.ids)


def test_every_published_parameter_reaches_the_sampler(pair):
    model, engine = pair
    for version, (name, parameter) in enumerate(model.named_parameters(), start=1):
        before = samples(engine, [PROMPT], Sampling(8))[0]
        with torch.no_grad():
            parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(version))
        stale = learners_logprobs(model, PROMPT, before, 1)
        publish(model, engine, version)
        (sample,) = samples(engine, [PROMPT], Sampling(8))
        assert set(sample.versions) == {version}
        assert sample.logprobs == pytest.approx(learners_logprobs(model, PROMPT, sample, 1), abs=1e-4), name
        if "k_proj.bias" not in name:  # adds the same to all scores of a query but for rotation: hardly seen
            assert before.logprobs != pytest.approx(stale, abs=1e-4), name


def test_a_group_and_the_next_attempt_reuse_the_prompt_and_new_weights_never_do(pair, monkeypatch):
    model, engine = pair
    publish(model, engine)
    cached = []
    finish = engine._finish
    monkeypatch.setattr(engine, "_finish", lambda output: (cached.append(output.num_cached_tokens), finish(output)))
    group = samples(engine, [PROMPT] * 4, Sampling(30))
    assert sorted(cached) == [0, 64, 64, 64]
    samples(engine, [[*PROMPT, *group[0].ids, 5, 6]], Sampling(4))
    assert cached[4] == 96
    publish(model, engine)
    samples(engine, [PROMPT], Sampling(4))
    assert cached[5] == 0


@pytest.mark.parametrize("level", [1, 2])
def test_after_sleep_and_publication_it_samples_from_the_new_weights(pair, level):
    model, engine = pair
    engine._sleep_level = level
    engine.sleep()
    with torch.no_grad():
        model.model.norm.weight *= 1.1
    publish(model, engine, 3)
    (sample,) = samples(engine, [PROMPT], Sampling(8))
    assert sample.logprobs == pytest.approx(learners_logprobs(model, PROMPT, sample, 1), abs=1e-4)


@pytest.mark.parametrize(("lacking", "named"), [("mlp.down_proj", "mlp.down_proj"), ("self_attn.k_proj", "qkv_proj")])
def test_weights_that_lack_a_parameter_are_refused_by_name(pair, lacking, named):
    model, engine = pair
    lacking = f"model.layers.1.{lacking}.weight"
    weights = [(name, parameter.data) for name, parameter in model.named_parameters() if name != lacking]
    with pytest.raises(ValueError, match=rf"no weights for model\.layers\.1\..*{named}\.weight"):
        engine.publish(weights, 1)
    publish(model, engine)
    (sample,) = samples(engine, [PROMPT], Sampling(8))
    assert sample.logprobs == pytest.approx(learners_logprobs(model, PROMPT, sample, 1), abs=1e-4)


def test_a_request_that_cannot_be_taken_fails_and_the_engine_goes_on(pair):
    _, engine = pair
    from vllm.exceptions import VLLMValidationError

    with pytest.raises(VLLMValidationError, match="length 257"):
        samples(engine, [PROMPT, [3] * 257], Sampling(8))
    assert len(samples(engine, [PROMPT], Sampling(8))) == 1


def test_a_deadline_ends_all_requests_and_the_engine_goes_on(pair):
    _, engine = pair

    async def hurry() -> None:
        asked = [engine.sample(PROMPT, Sampling(180), key=key, last=True) for key in range(16)]
        await asyncio.wait_for(asyncio.gather(*asked), 0.01)

    with pytest.raises(TimeoutError):
        asyncio.run(hurry())
    assert not engine._engine.has_unfinished_requests()
    assert len(samples(engine, [PROMPT], Sampling(8))) == 1


def test_prompts_that_do_not_fit_into_one_pass_wait_for_the_next(pair):
    model, engine = pair
    prompts = [[3 + n] * 200 for n in range(60)]  # 12,000 tokens; a pass takes 4,096
    for prompt, sample in zip(prompts, samples(engine, prompts, Sampling(2), seed=1), strict=True):
        assert sample.logprobs == pytest.approx(learners_logprobs(model, prompt, sample, 1), abs=1e-4)


def test_a_model_or_setting_that_vllm_does_not_take_is_refused_in_one_line():
    with pytest.raises(UserError, match=r"heads of size 16; on the CPU vLLM takes 32, 64"):
        started(random_model(heads=4))
    with pytest.raises(
        UserError, match=r"quantization fp8: on the CPU vLLM has fp8_per_channel and int8_.*, of bfloat16"
    ):
        started(random_model(heads=2).bfloat16(), quantization="fp8")
    with pytest.raises(UserError, match=r"vllm.*no_such_setting"):
        started(random_model(heads=2), args={"no_such_setting": 1})


def test_adapters_are_published_as_they_are():
    model, lora = random_model(heads=2), LoraConfig(rank=4, alpha=8)
    engine = started(model, lora)
    add_lora(model, lora, seed=0)
    torch.manual_seed(0)
    for version in range(3):  # at 0 the adapters have no effect and are not published yet
        (sample,) = samples(engine, [PROMPT], Sampling(8), seed=version)
        assert set(sample.versions) == {version}
        assert sample.logprobs == pytest.approx(learners_logprobs(model, PROMPT, sample, 1), abs=1e-4)
        with torch.no_grad():
            for _, parameter in gathered_adapters(model):
                parameter.normal_(std=0.2)
        assert sample.logprobs != pytest.approx(learners_logprobs(model, PROMPT, sample, 1), abs=1e-2)
        engine.sleep()
        engine.publish(gathered_adapters(model), version + 1)
        sizes = [parameter.nbytes for _, parameter in gathered_adapters(model)]
        assert engine.metrics()["publish/bytes"] == sum(sizes)
    engine.close()


@pytest.mark.skipif(not torch.cpu._is_avx512_supported(), reason="vLLM's fp8 KV cache needs AVX-512 or AMX")
def test_a_quantised_kv_cache_samples_from_the_published_weights_but_for_its_error():
    model = random_model(heads=2)
    engine = started(model, args={"kv_cache_memory_bytes": 1 << 26, "kv_cache_dtype": "fp8"})
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(model.model.embed_tokens.weight.roll(1, dims=0))
    errors = []
    for version in range(2):  # with the weights before, and with the new ones
        for sample in samples(engine, [PROMPT] * 8, Sampling(16)):
            learners = learners_logprobs(model, PROMPT, sample, 1)
            errors.append([abs(a - b) for a, b in zip(sample.logprobs, learners, strict=True)])
        publish(model, engine, version)
    engine.close()
    stale, fresh = (sum(map(sum, part)) / sum(map(len, part)) for part in (errors[:8], errors[8:]))
    assert 0.01 < fresh < 0.5 < stale
