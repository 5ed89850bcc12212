"""Two-attempt trajectories per second, lengths long-tailed: vLLM without and with a barrier, the embedded engine.

    python -m tests.bench.vllm

The same conversations from the same random Qwen2 model, four ways that take turns in one process: rlcore through vLLM;
a plain loop over vLLM's own `LLM.generate`, which answers all first attempts before it takes the second ones; rlcore's
engine made to wait like that; and the embedded engine. Weights are new each time, so no KV cache of before is used.

Each attempt has a length of its own, log-normal with a median of 24 tokens and cut at a limit. By default (`--spread
1 --limit 192`) the mean is 1.6 times the median and one in fifty reaches the limit; with `--spread 1.4 --limit 384` the
limit is 16 times the median, and one in forty reaches it. How much a barrier costs depends on how the lengths of a
conversation's two attempts correlate (if both are long, the second one is waited for anyway), on how many sequences run
at once, and on what a step of many costs beside a step of one, so all of that is varied or printed; so is what a
barrier would cost if there was nothing but steps, each as dear as one of its number of sequences is here. A round draws
new lengths. With one thread on the CPU, seconds are its CPU seconds, because others may use the machine.
"""

import argparse
import asyncio
import gc
import heapq
import tempfile
import time
from collections.abc import Callable, Sequence
from statistics import geometric_mean
from typing import Any

import numpy as np
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from rlcore.recipe.schema import RolloutConfig
from rlcore.rollout import RolloutEngine, Sampling, TorchEngine
from rlcore.rollout.vllm.arguments import engine_arguments
from rlcore.rollout.vllm.in_process import InProcessEngine

VOCABULARY, PROMPT, CORRECTION = 512, 64, 16
TYPICAL = 24
"""Tokens of the median attempt."""
NEXT_MESSAGE = list(range(2, 2 + CORRECTION))

