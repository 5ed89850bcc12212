"""What each attempt is paid: its own reward, the bonus for progress, and a discounted share of later attempts."""

import numpy as np

from rlcore.recipe.schema import Stage


def attempt_returns(rewards_PGA: np.ndarray, stage: Stage, discount: float = 0.0) -> np.ndarray:
    """Returns `[P, G, A]` of rewards `[P, G, A]`, NaN where an attempt, or one it is compared with, has no score.

    Attempt a earns `w_a r_a`, and from the second on also `α (r_a - r_{a-1})`: the reward shaping of SCoRe (Kumar et
    al. 2024, arXiv 2409.12917, section 5.2). The bonus is paid to attempt a alone: paid to the whole trajectory it
    would be r1 + r2 + α (r2 - r1) = (1 - α) r1 + (1 + α) r2, which for α > 1 charges a right first attempt.
    """
    returns_PGA = rewards_PGA * np.asarray(stage.reward)
    if stage.bonus:
        returns_PGA[..., 1:] += stage.bonus * np.diff(rewards_PGA, axis=-1)
    if discount:
        for attempt in range(returns_PGA.shape[-1] - 2, -1, -1):
            returns_PGA[..., attempt] += discount * returns_PGA[..., attempt + 1]
    return returns_PGA
