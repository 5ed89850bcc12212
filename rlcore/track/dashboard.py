"""The interface of dashboards to a tracker, and what they share."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from rlcore.files import Record

TRAINER, EVAL = "trainer/step", "eval/step"
"""The two step axes: training measurements lie along the first, evaluations along the second."""

Values = Mapping[str, float | str | np.ndarray]
"""Measurements by name; an array is shown as a histogram, a text where the dashboard can."""


class Dashboard(Protocol):
    """Shows a run somewhere else than in its folder."""

    def log(self, axis: str, step: int, values: Values) -> None:
        """Shows measurements at a step of an axis."""

    def table(self, axis: str, step: int, name: str, records: Sequence[Record]) -> None:
        """Shows trajectories, as `evaluate.measure.trajectory_record` makes them, with all their attempts."""

    def alert(self, step: int, name: str, message: str) -> None:
        """Says that an alarm began to sound."""

    def close(self, *, failed: bool) -> None:
        """Finishes what is being sent."""


def table_rows(records: Sequence[Record]) -> tuple[list[Any], list[list[Any]]]:
    """Column names and rows of a table of trajectories: where, the question, every attempt with its score, the flip."""
    attempts = max((len(record["attempts"]) for record in records), default=0)
    numbered = [f"{name} {number}" for number in range(1, attempts + 1) for name in ("attempt", "score")]
    return ["step", "stage", "problem", "question", *numbered, "flip"], [_row(record, attempts) for record in records]


def _row(record: Record, attempts: int) -> list[Any]:
    question = record["messages"][-1]["content"] if record["messages"] else ""
    said = [value for attempt in record["attempts"] for value in (attempt["text"], attempt["score"])]
    padding = [None] * (2 * attempts - len(said))
    return [record["step"], record["stage"], record["problem_id"], question, *said, *padding, record["flip"] or "?"]
