"""The one writer of a run: every measurement of every step goes through here."""

import secrets
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from rlcore.evaluate.results import Results
from rlcore.files import JsonlFile, Record, cut_records, writing
from rlcore.recipe.schema import TrackConfig
from rlcore.track.alarms import ALARMS, HISTORY
from rlcore.track.console import open_console
from rlcore.track.dashboard import EVAL, TRAINER, Dashboard, open_tensorboard


class Tracker:
    """Writes `metrics.jsonl` and `trajectories.jsonl` in the run's folder, the console, W&B and TensorBoard.

    A metrics record is flat: `step`, `stage`, names like `train/t1`, and `alarm/NAME: 1.0` while an alarm lasts. Values
    that are not finite are written as null. `resume_step` is the last step of the checkpoint the run resumes from:
    later records are cut, so that the files are those of one uninterrupted run, and the W&B run keeps its id: `run_id`,
    which a checkpoint remembers, or the folder's. With None the run starts afresh and its files with it (former ones
    are kept as `NAME.previous.jsonl`). A tracker that is not `enabled` (every rank but one) does nothing.

    Raises UserError where the folder cannot be written, at any time.
    """

    def __init__(
        self,
        folder: Path,
        section: TrackConfig,
        recipe_dict: Mapping[str, Any],
        *,
        run_name: str,
        resume_step: int | None,
        enabled: bool,
        total_steps: int,
        run_id: str = "",
    ) -> None:
        self.enabled = enabled
        self.run_id = ""
        if not enabled:
            return
        self.run_id = _run_id(folder, fresh=resume_step is None, known=run_id)
        kept = cut_records(folder / "metrics.jsonl", after_step=resume_step)
        cut_records(folder / "trajectories.jsonl", after_step=resume_step)
        self._metrics = JsonlFile(folder / "metrics.jsonl")
        self._trajectories = JsonlFile(folder / "trajectories.jsonl")
        self._history = deque[Mapping[str, Any]](kept, maxlen=HISTORY)
        self._sounding = {name for name in ALARMS if self._history and f"alarm/{name}" in self._history[-1]}
        self._console = open_console(total_steps, done=resume_step or 0)
        opened: list[Dashboard | None] = [open_tensorboard(folder, section, resume_step)]
        if section.wandb != "off":
            from rlcore.track.wandb_run import open_wandb  # wandb takes a second to import

            opened.append(open_wandb(folder, section, recipe_dict, run_name, self.run_id, say=self._console.say))
        self._dashboards = [dashboard for dashboard in opened if dashboard]
        self._every = section.every
        self._unshown: list[Record] = []

    def log(self, step: int, stage: str, metrics: Mapping[str, float]) -> None:
        """Record the measurements of one step."""
        if not self.enabled:
            return
        record: Record = {"step": step, "stage": stage, **metrics}
        self._history.append(record)
        record |= {f"alarm/{name}": 1.0 for name in self._sound_alarms(step)}
        self._metrics.write(record)
        self._console.show(step, stage, metrics)
        trained = {name: value for name, value in record.items() if "/" in name and not name.startswith("eval/")}
        if trained:
            for dashboard in self._dashboards:
                dashboard.log(TRAINER, step, {"stage": stage, **trained})

    def trajectories(self, step: int, stage: str, records: Sequence[Mapping[str, Any]]) -> None:
        """Record trajectories to look at (see `evaluate.measure.trajectory_record`)."""
        if not self.enabled:
            return
        placed = [{**record, "step": step, "stage": stage} for record in records]
        for record in placed:
            self._trajectories.write(record)
        if not self._dashboards or not self._every:
            return
        self._unshown += placed
        if self.details_due(step) and self._unshown:
            for dashboard in self._dashboards:
                dashboard.table(TRAINER, step, "train/trajectories", self._unshown)
            self._unshown = []

    def details_due(self, step: int) -> bool:
        """Whether dashboards want histograms and trajectories of this step."""
        return self.enabled and bool(self._dashboards and self._every) and step % self._every == 0

    def distributions(self, step: int, values: Mapping[str, np.ndarray]) -> None:
        """Show histograms of this step's trajectories on the dashboards; values that are not finite are left out."""
        finite = {name: values_N[np.isfinite(values_N)] for name, values_N in values.items()}
        shown = {f"train/histogram/{name}": values_N for name, values_N in finite.items() if len(values_N)}
        for dashboard in self._dashboards if self.enabled else ():
            dashboard.log(TRAINER, step, shown)

    def evaluated(self, results: Results) -> None:
        """Show an evaluation on the dashboards: its figures, histograms and examples, on the axis of evaluations."""
        if not self.enabled:
            return
        values: dict[str, float | str | np.ndarray] = {}
        for evaluation in results.evaluations:
            values |= evaluation.values
        for name, counted in results.histograms.items():
            edges, counts = np.array(counted["edges"]), np.array(counted["counts"], dtype=int)
            if counts.sum():
                values[f"eval/histogram/{name}"] = np.repeat((edges[:-1] + edges[1:]) / 2, counts)
        for dashboard in self._dashboards:
            dashboard.log(EVAL, results.step, values)
            if results.examples:
                dashboard.table(EVAL, results.step, "eval/trajectories", [dict(e) for e in results.examples])

    def say(self, text: str) -> None:
        """Print a line that stays."""
        if self.enabled:
            self._console.say(text)

    def progress(self, description: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        """Shows the progress of a side task; call what it yields with each part done."""
        return self._console.progress(description, total) if self.enabled else nullcontext(lambda done: None)

    def close(self, *, failed: bool = False) -> None:
        """Finish all outputs; a run that `failed` is marked so in W&B."""
        if not self.enabled:
            return
        self._console.close()
        self._metrics.close()
        self._trajectories.close()
        for dashboard in self._dashboards:
            dashboard.close(failed=failed)

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self.close(failed=kind is not None)

    def _sound_alarms(self, step: int) -> set[str]:
        messages = {name: alarm(self._history) for name, alarm in ALARMS.items()}
        sounding = {name for name, message in messages.items() if message}
        for name in sorted(sounding - self._sounding):
            self._console.say(f"alarm {name}: {messages[name]}")
            for dashboard in self._dashboards:
                dashboard.alert(step, name, str(messages[name]))
        self._sounding = sounding
        return sounding


def _run_id(folder: Path, *, fresh: bool, known: str) -> str:
    path = folder / "run_id"
    with writing(path):
        folder.mkdir(parents=True, exist_ok=True)
        if known or fresh or not path.exists():
            path.write_text(known or secrets.token_hex(4))
        return path.read_text().strip()
