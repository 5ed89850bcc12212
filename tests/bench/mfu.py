"""Model FLOPs utilisation and peak memory of a learner step on one GPU: `python -m tests.bench.mfu --peak-tflops 989`.

A Qwen2.5-1.5B with random bfloat16 weights trains on trajectories of 2,048 and 8,192 tokens, half of them in the loss.
FLOPs are those of the policy's forward and backward pass alone: 6 for each parameter and token, and 12 for each layer,
hidden element, token and token that it sees, half of them on average. Not yet run on a GPU; `--tiny` is for a CPU.
"""

import argparse
import statistics
import time

import numpy as np
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from rlcore.learner import Learner
from rlcore.ranks import start_distributed
from rlcore.recipe.schema import LearnerConfig
from rlcore.types import TokenBatch

SIZES = {
    "vocab_size": 151936,
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_hidden_layers": 28,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
}
TINY = {**SIZES, "vocab_size": 512, "hidden_size": 96, "intermediate_size": 192, "num_hidden_layers": 2}
TOKENS, ROUNDS = 65536, 5


def batch_of(trajectories: int, tokens: int, vocabulary: int) -> TokenBatch:
    """Different prompts, so that none is shared; the second half of each trajectory counts in the loss."""
    rng = np.random.default_rng(0)
    mask_N = np.tile(np.arange(tokens) >= tokens // 2, trajectories)
    count = len(mask_N)
    return TokenBatch(
        offsets_B1=np.arange(trajectories + 1) * tokens,
        ids_N=rng.integers(0, vocabulary, count),
        turn_N=np.ones(count, dtype=np.int8),
        loss_mask_N=mask_N,
        advantage_N=np.where(mask_N, rng.normal(size=count), 0).astype(np.float32),
        kl_weight_N=np.zeros(count, dtype=np.float32),
        sampler_logprob_N=np.where(mask_N, -np.log(vocabulary), 0).astype(np.float32),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peak-tflops", type=float, default=989, help="of the GPU, dense bfloat16")
    parser.add_argument("--micro-batch-tokens", type=int, default=16384)
    parser.add_argument("--tiny", action="store_true", help="a small model and few tokens, on the CPU")
    options = parser.parse_args()
    ranks = start_distributed("cpu" if options.tiny else "cuda")
    sizes, total = (TINY, 1024) if options.tiny else (SIZES, TOKENS)
    config = Qwen2Config(**sizes, max_position_embeddings=32768, tie_word_embeddings=True)
    attention = "sdpa" if options.tiny else "flash_attention_2"
    with torch.device(ranks.device):
        model = Qwen2ForCausalLM._from_config(config, dtype=torch.bfloat16, attn_implementation=attention)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    section = LearnerConfig(lr=1e-6, zero=1, micro_batch_tokens=options.micro_batch_tokens)
    learner = Learner(section, model, temperature=1.0, kl_used=False, total_steps=100, seed=0)
    print(f"{parameters / 1e9:.2f}B parameters, torch {torch.__version__}, {ranks.device}")
    for tokens in (256, 512) if options.tiny else (2048, 8192):
        batch = batch_of(total // tokens, tokens, config.vocab_size)
        seconds = []
        if not options.tiny:
            torch.cuda.reset_peak_memory_stats()
        for _ in range(ROUNDS + 1):
            began = time.perf_counter()
            learner.update(batch)  # its report waits for the device
            seconds.append(time.perf_counter() - began)
        rate = len(batch.ids_N) / statistics.median(seconds[1:])
        flops = 6 * parameters + 12 * config.num_hidden_layers * config.hidden_size * tokens / 2
        peak = 0 if options.tiny else torch.cuda.max_memory_allocated() / 2**30
        share = rate * flops / (options.peak_tflops * 1e12)
        print(f"{tokens:5} tokens: {rate:10,.0f} tokens/s, MFU {share:.1%}, peak {peak:.1f} GiB")


if __name__ == "__main__":
    main()
