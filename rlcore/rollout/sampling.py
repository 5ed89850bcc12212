"""Random numbers: seeds by name, and tokens drawn from logits with the log-probability that each really had."""

import hashlib

import torch

from rlcore.rollout.engine import Sampling


def mixed_seed(*parts: str | int) -> int:
    """A well-mixed 63-bit seed of a name, the same on every machine."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def draw(logits_NV: torch.Tensor, sampling: Sampling, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens `[N]` int64 and log-probabilities `[N]` float32 for logits `[N, V]`.

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
        # The first token up to which the probabilities add up to more than a uniform share of their sum: one random
        # number a row, and never a token of probability 0, as the share is below 1 by more than a rounding. In float32
        # the sums of a large vocabulary would be too coarse for its rare tokens.
        sums_NV = probability_NV.cumsum(-1, dtype=torch.float64)
        share_N1 = torch.rand(len(sums_NV), 1, generator=generator, device=sums_NV.device, dtype=torch.float64)
        tokens_N1 = torch.searchsorted(sums_NV, share_N1.mul_(sums_NV[:, -1:]), right=True)
    return tokens_N1[:, 0], probability_NV.gather(-1, tokens_N1)[:, 0].log_()
