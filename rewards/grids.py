"""Grids of colours, as ARC has them: rows of digits from 0 to 9, in an answer one line a row."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from rewards.reward import Completion, scored, text_of
from rewards.verdict import Verdict

Grid = list[list[int]]

_ROW = re.compile(r"\d( \d)*")
_NEXT_ROW = re.compile(r"\]\s*,\s*\[")
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
    grid: Grid = []
    ended = True
    for line in _NEXT_ROW.sub("\n", text).splitlines():
        cells = " ".join(line.translate(_MARKS).split())
        if not _ROW.fullmatch(cells):
            ended = True
            continue
        if ended:
            grid, ended = [], False
        grid.append([int(cell) for cell in cells.split()])
    return grid if len({len(row) for row in grid}) == 1 else None


def is_grid(value: Any) -> bool:
    """Whether a value is rows of digits, equally many in each."""
    rows = value if isinstance(value, list) else []
    whole = all(isinstance(row, list) and all(cell in range(10) for cell in row) for row in rows)
    return whole and len({len(row) for row in rows}) == 1


def write_grid(grid: Grid) -> str:
    """A line a row, a space between cells."""
    return "\n".join(" ".join(map(str, row)) for row in grid)
