"""The embedded engine against a plain loop without a cache, whatever batch a request falls into."""

import asyncio
from functools import cache

import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from rlcore.errors import UserError
from rlcore.policy.lora import add_lora
from rlcore.policy.truncation import Truncation
from rlcore.recipe.schema import LoraConfig
from rlcore.rollout import Sample, Sampling, TorchEngine
from rlcore.rollout.embedded import products

STOP, VOCABULARY = 1, 40
TAIL = [5, 6, 7, 8, 9]


@pytest.fixture(params=["small", "large"])
def size(request, monkeypatch):
    """Small models are sampled from a merged copy of their weights, large ones from their own."""
    if request.param == "large":
        monkeypatch.setattr(products, "MOST_MERGED", 0)


def model(family: str):
    """A small random model whose next-token distributions are peaked enough to end attempts at many lengths."""
    torch.manual_seed(0)
    sizes = {"vocab_size": VOCABULARY, "bos_token_id": None, "eos_token_id": STOP}
    decoder = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    made = {
        "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**sizes, **decoder)),
        "llama": lambda: LlamaForCausalLM(LlamaConfig(**sizes, **decoder, attention_bias=True, mlp_bias=True)),
        "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**sizes, **decoder, head_dim=32)),
        "mistral": lambda: MistralForCausalLM(MistralConfig(**sizes, **decoder)),
        "gpt2": lambda: GPT2LMHeadModel(GPT2Config(**sizes, n_embd=32, n_layer=2, n_head=4, n_positions=256)),
    }[family]()
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.dim() > 1:
                parameter.mul_(25 if family == "gpt2" else 6)
            elif family != "gpt2":  # norms and biases are all ones and zeros at first
                parameter.add_(0.05 * torch.randn_like(parameter))
    return made.eval()


def prompts(count: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randint(2, VOCABULARY, (4 + i % 5,), generator=generator).tolist() for i in range(count)]


def two_attempts(engine: TorchEngine, chosen: list[list[int]], sampling: Sampling) -> list[tuple[Sample, Sample]]:
    async def episode(prompt: list[int], key: int) -> tuple[Sample, Sample]:
        first = await engine.sample(prompt, sampling, key=key, last=False)
        second = await engine.sample([*prompt, *first.ids, *TAIL], sampling, key=key, last=True)
        return first, second

    async def run():
        return await asyncio.gather(*(episode(prompt, key) for key, prompt in enumerate(chosen)))

    return asyncio.run(run())


def generated(reference, ids: list[int], tokens: int) -> list[int]:
    """Greedy continuation by a plain loop without a cache."""
    out: list[int] = []
    while len(out) < tokens and (not out or out[-1] != STOP):
        with torch.no_grad():
            out.append(int(reference(torch.tensor([ids + out])).logits[0, -1].argmax()))
    return out


@cache
def plain_attempts(family: str, prompt: tuple[int, ...]) -> tuple[list[int], list[int]]:
    """Both greedy attempts by the plain loop, of 12 tokens at most."""
    reference = model(family)
    first = generated(reference, [*prompt], 12)
    return first, generated(reference, [*prompt, *first, *TAIL], 12)


@pytest.mark.usefixtures("size")
@pytest.mark.parametrize(
    ("family", "slots"), [("qwen2", 64), *((name, 3) for name in ("qwen2", "llama", "qwen3", "mistral", "gpt2"))]
)
def test_greedy_attempts_equal_a_plain_loop(family, slots):
    """Also with more conversations than slots, shared prompts, and attempts of many lengths."""
    chosen = [prompt for prompt in prompts(7) for _ in range(3)]
    engine = TorchEngine(model(family), [STOP], slots=slots, max_tokens=64)
    found = two_attempts(engine, chosen, Sampling(12, temperature=0))
    assert engine.steps >= max(len(first.ids) + len(second.ids) for first, second in found)  # none is a deadline's end
    lengths = set()
    for prompt, (first, second) in zip(chosen, found, strict=True):
        assert (list(first.ids), list(second.ids)) == plain_attempts(family, tuple(prompt))
        lengths |= {len(first.ids), len(second.ids)}
    assert len(lengths) > 1, "the attempts should end at different lengths for this to test anything"


