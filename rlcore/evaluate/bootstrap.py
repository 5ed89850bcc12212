"""Confidence intervals: the bootstrap over problems, Student's t over the few seeds."""

from collections.abc import Hashable, Iterator, Sequence

import numpy as np

ENDS = ((1 - 0.95) / 2, (1 + 0.95) / 2)
"""Quantiles at the ends of a 95 % interval."""
_CELLS = 4_000_000
"""Resampled indices held at once: bounds the memory, not the result's precision."""


def bootstrap_ci(
    values_NM: np.ndarray, problems_N: Sequence[Hashable], *, seed: int = 0, resamples: int = 2000
) -> np.ndarray:
    """Mean and both ends of the 95 % interval of M measurements on N rows, `[M, 3]`.

    The percentile bootstrap (Efron 1979) over problems. Rows of one problem (`problems_N`) are drawn together because
    they are correlated, and all measurements together so that differences between attempts are paired. Means ignore
    NaN; a measurement without any value gives NaN.
    """
    _, sums_PM, counts_PM = _by_problem(values_NM, problems_N)
    with np.errstate(invalid="ignore", divide="ignore"):
        means_M = sums_PM.sum(0) / counts_PM.sum(0)
    return _with_ends(means_M, _resampled_means(sums_PM, counts_PM, seed, resamples))


def problem_means(values_NM: np.ndarray, problems_N: Sequence[Hashable]) -> tuple[list[str], np.ndarray]:
    """The sorted names of P problems and the means over their rows, `[P, M]`; NaN where a problem has no value."""
    names, sums_PM, counts_PM = _by_problem(values_NM, problems_N)
    return names, _ratio(sums_PM, counts_PM)


def seeds_ci(
    marks_SPM: np.ndarray, against_SPM: np.ndarray | None = None, *, seed: int = 0, resamples: int = 2000
) -> np.ndarray:
    """As `bootstrap_ci`, for M measurements over S seeds and P problems, `[M, 3]`: it generalises to new ones of both.

    With `against_SPM`, another arm on the same problems with seeds of its own, the interval is that of the difference,
    paired by problem. Each draw resamples problems, the same ones for all seeds and both arms, and adds the standard
    error over seeds times a draw of Student's t, with Welch's degrees of freedom for two arms; resampling three or five
    seeds would cover far too little. With one seed this is `bootstrap_ci` over problems. NaN marks are ignored.
    """
    arms = [marks_SPM] if against_SPM is None else [marks_SPM, against_SPM]
    rng = np.random.default_rng([seed, 1])
    means_AM, drawn_ARM, squares_AM, freedoms_A = [], [], [], []
    for arm_SPM in arms:
        present_SPM = ~np.isnan(arm_SPM)
        sums_PM, counts_PM = np.nansum(arm_SPM, axis=0), present_SPM.sum(0).astype(np.float64)
        drawn_ARM.append(_resampled_means(sums_PM, counts_PM, seed, resamples))
        means_SM = _ratio(np.nansum(arm_SPM, axis=1), present_SPM.sum(1))
        means_AM.append(means_SM.mean(0))
        if (seeds := len(arm_SPM)) > 1:
            squares_AM.append(means_SM.var(0, ddof=1) / seeds)
            freedoms_A.append(seeds - 1)
    means_M, drawn_RM = _first_minus_second(means_AM), _first_minus_second(drawn_ARM)
    if squares_AM:
        errors_M, freedom_M = _welch(np.array(squares_AM), np.array(freedoms_A))
        draws_KRM = rng.standard_t(freedom_M, (_SEED_DRAWS, resamples, len(freedom_M)))
        drawn_RM = (drawn_RM + draws_KRM * errors_M).reshape(-1, len(freedom_M))
    return _with_ends(means_M, drawn_RM)


def _first_minus_second(arms: Sequence[np.ndarray]) -> np.ndarray:
    return arms[0] - arms[1] if len(arms) > 1 else arms[0]


def _welch(squares_AM: np.ndarray, freedoms_A: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Standard error and degrees of freedom of a sum of A independent means, `[M]` each (Welch 1947)."""
    total_M = squares_AM.sum(0)
    by_freedom_M = (squares_AM**2 / freedoms_A[:, None]).sum(0)
    freedom_M = np.divide(total_M**2, by_freedom_M, out=np.ones_like(total_M), where=by_freedom_M > 0)
    return np.sqrt(total_M), freedom_M


_SEED_DRAWS = 10
"""Draws of Student's t for each draw of problems: with few seeds its tails are long."""


def _by_problem(values_NM: np.ndarray, problems_N: Sequence[Hashable]) -> tuple[list[str], np.ndarray, np.ndarray]:
    """The sorted names of P problems, and the sums and counts of their values, `[P, M]` each."""
    names, problem_N = np.unique([str(p) for p in problems_N], return_inverse=True)
    present_NM = ~np.isnan(values_NM)
    sums_PM = _sum_by_problem(np.where(present_NM, values_NM, 0.0), problem_N)
    return names.tolist(), sums_PM, _sum_by_problem(present_NM.astype(np.float64), problem_N)


def _ratio(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """NaN where the count is 0."""
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _resampled_means(sums_PM: np.ndarray, counts_PM: np.ndarray, seed: int, resamples: int) -> np.ndarray:
    """Means over problems drawn with replacement, `[R, M]`; the draws depend on seed and number of problems alone."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.concatenate(
            [(draws_RP @ sums_PM) / (draws_RP @ counts_PM) for draws_RP in _draws(len(sums_PM), seed, resamples)]
        )


def _with_ends(means_M: np.ndarray, drawn_RM: np.ndarray) -> np.ndarray:
    """The means with the ends of their intervals, ignoring resamples without a value of the measurement."""
    if np.isnan(drawn_RM).any():
        columns = [column[~np.isnan(column)] for column in drawn_RM.T]
        ends_2M = np.stack([np.quantile(c, ENDS) if c.size else np.full(2, np.nan) for c in columns], axis=1)
    else:
        ends_2M = np.quantile(drawn_RM, ENDS, axis=0)
    return np.stack([means_M, *ends_2M], axis=1)


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
