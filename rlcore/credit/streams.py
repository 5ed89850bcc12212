"""From scored groups to the per-token streams that are all the learner sees."""

from collections.abc import Iterable

import numpy as np

from rlcore.credit.advantages import advantages
from rlcore.credit.returns import attempt_returns
from rlcore.recipe.schema import Credit, Stage
from rlcore.types import Groups, TokenBatch, Trajectory


def assign(groups: Groups, stage: Stage, credit: Credit) -> TokenBatch:
    """The training batch of scored groups: advantages from their verdicts, KL weights from the stage."""
    rewards_PGA = np.array([[trajectory.rewards_A for trajectory in group] for group in groups])
    returns_PGA = attempt_returns(rewards_PGA, stage, credit.discount)
    advantages_PGA = advantages(returns_PGA, rewards_PGA, credit)
    attempts = rewards_PGA.shape[-1]
    return token_batch(
        (trajectory for group in groups for trajectory in group),
        advantages_PGA.reshape(-1, attempts),
        np.asarray(stage.kl),
    )


def token_batch(trajectories: Iterable[Trajectory], advantages_BA: np.ndarray, kl_weight_A: np.ndarray) -> TokenBatch:
    """Flat streams of trajectories; an attempt whose advantage is NaN keeps its tokens but leaves the loss."""
    ids: list[int] = []
    logprobs: list[float] = []
    lengths: list[int] = []
    spans: list[int] = []
    for trajectory in trajectories:
        start = len(ids)
        for turn in trajectory.turns:
            ids += turn.prompt_ids
            logprobs += [0.0] * len(turn.prompt_ids)
            ids += turn.response_ids
            logprobs += turn.logprobs
            spans += (len(turn.prompt_ids), len(turn.response_ids))
        lengths.append(len(ids) - start)
    trajectories_B, attempts = advantages_BA.shape
    scored_BA = ~np.isnan(advantages_BA)
    # Every attempt is two spans of tokens: its prompt, where all streams but the turn are 0, and its response.
    per_span = np.zeros((4, trajectories_B, attempts, 2))
    per_span[0] = np.arange(1, attempts + 1)[None, :, None]
    per_span[1, :, :, 1] = scored_BA
    per_span[2, :, :, 1] = np.nan_to_num(advantages_BA)
    per_span[3, :, :, 1] = kl_weight_A * scored_BA
    turn_N, mask_N, advantage_N, kl_weight_N = np.repeat(per_span.reshape(4, -1), spans, axis=1)
    loss_mask_N = mask_N.astype(bool)
    return TokenBatch(
        offsets_B1=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        ids_N=np.asarray(ids, dtype=np.int64),
        turn_N=turn_N.astype(np.int8),
        loss_mask_N=loss_mask_N,
        advantage_N=advantage_N.astype(np.float32),
        kl_weight_N=kl_weight_N.astype(np.float32),
        sampler_logprob_N=np.where(loss_mask_N, np.asarray(logprobs, dtype=np.float32), np.float32(0)),
    )
