"""Grids of colours, as ARC has them: rows of digits from 0 to 9, in an answer one line a row."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rewards.reward import Completion, scored, text_of
from rewards.verdict import Verdict

Grid = list[list[int]]

_ROW = re.compile(r"\d( \d)*")
_MARKS = str.maketrans("[],", "   ")


@scored
def grid_reward(completions: Sequence[Completion], output: Sequence[Grid]) -> list[Verdict]:
    """1 where the last grid of the completion is `output`, cell by cell, else 0."""
    return [_judge(text_of(completion), gold) for completion, gold in zip(completions, output, strict=True)]


def _judge(text: str, gold: Grid) -> Verdict:
    grid = read_grid(text)
    if grid is None:
        return Verdict(0.0, "no_answer", "no lines of digits that are equally long")
    right = grid == gold
    return Verdict(float(right), "correct" if right else "wrong", answer=write_grid(grid))


def read_grid(text: str) -> Grid | None:
    """The last lines in a row that hold digits alone, brackets and commas aside; None for rows of unequal lengths."""
    rows: Grid = []
    for line in text.rstrip().splitlines():
        cells = " ".join(line.translate(_MARKS).split())
        if _ROW.fullmatch(cells):
            rows.append([int(cell) for cell in cells.split()])
        elif cells or rows:
            rows = []
    return rows if rows and len({len(row) for row in rows}) == 1 else None


def write_grid(grid: Grid) -> str:
    """A line a row, a space between cells."""
    return "\n".join(" ".join(map(str, row)) for row in grid)
