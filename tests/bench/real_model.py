"""A real model on the CPU: sampling against `generate` and vLLM, learning, and both against their products alone.

    python -m tests.bench.real_model --model FOLDER [--rows 32 128 256] [--only sampler|learner]

Rows start from prompts of random tokens, and end after lengths of their own: log-normal, cut at `--limit`, so that the
longest is several times the median. `generate` goes on until its longest row has ended; vLLM is its CPU build, where
it is installed. They take turns in one process; rates are of the tokens that count.

The limit is the time of the matrix products alone with the same numbers of rows, each weight once as in a step: for
each shape the fastest of torch's product, that of the weight with the turned states, oneDNN's, and oneDNN's with packed
weights. Of the learner it is three products of each weight and token: one forward, two backward. Nobody can reach it,
for attention, norms and sampling come on top.

With one thread (the default) seconds are CPU seconds of this process, because others may use the machine.
"""

import argparse
import asyncio
import importlib.util
import time
from collections.abc import Callable
from statistics import median

import numpy as np
import torch
from torch.nn import functional
from transformers import AutoModelForCausalLM, PreTrainedModel

from rlcore.learner import Learner
from rlcore.ranks import start_distributed
from rlcore.recipe.schema import LearnerConfig, RolloutConfig
from rlcore.rollout import RolloutEngine, Sampling, TorchEngine
from rlcore.rollout.embedded.slots import use_decode_attention
from rlcore.types import TokenBatch

CORRECTION = 30
PASS = 1024
"""Prompt tokens, and tokens that the learner computes, in one product of the limit."""
TRAJECTORIES = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a Hugging Face folder")
    parser.add_argument("--rows", type=int, nargs="+", default=[32, 128, 256])
    parser.add_argument("--prompt", type=int, default=130, help="tokens")
    parser.add_argument("--median", type=float, default=24, help="tokens of the median attempt")
    parser.add_argument("--limit", type=int, default=192, help="tokens of the longest attempt")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="an idle core for each")
    parser.add_argument("--only", choices=("sampler", "learner"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32).eval()
    print(f"torch {torch.__version__}, {options.threads} threads, {model.num_parameters():,} parameters, float32")
    if options.only != "learner":
        engines = engines_of(model, options)
        for rows in options.rows:
            sampler(model, engines, rows, options)
        for engine in engines.values():
            engine.close()
    if options.only != "sampler":
        learner(model, options)


def clock_of(options: argparse.Namespace) -> Callable[[], float]:
    return time.process_time if options.threads == 1 else time.perf_counter


# Sampling.


def engines_of(model: PreTrainedModel, options: argparse.Namespace) -> dict[str, RolloutEngine]:
    slots, longest = max(options.rows), options.prompt + options.limit
    engines: dict[str, RolloutEngine] = {"embedded": TorchEngine(model, [], slots=slots, max_tokens=longest)}
    if importlib.util.find_spec("vllm"):
        from rlcore.rollout.vllm.in_process import InProcessEngine

        section = RolloutConfig(engine="vllm", slots=slots)
        engines["vLLM"] = InProcessEngine(section, model, options.model, stop_ids=[], max_tokens=longest)
    return engines


def sampler(model: PreTrainedModel, engines: dict[str, RolloutEngine], rows: int, options: argparse.Namespace) -> None:
    """Prints tokens per second of each way, and its share of the limit."""
    rng = np.random.default_rng(rows)
    prompts_RQ = rng.integers(5, model.config.vocab_size, (rows, options.prompt))
    lengths_R = np.clip(rng.lognormal(np.log(options.median), 1, rows), 1, options.limit).astype(int)

    def by(engine: RolloutEngine) -> Callable[[], object]:
        async def run() -> None:
            each = zip(prompts_RQ.tolist(), lengths_R.tolist(), strict=True)
            asked = (engine.sample(ids, Sampling(n), key=key, last=True) for key, (ids, n) in enumerate(each))
            await asyncio.gather(*asked)

        return lambda: asyncio.run(run())

    ways = {name: by(engine) for name, engine in engines.items()}
    ways["generate"] = lambda: _generate(model, prompts_RQ, int(lengths_R.max()))
    taken: dict[str, list[float]] = {name: [] for name in [*ways, "limit"]}
    clock = clock_of(options)
    for _ in range(options.rounds):
        for name, way in ways.items():
            if name == "embedded":
                use_decode_attention(model)
            if name == "vLLM":  # new weights forget the prefixes of the round before
                engines[name].publish(((n, parameter.data) for n, parameter in model.named_parameters()), 0)
            began = clock()
            way()
            taken[name].append(clock() - began)
        taken["limit"].append(_sampling_limit(model, lengths_R, options.prompt, clock))
    engines["embedded"].close()
    print(
        f"{rows} rows, {lengths_R.sum():,} tokens, the longest {lengths_R.max()} and the median {median(lengths_R):g}"
    )
    _print(taken, int(lengths_R.sum()), "embedded")


def _generate(model: PreTrainedModel, prompts_RQ: np.ndarray, tokens: int) -> None:
    model.set_attn_implementation("sdpa")
    ids = torch.from_numpy(prompts_RQ)
    settings = {"do_sample": True, "top_k": 0, "top_p": 1.0, "min_new_tokens": tokens, "max_new_tokens": tokens}
    model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), pad_token_id=0, **settings)


