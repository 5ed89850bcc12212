"""Sums over loss tokens, kept on the device while an update runs, and the report made of them at its end."""

import torch
from torch import Tensor

from rlcore.learner.batch.packing import MicroBatch
from rlcore.learner.loss.losses import kl_k3

LearnerReport = dict[str, float]
"""What an update did, over all ranks. Means are per loss token of those trajectories that carry a gradient
(`objective.carries_gradient`); `_t1` and so on are attempts, and absent without one.

    loss, policy_loss           as minimised, mean over optimizer steps (policy_loss without KL term and entropy bonus)
    kl_t1, entropy_t1           nats; no kl where every β of the batch is 0
    clip_fraction               share of tokens whose gradient the clip changed
    mismatch_kl, mismatch_k1    KL(sampler ‖ learner) before the first optimizer step, estimates k3 and k1
    lag, mismatch_kl_lagL       mean age of tokens in updates, and the k3 of those of age L; absent while all are new
    max_abs_logprob_gap         largest |log-prob of learner - of sampler| before the first optimizer step
    correction, corrected       mean weight of the mismatch correction; share of tokens whose weight its bounds changed
    grad_norm                   before clipping, mean over optimizer steps
    skipped                     optimizer steps not taken because a gradient was not finite
    lr, tokens, micro_batches   learning rate of the last step; loss tokens and forward passes on each rank, all epochs
    left_out                    share of the loss tokens that were not computed, since they carry no gradient
"""

_MINIMISED = ("loss", "policy_loss")
_MEANS = ("kl", "entropy", "clip_fraction", "correction", "corrected")
_MISMATCH = ("mismatch_kl", "mismatch_k1")
_SUMS = ("tokens", *_MINIMISED, *_MEANS, *_MISMATCH, "compared")


class LossStatistics:
    """Sums `[turns, statistics]` in float64, and the largest log-probability gap."""

    def __init__(self, turns: int, device: torch.device, lags: int = 1) -> None:
        """`turns`: attempts of a trajectory; `lags`: the ages of tokens, counted from 0."""
        self._sums_TS = torch.zeros(turns, len(_SUMS), dtype=torch.float64, device=device)
        self._gap = torch.zeros((), device=device)
        self._lags_L2 = torch.zeros(lags, 2, dtype=torch.float64, device=device)
        """Tokens compared, and the sum of their mismatch."""

    @torch.no_grad()
    def add(
        self, micro: MicroBatch, values: dict[str, Tensor], *, untouched: bool, lag_n: Tensor | None = None
    ) -> None:
        """Count the tokens of one micro-batch; `untouched`: no optimizer step of this update came before it.

        `values` are `[n]`: logprob, and what `Objective` gives; so are their ages, `lag_n` (int64).
        """
        logprob_n = values["logprob"]
        one_n = torch.ones_like(logprob_n)
        values = values | {"tokens": one_n, **dict.fromkeys((*_MISMATCH, "compared"), torch.zeros_like(one_n))}
        if untouched:
            gap_n = micro.sampler_logprob_n - logprob_n
            k3_n = kl_k3(micro.sampler_logprob_n, logprob_n)
            values |= {"mismatch_kl": k3_n, "mismatch_k1": gap_n, "compared": one_n}
            self._gap = torch.maximum(self._gap, torch.cat([gap_n.abs(), self._gap[None]]).max())
            if lag_n is not None:
                self._lags_L2.index_add_(0, lag_n, torch.stack([one_n.double(), k3_n.double()], dim=1))
        values_nS = torch.stack([values[name].double() for name in _SUMS], dim=1)
        self._sums_TS.index_add_(0, micro.turn_n - 1, values_nS)

    def report(self, world: int, loss_tokens: int, steps: int, kl_used: bool) -> LearnerReport:
        """Means over the computed ones of the `loss_tokens` of all ranks; of what is minimised, over the steps."""
        if world > 1:
            torch.distributed.all_reduce(self._sums_TS)
            torch.distributed.all_reduce(self._gap, torch.distributed.ReduceOp.MAX)
            torch.distributed.all_reduce(self._lags_L2)
        attempts = [dict(zip(_SUMS, row, strict=True)) for row in self._sums_TS.tolist()]
        total = {name: sum(attempt[name] for attempt in attempts) for name in _SUMS}
        tokens, compared = max(total["tokens"], 1.0), max(total["compared"], 1.0)
        report = {
            **{name: total[name] / max(steps, 1) for name in _MINIMISED},
            **{name: total[name] / tokens for name in ("clip_fraction", "correction", "corrected")},
            **{name: total[name] / compared for name in _MISMATCH},
            "max_abs_logprob_gap": self._gap.item(),
            "tokens": float(loss_tokens),
            "left_out": 1 - total["tokens"] / loss_tokens if loss_tokens else 0.0,
        }
        counted = self._lags_L2.tolist()
        if len(counted) > 1:
            report["lag"] = sum(lag * count for lag, (count, _) in enumerate(counted)) / compared
            report |= {f"mismatch_kl_lag{lag}": k3 / count for lag, (count, k3) in enumerate(counted) if count}
        for number, attempt in enumerate(attempts, start=1):
            if attempt["tokens"]:
                report[f"entropy_t{number}"] = attempt["entropy"] / attempt["tokens"]
                if kl_used:
                    report[f"kl_t{number}"] = attempt["kl"] / attempt["tokens"]
        return report
