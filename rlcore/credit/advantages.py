"""Baselines and scales: how the returns of a group become advantages. Missing returns (NaN) get advantage NaN."""

import numpy as np

from rlcore.recipe.schema import Credit

EPSILON = 1e-6


def advantages(returns_PGA: np.ndarray, rewards_PGA: np.ndarray, credit: Credit) -> np.ndarray:
    """Advantages `[P, G, A]` for returns and rewards `[P, G, A]`: each attempt against the same attempt of its peers.

    With `credit.unit` "trajectory" the returns of all attempts are summed and every attempt gets that one advantage.
    """
    if credit.unit == "trajectory":
        summed_PG1 = returns_PGA.sum(-1, keepdims=True)
        alone = credit.model_copy(update={"unit": "attempt"})
        return np.broadcast_to(advantages(summed_PG1, summed_PG1, alone), returns_PGA.shape)
    advantages_PGA = returns_PGA - _baseline(returns_PGA, rewards_PGA, credit.baseline)
    if credit.scale == "none":
        return advantages_PGA
    axis = 1 if credit.scale == "group" else (0, 1)
    count = (~np.isnan(returns_PGA)).sum(axis, keepdims=True)
    mean = np.nansum(returns_PGA, axis, keepdims=True) / np.maximum(count, 1)
    variance = np.nansum((returns_PGA - mean) ** 2, axis, keepdims=True) / np.maximum(count - 1, 1)
    return advantages_PGA / (np.sqrt(variance) + EPSILON)


def _baseline(returns_PGA: np.ndarray, rewards_PGA: np.ndarray, kind: str) -> np.ndarray:
    if kind == "none":
        return np.zeros_like(returns_PGA)
    if kind == "group":
        return _mean_of_peers(returns_PGA, np.zeros_like(returns_PGA), with_self=True)
    classes_PGA = np.zeros_like(returns_PGA)
    if kind in ("outcome", "batch_outcome"):
        classes_PGA[..., 1:] = rewards_PGA[..., :-1]
    baseline_PGA = _mean_of_peers(returns_PGA, classes_PGA, with_self=False)
    if kind == "batch_outcome":
        baseline_PGA[..., 1:] = _mean_of_class(returns_PGA, classes_PGA)[..., 1:]
    return baseline_PGA


def _mean_of_peers(returns_PGA: np.ndarray, classes_PGA: np.ndarray, *, with_self: bool) -> np.ndarray:
    """Mean return over the trajectories of the group that are in the same class, `[P, G, A]`.

    Without itself (leave one out) the mean does not depend on the attempt it is compared with, so that the policy
    gradient stays unbiased (Kool et al. 2019, "Buy 4 REINFORCE samples"). An attempt without peers in its group is
    compared with its class in the whole batch; one without any is its own baseline: advantage 0.
    """
    present_PGA = ~np.isnan(returns_PGA)
    peers_PGGA = (classes_PGA[:, :, None] == classes_PGA[:, None]) & present_PGA[:, None]
    if not with_self:
        peers_PGGA &= ~np.eye(returns_PGA.shape[1], dtype=bool)[None, :, :, None]
    count_PGA = peers_PGGA.sum(2)
    total_PGA = (peers_PGGA * np.nan_to_num(returns_PGA)[:, None]).sum(2)
    alone_PGA = _mean_of_class(returns_PGA, classes_PGA)
    return np.where(count_PGA > 0, total_PGA / np.maximum(count_PGA, 1), alone_PGA)


def _mean_of_class(returns_PGA: np.ndarray, classes_PGA: np.ndarray) -> np.ndarray:
    """Mean return of the same attempt of all others in the batch that are in the same class, `[P, G, A]`."""
    means_PGA = returns_PGA.copy()
    for attempt in range(returns_PGA.shape[-1]):
        returns_PG, classes_PG = returns_PGA[..., attempt], classes_PGA[..., attempt]
        for one in np.unique(classes_PG[~np.isnan(classes_PG)]):
            members = (classes_PG == one) & ~np.isnan(returns_PG)
            if members.sum() > 1:
                others_N = returns_PG[members].sum() - returns_PG[members]
                means_PGA[..., attempt][members] = others_N / (members.sum() - 1)
    return means_PGA