@pytest.mark.parametrize("family", ["qwen2", "gpt2"])
def test_what_prompts_have_in_common_is_computed_once(family):
    """Prompts of two kinds, each with a long beginning of its own, at once and three at a time."""
    reference, tails = model(family), prompts(12)
    beginnings = [[2 + (7 * i + kind) % 30 for i in range(40)] for kind in range(2)]
    chosen = [beginnings[at % 2] + tail for at, tail in enumerate(tails)]
    expected = [generated(reference, prompt, 6) for prompt in chosen]
    for slots in (3, 16):
        seen = []
        embedding = reference.get_input_embeddings()
        watch = embedding.register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0].numel()))
        engine = TorchEngine(reference, [STOP], slots=slots, max_tokens=80)
        found = two_attempts(engine, chosen, Sampling(6, temperature=0))
        watch.remove()
        assert [list(first.ids) for first, _ in found] == expected
        for prompt, (first, second) in zip(chosen, found, strict=True):
            assert list(second.ids) == generated(reference, [*prompt, *first.ids, *TAIL], 6)
        if slots == 16:
            assert sum(seen) < sum(map(len, chosen))


def adapted():
    """A model with adapters that do something."""
    made = model("qwen2")
    add_lora(made, LoraConfig(rank=4), seed=0)
    for name, parameter in made.named_parameters():
        if ".lora_" in name:
            parameter.data.normal_(std=0.1)
    return made


@pytest.mark.usefixtures("size")
@pytest.mark.parametrize("sampling", [Sampling(10), Sampling(10, temperature=0.6)], ids=["T=1", "T=0.6"])
@pytest.mark.parametrize("reference", [model("qwen2"), adapted()], ids=["whole", "adapters"])
def test_logprobs_are_those_of_the_sampled_distribution(reference, sampling):
    chosen = [prompt for prompt in prompts(10) for _ in range(4)]
    engine = TorchEngine(reference, [STOP], slots=16, max_tokens=64)
    for prompt, (first, second) in zip(chosen, two_attempts(engine, chosen, sampling), strict=True):
        ids = [*prompt, *first.ids, *TAIL, *second.ids]
        with torch.no_grad():
            logits = reference(torch.tensor([ids])).logits[0, :-1] / sampling.temperature
        expected = logits.log_softmax(-1).gather(-1, torch.tensor(ids[1:])[:, None])[:, 0].tolist()
        start = len(prompt) - 1
        assert first.logprobs == pytest.approx(expected[start : start + len(first.ids)], abs=1e-4)
        assert second.logprobs == pytest.approx(expected[-len(second.ids) :], abs=1e-4)


@pytest.mark.usefixtures("size")
@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama", "mistral", "gpt2"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
def test_half_precision_is_as_exact_as_the_models_own_forward_pass(family, dtype):
    """Both against the same rounded weights in float32, also with few slots and prompts of many tokens."""
    reference, exact = model(family).to(dtype), model(family).to(dtype).float()
    long = torch.randint(2, VOCABULARY, (100,), generator=torch.Generator().manual_seed(0)).tolist()
    chosen = [*(prompt for prompt in prompts(10) for _ in range(2)), long, [*long, 3]]
    own, ours = [], []
    for slots in (3, 32):
        engine = TorchEngine(reference, [STOP], slots=slots, max_tokens=160)
        for prompt, (first, second) in zip(chosen, two_attempts(engine, chosen, Sampling(10)), strict=True):
            ids = torch.tensor([[*prompt, *first.ids, *TAIL, *second.ids]])
            said_n = [
                *range(len(prompt), len(prompt) + len(first.ids)),
                *range(ids.shape[1] - len(second.ids), ids.shape[1]),
            ]
            with torch.no_grad():
                both = [each(ids).logits[0].float().log_softmax(-1) for each in (exact, reference)]
            expected, rounded = (logprobs[[n - 1 for n in said_n], ids[0, said_n]] for logprobs in both)
            own += (rounded - expected).abs().tolist()
            ours += (torch.tensor([*first.logprobs, *second.logprobs]) - expected).abs().tolist()
    assert torch.tensor(ours).mean() < 1.5 * torch.tensor(own).mean()


