"""Baselines and scales: how the returns of a group become advantages. Missing returns (NaN) get advantage NaN."""

from collections.abc import Callable

import numpy as np

from rlcore.credit.turns import Turns
from rlcore.recipe.schema import Credit

EPSILON = 1e-6

Gather = Callable[[np.ndarray], list[np.ndarray]]
"""The arrays that all ranks call it with, this rank's own first."""


def alone(array: np.ndarray) -> list[np.ndarray]:
    """The `Gather` of a single process."""
    return [array]


def advantages(returns_PGT: np.ndarray, turns: Turns, credit: Credit, gather: Gather = alone) -> np.ndarray:
    """Advantages `[P, G, T]` for returns `[P, G, T]`: each turn against the same turn of its peers that have it.

    With `credit.unit` "trajectory" the returns of all turns are summed and every turn gets that one advantage. What is
    measured over the batch is measured over all ranks, so that their number changes nothing.
    """
    if credit.unit == "trajectory":
        summed_PG1 = np.where(turns.present_PGT, returns_PGT, 0.0).sum(-1, keepdims=True)
        by_attempt = credit.model_copy(update={"unit": "attempt"})
        advantages_PG1 = advantages(summed_PG1, Turns.of_attempts(summed_PG1), by_attempt, gather)
        return np.where(turns.present_PGT, advantages_PG1, np.nan)
    mine_2PGT = np.stack([returns_PGT, _classes(turns, credit.baseline)])
    returns, classes = _joined(gather(mine_2PGT))
    found = (returns - _baseline(returns, classes, credit.baseline)) / _scale(returns, credit.scale)
    found[np.abs(found) < EPSILON] = 0.0  # what rounding leaves of equal returns
    problems, _, longest = returns_PGT.shape
    return found[:problems, :, :longest]


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    """`[2, P, G, T]` of all ranks, whose trajectories may have more turns here than there."""
    longest = max(part.shape[-1] for part in parts)
    padding = ((0, 0), (0, 0), (0, 0))
    padded = [np.pad(p, (*padding, (0, longest - p.shape[-1])), constant_values=np.nan) for p in parts]
    return np.concatenate(padded, axis=1)


def _scale(returns_PGT: np.ndarray, kind: str) -> np.ndarray | float:
    """Standard deviation of a turn's returns over the group or the batch; 1 for none.

    Infinite where all returns are equal, so that advantages there are 0, whatever baseline they were compared with.
    """
    if kind == "none":
        return 1.0
    axis = 1 if kind == "group" else (0, 1)
    count = (~np.isnan(returns_PGT)).sum(axis, keepdims=True)
    mean = np.nansum(returns_PGT, axis, keepdims=True) / np.maximum(count, 1)
    variance = np.nansum((returns_PGT - mean) ** 2, axis, keepdims=True) / np.maximum(count - 1, 1)
    return np.where(variance < EPSILON**2, np.inf, np.sqrt(variance) + EPSILON)


def _classes(turns: Turns, kind: str) -> np.ndarray:
    """What a turn must share with the peers that it is compared with, `[P, G, T]`."""
    if kind in ("outcome", "batch_outcome"):
        return turns.outcome_PGT
    classes_PGT = np.zeros(turns.before_PGT.shape)
    if kind == "tree":
        classes_PGT[..., 1:] = turns.first_PG[..., None]
    return classes_PGT


def _baseline(returns_PGT: np.ndarray, classes_PGT: np.ndarray, kind: str) -> np.ndarray:
    if kind == "none":
        return np.zeros_like(returns_PGT)
    if kind == "batch":
        return _mean_of_class(returns_PGT, classes_PGT)
    if kind == "tree":  # a first attempt is one of this problem only
        problems, group, _ = classes_PGT.shape
        classes_PGT[..., 1:] += group * np.arange(problems)[:, None, None]
    baseline_PGT = _mean_of_peers(returns_PGT, classes_PGT, with_self=kind == "group")
    if kind == "batch_outcome":
        baseline_PGT[..., 1:] = _mean_of_class(returns_PGT, classes_PGT)[..., 1:]
    return baseline_PGT


def _mean_of_peers(returns_PGT: np.ndarray, classes_PGT: np.ndarray, *, with_self: bool) -> np.ndarray:
    """Mean return over the trajectories of the group that are in the same class, `[P, G, T]`.

    Without itself (leave one out) the mean does not depend on the attempt it is compared with, so that the policy
    gradient stays unbiased (Kool et al. 2019, "Buy 4 REINFORCE samples"). A turn without peers in its group is
    compared with those of the whole batch (`_mean_of_class`).
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
    """Mean return of the same turn of all others in the batch that are in the same class, `[P, G, T]`.

    A lone member of its class is compared with all others of the batch: to give it advantage 0 would drop rare classes
    from the gradient more often than common ones. One without any others is its own baseline.
    """
    means_PGT = returns_PGT.copy()
    for turn in range(returns_PGT.shape[-1]):
        returns_PG, classes_PG = returns_PGT[..., turn], classes_PGT[..., turn]
        there_PG = ~np.isnan(returns_PG) & ~np.isnan(classes_PG)
        _, class_N = np.unique(classes_PG[there_PG], return_inverse=True)
        returns_N = returns_PG[there_PG]
        anyone_N = _mean_of_others(returns_N, np.zeros_like(class_N), returns_N)
        means_PGT[..., turn][there_PG] = _mean_of_others(returns_N, class_N, anyone_N)
    return means_PGT


def _mean_of_others(returns_N: np.ndarray, class_N: np.ndarray, lone_N: np.ndarray) -> np.ndarray:
    """Mean return of the others of the same class, `[N]`; `lone_N` where there are none."""
    others_N = np.bincount(class_N)[class_N] - 1
    total_N = np.bincount(class_N, returns_N)[class_N] - returns_N
    return np.where(others_N > 0, total_N / np.maximum(others_N, 1), lone_N)
