"""Votes among answers: the most frequent, and the two levels of test-time training. None is no answer, and no vote."""

from collections import Counter
from collections.abc import Sequence

Answers = Sequence[str | None]


def most_frequent(answers_N: Answers, top: int = 1) -> list[str]:
    """The `top` most frequent answers, the most frequent first; of those level, the one that came first."""
    return [answer for answer, _ in _counted(answers_N).most_common(top)]


def two_level(answers_VN: Sequence[Answers], *, within: int = 3, top: int = 2) -> list[str]:
    """The answers that most of V views have among their `within` most frequent ones: `top` of them, the best first.

    Of those level, one that the first view (the problem as it is) has among its own goes before; then the one that
    more of all samples gave; then the one that came first. Akyürek et al. 2024 (arXiv 2411.07279), section 4.2, but for
    their answers put together row by row where a view has fewer than three.
    """
    kept_V = [most_frequent(answers_N, within) for answers_N in answers_VN]
    views = Counter(answer for kept in kept_V for answer in kept)
    samples = _counted([answer for answers_N in answers_VN for answer in answers_N])
    ranked = sorted(views, key=lambda answer: (views[answer], answer in kept_V[0], samples[answer]), reverse=True)
    return ranked[:top]


def _counted(answers_N: Answers) -> Counter[str]:
    return Counter(answer for answer in answers_N if answer is not None)
