"""The embedded engine's KV cache: what it holds, what waits when it is full, and that this changes no token."""

import asyncio

import pytest
import torch
from test_torch_engine import STOP, TAIL, VOCABULARY, generated, model, two_attempts

from rlcore.errors import UserError
from rlcore.rollout import Sampling, TorchEngine
from rlcore.rollout.embedded import slots
from rlcore.rollout.embedded.bands import token_bytes

GREEDY = Sampling(40, temperature=0)
FAMILIES = ["qwen2", "mistral"]
"""One that is computed in few operations, one by its own forward pass."""


@pytest.fixture(autouse=True)
def _nothing_is_small(monkeypatch):
    monkeypatch.setattr(slots, "SMALL", 0)


def prompts(lengths: list[int]) -> list[list[int]]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randint(2, VOCABULARY, (length,), generator=generator).tolist() for length in lengths]


def engine(reference, **settings) -> TorchEngine:
    return TorchEngine(reference, [STOP], **{"slots": 64, "max_tokens": 400, **settings})


def held_bytes(cache) -> int:
    return sum(tensor.nbytes for layer in cache.slot_layers for band in layer.bands for tensor in band)


def watched(made: TorchEngine) -> list[tuple[int, int]]:
    """Bytes of the cache, and tokens of live conversations, at each forward pass from here on."""
    seen, forward = [], made._forward

    def look(*arguments):
        logits = forward(*arguments)
        live = made._rows.live()
        seen.append((held_bytes(made._cache), int(made._rows.length_S[live].sum())))
        return logits

    made._forward = look
    return seen


@pytest.mark.parametrize("family", FAMILIES)
def test_the_cache_holds_at_most_a_quarter_more_than_live_tokens(family):
    """Conversations of 50 to 350 tokens which end at many lengths."""
    reference = model(family)
    chosen = prompts([50, 60, 80, 120, 200, 300] * 3)
    made = engine(reference)
    seen = watched(made)
    found = two_attempts(made, chosen, Sampling(40))
    each = token_bytes(reference.config, reference.dtype)
    assert len({len(first.ids) for first, _ in found}) > 1
    assert max(held / (tokens * each) for held, tokens in seen) <= 1.25
    assert held_bytes(made._cache) == 0, "nothing is kept while nobody samples"


@pytest.mark.parametrize("family", FAMILIES)
def test_when_the_memory_is_full_conversations_wait_and_all_end(family):
    """Room for little more than the longest of 12 conversations, some of which share a prompt."""
    reference = model(family)
    chosen = [prompt for prompt in prompts([20, 30, 60, 90]) for _ in range(3)]
    budget = int(1.25 * 201 * token_bytes(reference.config, reference.dtype)) + 1
    made = engine(reference, max_tokens=200, kv_bytes=budget)
    seen = watched(made)
    found = two_attempts(made, chosen, GREEDY)
    assert max(held for held, _ in seen) <= budget
    for start in range(0, len(chosen), 3):
        (first, second), *others = found[start : start + 3]
        assert list(first.ids) == generated(reference, chosen[start], 40)
        assert list(second.ids) == generated(reference, [*chosen[start], *first.ids, *TAIL], 40)
        assert [(a.ids, b.ids) for a, b in others] == [(first.ids, second.ids)] * 2


def test_attempts_that_had_to_leave_the_cache_keep_what_was_sampled():
    """Rows that outgrow the memory together: their log-probabilities are the model's all the same."""
    reference = model("qwen2")
    with torch.no_grad():
        reference.lm_head.weight[STOP] = 0  # answers are long
    chosen = prompts([8] * 8)
    budget = int(1.25 * 121 * token_bytes(reference.config, reference.dtype)) + 1
    made = engine(reference, max_tokens=120, kv_bytes=budget)
    put_off, leave = [], made._put_off
    made._put_off = lambda slot: (put_off.append(slot), leave(slot))[1]
    for prompt, (first, second) in zip(chosen, two_attempts(made, chosen, Sampling(40)), strict=True):
        ids = [*prompt, *first.ids, *TAIL, *second.ids]
        with torch.no_grad():
            logits = reference(torch.tensor([ids])).logits[0, :-1]
        expected = logits.log_softmax(-1).gather(-1, torch.tensor(ids[1:])[:, None])[:, 0].tolist()
        start = len(prompt) - 1
        assert first.logprobs == pytest.approx(expected[start : start + len(first.ids)], abs=1e-4)
        assert second.logprobs == pytest.approx(expected[-len(second.ids) :], abs=1e-4)
    assert put_off


def test_a_conversation_between_two_requests_makes_room_for_others():
    """It keeps the cache while there is room, and is computed again where there was none."""
    reference = model("qwen2")
    one, other = prompts([60, 60])
    budget = int(1.25 * 111 * token_bytes(reference.config, reference.dtype)) + 1
    made = engine(reference, max_tokens=110, kv_bytes=budget)

    async def run():
        first = await made.sample(one, Sampling(4, temperature=0), key=0, last=False)
        between = await made.sample(other, GREEDY, key=1, last=True)
        again = [*one, *first.ids, *TAIL]
        return first, between, again, await made.sample(again, Sampling(4, temperature=0), key=0, last=True)

    _, between, again, second = asyncio.run(asyncio.wait_for(run(), 60))
    assert list(between.ids) == generated(reference, other, 40)
    assert list(second.ids) == generated(reference, again, 4)


def test_where_not_even_one_conversation_fits_one_line_says_what_it_takes(capfd):
    reference = model("qwen2")
    made = engine(reference, max_tokens=400, kv_bytes=1000)
    with pytest.raises(UserError, match=r"rollout\.kv_memory: .* one conversation of 400 tokens, which takes") as told:
        two_attempts(made, prompts([4, 5]), GREEDY)
    assert "max_attempt_tokens" in str(told.value)
    assert "\n" not in str(told.value)
    assert capfd.readouterr().err == ""
