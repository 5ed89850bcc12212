"""Sums over loss tokens, kept on the device while an update runs, and the report made of them at its end."""

import torch
from torch import Tensor

from rlcore.learner.losses import kl_k3
from rlcore.learner.packing import MicroBatch

LearnerReport = dict[str, float]
"""What an update did, over all ranks. Means are per loss token; `_t1` and so on are attempts, and absent without one.

    loss, policy_loss           as minimised (policy_loss without the KL term)
    kl_t1, entropy_t1           nats
    clip_fraction               share of tokens whose gradient the clip took away
    mismatch_kl                 KL(sampler ‖ learner) before the first optimizer step, k3 estimate
    max_abs_logprob_gap         largest |log-prob of learner - of sampler| before the first optimizer step
    grad_norm                   before clipping, mean over optimizer steps
    skipped                     optimizer steps not taken because a gradient was not finite
    lr, tokens, micro_batches   learning rate of the last step; loss tokens; forward passes on each rank
"""

_SUMS = ("tokens", "loss", "policy_loss", "kl", "entropy", "clipped", "mismatch", "compared")


class Tally:
    """Sums `[turns, statistics]` in float64, and the largest log-probability gap."""

    def __init__(self, turns: int, device: torch.device) -> None:
        self._sums_TS = torch.zeros(turns, len(_SUMS), dtype=torch.float64, device=device)
        self._gap = torch.zeros((), device=device)

    @torch.no_grad()
    def add(
        self,
        micro: MicroBatch,
        *,
        logprob_n: Tensor,
        loss_n: Tensor,
        policy_loss_n: Tensor,
        kl_n: Tensor,
        entropy_n: Tensor,
        clipped_n: Tensor,
        untouched: bool,
    ) -> None:
        """Count the tokens of one micro-batch; `untouched`: no optimizer step of this update came before it."""
        one_n = torch.ones_like(logprob_n)
        mismatch_n, compared_n = torch.zeros_like(one_n), torch.zeros_like(one_n)
        if untouched:
            mismatch_n, compared_n = kl_k3(micro.sampler_logprob_n, logprob_n), one_n
            gap_n = (logprob_n - micro.sampler_logprob_n).abs()
            self._gap = torch.maximum(self._gap, torch.cat([gap_n, self._gap[None]]).max())
        columns = (one_n, loss_n, policy_loss_n, kl_n, entropy_n, clipped_n, mismatch_n, compared_n)
        values_nS = torch.stack([column.double() for column in columns], dim=1)
        self._sums_TS.index_add_(0, micro.turn_n - 1, values_nS)

    def report(self, world: int, kl_used: bool) -> LearnerReport:
        """Means over the loss tokens of all ranks."""
        if world > 1:
            torch.distributed.all_reduce(self._sums_TS)
            torch.distributed.all_reduce(self._gap, torch.distributed.ReduceOp.MAX)
        attempts = [dict(zip(_SUMS, row, strict=True)) for row in self._sums_TS.tolist()]
        total = {name: sum(attempt[name] for attempt in attempts) for name in _SUMS}
        tokens, compared = max(total["tokens"], 1.0), max(total["compared"], 1.0)
        report = {
            "loss": total["loss"] / tokens,
            "policy_loss": total["policy_loss"] / tokens,
            "clip_fraction": total["clipped"] / tokens,
            "mismatch_kl": total["mismatch"] / compared,
            "max_abs_logprob_gap": self._gap.item(),
            "tokens": total["tokens"],
        }
        for number, attempt in enumerate(attempts, start=1):
            if attempt["tokens"]:
                report[f"entropy_t{number}"] = attempt["entropy"] / attempt["tokens"]
                if kl_used:
                    report[f"kl_t{number}"] = attempt["kl"] / attempt["tokens"]
        return report
