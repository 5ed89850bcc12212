"""Confidence intervals by resampling problems."""

from collections.abc import Hashable, Iterator, Sequence

import numpy as np

_CELLS = 4_000_000
"""Resampled indices held at once: bounds the memory, not the result's precision."""


def bootstrap_ci(
    values_NM: np.ndarray, problems_N: Sequence[Hashable], *, seed: int = 0, resamples: int = 2000, level: float = 0.95
) -> np.ndarray:
    """Mean, low and high end of M measurements on N rows, `[M, 3]`.

    The percentile bootstrap (Efron 1979) over problems: rows of one problem (`problems_N`) are drawn together, since
    samples of one problem resemble each other, and all measurements are drawn together, so that a difference of two
    attempts is paired. NaN values are left out of the means; a measurement without any value gives NaN.
    """
    problem_N = np.unique([str(p) for p in problems_N], return_inverse=True)[1]
    present_NM = ~np.isnan(values_NM)
    sums_PM = _sum_by_problem(np.where(present_NM, values_NM, 0.0), problem_N)
    counts_PM = _sum_by_problem(present_NM.astype(np.float64), problem_N)
    with np.errstate(invalid="ignore", divide="ignore"):
        means_M = sums_PM.sum(0) / counts_PM.sum(0)
        means_RM = np.concatenate(
            [(draws_RP @ sums_PM) / (draws_RP @ counts_PM) for draws_RP in _draws(len(sums_PM), seed, resamples)]
        )
    ends = [(1 - level) / 2, (1 + level) / 2]
    low_M, high_M = _quantiles(means_RM, ends)
    return np.stack([means_M, low_M, high_M], axis=1)


def _sum_by_problem(values_NM: np.ndarray, problem_N: np.ndarray) -> np.ndarray:
    sums_PM = np.zeros((problem_N.max() + 1, values_NM.shape[1]))
    np.add.at(sums_PM, problem_N, values_NM)
    return sums_PM


def _draws(problems: int, seed: int, resamples: int) -> Iterator[np.ndarray]:
    """How often each problem is drawn in each resample, in blocks `[R, P]`."""
    rng = np.random.default_rng(seed)
    block = max(1, _CELLS // problems)
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        drawn_RP = rng.integers(0, problems, (rows, problems)) + problems * np.arange(rows)[:, None]
        yield np.bincount(drawn_RP.ravel(), minlength=rows * problems).reshape(rows, problems).astype(np.float64)


def _quantiles(means_RM: np.ndarray, ends: list[float]) -> np.ndarray:
    """Quantiles over resamples, `[2, M]`, leaving out resamples that drew no value of a measurement."""
    if np.isnan(means_RM).any():
        columns = [column[~np.isnan(column)] for column in means_RM.T]
        return np.stack([np.quantile(c, ends) if c.size else np.full(2, np.nan) for c in columns], axis=1)
    return np.quantile(means_RM, ends, axis=0)
