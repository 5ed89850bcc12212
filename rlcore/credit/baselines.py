"""Baselines. README.md says what each does to bias, variance and α."""

from functools import partial
from operator import attrgetter

import numpy as np

from rlcore.credit.turns import Turns
from rlcore.entries import Baseline


def mean_of_peers(returns_PGT: np.ndarray, classes_PGT: np.ndarray, *, with_self: bool = False) -> np.ndarray:
    """Mean return over the trajectories of the group in the same class, `[P, G, T]`.

    Leaving out the turn itself makes the mean independent of it, so the policy gradient stays unbiased (Kool et al.
    2019, "Buy 4 REINFORCE samples"). A turn without peers in its group is compared with the batch (`mean_of_class`).
    """
    present_PGT = ~np.isnan(returns_PGT)
    peers_PGGT = (classes_PGT[:, :, None] == classes_PGT[:, None]) & present_PGT[:, None]
    if not with_self:
        peers_PGGT &= ~np.eye(returns_PGT.shape[1], dtype=bool)[None, :, :, None]
    count_PGT = peers_PGGT.sum(2)
    total_PGT = (peers_PGGT * np.nan_to_num(returns_PGT)[:, None]).sum(2)
    alone_PGT = mean_of_class(returns_PGT, classes_PGT)
    return np.where(count_PGT > 0, total_PGT / np.maximum(count_PGT, 1), alone_PGT)


def mean_of_class(returns_PGT: np.ndarray, classes_PGT: np.ndarray) -> np.ndarray:
    """Mean return of the same turn over all others of the batch in the same class, `[P, G, T]`.

    The only member of a class is compared with all others of the batch: advantage 0 would drop rare classes from the
    gradient more often than common ones. A turn without any others is its own baseline.
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


def mean_of_siblings(returns_PGT: np.ndarray, classes_PGT: np.ndarray) -> np.ndarray:
    """`mean_of_peers` among those with the same first attempt, whose numbers start at 0 in every group."""
    problems, group, _ = classes_PGT.shape
    siblings_PGT = classes_PGT.copy()
    siblings_PGT[..., 1:] += group * np.arange(problems)[:, None, None]
    return mean_of_peers(returns_PGT, siblings_PGT)


def mean_of_outcome(returns_PGT: np.ndarray, classes_PGT: np.ndarray) -> np.ndarray:
    """`mean_of_peers` for first turns; for later ones the mean over their class in the whole batch."""
    mean_PGT = mean_of_peers(returns_PGT, classes_PGT)
    mean_PGT[..., 1:] = mean_of_class(returns_PGT, classes_PGT)[..., 1:]
    return mean_PGT


def siblings(turns: Turns) -> np.ndarray:
    """Later turns are compared with those that continue the same first attempt, first turns with all."""
    classes_PGT = np.zeros(turns.before_PGT.shape)
    classes_PGT[..., 1:] = turns.first_PG[..., None]
    return classes_PGT


# The whole group with the turn itself, as in GRPO (Shao et al. 2024, arXiv 2402.03300).
GROUP = Baseline(partial(mean_of_peers, with_self=True), within_group=True, biased_by_stops=True)
LEAVE_ONE_OUT = Baseline(mean_of_peers, within_group=True)
TREE = Baseline(mean_of_siblings, siblings, within_group=True, needs_branches=True)
OUTCOME = Baseline(mean_of_peers, attrgetter("outcome_PGT"))
BATCH_OUTCOME = Baseline(mean_of_outcome, attrgetter("outcome_PGT"), compares=False)
BATCH = Baseline(mean_of_class, compares=False)
NONE = Baseline(lambda returns_PGT, classes_PGT: np.zeros_like(returns_PGT), compares=False)
