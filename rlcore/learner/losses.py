"""Losses and divergences: pure functions on per-token tensors. n tokens, V vocabulary entries; natural logarithms."""

import torch
from torch import Tensor


def policy_loss(
    logprob_n: Tensor, sampler_logprob_n: Tensor, advantage_n: Tensor, clip: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """Clipped policy-gradient loss of each token, and whether the clip took its gradient away (bool).

    The ratio π/μ of policy and sampler is kept within [1 - low, 1 + high]: PPO, Schulman et al. 2017, equation 7, with
    the two sides apart as in DAPO, Yu et al. 2025, equation 10.
    """
    low, high = clip
    ratio_n = (logprob_n - sampler_logprob_n).exp()
    free_n = ratio_n * advantage_n
    clipped_n = ratio_n.clamp(1 - low, 1 + high) * advantage_n
    return -torch.minimum(free_n, clipped_n), clipped_n < free_n


def kl_k3(logprob_n: Tensor, other_logprob_n: Tensor) -> Tensor:
    """One-sample estimate of KL(p ‖ q) from log p and log q of a token that p sampled; never negative.

    q/p - 1 - log(q/p): Schulman 2020, "Approximating KL divergence", k3.
    """
    log_ratio_n = other_logprob_n - logprob_n
    return log_ratio_n.exp() - 1 - log_ratio_n


def kl_exact(log_p_nV: Tensor, log_q_nV: Tensor) -> Tensor:
    """KL(p ‖ q), `[n]`, summed over the vocabulary of two log-softmaxes."""
    return (log_p_nV.exp() * (log_p_nV - log_q_nV)).sum(-1)


def entropy(log_p_nV: Tensor) -> Tensor:
    """Entropy of each distribution, `[n]`, from its log-softmax."""
    return -(log_p_nV.exp() * log_p_nV).sum(-1)
