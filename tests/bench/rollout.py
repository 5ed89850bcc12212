"""Tokens per second of two-attempt rollouts: the embedded engine against `model.generate` called twice.

    python -m tests.bench.rollout [--device cuda]

Same random Qwen2 model, prompts, sampling settings and limits; the two take turns in one process. Answers end at random
(about one token in sixty is the stop token), at the latest at the limit.
"""

import argparse
import asyncio
import gc
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import torch
from transformers import PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from rlcore.rollout import Sampling, TorchEngine
from rlcore.rollout.embedded.slots import use_decode_attention

STOP, VOCABULARY = 1, 64
PROMPT, CORRECTION = 24, 12
REPEATS = 7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--problems", type=int, default=64)
    parser.add_argument("--group", type=int, default=8)
    options = parser.parse_args()
    model = _model().to(options.device)
    gc.freeze()  # as a run does once everything is loaded (rlcore/session/build.py)
    print(f"torch {torch.__version__}, {options.device}, {torch.get_num_threads()} threads")
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {options.problems} problems x {options.group}")
    generator = torch.Generator().manual_seed(0)
    prompts = torch.randint(2, VOCABULARY, (options.problems, PROMPT), generator=generator).tolist()
    for tokens in (8, 64):
        slots, longest = options.problems * options.group, PROMPT + CORRECTION + 2 * tokens
        engine = TorchEngine(model, [STOP], slots=slots, max_tokens=longest)  # made once, as in a run
        ratios, rates = [], []
        for _ in range(REPEATS):
            ours = _rate(partial(_engine, engine, prompts, options.group, tokens))
            peer = _rate(partial(_generate_twice, model, prompts, options.group, tokens))
            ratios.append(ours / peer)
            rates.append((ours, peer))
        ours, peer = (median(column) for column in zip(*rates, strict=True))
        print(
            f"answers of at most {tokens:2} tokens: engine {ours:8,.0f} tokens/s, generate twice {peer:8,.0f}", end=""
        )
        print(f", ratio {median(ratios):.2f} (of {', '.join(f'{ratio:.2f}' for ratio in ratios)})")


def _model() -> PreTrainedModel:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=256,
    )
    return Qwen2ForCausalLM(config).eval()


def _rate(rollouts: Callable[[], int]) -> float:
    """Tokens per second; `rollouts` returns how many it sampled."""
    start = time.perf_counter()
    sampled = rollouts()
    return sampled / (time.perf_counter() - start)


def _engine(engine: TorchEngine, prompts: list[list[int]], group: int, tokens: int) -> int:
    use_decode_attention(engine.model)
    sampling = Sampling(tokens)

    async def episode(prompt: list[int], key: int) -> int:
        first = await engine.sample(prompt, sampling, key=key, last=False)
        ids = [*prompt, *first.ids, *range(2, 2 + CORRECTION)]
        second = await engine.sample(ids, sampling, key=key, last=True)
        return len(first.ids) + len(second.ids)

    async def run() -> list[int]:
        keys = ((prompt, number * group + g) for number, prompt in enumerate(prompts) for g in range(group))
        return await asyncio.gather(*(episode(prompt, key) for prompt, key in keys))

    return sum(asyncio.run(run()))


def _generate_twice(model: PreTrainedModel, prompts: list[list[int]], group: int, tokens: int) -> int:
    conversations = [prompt for prompt in prompts for _ in range(group)]
    first = _generate(model, conversations, tokens)
    correction = list(range(2, 2 + CORRECTION))
    conversations = [[*ids, *answer, *correction] for ids, answer in zip(conversations, first, strict=True)]
    second = _generate(model, conversations, tokens)
    return sum(map(len, first)) + sum(map(len, second))


def _generate(model: PreTrainedModel, conversations: list[list[int]], tokens: int) -> list[list[int]]:
    """Left-padded, sampled, and cut after the stop token."""
    model.set_attn_implementation("sdpa")
    width = max(map(len, conversations))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in conversations], device=model.device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in conversations], device=model.device)
    settings = {"max_new_tokens": tokens, "do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
    out = model.generate(input_ids=ids, attention_mask=mask, eos_token_id=STOP, pad_token_id=0, **settings)
    answers = out[:, width:].tolist()
    return [row[: row.index(STOP) + 1] if STOP in row else row for row in answers]


if __name__ == "__main__":
    main()
