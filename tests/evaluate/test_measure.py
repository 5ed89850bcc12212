"""Rows and records from trajectories."""

import numpy as np
import pytest

from rewards import Verdict
from rlcore.evaluate.measure import final_answer, trajectory_record, trajectory_rows
from rlcore.recipe.schema import Conversation
from rlcore.types import Problem, Trajectory, Turn


def _trajectory(texts: list[str], scores: list[float | None], finish="stop") -> Trajectory:
    problem = Problem("p1", ({"role": "user", "content": "2 + 2?"},))
    turns = tuple(Turn((1,), tuple(map(ord, text)), (0.0,) * len(text), finish, text, 0) for text in texts)
    return Trajectory(problem, turns, tuple(Verdict(s, "correct" if s else "wrong") for s in scores))


def test_rows_of_trajectories():
    rows = trajectory_rows(
        [
            _trajectory(["5", "4"], [0.0, 1.0]),
            _trajectory(["4", "4"], [1.0, 1.0], finish="length"),
            _trajectory(["4", "abc"], [1.0, None]),
        ],
        Conversation(),
    )
    assert rows["i_to_c"].tolist()[:2] == [1.0, 0.0]
    assert np.isnan(rows["delta"][2])
    assert rows["unscored"].tolist() == [0.0, 0.0, 1.0]
    assert rows["answer_change"].tolist() == [1.0, 0.0, 1.0]
    assert rows["edit_ratio"].tolist() == [0.5, 0.0, 0.75]
    assert rows["truncated_t2"].tolist() == [0.0, 1.0, 0.0]
    assert rows["tokens_t2"].tolist() == [1.0, 1.0, 3.0]


def test_a_single_attempt_has_no_change_to_measure():
    rows = trajectory_rows([_trajectory(["4"], [1.0])], Conversation(attempts=1))
    assert "answer_change" not in rows
    assert rows["delta"].tolist() == [0.0]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{1} no, \boxed{\frac{1}{x^{2}}}.", r"\frac{1}{x^{2}}"),
        ("long way\n#### 1 234\n", "1234"),
        ("B and C\n", "bandc"),
        (r"\boxed{unclosed", r"\boxed{unclosed"),
        ("", ""),
    ],
)
def test_the_answer_an_attempt_settles_on(text: str, answer: str):
    assert final_answer(text) == answer


def test_hostile_boxes_end_quickly():
    assert final_answer(r"\boxed{" * 2000 + "{" * 2000).startswith(r"\boxed{")


def test_the_record_of_a_trajectory():
    assert trajectory_record(_trajectory(["5", "4"], [0.0, 1.0]), step=3, stage="II") == {
        "step": 3,
        "stage": "II",
        "problem_id": "p1",
        "messages": [{"role": "user", "content": "2 + 2?"}],
        "attempts": [
            {"text": "5", "score": 0.0, "status": "wrong", "finish": "stop", "tokens": 1},
            {"text": "4", "score": 1.0, "status": "correct", "finish": "stop", "tokens": 1},
        ],
        "between": [],
        "flip": "i→c",
    }
