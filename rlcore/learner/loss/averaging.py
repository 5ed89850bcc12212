"""The loss is an average over tokens, attempts (the papers' sequences), or trajectories of a fixed length.

The denominator counts all ranks, so how a batch falls into ranks and micro-batches changes nothing. An attempt is a run
of loss tokens; a critique or a verdict between two attempts is one, too.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from rlcore.types import TokenBatch

Average = Literal["token", "attempt", "constant"]


@dataclass(frozen=True, slots=True)
class LossTokens:
    """The loss tokens of a batch: N tokens, R runs of loss tokens."""

    run_N: np.ndarray
    """`[N]` int64: the run that each loss token belongs to, over the whole batch; anything elsewhere."""
    trajectory_N: np.ndarray
    """`[N]` int64: the trajectory of each token."""
    tokens_R: np.ndarray
    """`[R]` int64: loss tokens of each run."""
    trajectory_R: np.ndarray
    """`[R]` int64: the trajectory of each run."""

    @classmethod
    def of(cls, batch: TokenBatch) -> "LossTokens":
        """The runs of loss tokens of a batch. The first token of a trajectory is never one, so runs never touch."""
        mask_N = batch.loss_mask_N
        starts_R = np.flatnonzero(mask_N & ~np.r_[False, mask_N[:-1]])
        run_N = np.cumsum(np.bincount(starts_R, minlength=len(mask_N))) - 1
        tokens_R = np.bincount(run_N[mask_N], minlength=len(starts_R))
        trajectory_N = np.arange(len(batch.lengths_B)).repeat(batch.lengths_B)
        return cls(run_N, trajectory_N, tokens_R, trajectory_N[starts_R])

    def to_go_N(self, values_N: np.ndarray) -> np.ndarray:
        """At each loss token the sum over it and those after it in its attempt, `[N]` float64.

        `values_N` are 0 where there is no loss token.
        """
        total_R = np.bincount(np.maximum(self.run_N, 0), values_N, minlength=len(self.tokens_R))
        return total_R.cumsum()[self.run_N] - values_N.cumsum(dtype=np.float64) + values_N

    def token_weight_N(self, average: Average, max_sampled_tokens: int) -> np.ndarray:
        """How much each loss token counts, `[N]` float32, before the division by `size`."""
        if average == "attempt" and len(self.tokens_R):
            return (1 / self.tokens_R).astype(np.float32)[self.run_N]
        one = 1 / max_sampled_tokens if average == "constant" else 1.0
        return np.full(len(self.run_N), one, dtype=np.float32)

    def size(self, average: Average, chosen: np.ndarray) -> int:
        """Divisor of the sum over these trajectories: their loss tokens, runs of them, or trajectories.

        Only the last is a count that the policy has no hand in, where it ends conversations itself.
        """
        mine_R = np.isin(self.trajectory_R, chosen)
        if average == "token":
            return int(self.tokens_R[mine_R].sum())
        return int(mine_R.sum()) if average == "attempt" else len(np.unique(self.trajectory_R[mine_R]))
