"""A KL weight β that holds a target KL: it rises while an attempt is too far from the reference, else falls."""

from collections.abc import Sequence
from math import isfinite

GAIN = 0.5
CLIP = 0.2
"""Bound of the relative error, so that β changes by at most GAIN · CLIP = 10 % a step."""
RANGE = 10.0
"""β stays within this factor of the recipe's."""


def adapted_kl(
    now_A: Sequence[float], start_A: Sequence[float], target_A: Sequence[float], measured_A: Sequence[float | None]
) -> list[float]:
    """β of each attempt for the next step: β · (1 + GAIN · clip(KL / target - 1)), Ziegler et al. 2019, section 2.2.

    `start_A` are the recipe's values. β is unchanged where the target is 0 or no finite KL was measured.
    """
    rows = zip(now_A, start_A, target_A, measured_A, strict=True)
    return [
        _adapted(now, start, target, kl) if target and kl is not None and isfinite(kl) else now
        for now, start, target, kl in rows
    ]


def _adapted(now: float, start: float, target: float, measured: float) -> float:
    error = min(max(measured / target - 1, -CLIP), CLIP)
    return min(max(now * (1 + GAIN * error), start / RANGE), start * RANGE)
