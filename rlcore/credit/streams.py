"""Scored groups as per-token streams, which are all that the learner sees."""

from collections.abc import Sequence

import numpy as np

from rlcore.credit.advantages import EPSILON, Gather, advantages, alone
from rlcore.credit.returns import best_of, turn_returns
from rlcore.credit.turns import Turns
from rlcore.entries import SCORES
from rlcore.recipe.schema import CreditConfig, StageConfig
from rlcore.types import Groups, TokenBatch, Trajectory


def assign(
    groups: Groups, stage: StageConfig, credit: CreditConfig, gather: Gather = alone, version: int | None = None
) -> TokenBatch:
    """The training batch of scored groups: advantages from their verdicts, KL weights from the stage.

    A first attempt that m trajectories continue is trained in one of them, where both are multiplied by m. `version`
    is that of the weights that are about to learn. All ranks call this together, each with its own groups.
    """
    turns = Turns.of_groups(SCORES[credit.scores](groups))
    returns_PGT = best_of(turn_returns(turns, stage, credit.discount), credit.best_of)
    advantages_PGT = _in_the_loss(advantages(returns_PGT, turns, credit, gather), turns, credit)
    kl_weight_PGT = np.asarray(stage.kl)[turns.attempt_PGT]
    for stream_PGT in (advantages_PGT, kl_weight_PGT):
        stream_PGT[..., 0] *= turns.stands_for_PG
    flat = (-1, advantages_PGT.shape[-1])
    return token_batch(
        [trajectory for group in groups for trajectory in group],
        advantages_PGT.reshape(flat),
        kl_weight_PGT.reshape(flat),
        turns.attempt_PGT.reshape(flat),
        version,
    )


def live_groups(groups: Groups, stage: StageConfig, credit: CreditConfig) -> np.ndarray:
    """Whether some turn of a group has an advantage in the loss, `[P]` bool; where none has, the group is dead."""
    return np.array([_has_advantages(group, stage, credit) for group in groups])


def _has_advantages(group: Sequence[Trajectory], stage: StageConfig, credit: CreditConfig) -> bool:
    """Turns without peers in the group are compared with the batch: the same group again, with higher returns."""
    turns = Turns.of_groups(SCORES[credit.scores]([group]) * 2)
    returns_PGT = best_of(turn_returns(turns, stage, credit.discount), credit.best_of)
    returns_PGT[1] += 1 + 2 * np.ptp(np.nan_to_num(returns_PGT))  # no return is the mean of these and its own group's
    return bool(np.nan_to_num(_in_the_loss(advantages(returns_PGT, turns, credit), turns, credit)[0]).any())


def _in_the_loss(advantages_PGT: np.ndarray, turns: Turns, credit: CreditConfig) -> np.ndarray:
    """NaN for the turns that `credit.mask_truncated` takes out of the loss."""
    return np.where(turns.truncated_PGT & credit.mask_truncated, np.nan, advantages_PGT)


def compares(values_PGT: np.ndarray) -> np.ndarray:
    """Whether the values of a group at a turn differ by more than rounding, ignoring NaN: `[P, T]` bool."""
    lows_PT = np.where(np.isnan(values_PGT), np.inf, values_PGT).min(axis=1)
    highs_PT = np.where(np.isnan(values_PGT), -np.inf, values_PGT).max(axis=1)
    return highs_PT - lows_PT > EPSILON


def token_batch(
    trajectories: Sequence[Trajectory],
    advantages_BT: np.ndarray,
    kl_weight_BT: np.ndarray,
    attempt_BT: np.ndarray,
    version: int | None = None,
) -> TokenBatch:
    """Flat streams of trajectories; the tokens of a turn whose advantage is NaN are not in the loss.

    The arrays are as wide as the longest trajectory has turns; `attempt_BT` counts attempts from 0. `version` is that
    of the weights that are about to learn.
    """
    ids: list[int] = []
    logprobs: list[float] = []
    versions: list[int] = []
    lengths: list[int] = []
    spans_BT2 = np.zeros((*advantages_BT.shape, 2), dtype=np.int64)
    for b, trajectory in enumerate(trajectories):
        start = len(ids)
        for t, turn in enumerate(trajectory.turns):
            ids += turn.prompt_ids
            logprobs += [0.0] * len(turn.prompt_ids)
            ids += turn.response_ids
            logprobs += turn.logprobs
            versions += [0] * len(turn.prompt_ids) + list(turn.versions)
            spans_BT2[b, t] = len(turn.prompt_ids), len(turn.response_ids)
        lengths.append(len(ids) - start)
    scored_BT = ~np.isnan(advantages_BT)
    # A turn is two spans of tokens: its prompt, where all streams but the turn are 0, and its response.
    per_span = np.zeros((4, *spans_BT2.shape))
    per_span[0] = attempt_BT[..., None] + 1
    per_span[1, ..., 1] = scored_BT
    per_span[2, ..., 1] = np.nan_to_num(advantages_BT)
    per_span[3, ..., 1] = kl_weight_BT * scored_BT
    turn_N, mask_N, advantage_N, kl_weight_N = np.repeat(per_span.reshape(4, -1), spans_BT2.ravel(), axis=1)
    loss_mask_N = mask_N.astype(bool)
    return TokenBatch(
        offsets_B1=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        ids_N=np.asarray(ids, dtype=np.int64),
        turn_N=turn_N.astype(np.int8),
        loss_mask_N=loss_mask_N,
        advantage_N=advantage_N.astype(np.float32),
        kl_weight_N=kl_weight_N.astype(np.float32),
        sampler_logprob_N=np.where(loss_mask_N, np.asarray(logprobs, dtype=np.float32), np.float32(0)),
        lag_N=None if version is None else np.where(loss_mask_N, version - np.array(versions), 0).astype(np.int16),
    )
