"""Correction of the difference between sampler and learner: importance weights, truncated or masked.

A sampler computes in other kernels, precision or weights than the learner, so a token drawn with probability μ has
probability π under the learner. Weighted by π/μ its gradient is unbiased; a bound keeps rare, huge weights from
deciding the step (truncated importance sampling: Ionides 2008; for language models Yao et al. 2025).
"""

import torch
from torch import Tensor

from rlcore.learner.loss.losses import attempt_sum
from rlcore.recipe.schema import Correction


def importance_weights(log_ratio_n: Tensor, attempt_n: Tensor, correction: Correction) -> tuple[Tensor, Tensor]:
    """Weight of each token's policy loss from log π/μ, and whether a bound changed it (bool).

    `level: attempt` uses one weight for all tokens of an attempt: π/μ of the attempt as a whole. Outside the bounds
    `truncate` takes the nearer bound, `mask` takes 0.
    """
    ones_n = torch.ones_like(log_ratio_n)
    if correction.mode == "none":
        return ones_n, ones_n < 0
    if correction.level == "attempt":
        log_ratio_n = attempt_sum(log_ratio_n, attempt_n)
    low, high = correction.bounds
    ratio_n = log_ratio_n.exp()
    bounded_n = ratio_n.clamp(low, high)
    outside_n = bounded_n != ratio_n
    return torch.where(outside_n & (correction.mode == "mask"), 0.0, bounded_n), outside_n
