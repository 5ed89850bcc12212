"""pass@k and maj@k of one problem from n samples: exact means over all subsets of k, hence unbiased for k ≤ n."""

from collections import Counter
from collections.abc import Sequence
from math import comb

import numpy as np

from rlcore.evaluate.measure import mark, standing
from rlcore.files import Record


def pass_at_k(correct_N: Sequence[bool], k: int) -> float:
    """The probability that k of n samples include a correct one, `1 - C(n - c, k) / C(n, k)`; NaN for fewer than k.

    Chen et al. 2021, arXiv 2107.03374, equation 1.
    """
    n, c = len(correct_N), sum(map(bool, correct_N))
    return 1 - comb(n - c, k) / comb(n, k) if k <= n else float("nan")


def maj_at_k(answers_N: Sequence[str | None], correct_N: Sequence[bool], k: int) -> float:
    """The probability that the most frequent answer of k of n samples is correct; NaN for fewer than k samples.

    The mean over all subsets of size k, by counting: a U-statistic, hence unbiased for a vote among k fresh samples.
    Tied answers share the vote evenly. Samples without an answer (None) do not vote, and a vote among none is wrong. An
    answer counts as correct by the fraction of its samples judged correct.
    """
    n = len(answers_N)
    if k > n:
        return float("nan")
    votes = Counter(answer for answer in answers_N if answer is not None)
    right = Counter(a for a, is_right in zip(answers_N, correct_N, strict=True) if a is not None and is_right)
    silent = n - votes.total()
    won = 0.0
    for answer, share in right.items():
        others = [count for other, count in votes.items() if other != answer]
        won += share / votes[answer] * _wins(votes[answer], others, silent, k)
    return won / comb(n, k)


def _wins(mine: int, others: Sequence[int], silent: int, k: int) -> float:
    """How many subsets of size k an answer with `mine` samples wins; a tie with t others counts 1 / (t + 1)."""
    return sum(comb(mine, votes) * _at_most(votes, others, silent, k - votes) for votes in range(1, min(mine, k) + 1))


def _at_most(votes: int, others: Sequence[int], silent: int, size: int) -> float:
    """Ways to choose `size` of the other samples with no answer more than `votes` times; if t answers have exactly so
    many, a way is weighted 1 / (t + 1)."""
    # Answers that cannot tie restrict nothing, so they form one pool with the samples that do not vote.
    free = silent + sum(count for count in others if count < votes)
    ways_TS = np.zeros((1, size + 1))
    ways_TS[0] = [comb(free, s) for s in range(size + 1)]
    for count in (count for count in others if count >= votes):
        grown_TS = np.zeros((len(ways_TS) + 1, size + 1))
        for chosen in range(min(votes, size) + 1):
            level = int(chosen == votes)
            grown_TS[level : len(ways_TS) + level, chosen:] += comb(count, chosen) * ways_TS[:, : size + 1 - chosen]
        ways_TS = grown_TS
    return float((ways_TS[:, size] / np.arange(1, len(ways_TS) + 1)).sum())


def vote_rows(records: Sequence[Record], attempts: int) -> dict[str, float]:
    """`pass@k_tA` and `maj@k_tA` of one problem's n conversations, for k = 2, 4, ... and n, and attempts 1, 2 and last.

    Conversations of which some attempt is unscored are left out; where fewer than k are left, k is their number, so
    that figures of all k are over the same problems. NaN where none is left.
    """
    n = len(records)
    ks = sorted({2**power for power in range(1, n.bit_length()) if 2**power <= n} | {n})
    rows: dict[str, float] = {}
    told = [standing(record["attempts"], attempts) for record in records]
    scored_N = [attempts_A for attempts_A in told if all(attempt["score"] is not None for attempt in attempts_A)]
    for a in sorted({0, min(1, attempts - 1), attempts - 1}):
        correct_N = [bool(mark(attempts_A[a])) for attempts_A in scored_N]
        answers_N = [attempts_A[a]["answer"] for attempts_A in scored_N]
        for k in ks:
            of = max(min(k, len(scored_N)), 1)
            rows[f"pass@{k}_t{a + 1}"] = pass_at_k(correct_N, of)
            rows[f"maj@{k}_t{a + 1}"] = maj_at_k(answers_N, correct_N, of)
    return rows