def _sampling_limit(model: PreTrainedModel, lengths_R: np.ndarray, prompt: int, clock: Callable[[], float]) -> float:
    """Seconds of the products of all prompts in passes, and of each step with the rows that are left."""
    live_T = (lengths_R[:, None] > np.arange(lengths_R.max())).sum(0)
    counts = sorted({1, *(int(len(lengths_R) * share) for share in (0.05, 0.1, 0.25, 0.5, 1))} - {0})
    seconds = [_forward_seconds(model, count, clock, head=True) for count in counts]
    steps = float(np.interp(live_T, counts, seconds).sum())
    return steps + _forward_seconds(model, PASS, clock, head=False) * len(lengths_R) * prompt / PASS


def _forward_seconds(model: PreTrainedModel, rows: int, clock: Callable[[], float], *, head: bool) -> float:
    """Of one product with each weight of the layers, by the fastest way for each shape."""
    shapes: dict[torch.Size, list[torch.Tensor]] = {}
    for weight in _matrices(model, head=head):
        shapes.setdefault(weight.shape, []).append(weight)
    return sum(_fastest(alike, rows, clock) for alike in shapes.values())


def _fastest(weights: list[torch.Tensor], rows: int, clock: Callable[[], float]) -> float:
    states = torch.randn(rows, weights[0].shape[1])
    packed = [torch.ops.mkldnn._reorder_linear_weight(weight, rows) for weight in weights]

    def onednn(weight: torch.Tensor) -> torch.Tensor:
        return torch.ops.mkldnn._linear_pointwise(states, weight, None, "none", [], "")

    ways: list[tuple[Callable[[torch.Tensor], torch.Tensor], list[torch.Tensor]]] = [
        (lambda weight: functional.linear(states, weight), weights),
        (lambda weight: torch.mm(weight, states.T), weights),
        (onednn, weights),
        (onednn, packed),
    ]
    best = float("inf")
    for product, given in ways:
        for _ in range(3):
            began = clock()
            for weight in given:
                product(weight)
            best = min(best, clock() - began)
    return best


def _matrices(model: PreTrainedModel, *, head: bool) -> list[torch.Tensor]:
    output = model.get_output_embeddings()
    linear = (module for module in model.modules() if isinstance(module, torch.nn.Linear))
    return [module.weight.data for module in linear if head or module is not output]


# Learning.


def learner(model: PreTrainedModel, options: argparse.Namespace) -> None:
    """Prints tokens per second of `Learner.update` on two-attempt trajectories, and its share of the limit."""
    start_distributed("cpu")
    few, batch = (_batch(model.config.vocab_size, count, options) for count in (2, TRAJECTORIES))
    clock = clock_of(options)
    section = LearnerConfig(lr=1e-6, micro_batch_tokens=2048)
    made = Learner(section, model, temperature=1.0, kl_used=False, total_steps=100, seed=0)
    made.update(few)  # makes the optimizer's state
    taken: dict[str, list[float]] = {"learner": [], "limit": []}
    for _ in range(options.rounds):
        began = clock()
        made.update(batch)
        taken["learner"].append(clock() - began)
        layers, whole = (_forward_seconds(model, PASS, clock, head=head) for head in (False, True))
        predicted = int(batch.loss_mask_N.sum())  # the head computes these alone
        taken["limit"].append(3 * (layers * len(batch.ids_N) + (whole - layers) * predicted) / PASS)
    print(f"{TRAJECTORIES} trajectories, {len(batch.ids_N):,} tokens, {batch.loss_mask_N.sum():,} of them sampled")
    _print(taken, len(batch.ids_N), "learner")


def _batch(vocabulary: int, trajectories: int, options: argparse.Namespace) -> TokenBatch:
    rng = np.random.default_rng(0)
    attempts_B2 = np.clip(rng.lognormal(np.log(options.median), 1, (trajectories, 2)), 1, options.limit).astype(int)
    fixed_B = np.ones(trajectories, dtype=int)
    parts_B4 = np.column_stack([options.prompt * fixed_B, attempts_B2[:, 0], CORRECTION * fixed_B, attempts_B2[:, 1]])
    mask_N = np.repeat(np.tile([False, True, False, True], trajectories), parts_B4.ravel())
    count = len(mask_N)
    return TokenBatch(
        offsets_B1=np.r_[0, parts_B4.sum(1).cumsum()],
        ids_N=rng.integers(5, vocabulary, count),
        turn_N=np.repeat(np.tile([1, 1, 2, 2], trajectories), parts_B4.ravel()).astype(np.int8),
        loss_mask_N=mask_N,
        advantage_N=np.where(mask_N, rng.normal(size=count), 0).astype(np.float32),
        kl_weight_N=np.zeros(count, dtype=np.float32),
        sampler_logprob_N=np.where(mask_N, -np.log(vocabulary), 0).astype(np.float32),
    )


def _print(taken: dict[str, list[float]], tokens: int, ours: str) -> None:
    for name, seconds in taken.items():
        ratios = [other / mine for other, mine in zip(seconds, taken[ours], strict=True)]
        spread = f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(
            f"  {name:9} {tokens / median(seconds):9,.1f} tokens/s, its time over that of {ours}: {spread}", flush=True
        )


if __name__ == "__main__":
    main()
