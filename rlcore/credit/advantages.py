"""Baselines and scales: how the returns of a group become advantages. Missing returns (NaN) get advantage NaN."""

import numpy as np

from rlcore.credit.turns import Turns
from rlcore.recipe.schema import Credit

EPSILON = 1e-6


def advantages(returns_PGT: np.ndarray, turns: Turns, credit: Credit) -> np.ndarray:
    """Advantages `[P, G, T]` for returns `[P, G, T]`: each turn against the same turn of its peers that have it.

    With `credit.unit` "trajectory" the returns of all turns are summed and every turn gets that one advantage.
    """
    if credit.unit == "trajectory":
        summed_PG1 = np.where(turns.present_PGT, returns_PGT, 0.0).sum(-1, keepdims=True)
        alone = credit.model_copy(update={"unit": "attempt"})
        advantages_PG1 = advantages(summed_PG1, Turns.of_attempts(summed_PG1), alone)
        return np.where(turns.present_PGT, advantages_PG1, np.nan)
    advantages_PGT = returns_PGT - _baseline(returns_PGT, turns.before_PGT, credit.baseline)
    if credit.scale == "none":
        return advantages_PGT
    axis = 1 if credit.scale == "group" else (0, 1)
    count = (~np.isnan(returns_PGT)).sum(axis, keepdims=True)
    mean = np.nansum(returns_PGT, axis, keepdims=True) / np.maximum(count, 1)
    variance = np.nansum((returns_PGT - mean) ** 2, axis, keepdims=True) / np.maximum(count - 1, 1)
    return advantages_PGT / (np.sqrt(variance) + EPSILON)


def _baseline(returns_PGT: np.ndarray, before_PGT: np.ndarray, kind: str) -> np.ndarray:
    if kind == "none":
        return np.zeros_like(returns_PGT)
    if kind == "group":
        return _mean_of_peers(returns_PGT, np.zeros_like(returns_PGT), with_self=True)
    classes_PGT = before_PGT if kind in ("outcome", "batch_outcome") else np.zeros_like(returns_PGT)
    baseline_PGT = _mean_of_peers(returns_PGT, classes_PGT, with_self=False)
    if kind == "batch_outcome":
        baseline_PGT[..., 1:] = _mean_of_class(returns_PGT, classes_PGT)[..., 1:]
    return baseline_PGT


def _mean_of_peers(returns_PGT: np.ndarray, classes_PGT: np.ndarray, *, with_self: bool) -> np.ndarray:
    """Mean return over the trajectories of the group that are in the same class, `[P, G, T]`.

    Without itself (leave one out) the mean does not depend on the attempt it is compared with, so that the policy
    gradient stays unbiased (Kool et al. 2019, "Buy 4 REINFORCE samples"). A turn without peers in its group is
    compared with its class in the whole batch; one without any is its own baseline: advantage 0.
    """
    present_PGT = ~np.isnan(returns_PGT)
    peers_PGGT = (classes_PGT[:, :, None] == classes_PGT[:, None]) & present_PGT[:, None]
    if not with_self:
        peers_PGGT &= ~np.eye(returns_PGT.shape[1], dtype=bool)[None, :, :, None]
    count_PGT = peers_PGGT.sum(2)
    total_PGT = (peers_PGGT * np.nan_to_num(returns_PGT)[:, None]).sum(2)
    alone_PGT = _mean_of_class(returns_PGT, classes_PGT)
    return np.where(count_PGT > 0, total_PGT / np.maximum(count_PGT, 1), alone_PGT)


def _mean_of_class(returns_PGT: np.ndarray, classes_PGT: np.ndarray) -> np.ndarray:
    """Mean return of the same turn of all others in the batch that are in the same class, `[P, G, T]`."""
    means_PGT = returns_PGT.copy()
    for turn in range(returns_PGT.shape[-1]):
        returns_PG, classes_PG = returns_PGT[..., turn], classes_PGT[..., turn]
        for one in np.unique(classes_PG[~np.isnan(classes_PG)]):
            members = (classes_PG == one) & ~np.isnan(returns_PG)
            if members.sum() > 1:
                others_N = returns_PG[members].sum() - returns_PG[members]
                means_PGT[..., turn][members] = others_N / (members.sum() - 1)
    return means_PGT
