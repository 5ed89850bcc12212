"""The return of each turn: its own reward, the bonus for progress, and the discounted returns of later turns."""

from math import comb

import numpy as np

from rlcore.credit.turns import Turns
from rlcore.recipe.schema import StageConfig


def turn_returns(turns: Turns, stage: StageConfig, discount: float = 0.0) -> np.ndarray:
    """Returns `[P, G, T]`; NaN where a turn is absent or untrained, or a score that its return depends on is missing.

    Attempt a earns `w_a r_a`, and from the second on also `α (r_a - r_{a-1})`: the reward shaping of SCoRe (Kumar et
    al. 2024, arXiv 2409.12917, section 5.2; appendix A.2 for the discount of 0). Only attempt a is paid the bonus: paid
    to the whole trajectory it would be r1 + r2 + α (r2 - r1) = (1 - α) r1 + (1 + α) r2, which for α > 1 punishes a
    correct first attempt.

    A stop earns what an unchanged attempt in its place would have earned, a verdict `w` for being right, a critique the
    return of the turn after it. With a discount an attempt is also paid for the attempt or stop that comes next; one
    that several trajectories continue, for the mean of theirs. A verdict is not: it would be paid for saying "wrong".

    A stage that trains critiques leaves only those of attempts that are not correct: Reflect, Retry, Reward (Bensal et
    al. 2025, arXiv 2505.24726).
    """
    returns_PGT = turns.rewards_PGT * np.asarray(stage.reward)[turns.attempt_PGT]
    if stage.bonus:
        compared_PGT = (turns.attempt_PGT > 0) & (turns.role_PGT != "verdict")
        returns_PGT += stage.bonus * np.where(compared_PGT, turns.rewards_PGT - turns.before_PGT, 0.0)
    next_PG = paid_PG = np.zeros(returns_PGT.shape[:-1])  # of the next turn, and of the next attempt or stop
    for turn in reversed(range(returns_PGT.shape[-1])):
        role_PG, own_PG = turns.role_PGT[..., turn], returns_PGT[..., turn]
        if discount:
            own_PG = np.where(role_PG == "attempt", own_PG + discount * paid_PG, own_PG)
        returns_PGT[..., turn] = np.where(role_PG == "critique", next_PG, own_PG)
        next_PG = np.where(turns.present_PGT[..., turn], returns_PGT[..., turn], 0.0)
        paid_PG = np.where(np.isin(role_PG, ("attempt", "stop")), next_PG, paid_PG)
    if discount:
        returns_PGT[..., 0] = _mean_over_siblings(returns_PGT[..., 0], turns.first_PG)
    learned_PGT = turns.trained_PGT
    if stage.trains == "critiques":
        learned_PGT = learned_PGT & (turns.role_PGT == "critique") & (turns.outcome_PGT == 0)
    return np.where(learned_PGT, returns_PGT, np.nan)


def best_of(returns_PGT: np.ndarray, k: int) -> np.ndarray:
    """Returns `[P, G, T]` under which the best of k counts: the mean, over all draws, of the highest among a turn's own
    return and those of k - 1 others of its group.

    Where fewer have the turn, all of them are drawn. For returns of 0 and 1, minus the group's mean, this is the
    advantage of Pass@k Training (Chen et al. 2025, arXiv 2508.10751) before its division by a standard deviation.
    """
    if k == 1:
        return returns_PGT
    paid_PGT = np.full_like(returns_PGT, np.nan)
    for problem, turn in np.ndindex(returns_PGT.shape[0], returns_PGT.shape[2]):
        there_N = np.flatnonzero(~np.isnan(returns_PGT[problem, :, turn]))
        order_N = there_N[np.argsort(returns_PGT[problem, there_N, turn], kind="stable")]
        sorted_N, count = returns_PGT[problem, order_N, turn], len(order_N)
        drawn = min(k, count) - 1
        # Rank j is the best of a draw if it is in it and all others are of lower rank.
        below_N = np.array([comb(j, drawn) for j in range(count)], dtype=np.float64)
        with_N = np.array([comb(j - 1, drawn - 1) if j and drawn else 0 for j in range(count)], dtype=np.float64)
        higher_N = np.append((with_N * sorted_N)[::-1].cumsum()[::-1][1:], 0.0)
        paid_PGT[problem, order_N, turn] = (below_N * sorted_N + higher_N) / comb(max(count - 1, 0), max(drawn, 0))
    return paid_PGT


def _mean_over_siblings(returns_PG: np.ndarray, first_PG: np.ndarray) -> np.ndarray:
    siblings_PGG = (first_PG[:, :, None] == first_PG[:, None]) & ~np.isnan(returns_PG)[:, None]
    total_PG = (siblings_PGG * np.nan_to_num(returns_PG)[:, None]).sum(-1)
    count_PG = siblings_PGG.sum(-1)
    return np.where(count_PG > 0, total_PG / np.maximum(count_PG, 1), np.nan)
