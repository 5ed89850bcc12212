"""Truncated sampling: which tokens may be drawn. Sampler and learner must agree, so both ask here."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from rlcore.recipe.schema import RolloutConfig


class Truncation(NamedTuple):
    """The tokens that may be drawn: by min-p, of those the `top_k` likeliest, of those by top-p.

    min-p (Nguyen et al. 2024, arXiv 2407.01082) keeps tokens at least `min_p` times as likely as the likeliest; top-p
    (Holtzman et al. 2020, arXiv 1904.09751) the smallest set whose probability reaches `top_p`. The order is vLLM's.
    """

    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    @classmethod
    def of(cls, section: RolloutConfig) -> "Truncation":
        return cls(section.top_k, section.top_p, section.min_p)

    @property
    def keeps_all(self) -> bool:
        return self == KEEP_ALL

    def cut(self, logits_NV: Tensor) -> Tensor:
        """The logits, which are already divided by the temperature, with -inf for tokens that may not be drawn."""
        if self.min_p:
            least_N1 = logits_NV.amax(-1, keepdim=True) + math.log(self.min_p)
            logits_NV = logits_NV.masked_fill(logits_NV < least_N1, -torch.inf)
        if 0 < self.top_k < logits_NV.shape[-1]:
            smallest_N1 = logits_NV.topk(self.top_k, dim=-1).values[:, -1:]
            logits_NV = logits_NV.masked_fill(logits_NV < smallest_N1, -torch.inf)
        if self.top_p < 1:
            sorted_NV, order_NV = logits_NV.sort(dim=-1, descending=True)
            probabilities_NV = sorted_NV.softmax(-1)
            outside_NV = probabilities_NV.cumsum(-1) - probabilities_NV >= self.top_p
            logits_NV = logits_NV.masked_fill(outside_NV.scatter(-1, order_NV, outside_NV), -torch.inf)
        return logits_NV

    def kept(self, log_p_NV: Tensor, target_N: Tensor) -> tuple[Tensor, Tensor]:
        """Whether a token may be drawn, `[N, V]` bool, and the logarithm of what all that may have together, `[N, 1]`.

        The target may: it was drawn, whatever rounding says.
        """
        kept_NV = self.cut(log_p_NV).isfinite().scatter_(-1, target_N[:, None], True)
        return kept_NV, log_p_NV.masked_fill(~kept_NV, -torch.inf).logsumexp(-1, keepdim=True)


KEEP_ALL = Truncation()
