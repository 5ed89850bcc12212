"""Grids of colours, as ARC has them: rows of digits from 0 to 9, in an answer one line a row."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rewards.reward import Completion, text_of
from rewards.verdict import Verdict

Grid = list[list[int]]

_ROW = re.compile(r"\d( \d)*")
_MARKS = str.maketrans("[],", "   ")


def grid_reward(completions: Sequence[Completion], output: Sequence[Grid]) -> list[float | None]:
    """1 where the last grid of the completion is `output`, cell by cell, else 0."""
    return [verdict.score for verdict in grid_verdicts(completions, output)]


def grid_verdicts(completions: Sequence[Completion], output: Sequence[Grid]) -> list[Verdict]:
    """The verdicts behind `grid_reward`."""
    return [_judge(text_of(completion), gold) for completion, gold in zip(completions, output, strict=True)]


grid_reward.verdicts = grid_verdicts  # type: ignore[attr-defined]


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
