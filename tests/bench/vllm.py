"""Two-attempt trajectories per second, lengths long-tailed: vLLM without and with a barrier, the embedded engine.

    python -m tests.bench.vllm

The same conversations, each attempt of a length of its own (log-normal, cut at a limit), from the same random Qwen2
model. With a barrier, all second attempts wait for the last first attempt, as in a loop over `LLM.generate`; it runs on
the same vLLM engine. The three take turns in one process.
"""

import argparse
import asyncio
import gc
import time
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from rlcore.recipe.schema import Rollout
from rlcore.rollout import RolloutEngine, Sampling, TorchEngine
from rlcore.rollout.vllm.in_process import InProcessEngine

VOCABULARY, PROMPT, CORRECTION = 512, 64, 16
REPEATS = 5

Conversation = tuple[list[int], Sequence[int]]
"""A prompt, and the tokens of each attempt."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--conversations", type=int, default=64)
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--median", type=int, default=24, help="tokens of an attempt")
    parser.add_argument("--limit", type=int, default=192, help="tokens of the longest attempt")
    options = parser.parse_args()
    model = _model().to(options.device)
    longest = PROMPT + CORRECTION + 2 * options.limit
    vllm = InProcessEngine(Rollout(engine="vllm", slots=options.slots), model, None, stop_ids=[], max_tokens=longest)
    torch_engine = TorchEngine(model, [], slots=options.slots, max_tokens=longest)
    gc.freeze()  # as a run does once everything is loaded (rlcore/setup.py)
    conversations = _conversations(options.conversations, options.median, options.limit)
    lengths = np.array([tokens for _, tokens in conversations])
    print(f"torch {torch.__version__}, {options.device}, {torch.get_num_threads()} threads")
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {options.conversations} conversations,", end=" ")
    print(f"{options.slots} slots, attempts of {np.median(lengths):.0f} tokens (median), {lengths.max()} at most")
    ways = {
        "vLLM, no barrier": partial(_no_barrier, vllm, conversations),
        "vLLM, barrier": partial(_barrier, vllm, conversations),
        "embedded, no barrier": partial(_no_barrier, torch_engine, conversations),
    }

    def renew() -> None:
        """A step begins with new weights, and so with no KV cache of the time before."""
        vllm.publish(((name, parameter.data) for name, parameter in model.named_parameters()), 0)

    for way in ways.values():
        _seconds(way, renew)
    seconds = {name: [] for name in ways}
    for _ in range(REPEATS):
        for name, way in ways.items():
            seconds[name].append(_seconds(way, renew))
    ours = seconds["vLLM, no barrier"]
    for name, theirs in seconds.items():
        ratios = [t / o for o, t in zip(ours, theirs, strict=True)]
        print(f"{name:20} {len(conversations) / median(theirs):7.1f} trajectories/s", end="")
        print(
            f"   no barrier through vLLM is {median(ratios):.2f} times as fast ({min(ratios):.2f} to {max(ratios):.2f})"
        )


def _model() -> Qwen2ForCausalLM:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=512,
    )
    return Qwen2ForCausalLM(config).eval()


def _conversations(count: int, typical: int, limit: int) -> list[Conversation]:
    rng = np.random.default_rng(0)
    tokens = np.exp(rng.normal(np.log(typical), 1.0, (count, 2))).astype(int).clip(1, limit)
    return [(rng.integers(2, VOCABULARY, PROMPT).tolist(), pair.tolist()) for pair in tokens]


def _seconds(way: Callable[[], Coroutine[Any, Any, None]], renew: Callable[[], None]) -> float:
    renew()
    start = time.perf_counter()
    asyncio.run(way())
    return time.perf_counter() - start


async def _no_barrier(engine: RolloutEngine, conversations: list[Conversation]) -> None:
    async def episode(key: int, prompt: list[int], tokens: Sequence[int]) -> None:
        ids = await _attempt(engine, key, prompt, tokens[0], last=False)
        await _attempt(engine, key, ids, tokens[1], last=True)

    engine.seed(0)
    await asyncio.gather(*(episode(key, *conversation) for key, conversation in enumerate(conversations)))


async def _barrier(engine: RolloutEngine, conversations: list[Conversation]) -> None:
    engine.seed(0)
    asked = (_attempt(engine, key, ids, tokens[0], last=False) for key, (ids, tokens) in enumerate(conversations))
    firsts = await asyncio.gather(*asked)
    lengths = (tokens[1] for _, tokens in conversations)
    pairs = enumerate(zip(firsts, lengths, strict=True))
    await asyncio.gather(*(_attempt(engine, key, ids, length, last=True) for key, (ids, length) in pairs))


async def _attempt(engine: RolloutEngine, key: int, ids: list[int], tokens: int, *, last: bool) -> list[int]:
    sample = await engine.sample(ids, Sampling(tokens), key=key, last=last)
    return [*ids, *sample.ids, *range(2, 2 + CORRECTION)]


if __name__ == "__main__":
    main()
