"""The run on Weights & Biases: online, or in the run's folder until it is synchronised."""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # read at import: else wandb reports to its maker, offline too

import numpy as np
import wandb

from rlcore.errors import one_line
from rlcore.files import Record
from rlcore.recipe.schema import TrackConfig
from rlcore.track.dashboard import EVAL, TRAINER, Values, table_rows


class WandbRun:
    """One W&B run. Every measurement is declared with its axis before it is first logged."""

    def __init__(self, run: "wandb.Run") -> None:
        self._run = run
        self._declared: set[str] = set()
        for axis in (TRAINER, EVAL):
            run.define_metric(axis, hidden=True)

    def log(self, axis: str, step: int, values: Values) -> None:
        self._log(axis, step, {name: _shown(value) for name, value in values.items()})

    def table(self, axis: str, step: int, name: str, records: Sequence[Record]) -> None:
        columns, rows = table_rows(records)
        self._log(axis, step, {name: wandb.Table(columns=columns, data=rows)})

    def alert(self, step: int, name: str, message: str) -> None:
        self._run.alert(title=f"{name} at step {step}", text=message)

    def close(self, *, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))

    def _log(self, axis: str, step: int, row: dict[str, Any]) -> None:
        for name in row:
            if name not in self._declared:
                self._run.define_metric(name, step_metric=axis)
                self._declared.add(name)
        self._run.log({axis: step, **row})


def open_wandb(
    folder: Path, section: TrackConfig, recipe: Mapping[str, Any], name: str, run_id: str, *, say: Callable[[str], None]
) -> WandbRun:
    """Start or resume the W&B run `run_id`.

    `auto` is online where an API key is known and offline elsewhere, also where W&B cannot be reached: a dashboard must
    not keep a run from training. `say` is given the line that tells how to synchronise an offline run.
    """
    wandb.setup(wandb.Settings(silent=True))
    start = partial(
        wandb.init,
        project=section.project,
        name=name,
        id=run_id,
        dir=str(folder),
        config=dict(recipe),
        resume="allow",
        settings=wandb.Settings(silent=True, console="off"),
    )
    if section.wandb == "auto":
        try:
            if wandb.login(prompt=False, verify=False):
                return WandbRun(start(mode="online"))
        except wandb.Error as error:
            wandb.teardown()  # else the id stays taken by the run that did not start
            say(f"W&B cannot be reached, so the run is kept offline: {one_line(error)}")
    run = start(mode="offline")
    say(f"W&B is offline; to see the run there: wandb sync {run.settings.sync_dir}")
    return WandbRun(run)


def _shown(value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    return wandb.Histogram(np_histogram=np.histogram(value, bins=40))
