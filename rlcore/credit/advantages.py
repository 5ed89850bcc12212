"""Advantages from the returns of groups. A missing return (NaN) has advantage NaN."""

from collections.abc import Callable

import numpy as np

from rlcore.credit.turns import Turns
from rlcore.entries import BASELINES
from rlcore.recipe.schema import CreditConfig

EPSILON = 1e-6
"""Returns that differ by less count as equal."""

Gather = Callable[[np.ndarray], list[np.ndarray]]
"""Gathers the arrays of all ranks, this rank's own first."""


def alone(array: np.ndarray) -> list[np.ndarray]:
    """`Gather` for a single process."""
    return [array]


def advantages(returns_PGT: np.ndarray, turns: Turns, credit: CreditConfig, gather: Gather = alone) -> np.ndarray:
    """Advantages `[P, G, T]` for returns `[P, G, T]`: each turn is compared with the same turn of its peers.

    With `credit.unit` "trajectory" every turn gets the one advantage of the summed returns, without those of critiques,
    which are copies of others. Statistics over the batch are over all ranks, so their number changes nothing.
    """
    if credit.unit == "trajectory":
        counted_PGT = turns.present_PGT & (turns.role_PGT != "critique")
        summed_PG1 = np.where(counted_PGT, returns_PGT, 0.0).sum(-1, keepdims=True)
        by_attempt = credit.model_copy(update={"unit": "attempt"})
        advantages_PG1 = advantages(summed_PG1, Turns.of_attempts(summed_PG1), by_attempt, gather)
        return np.where(turns.present_PGT, advantages_PG1, np.nan)
    baseline = BASELINES[credit.baseline]
    classes_PGT = baseline.classes(turns) if baseline.classes else np.zeros(returns_PGT.shape)
    returns, classes = _joined(gather(np.stack([returns_PGT, classes_PGT])))
    found = (returns - baseline.value(returns, classes)) / _scale(returns, credit.scale)
    found[np.abs(found) < EPSILON] = 0.0  # rounding errors of equal returns
    problems, _, longest = returns_PGT.shape
    return found[:problems, :, :longest]


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    """`[2, P, G, T]` of all ranks, padded to the longest trajectory."""
    longest = max(part.shape[-1] for part in parts)
    padding = ((0, 0), (0, 0), (0, 0))
    padded = [np.pad(p, (*padding, (0, longest - p.shape[-1])), constant_values=np.nan) for p in parts]
    return np.concatenate(padded, axis=1)


def _scale(returns_PGT: np.ndarray, kind: str) -> np.ndarray | float:
    """Standard deviation of a turn's returns over the group or the batch, or their mean over the group; 1 for none.

    Infinite where all returns are equal or their mean is not above 0, so that advantages are 0 whatever the baseline.
    """
    if kind == "none":
        return 1.0
    axis = (0, 1) if kind == "batch" else 1
    count = (~np.isnan(returns_PGT)).sum(axis, keepdims=True)
    mean = np.nansum(returns_PGT, axis, keepdims=True) / np.maximum(count, 1)
    if kind == "mean":
        return np.where(mean < EPSILON, np.inf, mean)
    variance = np.nansum((returns_PGT - mean) ** 2, axis, keepdims=True) / np.maximum(count - 1, 1)
    return np.where(variance < EPSILON**2, np.inf, np.sqrt(variance) + EPSILON)
