"""Correction of the difference between sampler and learner: importance weights, truncated or masked.

A sampler computes in other kernels, precision or weights than the learner, so a token drawn with probability μ has
probability π under the learner. What came before it was drawn from μ too, so its gradient is unbiased where it is
weighed by π/μ of the whole trajectory; π/μ of the token or attempt alone has less variance and leaves out the rest. A
bound keeps rare, huge weights from deciding the step (truncated importance sampling: Ionides 2008; for language models
Yao et al. 2025).
"""

import torch
from torch import Tensor

from rlcore.learner.loss.losses import attempt_sum
from rlcore.recipe.schema import Correction


def importance_weights(log_ratio_n: Tensor, unit_n: Tensor, correction: Correction) -> tuple[Tensor, Tensor]:
    """Weight of each token's policy loss from log π/μ, and whether a bound changed it (bool).

    `unit_n` numbers the attempt or trajectory (`correction.level`) that each token is in: all tokens of one have one
    weight, π/μ of all of them together. At level token it is not read. Outside the bounds `truncate` takes the nearer
    bound, `mask` takes 0.
    """
    ones_n = torch.ones_like(log_ratio_n)
    if correction.mode == "none":
        return ones_n, ones_n < 0
    if correction.level != "token":
        log_ratio_n = attempt_sum(log_ratio_n, unit_n)
    low, high = correction.bounds
    ratio_n = log_ratio_n.exp()
    bounded_n = ratio_n.clamp(low, high)
    outside_n = bounded_n != ratio_n
    return torch.where(outside_n & (correction.mode == "mask"), 0.0, bounded_n), outside_n
