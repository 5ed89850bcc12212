"""The run on TensorBoard: event files in the run's folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rlcore.errors import UserError
from rlcore.files import Record
from rlcore.recipe.schema import TrackConfig
from rlcore.track.dashboard import Values, table_rows

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


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
        lines = [columns, ["---"] * len(columns), *rows]
        self._writer.add_text(name, "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines), step)

    def alert(self, step: int, name: str, message: str) -> None:
        self._writer.add_text(f"alarm/{name}", message, step)

    def close(self, *, failed: bool) -> None:
        self._writer.close()


def open_tensorboard(folder: Path, section: TrackConfig, resume_step: int | None) -> TensorBoard | None:
    """Event files in `folder/tensorboard`, what lies after `resume_step` hidden; None where the recipe asks for none.

    Raises UserError where the package is missing.
    """
    if not section.tensorboard:
        return None
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ModuleNotFoundError:
        raise UserError("track.tensorboard needs the package tensorboard: pip install 'rlcore[tensorboard]'") from None
    purge = None if resume_step is None else resume_step + 1
    return TensorBoard(SummaryWriter(str(folder / "tensorboard"), purge_step=purge))


def _cell(value: object) -> str:
    return "" if value is None else str(value).replace("|", "\\|").replace("\n", "<br>")
