"""What attempts are scored by in training: the rewards, or what can be said of a group without any label."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from rewards import Verdict
from rlcore.credit.votes import most_frequent
from rlcore.types import Groups, Trajectory, Turn


def by_rewards(groups: Groups) -> Groups:
    """The verdicts of the rewards, as they are."""
    return groups


def by_majority(groups: Groups) -> Groups:
    """1 for an attempt whose answer is the most frequent one of all attempts in its group, else 0: TTRL.

    Zuo et al. 2025 (arXiv 2504.16084), section 2.2. Of the rewards' verdicts only the answers are read. Of answers
    that are level the first of the group is taken; attempts without an answer score 0. A first attempt that several
    trajectories continue is one vote.
    """
    return [_by_majority(group) for group in groups]


def _by_majority(group: Sequence[Trajectory]) -> list[Trajectory]:
    majority = most_frequent(list(_votes(group)))
    return [replace(t, verdicts=tuple(_agreement(verdict, majority) for verdict in t.verdicts)) for t in group]


def _votes(group: Sequence[Trajectory]) -> Iterator[str | None]:
    before: Turn | None = None
    for trajectory in group:
        first = trajectory.turns[0]
        shared = before is not None and first == replace(before, trained=False) and first.role == "attempt"
        yield from (verdict.answer for verdict in trajectory.verdicts[int(shared) :])
        before = first


def _agreement(verdict: Verdict, majority: Sequence[str]) -> Verdict:
    if verdict.answer is None:  # nothing to count; what could not be judged at all stays out of the loss
        return verdict if verdict.score is None else replace(verdict, score=0.0, status="no_answer")
    agrees = verdict.answer in majority
    return replace(verdict, score=float(agrees), status="correct" if agrees else "wrong")
