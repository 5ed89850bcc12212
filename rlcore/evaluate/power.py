"""How many problems and seeds a conclusion needs: power of a comparison of two arms on the same problems.

Where two arms differ in a share q of P problems, and their accuracies by d, the variance of that difference is
(q - d²) / P over problems (McNemar 1947). Training again with another seed moves each arm's accuracy by a standard
deviation σ, which no number of problems averages out: with S seeds an arm, 2σ² / S.
"""

from math import ceil, sqrt
from statistics import NormalDist

SIGNIFICANT = NormalDist().inv_cdf((1 + 0.95) / 2)
POWER = NormalDist().inv_cdf(0.8)
"""Quantiles of the normal distribution: an interval of 95 % that leaves out 0, and a chance of 80 % to find it so."""


def problems_needed(difference: float, disagreement: float) -> int:
    """Problems on which a difference between two given policies is found significant with a chance of 80 %.

    `difference` is that of their accuracies, `disagreement` the share of problems that only one of them solves; both
    are shares of 1, and the first is at most the second.
    """
    return ceil((SIGNIFICANT + POWER) ** 2 * (disagreement - difference**2) / difference**2)


def detectable(problems: int, disagreement: float, *, seeds: int = 1, spread: float = 0.0) -> float:
    """The smallest difference between two arms that is found significant with a chance of 80 %, as a share of 1.

    `spread` is the standard deviation of an arm's accuracy over seeds. With one seed it cannot be estimated, and the
    answer holds for the two policies at hand, not for the methods that trained them.
    """
    over_problems = disagreement / problems
    over_seeds = 2 * spread**2 / seeds if seeds > 1 else 0.0
    z = SIGNIFICANT
    if over_seeds:
        # Satterthwaite 1946: degrees of freedom of a sum of variances, of which that over problems is as good as known.
        # Welch's for two arms lie between S - 1 and 2 (S - 1): the fewer, since the spread is estimated from few seeds.
        freedom = (seeds - 1) * ((over_problems + over_seeds) / over_seeds) ** 2
        z = _t_quantile(z, freedom)
    return (z + POWER) * sqrt(over_problems + over_seeds)


def _t_quantile(z: float, freedom: float) -> float:
    """Quantile of Student's t where that of the normal distribution is z, to 4 % from 2 degrees of freedom on.

    Abramowitz and Stegun 1964, formula 26.7.5.
    """
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / freedom**power for power, term in enumerate(terms, start=1))
