"""Dashboards: their interface to a tracker, what they share, and TensorBoard, event files in the run's folder."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from rlcore.errors import UserError
from rlcore.files import Record
from rlcore.recipe.schema import TrackConfig

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

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


class TensorBoard:
    """Event files. Both axes are TensorBoard's one step: evaluations have names of their own."""

    def __init__(self, writer: "SummaryWriter") -> None:
        self._writer = writer

    def log(self, axis: str, step: int, values: Values) -> None:
        for name, value in values.items():
            if isinstance(value, np.ndarray):
                self._writer.add_histogram(name, value, step)
            elif not isinstance(value, str):
                self._writer.add_scalar(name, value, step)

    def table(self, axis: str, step: int, name: str, records: Sequence[Record]) -> None:
        columns, rows = table_rows(records)
        lines = [columns, ["---"] * len(columns), *([_cell(value) for value in row] for row in rows)]
        self._writer.add_text(name, "\n".join(f"| {' | '.join(line)} |" for line in lines), step)

    def alert(self, step: int, name: str, message: str) -> None:
        self._writer.add_text(f"alarm/{name}", message, step)

    def close(self, *, failed: bool) -> None:
        self._writer.close()


def open_tensorboard(folder: Path, section: TrackConfig, resume_step: int | None) -> TensorBoard | None:
    """Event files in `folder/tensorboard`, what lies after `resume_step` hidden; None where the recipe asks for none.

    Raises UserError as `check_tensorboard` does.
    """
    if not section.tensorboard:
        return None
    check_tensorboard()
    from torch.utils.tensorboard import SummaryWriter

    purge = None if resume_step is None else resume_step + 1
    return TensorBoard(SummaryWriter(str(folder / "tensorboard"), purge_step=purge))


def check_tensorboard() -> None:
    """Raises UserError where the package is missing."""
    if find_spec("tensorboard") is None:
        raise UserError("track.tensorboard needs the package tensorboard: pip install 'rlcore[tensorboard]'")


def _cell(value: object) -> str:
    return "" if value is None else str(value).replace("|", "\\|").replace("\n", "<br>")