def test_samples_follow_the_models_distribution():
    """4,000 first tokens of one prompt against its softmax, by a chi-square-like bound."""
    reference = model("qwen2")
    prompt = prompts(1)[0]
    engine = TorchEngine(reference, [STOP], slots=512, max_tokens=16)

    async def run():
        one = Sampling(1)
        return await asyncio.gather(*(engine.sample(prompt, one, key=k, last=True) for k in range(4000)))

    counts = torch.bincount(torch.tensor([s.ids[0] for s in asyncio.run(run())]), minlength=VOCABULARY) / 4000
    with torch.no_grad():
        expected = reference(torch.tensor([prompt])).logits[0, -1].softmax(-1)
    assert (counts - expected).abs().max() < 4 * (0.25 / 4000) ** 0.5


@pytest.mark.parametrize(
    ("truncation", "kept"), [(Truncation(top_k=3), 3), (Truncation(top_p=0.5), None), (Truncation(min_p=0.2), None)]
)
def test_truncation_keeps_the_likeliest_and_renormalises(truncation, kept):
    reference = model("qwen2")
    prompt = prompts(1)[0]
    engine = TorchEngine(reference, [STOP], slots=64, max_tokens=16)

    async def run():
        one = Sampling(1, truncation=truncation)
        return await asyncio.gather(*(engine.sample(prompt, one, key=k, last=True) for k in range(300)))

    with torch.no_grad():
        probabilities = reference(torch.tensor([prompt])).logits[0, -1].softmax(-1)
    ordered = probabilities.sort(descending=True)
    if truncation.min_p:
        kept = int((probabilities >= 0.2 * probabilities.max()).sum())
    kept = kept or int((ordered.values.cumsum(0) < 0.5).sum()) + 1
    allowed = set(ordered.indices[:kept].tolist())
    mass = ordered.values[:kept].sum()
    for sample in asyncio.run(run()):
        assert sample.ids[0] in allowed
        assert sample.logprobs[0] == pytest.approx(float((probabilities[sample.ids[0]] / mass).log()), abs=1e-4)


def test_the_same_seed_gives_the_same_attempts_and_another_seed_others():
    engine = TorchEngine(model("qwen2"), [STOP], slots=8, max_tokens=64)
    runs = []
    for seed in (1, 2, 1):
        runs.append(two_attempts(engine, prompts(20), Sampling(10, seed=seed)))
    assert runs[0] == runs[2] != runs[1]


def test_requests_with_different_settings_share_a_batch():
    reference = model("qwen2")
    engine = TorchEngine(reference, [STOP], slots=8, max_tokens=64)
    prompt = prompts(1)[0]

    async def run():
        return await asyncio.gather(
            engine.sample(prompt, Sampling(3, temperature=0), key=0, last=True),
            engine.sample(prompt, Sampling(9, temperature=0), key=1, last=True),
            engine.sample(prompt, Sampling(9, temperature=1), key=2, last=True),
        )

    short, long, _ = asyncio.run(run())
    assert list(short.ids) == generated(reference, prompt, 3)
    assert list(long.ids) == generated(reference, prompt, 9)
    assert short.finish == ("stop" if short.ids[-1] == STOP else "length")


def test_conversations_longer_than_foreseen_still_fit():
    reference = model("qwen2")
    engine = TorchEngine(reference, [STOP], slots=4, max_tokens=8)
    (first, second), *_ = two_attempts(engine, prompts(3), Sampling(90, temperature=0))
    assert list(second.ids) == generated(reference, [*prompts(3)[0], *first.ids, *TAIL], 90)


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "mistral"])
def test_a_prompt_of_many_tokens_is_computed_as_one_of_few(family):
    reference = model(family)
    prompt = torch.randint(2, VOCABULARY, (100,), generator=torch.Generator().manual_seed(0)).tolist()
    engine = TorchEngine(reference, [STOP], slots=4, max_tokens=128)
    assert list(asyncio.run(_one(engine, prompt)).ids) == generated(reference, prompt, 10)


