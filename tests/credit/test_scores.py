"""TTRL: scores from the votes of a group alone, worked by hand."""

from dataclasses import replace

import numpy as np

from rewards import Verdict
from rlcore.credit import assign, live_groups
from rlcore.credit.scores import by_majority
from rlcore.recipe.schema import CreditConfig, StageConfig
from rlcore.types import Problem, Trajectory, Turn

STAGE = StageConfig(name="ttrl", steps=1, reward=[1, 1])
LABELS = {"a": 0.0, "b": 1.0, "c": 0.0}


def told(*answers: str | None) -> Trajectory:
    """A trajectory of these answers, of which b is right; None is an attempt that says none."""
    turns = tuple(Turn((7,), (8,), (-0.1,), "stop", "", (0,)) for _ in answers)
    verdicts = [
        Verdict(0.0, "no_answer") if a is None else Verdict(LABELS[a], "correct" if a == "b" else "wrong", answer=a)
        for a in answers
    ]
    return Trajectory(Problem("p", ()), turns, tuple(verdicts))


def scores(*group: Trajectory) -> list[list[float | None]]:
    return [[verdict.score for verdict in t.verdicts] for t in by_majority([list(group)])[0]]


def test_attempts_are_paid_for_agreeing_with_their_group_right_or_wrong():
    """a is said four times of eight and is wrong: those who say it are paid, the right b is not."""
    assert scores(told("a", "b"), told("a", "a"), told("a", None), told("b", "c")) == [[1, 0], [1, 1], [1, 0], [0, 0]]
    assert scores(told("c", "b"), told("b", "c")) == [[1, 0], [0, 1]]  # level: the first
    assert scores(told(None, None)) == [[0, 0]]


def test_a_first_attempt_that_several_go_on_from_votes_once():
    def tree(first: str, *seconds: str) -> list[Trajectory]:
        made = [told(first, second) for second in seconds]
        return made[:1] + [replace(t, turns=(replace(t.turns[0], trained=False), t.turns[1])) for t in made[1:]]

    # b is said three times, a in one first attempt and in one second
    assert scores(*tree("a", "b", "b", "a"), *tree("c", "b", "c", "c")) == [
        *([0, 1], [0, 1], [0, 0]),
        *([0, 1], [0, 0], [0, 0]),
    ]


def test_labels_do_not_matter_and_what_failed_stays_out():
    group = [told("a", "b"), told("b", "b")]
    flipped = [
        Trajectory(t.problem, t.turns, tuple(Verdict(0.0, "wrong", answer=v.answer) for v in t.verdicts)) for t in group
    ]
    assert scores(*group) == scores(*flipped)
    failed = Trajectory(
        group[0].problem, group[0].turns, (Verdict(None, "timeout"), Verdict(1.0, "correct", answer="b"))
    )
    assert scores(failed, told("b", "b")) == [[None, 1], [1, 1]]


def test_advantages_are_those_of_the_votes():
    groups = [[told("a", "b"), told("a", "a"), told("b", "a")]]
    credit = CreditConfig(baseline="leave_one_out", scores="majority")
    batch = assign(groups, STAGE, credit)
    advantage_TT = batch.advantage_N[batch.loss_mask_N].reshape(3, 2)
    np.testing.assert_allclose(advantage_TT, [[0.5, -1], [0.5, 0.5], [-1, 0.5]])
    unanimous = [[told("a", "a"), told("a", "a")]]
    assert live_groups(groups, STAGE, credit).tolist() == [True]
    assert live_groups(unanimous, STAGE, credit).tolist() == [False]
