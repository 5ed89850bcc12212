"""Overlap between texts: duplicate problems, and problems that also occur in held-out sets."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from rlcore.curate.words import signed_words_of, words_of

SHINGLE = 5
"""Consecutive words in the runs that near duplicates are detected by."""
COMMON = 1000
"""Runs that occur in more problems than this are ignored: they do not make two problems alike."""

Run = tuple[str, ...]


def runs_of(words: Sequence[str], length: int) -> set[Run]:
    """All runs of `length` consecutive words; a shorter text is a single run."""
    if len(words) <= length:
        return {tuple(words)}
    return {tuple(words[start : start + length]) for start in range(len(words) - length + 1)}


def duplicates(texts: Sequence[str], near: float) -> dict[int, int]:
    """Maps the index of each text that repeats an earlier one to the index of the earliest such text.

    Texts repeat each other if their words and signs are equal, or if the Jaccard similarity of their sets of five-word
    runs is at least `near`. Another sign before a word makes it another word.
    """
    found: dict[int, int] = {}
    first: dict[Run, int] = {}
    holders: dict[Run, list[int]] = defaultdict(list)
    sizes: list[int] = []
    for index, text in enumerate(texts):
        words = signed_words_of(text)
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
    """Maps the index of each text that has `ngram` consecutive words in common with a held-out text to those words.

    Texts of fewer words are compared as a whole, with their signs.
    """
    forbidden = {run for text in held_out for run in _comparable(text, ngram)}
    forbidden.discard(())
    found = {}
    for index, text in enumerate(texts):
        shared = _comparable(text, ngram) & forbidden
        if shared:
            found[index] = " ".join(min(shared))
    return found


def _comparable(text: str, ngram: int) -> set[Run]:
    words = words_of(text)
    return runs_of(words if len(words) >= ngram else signed_words_of(text), ngram)


def _nearest(index: int, runs: set[Run], holders: dict[Run, list[int]], sizes: list[int], near: float) -> int:
    """The index of the earliest near duplicate, or `index` itself."""
    common = Counter(other for run in runs if len(holders.get(run, ())) <= COMMON for other in holders.get(run, ()))
    near_ones = [other for other, both in common.items() if both >= near * (len(runs) + sizes[other] - both)]
    return min(near_ones, default=index)