def test_a_model_that_does_not_see_all_of_a_conversation_is_refused():
    sizes = {"vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4}
    window = MistralForCausalLM(MistralConfig(**sizes, num_hidden_layers=2, num_key_value_heads=2, sliding_window=16))
    assert len(asyncio.run(_one(TorchEngine(window, [STOP], slots=4, max_tokens=16), [2, 3])).ids) > 0
    with pytest.raises(UserError, match="MistralForCausalLM do not see all of a conversation of 17 tokens"):
        TorchEngine(window, [STOP], slots=4, max_tokens=17)


def test_the_models_own_forward_pass_stays_what_it_was():
    """Also of a short batch with padding, whose mask says what is seen instead of what is added."""
    plain, sampled = model("mistral"), model("mistral")
    TorchEngine(sampled, [STOP], slots=4, max_tokens=64)
    ids, seen = torch.tensor([[0, 0, 5, 6, 7], [3, 4, 5, 6, 7]]), torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    with torch.no_grad():
        before, after = (each(ids, attention_mask=seen).logits for each in (plain, sampled))
    assert torch.allclose(before[seen.bool()], after[seen.bool()], atol=1e-5)


@pytest.mark.usefixtures("size")
def test_a_seed_says_what_is_sampled_however_long_conversations_wait_and_however_many_fit():
    """As they do for tests of code that run meanwhile, and for slots where memory is short."""

    async def talk(engine: TorchEngine, prompt: list[int], key: int, passes: int) -> list[int]:
        first = await engine.sample(prompt, Sampling(10), key=key, last=False)
        for _ in range(passes):
            await asyncio.sleep(0)
        return [*first.ids, *(await engine.sample([*prompt, *first.ids, 2], Sampling(10), key=key, last=True)).ids]

    async def all_of(slots: int, waits: int) -> list[list[int]]:
        engine, asked = TorchEngine(made, [STOP], slots=slots, max_tokens=99), prompts(20)
        talks = (talk(engine, prompt, key, waits * (key % 7)) for key, prompt in enumerate(asked))
        return list(await asyncio.gather(*talks))

    made = model("qwen2")
    expected = asyncio.run(all_of(20, 0))
    assert asyncio.run(all_of(20, 3)) == expected
    assert asyncio.run(all_of(4, 0)) == expected


def test_weights_that_changed_in_place_are_sampled_from():
    """As the learner's own do, which are not published."""
    own = model("qwen2")
    engine = TorchEngine(own, [STOP], slots=4, max_tokens=64, live=True)
    prompt = prompts(1)[0]
    before = asyncio.run(_one(engine, prompt))
    with torch.no_grad():
        for parameter in own.parameters():
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    after = asyncio.run(_one(engine, prompt))
    assert list(after.ids) == generated(own, prompt, 10) != list(before.ids)


def test_published_weights_are_sampled_from_and_named_by_their_version():
    engine = TorchEngine(model("qwen2"), [STOP], slots=8, max_tokens=64)
    other = model("qwen2")
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    engine.publish(other.named_parameters(), version=7)
    prompt = prompts(1)[0]
    sample = asyncio.run(_one(engine, prompt))
    assert list(sample.ids) == generated(other, prompt, 10)
    assert set(sample.versions) == {7}


async def _one(engine: TorchEngine, prompt: list[int]) -> Sample:
    return await engine.sample(prompt, Sampling(10, temperature=0), key=0, last=True)


def test_a_failure_in_the_model_reaches_everyone_who_waits_and_the_engine_recovers():
    reference = model("qwen2")
    engine = TorchEngine(reference, [STOP], slots=4, max_tokens=32)
    with pytest.raises(IndexError):
        two_attempts(engine, [[2, 3], [2, VOCABULARY + 5]], Sampling(4))
    prompt = prompts(1)[0]
    assert list(asyncio.run(_one(engine, prompt)).ids) == generated(reference, prompt, 10)
