"""What the loss is an average over: tokens, attempts (the papers' sequences), or attempts of a fixed length.

The denominator counts all ranks, so how a batch falls into ranks and micro-batches changes nothing.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from rlcore.types import TokenBatch

Average = Literal["token", "attempt", "constant"]


@dataclass(frozen=True, slots=True)
class LossTokens:
    """Where the loss tokens of a batch stand. B trajectories of A attempts, N tokens."""

    attempt_N: np.ndarray
    """`[N]` int64: number of the attempt that each token belongs to, over the whole batch."""
    count_BA: np.ndarray
    """`[B, A]` int64: loss tokens of each attempt."""

    def share_N(self, average: Average, max_attempt_tokens: int) -> np.ndarray:
        """How much each token's loss counts, `[N]` float32, before the division by `size`."""
        if average == "attempt":
            return (1 / np.maximum(self.count_BA, 1)).astype(np.float32).ravel()[self.attempt_N]
        one = 1 / max_attempt_tokens if average == "constant" else 1.0
        return np.full(len(self.attempt_N), one, dtype=np.float32)

    def size(self, average: Average, chosen: np.ndarray) -> int:
        """What the sum over these trajectories is divided by: their loss tokens, or attempts that have any."""
        count_RA = self.count_BA[chosen]
        return int(count_RA.sum() if average == "token" else (count_RA > 0).sum())


def find_loss_tokens(batch: TokenBatch) -> LossTokens:
    """Counts the loss tokens of a batch."""
    trajectories, attempts = len(batch.lengths_B), int(batch.turn_N.max(initial=1))
    attempt_N = np.arange(trajectories).repeat(batch.lengths_B) * attempts + batch.turn_N - 1
    count = np.bincount(attempt_N[batch.loss_mask_N], minlength=trajectories * attempts)
    return LossTokens(attempt_N, count.reshape(trajectories, attempts))