Conversation = tuple[list[int], Sequence[int]]
"""A prompt, and the number of tokens of each attempt."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--slots", type=int, default=16, help="sequences that run at once")
    parser.add_argument("--conversations", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--correlation", type=float, nargs="+", default=[0.0, 0.5], help="of the attempts' lengths")
    parser.add_argument("--spread", type=float, default=1.0, help="standard deviation of the lengths' logarithm")
    parser.add_argument("--limit", type=int, default=192, help="tokens of the longest attempt")
    parser.add_argument("--threads", type=int, default=1, help="of torch on the CPU; an idle core for each")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    longest = PROMPT + CORRECTION + 2 * options.limit
    torch.set_num_threads(options.threads)
    model = _model().to(options.device)
    section = RolloutConfig(engine="vllm", slots=options.slots)
    vllm = InProcessEngine(section, model, None, stop_ids=[], max_tokens=longest)
    plain = PlainLoop(section, model, longest)
    embedded = TorchEngine(model, [], slots=options.slots, max_tokens=longest)
    gc.freeze()  # as a run does once everything is loaded (rlcore/session/build.py)

    def renew() -> None:
        vllm.publish(((name, parameter.data) for name, parameter in model.named_parameters()), 0)
        plain.renew()

    ways: dict[str, Callable[[list[Conversation]], None]] = {
        "rlcore, vLLM": lambda conversations: asyncio.run(_no_barrier(vllm, conversations)),
        "LLM.generate": plain.run,
        "rlcore, vLLM, barrier": lambda conversations: asyncio.run(_barrier(vllm, conversations)),
        "rlcore, embedded": lambda conversations: asyncio.run(_no_barrier(embedded, conversations)),
    }
    clock = time.process_time if options.device == "cpu" and options.threads == 1 else time.perf_counter

    def seconds(way: Callable[[list[Conversation]], None], conversations: list[Conversation]) -> float:
        renew()
        start = clock()
        way(conversations)
        return clock() - start

    print(f"torch {torch.__version__}, {options.device}, {sum(p.numel() for p in model.parameters()):,} parameters")
    for way in ways.values():
        seconds(way, _conversations(options.slots, 0, options, 0))
    alone, together = (
        min(seconds(ways["rlcore, vLLM"], [([2], (options.limit, 1))] * count) for _ in range(3))
        for count in (1, options.slots)
    )
    rise = (together / alone - 1) / (options.slots - 1)
    print(f"a step of {options.slots} sequences takes {together / alone:.1f} times as long as a step of one")
    for count in options.conversations:
        for correlation in options.correlation:
            rounds = [_conversations(count, correlation, options, seed) for seed in range(options.rounds)]
            taken = [{name: seconds(way, round) for name, way in ways.items()} for round in rounds]
            bound = geometric_mean(_steps_ratio([pair for _, pair in round], options.slots, rise) for round in rounds)
            print(f"{count} conversations, {options.slots} at once, lengths correlate by {correlation:g}:", end=" ")
            print(f"a barrier's steps alone cost {bound:.2f} times as much")
            for name in ways:
                rate = count / geometric_mean(each[name] for each in taken)
                ratios = [each[name] / each["rlcore, vLLM"] for each in taken]
                print(
                    f"  {name:22}{rate:6.1f} trajectories/s; rlcore is {geometric_mean(ratios):.2f} times as fast",
                    end="",
                )
                print(f" ({min(ratios):.2f} to {max(ratios):.2f})")


class PlainLoop:
    """What a user of vLLM writes: `LLM.generate` for the first attempts, then for the second ones."""

    def __init__(self, section: RolloutConfig, model: Qwen2ForCausalLM, longest: int):
        from vllm import LLM

        on_cpu = model.device.type == "cpu"
        arguments = engine_arguments(section, model.config, model.dtype, longest, on_cpu=on_cpu)
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            self._llm = LLM(**arguments, model=folder)

    def renew(self) -> None:
        self._llm.reset_prefix_cache()

    def run(self, conversations: list[Conversation]) -> None:
        prompts = [ids for ids, _ in conversations]
        with torch.compiler.set_stance("force_eager"):  # as rlcore does it: compiling takes longer than it saves
            for attempt in range(2):
                settings = [self._settings(lengths[attempt]) for _, lengths in conversations]
                answers = self._llm.generate([{"prompt_token_ids": ids} for ids in prompts], settings, use_tqdm=False)
                prompts = [
                    [*ids, *answer.outputs[0].token_ids, *NEXT_MESSAGE]
                    for ids, answer in zip(prompts, answers, strict=True)
                ]

    def _settings(self, tokens: int) -> Any:
        from vllm import SamplingParams

        return SamplingParams(max_tokens=tokens, temperature=1.0, logprobs=0, ignore_eos=True, detokenize=False)


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


def _conversations(count: int, correlation: float, options: argparse.Namespace, seed: int) -> list[Conversation]:
    rng = np.random.default_rng(seed)
    shared, own = rng.normal(size=(count, 1)), rng.normal(size=(count, 2))
    normal = np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own
    lengths = (TYPICAL * np.exp(options.spread * normal)).astype(int).clip(1, options.limit)
    return [(rng.integers(2, VOCABULARY, PROMPT).tolist(), pair.tolist()) for pair in lengths]


def _steps_ratio(lengths: Sequence[Sequence[int]], slots: int, rise: float) -> float:
    """What the steps with a barrier cost, over what they cost without one."""
    barrier = sum(_steps([[pair[attempt]] for pair in lengths], slots, rise) for attempt in range(2))
    return barrier / _steps(lengths, slots, rise)


def _steps(conversations: Sequence[Sequence[int]], slots: int, rise: float) -> float:
    """Cost of all steps in units of a step of one sequence; each sequence more in it adds `rise`."""
    ends: list[int] = []
    """Steps after which the places that were taken are free, the soonest first."""
    for lengths in conversations:
        start = heapq.heappop(ends) if len(ends) == slots else 0
        heapq.heappush(ends, start + sum(lengths))
    return max(ends) + rise * (sum(map(sum, conversations)) - max(ends))


async def _no_barrier(engine: RolloutEngine, conversations: list[Conversation]) -> None:
    async def episode(key: int, prompt: list[int], tokens: Sequence[int]) -> None:
        ids = await _attempt(engine, key, prompt, tokens[0], last=False)
        await _attempt(engine, key, ids, tokens[1], last=True)

    await asyncio.gather(*(episode(key, *conversation) for key, conversation in enumerate(conversations)))


async def _barrier(engine: RolloutEngine, conversations: list[Conversation]) -> None:
    asked = (_attempt(engine, key, ids, tokens[0], last=False) for key, (ids, tokens) in enumerate(conversations))
    firsts = await asyncio.gather(*asked)
    lengths = (tokens[1] for _, tokens in conversations)
    pairs = enumerate(zip(firsts, lengths, strict=True))
    await asyncio.gather(*(_attempt(engine, key, ids, length, last=True) for key, (ids, length) in pairs))


async def _attempt(engine: RolloutEngine, key: int, ids: list[int], tokens: int, *, last: bool) -> list[int]:
    sample = await engine.sample(ids, Sampling(tokens), key=key, last=last)
    return [*ids, *sample.ids, *NEXT_MESSAGE]


if __name__ == "__main__":
    main()
