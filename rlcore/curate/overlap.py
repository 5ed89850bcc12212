"""What texts share: duplicates among problems, and problems that held-out sets hold."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

SHINGLE = 5
"""Words in a row by which near duplicates are found."""
COMMON = 1000
"""A run of words that more problems have says nothing about two of them."""

Run = tuple[str, ...]


def words_of(text: str) -> list[str]:
    """Words and numbers of a text, in small letters: what is compared."""
    return re.findall(r"\w+", text.casefold())


def runs_of(words: Sequence[str], length: int) -> set[Run]:
    """Every `length` words in a row; a shorter text is one run of its own."""
    if len(words) <= length:
        return {tuple(words)}
    return {tuple(words[start : start + length]) for start in range(len(words) - length + 1)}


def duplicates(texts: Sequence[str], near: float) -> dict[int, int]:
    """For each text that repeats an earlier one, by its index, the index of the earliest.

    Two texts repeat each other when their words are equal, or when the runs of five words that both have are at least
    the share `near` of those that either has (Jaccard).
    """
    found: dict[int, int] = {}
    first: dict[Run, int] = {}
    holders: dict[Run, list[int]] = defaultdict(list)
    sizes: list[int] = []
    for index, text in enumerate(texts):
        words = words_of(text)
        runs = runs_of(words, SHINGLE)
        sizes.append(len(runs))
        earlier = first.setdefault(tuple(words), index)
        if earlier == index and near < 1:
            earlier = _nearest(index, runs, holders, sizes, near)
        if earlier != index:
            found[index] = earlier
            continue
        for run in runs:
            holders[run].append(index)
    return found


def contaminated(texts: Sequence[str], held_out: Iterable[str], ngram: int) -> dict[int, str]:
    """For each text that shares `ngram` words in a row with a held-out one, by its index, those words.

    A text or held-out problem of fewer words is compared whole.
    """
    forbidden = {run for text in held_out for run in runs_of(words_of(text), ngram)}
    forbidden.discard(())
    found = {}
    for index, text in enumerate(texts):
        shared = runs_of(words_of(text), ngram) & forbidden
        if shared:
            found[index] = " ".join(min(shared))
    return found


def _nearest(index: int, runs: set[Run], holders: dict[Run, list[int]], sizes: list[int], near: float) -> int:
    """The earliest text that is near enough, or the text itself."""
    common = Counter(other for run in runs if len(holders.get(run, ())) <= COMMON for other in holders.get(run, ()))
    near_ones = [other for other, both in common.items() if both >= near * (len(runs) + sizes[other] - both)]
    return min(near_ones, default=index)
