"""Rows and records from trajectories."""

from dataclasses import replace

import numpy as np

from rewards import Verdict
from rlcore.evaluate.measure import trajectory_record, trajectory_rows
from rlcore.recipe.schema import ConversationConfig
from rlcore.types import Problem, Trajectory, Turn

SECTION = ConversationConfig()


def _trajectory(texts: list[str], scores: list[float | None], finish="stop") -> Trajectory:
    problem = Problem("p1", ({"role": "user", "content": "2 + 2?"},))
    turns = tuple(
        Turn((1,), tuple(map(ord, text)), (0.0,) * len(text), finish, text, (0,) * len(text)) for text in texts
    )
    return Trajectory(problem, turns, tuple(Verdict(s, "correct" if s else "wrong") for s in scores))


def test_rows_of_trajectories():
    rows = trajectory_rows(
        [
            _trajectory(["5", "4"], [0.0, 1.0]),
            _trajectory(["4", "4"], [1.0, 1.0], finish="length"),
            _trajectory(["4", "abc"], [1.0, None]),
        ],
        ConversationConfig(),
    )
    assert rows["i_to_c"].tolist()[:2] == [1.0, 0.0]
    assert np.isnan(rows["delta"][2])
    assert rows["unscored"].tolist() == [0.0, 0.0, 1.0]
    assert rows["answer_change"].tolist() == [1.0, 0.0, 1.0]
    assert rows["edit_ratio"].tolist() == [0.5, 0.0, 0.75]
    assert rows["truncated_t2"].tolist() == [0.0, 1.0, 0.0]
    assert rows["tokens_t2"].tolist() == [1.0, 1.0, 3.0]


def test_a_single_attempt_has_no_change_to_measure():
    rows = trajectory_rows([_trajectory(["4"], [1.0])], ConversationConfig(attempts=1))
    assert "answer_change" not in rows
    assert rows["delta"].tolist() == [0.0]


def test_answers_that_the_reward_reads_are_compared_and_whole_texts_where_it_reads_none():
    read = _trajectory(["so 1/2", "it is 0.5"], [1.0, 1.0])
    read = replace(read, verdicts=tuple(replace(v, answer="1/2") for v in read.verdicts))
    rows = trajectory_rows(
        [read, _trajectory(["B and  C", "b and c\n"], [0, 0]), _trajectory(["a", "b"], [0, 0])], SECTION
    )
    assert rows["answer_change"].tolist() == [0.0, 0.0, 1.0]


def test_conversations_that_end_early_keep_their_last_answer():
    rows = trajectory_rows(
        [_trajectory(["4"], [1.0]), _trajectory(["5", "6", "4"], [0.0, 0.0, 1.0])],
        ConversationConfig(kind="stop", attempts=3),
    )
    assert [rows[name].tolist() for name in ("t1", "t2", "t3")] == [[1, 0], [1, 0], [1, 1]]
    assert rows["attempts"].tolist() == [1, 3]
    assert rows["answer_change"].tolist() == [0, 1]
    np.testing.assert_equal(rows["tokens_t2"], [np.nan, 1])


def test_verdicts_of_the_policy_are_compared_with_the_rewards():
    right, wrong = (Turn((), (1,), (0.0,), "stop", "", (0,), "verdict", claim) for claim in (True, False))
    told = _trajectory(["5", "4"], [0.0, 1.0])
    first, second = told.turns
    told = replace(told, turns=(first, wrong, second, right))
    mistaken = replace(_trajectory(["5"], [0.0]), turns=(first, right))
    rows = trajectory_rows([told, mistaken, _trajectory(["4"], [1.0])], ConversationConfig(kind="verify"))
    np.testing.assert_equal(rows["verdict_right"], [1, 0, np.nan])
    assert [said["after"] for said in trajectory_record(told, step=0, stage="")["between"]] == [1, 2]


def test_levels_and_subjects_are_found_under_the_names_of_math():
    told = _trajectory(["4"], [1.0])
    math, math500 = ({"level": "Level 5", "type": "Algebra"}, {"level": 5, "subject": "Algebra"})
    records = [
        trajectory_record(replace(told, problem=replace(told.problem, columns=columns)), step=0, stage="")
        for columns in (math, math500)
    ]
    assert [record["parts"] for record in records] == [
        {"level": "Level 5", "subject": "Algebra"},
        {"level": "5", "subject": "Algebra"},
    ]


def test_the_record_of_a_trajectory():
    assert trajectory_record(_trajectory(["5", "4"], [0.0, 1.0]), step=3, stage="II") == {
        "step": 3,
        "stage": "II",
        "problem_id": "p1",
        "messages": [{"role": "user", "content": "2 + 2?"}],
        "attempts": [
            {"text": "5", "score": 0.0, "status": "wrong", "answer": None, "finish": "stop", "tokens": 1},
            {"text": "4", "score": 1.0, "status": "correct", "answer": None, "finish": "stop", "tokens": 1},
        ],
        "parts": {},
        "between": [],
        "flip": "i→c",
        "edit_ratio": 0.5,
    }
