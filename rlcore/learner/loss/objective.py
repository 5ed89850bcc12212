"""The minimised loss, token by token: surrogate, mismatch correction, KL term, entropy bonus and averaging."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from rlcore.entries import SURROGATES
from rlcore.learner.batch.packing import MicroBatch
from rlcore.learner.loss.averaging import LossTokens
from rlcore.learner.loss.losses import attempt_mean, importance_weights, within_ratio
from rlcore.recipe.schema import LearnerConfig
from rlcore.types import TokenBatch


def carries_gradient(batch: TokenBatch, section: LearnerConfig) -> np.ndarray:
    """Whether some loss token of each trajectory is weighed by an advantage, a β or an entropy bonus, `[B]` bool.

    Any other's share of the loss is 0 under all weights, so its passes are spared: a dead group's, where every β is 0.
    It still counts in what the loss is divided by.
    """
    if section.entropy_bonus:
        weighed_N = batch.loss_mask_N
    else:
        weighed_N = batch.loss_mask_N & ((batch.advantage_N != 0) | (batch.kl_weight_N != 0))
    return np.logical_or.reduceat(weighed_N, batch.offsets_B1[:-1])


def with_kl_in_reward(batch: TokenBatch, loss_tokens: LossTokens, log_ratio_N: np.ndarray) -> TokenBatch:
    """The batch with the KL of each token, and of those after it in its attempt, taken from its advantage.

    `log_ratio_N` `[N]` is log(policy / reference). On policy its expectation has the gradient of β · KL(policy ‖
    reference) of whole attempts: the penalty of RLOO (Ahmadian et al. 2024, arXiv 2402.14740) and of REINFORCE++ (Hu
    2025, arXiv 2501.03262).
    """
    penalty_N = batch.kl_weight_N * loss_tokens.to_go_N(np.where(batch.kl_weight_N != 0, log_ratio_N, 0.0))
    return replace(batch, advantage_N=(batch.advantage_N - penalty_N).astype(np.float32))


@dataclass(frozen=True, slots=True)
class Objective:
    """The loss of one batch under the settings of a recipe."""

    section: LearnerConfig
    run_N: np.ndarray
    """`[N]` int64: the run of loss tokens that each token is in."""
    trajectory_N: np.ndarray
    """`[N]` int64: number of each token's trajectory."""
    token_weight_N: np.ndarray
    """`[N]` float32: how much each token counts before the division by a minibatch's size."""
    old_logprob_N: np.ndarray | None
    """`[N]` float32: the learner's log-probabilities before the update; None where they are the present ones."""
    old_is_sampler: bool
    """Whether the ratio compares with the sampler instead."""
    reference_logprob_N: np.ndarray | None
    """`[N]` float32: the reference's log-probabilities; None where they are computed with each micro-batch."""

    def __call__(
        self, micro: MicroBatch, size: int, *, logprob_n: Tensor, entropy_n: Tensor, kl_n: Tensor
    ) -> dict[str, Tensor]:
        """`[n]` each: the parts `loss` and `policy_loss` of the minimised sum, and what `LossStatistics` averages.

        `size` is what the sums over the minibatch are divided by, over all ranks.
        """
        section = self.section
        run_n, token_weight_n = self._stream(self.run_N, micro), self._stream(self.token_weight_N, micro) / size
        old_n = self._old(micro, logprob_n)
        log_ratio_n = logprob_n - old_n
        if section.ratio == "attempt":
            log_ratio_n = attempt_mean(log_ratio_n, run_n)
        surrogate = SURROGATES[section.surrogate]
        policy_loss_n, clipped_n = surrogate(logprob_n, log_ratio_n, micro.advantage_n, section.clip)
        whole = section.correction.level == "trajectory"
        unit_n = self._stream(self.trajectory_N, micro) if whole else run_n
        weight_n, corrected_n = importance_weights(old_n - micro.sampler_logprob_n, unit_n, section.correction)
        if section.max_ratio:
            kept_n = within_ratio(log_ratio_n, micro.advantage_n, section.max_ratio)
            weight_n, corrected_n = weight_n * kept_n, corrected_n | ~kept_n
        policy_loss_n = token_weight_n * weight_n * policy_loss_n
        loss_n = policy_loss_n + token_weight_n * micro.kl_weight_n * kl_n
        if section.entropy_bonus:
            loss_n = loss_n - token_weight_n * section.entropy_bonus * entropy_n
        return {
            "loss": loss_n,
            "policy_loss": policy_loss_n,
            "kl": kl_n,
            "entropy": entropy_n.detach(),
            "clip_fraction": clipped_n,
            "correction": weight_n,
            "corrected": corrected_n,
        }

    def reference_logprobs(self, micro: MicroBatch) -> Tensor | None:
        """The reference's log-probabilities of the loss tokens, `[n]`; None where they are not there yet."""
        return None if self.reference_logprob_N is None else self._stream(self.reference_logprob_N, micro)

    def _old(self, micro: MicroBatch, logprob_n: Tensor) -> Tensor:
        if self.old_is_sampler:
            return micro.sampler_logprob_n
        return logprob_n.detach() if self.old_logprob_N is None else self._stream(self.old_logprob_N, micro)

    def _stream(self, values_N: np.ndarray, micro: MicroBatch) -> Tensor:
        return torch.from_numpy(values_N[micro.index_n]).to(micro.advantage_n.device)
