"""The one writer of a run: every measurement of every step goes through here."""

import secrets
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from rlcore.recipe.schema import Track
from rlcore.track.alarms import ALARMS, HISTORY
from rlcore.track.console import open_console
from rlcore.track.jsonl import JsonlFile, cut_records
from rlcore.track.wandb_run import open_wandb
from rlcore.types import UserError


class Tracker:
    """Writes `metrics.jsonl` and `trajectories.jsonl` in the run's folder, the console and W&B.

    A metrics record is flat: `step`, `stage`, names like `train/t1`, and `alarm/NAME: 1.0` while an alarm lasts. Values
    that are not finite are written as null. `resume_step` is the last step of the checkpoint the run goes on from:
    later records are cut, so that the files are those of one uninterrupted run, and the W&B run keeps its id. With None
    the run starts afresh and its files with it (former ones are kept as `NAME.previous.jsonl`). A tracker that is not
    `enabled` (every rank but one) does nothing.

    Raises UserError where the folder cannot be written, at any time.
    """

    def __init__(
        self,
        folder: Path,
        section: Track,
        recipe_dict: Mapping[str, Any],
        *,
        run_name: str,
        resume_step: int | None,
        enabled: bool,
        total_steps: int,
    ) -> None:
        self.enabled = enabled
        self.run_id = ""
        if not enabled:
            return
        self.run_id = _run_id(folder, fresh=resume_step is None)
        kept = cut_records(folder / "metrics.jsonl", after_step=resume_step)
        cut_records(folder / "trajectories.jsonl", after_step=resume_step)
        self._metrics = JsonlFile(folder / "metrics.jsonl")
        self._trajectories = JsonlFile(folder / "trajectories.jsonl")
        self._history = deque[Mapping[str, Any]](kept, maxlen=HISTORY)
        self._sounding = {name for name in ALARMS if self._history and f"alarm/{name}" in self._history[-1]}
        self._console = open_console(total_steps, done=resume_step or 0)
        self._wandb = open_wandb(folder, section, recipe_dict, run_name, self.run_id, say=self._console.say)

    def log(self, step: int, stage: str, metrics: Mapping[str, float]) -> None:
        """Record the measurements of one step."""
        if not self.enabled:
            return
        record = {"step": step, "stage": stage, **metrics}
        self._history.append(record)
        record |= {f"alarm/{name}": 1.0 for name in self._sound_alarms()}
        self._metrics.write(record)
        self._console.show(step, stage, metrics)
        if self._wandb:
            self._wandb.log({"trainer/step": step, **{key: record[key] for key in record if key != "step"}})

    def trajectories(self, step: int, stage: str, records: Sequence[Mapping[str, Any]]) -> None:
        """Record trajectories to look at (see `evaluate.measure.trajectory_record`)."""
        if not self.enabled:
            return
        for record in records:
            self._trajectories.write({**record, "step": step, "stage": stage})

    def say(self, text: str) -> None:
        """Print a line that stays."""
        if self.enabled:
            self._console.say(text)

    @contextmanager
    def progress(self, description: str, total: int) -> Iterator[Callable[[int], None]]:
        """Shows the progress of a side task; what it yields is told of each part done."""
        if not self.enabled:
            yield lambda done: None
            return
        with self._console.progress(description, total) as advance:
            yield advance

    def close(self, *, failed: bool = False) -> None:
        """Finish all outputs; a run that `failed` is marked so in W&B."""
        if not self.enabled:
            return
        self._console.close()
        self._metrics.close()
        self._trajectories.close()
        if self._wandb:
            self._wandb.finish(exit_code=int(failed))

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(failed=kind is not None)

    def _sound_alarms(self) -> set[str]:
        messages = {name: alarm(self._history) for name, alarm in ALARMS.items()}
        sounding = {name for name, message in messages.items() if message}
        for name in sorted(sounding - self._sounding):
            self._console.say(f"alarm {name}: {messages[name]}")
        self._sounding = sounding
        return sounding


def _run_id(folder: Path, *, fresh: bool) -> str:
    path = folder / "run_id"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if fresh or not path.exists():
            path.write_text(secrets.token_hex(4))
        return path.read_text().strip()
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None
