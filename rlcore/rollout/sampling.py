"""Seeds by name, and tokens drawn from logits with their log-probabilities."""

import hashlib

import numpy as np
import torch

from rlcore.rollout.engine import Sampling


def mixed_seed(*parts: str | int) -> int:
    """A well-mixed 63-bit seed of a name, the same on every machine."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def uniform(seeds_N: np.ndarray, places_N: np.ndarray) -> np.ndarray:
    """Random numbers in [0, 1), `[N]` float64: the `place`-th of each seed (uint64).

    The generator is SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators").
    """
    mixed_N = seeds_N + (places_N.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    mixed_N = (mixed_N ^ (mixed_N >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed_N = (mixed_N ^ (mixed_N >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((mixed_N ^ (mixed_N >> np.uint64(31))) >> np.uint64(11)) * 2.0**-53


def draw(logits_NV: torch.Tensor, sampling: Sampling, uniform_N1: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens `[N]` int64 and log-probabilities `[N]` float32 for logits `[N, V]`.

    `uniform_N1` holds a random number in [0, 1) a row, float64; greedy rows need none.

    Temperature and truncation shape the distribution and the log-probabilities are those of the shaped, renormalised
    one. Greedy (temperature 0) takes the largest logit; its log-probability is that of the plain softmax.
    """
    logits_NV = logits_NV.float()
    if sampling.temperature == 0:
        probability_NV = logits_NV.softmax(-1)
        tokens_N1 = logits_NV.argmax(-1, keepdim=True)
    else:
        if sampling.temperature != 1:
            logits_NV = logits_NV / sampling.temperature
        probability_NV = sampling.truncation.cut(logits_NV).softmax(-1)
        # The first token up to which the probabilities add up to more than a uniform fraction of their sum: one random
        # number a row, and never a token of probability 0, as the number is below 1 by more than a rounding. In float32
        # the sums of a large vocabulary would be too coarse for its rare tokens.
        sums_NV = probability_NV.cumsum(-1, dtype=torch.float64)
        tokens_N1 = torch.searchsorted(sums_NV, uniform_N1.mul(sums_NV[:, -1:]), right=True)
    return tokens_N1[:, 0], probability_NV.gather(-1, tokens_N1)[:, 0].log_()
