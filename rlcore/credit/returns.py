"""What each turn is paid: its own reward, the bonus for progress, and a discounted share of later turns."""

import numpy as np

from rlcore.credit.turns import Turns
from rlcore.recipe.schema import Stage


def turn_returns(turns: Turns, stage: Stage, discount: float = 0.0) -> np.ndarray:
    """Returns `[P, G, T]`, NaN where a turn is absent or not trained, or it or what it is compared with has no score.

    Attempt a earns `w_a r_a`, and from the second on also `α (r_a - r_{a-1})`: the reward shaping of SCoRe (Kumar et
    al. 2024, arXiv 2409.12917, section 5.2). The bonus is paid to attempt a alone: paid to the whole trajectory it
    would be r1 + r2 + α (r2 - r1) = (1 - α) r1 + (1 + α) r2, which for α > 1 charges a right first attempt.

    A stop earns what the attempt in its place would have earned by changing nothing, a verdict `w` for being right, and
    a critique the return of the attempt that heeds it. With a discount, a first attempt that several trajectories go on
    from is paid for the mean of what comes after it.
    """
    returns_PGT = turns.rewards_PGT * np.asarray(stage.reward)[turns.attempt_PGT]
    if stage.bonus:
        compared_PGT = (turns.attempt_PGT > 0) & (turns.role_PGT != "verdict")
        returns_PGT += stage.bonus * np.where(compared_PGT, turns.rewards_PGT - turns.before_PGT, 0.0)
    for turn in range(returns_PGT.shape[-1] - 2, -1, -1):
        later_PG = np.where(turns.present_PGT[..., turn + 1], returns_PGT[..., turn + 1], 0.0)
        own_PG = returns_PGT[..., turn] + (discount * later_PG if discount else 0.0)
        returns_PGT[..., turn] = np.where(turns.role_PGT[..., turn] == "critique", later_PG, own_PG)
    if discount:
        returns_PGT[..., 0] = _mean_over_siblings(returns_PGT[..., 0], turns.first_PG)
    return np.where(turns.trained_PGT, returns_PGT, np.nan)


def _mean_over_siblings(returns_PG: np.ndarray, first_PG: np.ndarray) -> np.ndarray:
    siblings_PGG = (first_PG[:, :, None] == first_PG[:, None]) & ~np.isnan(returns_PG)[:, None]
    total_PG = (siblings_PGG * np.nan_to_num(returns_PG)[:, None]).sum(-1)
    count_PG = siblings_PGG.sum(-1)
    return np.where(count_PG > 0, total_PG / np.maximum(count_PG, 1), np.nan)
