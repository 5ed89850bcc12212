"""Grids in answers: which lines are read, and what is right."""

import pytest

from rewards import score
from rewards.grids import read_grid, write_grid


@pytest.mark.parametrize(
    ("text", "grid"),
    [
        ("1 2\n3 4", [[1, 2], [3, 4]]),
        ("The rule turns it:\n1 2\n3 4\n\nOutput:\n5 6\n7 8\n", [[5, 6], [7, 8]]),
        ("[[1, 2],\n [3, 4]]", [[1, 2], [3, 4]]),
        ("1 2\n3", None),
        ("12\n34", None),
        ("1 2\n3 4\n\nThat is all.", [[1, 2], [3, 4]]),
        ("```\n1 2\n3 4\n```", [[1, 2], [3, 4]]),
        ("The output is [[1, 2], [3, 4]].\n[[5, 6], [7, 8]]", [[5, 6], [7, 8]]),
        ("1 2\n3 4\n\n5 6\n7", None),
        ("", None),
    ],
)
def test_the_last_block_of_digits_is_the_answer(text, grid):
    assert read_grid(text) == grid


def test_a_grid_is_right_cell_by_cell_and_equal_answers_are_one():
    gold = [[1, 2], [3, 4]]
    texts = ["1 2\n3 4", "so:\n[1, 2]\n[3, 4]", "1 2\n4 3", "no idea"]
    verdicts = score("grid", texts, output=[gold] * 4)
    assert [v.status for v in verdicts] == ["correct", "correct", "wrong", "no_answer"]
    assert [v.answer for v in verdicts] == [write_grid(gold)] * 2 + ["1 2\n4 3", None]
