"""Measurements of N conversations of A attempts: accuracy, flips, answer changes and edits.

A measurement is a value for every row, `[N]`, NaN where the row has none; its figure is the mean over rows that have
one. Intervals (`bootstrap`) resample the same rows, so a figure and its interval always agree.
"""

import re
from collections.abc import Hashable, Iterable, Sequence
from itertools import pairwise

import numpy as np
from rapidfuzz.distance import Levenshtein

from rlcore.types import CORRECT_SCORE


def correction_rows(rewards_NA: np.ndarray) -> dict[str, np.ndarray]:
    """Accuracy and flips of every row, `[N]` each: t1 .. tA, delta, i_to_c, c_to_i, unscored.

    `rewards_NA` are scores, NaN where an attempt was not scored; a row with such an attempt is NaN in every measurement
    but `unscored`. Delta and flips compare the first and the last attempt (Kumar et al. 2024, section 3).
    """
    unscored_N = np.isnan(rewards_NA).any(axis=1)
    correct_NA = np.where(unscored_N[:, None], np.nan, rewards_NA >= CORRECT_SCORE)
    first_N, last_N = correct_NA[:, 0], correct_NA[:, -1]
    return {
        **{f"t{a + 1}": correct_NA[:, a] for a in range(correct_NA.shape[1])},
        "delta": last_N - first_N,
        "i_to_c": (1 - first_N) * last_N,
        "c_to_i": first_N * (1 - last_N),
        "unscored": unscored_N.astype(np.float64),
    }


def attempts_in(names: Iterable[str]) -> list[int]:
    """The attempts whose accuracies, `t1` and so on, are among the names: their numbers, ascending."""
    return sorted({int(name[1:]) for name in names if re.fullmatch(r"t\d+", name)})


def row_means(rows: dict[str, np.ndarray]) -> dict[str, float]:
    """The mean of each measurement over the rows that have a value; NaN where none has."""
    counts = {name: np.count_nonzero(~np.isnan(values_N)) for name, values_N in rows.items()}
    return {name: float(np.nansum(rows[name]) / n) if n else float("nan") for name, n in counts.items()}


def flip_kind(first: float | None, last: float | None) -> str | None:
    """`c→c`, `c→i`, `i→c` or `i→i`, from the scores of the first and the last attempt; None where one is missing."""
    if first is None or last is None or np.isnan(first) or np.isnan(last):
        return None
    return "→".join("c" if score >= CORRECT_SCORE else "i" for score in (first, last))


def answer_change(answers_NA: Sequence[Sequence[Hashable]]) -> np.ndarray:
    """The fraction of consecutive attempts in each row whose answers differ, `[N]`; NaN for a single attempt."""
    changes = [[before != after for before, after in pairwise(answers_A)] for answers_A in answers_NA]
    return np.array([sum(each) / len(each) if each else np.nan for each in changes], dtype=np.float64)


def edit_ratio(first_N: Sequence[Sequence[Hashable]], second_N: Sequence[Sequence[Hashable]]) -> np.ndarray:
    """Levenshtein distance of two attempts (texts or token ids) over the sum of their lengths, `[N]` in [0, 1].

    0 means a copy, or two empty attempts. Kumar et al. 2024, section 3.
    """
    pairs = zip(first_N, second_N, strict=True)
    return np.array([Levenshtein.distance(a, b) / max(len(a) + len(b), 1) for a, b in pairs], dtype=np.float64)
