"""Selecting problems: bands of difficulty, and a greedy choice of uncertain and dissimilar problems."""

import heapq
import math
from collections import Counter
from collections.abc import Sequence

from rlcore.curate.words import words_of

BANDS = {"never": (0.0, 0.0), "hard": (0.0, 0.25), "medium": (0.25, 0.75), "easy": (0.75, 1.0), "always": (1.0, 1.0)}
"""Names of pass rates: never 0, hard up to a quarter, medium up to three, easy below 1, always 1."""


def band_of(pass_rate: float) -> str:
    """The band of a pass rate."""
    if pass_rate in (0.0, 1.0):
        return "always" if pass_rate else "never"
    return next(name for name, (low, high) in BANDS.items() if low < pass_rate <= high)


def select(texts: Sequence[str], pass_rates: Sequence[float], count: int, diversity: float) -> list[int]:
    """Indices of `count` problems, best first.

    Each is the one with the highest (1 - d) · 4 p (1 - p) + d · u, where p is its pass rate, p (1 - p) the variance of
    its reward, and u the fraction of its words, weighted by idf, that no chosen problem contains. u only falls as
    problems are chosen, so re-evaluating the top of the heap finds the true maximum (lazy greedy, Minoux 1978).
    """
    words = [set(words_of(text)) for text in texts]
    known = Counter(word for own in words for word in own)
    idf = {word: math.log(len(texts) / holders) for word, holders in known.items()}
    whole = [math.fsum(idf[word] for word in own) or 1.0 for own in words]
    covered: set[str] = set()

    def worth(index: int) -> float:
        # Exact sums, then rounded: sets have no order, and equal worth goes to the first problem.
        p, new = pass_rates[index], math.fsum(idf[word] for word in words[index] - covered) / whole[index]
        return round((1 - diversity) * 4 * p * (1 - p) + diversity * new, 9)

    heap = [(-worth(index), index) for index in range(len(texts))]
    heapq.heapify(heap)
    chosen: list[int] = []
    while heap and len(chosen) < count:
        _, index = heapq.heappop(heap)
        now = -worth(index)
        if heap and now > heap[0][0]:
            heapq.heappush(heap, (now, index))
            continue
        chosen.append(index)
        covered |= words[index]
    return chosen
