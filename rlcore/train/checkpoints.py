"""Checkpoints of a run: whole or absent, verified by a manifest of hashes, and pruned by the recipe's rules."""

import json
import os
import re
import shutil
from collections.abc import Callable
from itertools import chain, count
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError

from rlcore.errors import UserError, one_line
from rlcore.files import damage, move_into_place, seal_files, write_manifest
from rlcore.learner.learner import Learner
from rlcore.ranks import Ranks, all_gather
from rlcore.recipe.schema import CheckpointConfig
from rlcore.train.random_state import random_state, restore_random_state

LEARNER, STATE = "learner", "state.json"
STEP = re.compile(r"step-(\d{6,})")
"""The name of a checkpoint. A copy beside it (`step-000050.bak`) does not count."""
Result = TypeVar("Result")


class Checkpoints:
    """The folders `step-000050` and so on below `folder`, which all ranks see.

    Each appears only once everything in it is on the disk. All ranks call every method together, except `steps`.
    """

    def __init__(self, folder: Path, section: CheckpointConfig, ranks: Ranks):
        self.folder = folder
        self._section = section
        self._ranks = ranks

    def steps(self) -> list[int]:
        """Steps of the checkpoints, whole or not, in order."""
        return list(saved_checkpoints(self.folder))

    def oldest(self) -> int:
        """The oldest step from which a run may resume if newer checkpoints are damaged; 0 without checkpoints."""
        return min(self.steps()[-self._section.keep_last :], default=0)

    def newest(self) -> tuple[Path | None, list[str]]:
        """The latest whole checkpoint, and a line about each damaged one after it, which is set aside.

        Raises UserError if all are damaged.
        """
        found: Path | None = None
        notes: list[str] = []
        if self._ranks.first:
            for step in reversed(self.steps()):
                path = self._path(step)
                reason = damage(path)
                if reason is None:
                    found = path
                    break
                os.replace(path, aside := _free(path.with_name(f"damaged-{path.name}")))
                notes.append(f"checkpoint {path.name} is damaged ({reason}): set aside as {aside.name}")
        found, notes = all_gather((found, notes), self._ranks)[0]
        if notes and not found:
            raise UserError(
                f"{self.folder} holds no whole checkpoint: {notes[0]}; remove the run's folder to start anew"
            )
        return found, notes

    def load(self, checkpoint: Path, learner: Learner) -> None:
        """Restores the learner and the random number generators."""
        learner.load(checkpoint / LEARNER)
        path = checkpoint / _random_file(self._ranks.rank)
        if path.exists():  # there is none for a rank that the run did not have then
            restore_random_state(json.loads(path.read_text()))

    def load_best(self, step: int, learner: Learner) -> None:
        """Loads the checkpoint of the best step. Raises UserError if it is damaged."""
        path = self._path(step)
        reason = all_gather(damage(path) if self._ranks.first else None, self._ranks)[0]
        if reason:
            raise UserError(f"{path}, which has the highest reward, is damaged ({reason}): take checkpoint.final last")
        self.load(path, learner)

    def save(self, step: int, learner: Learner, state: dict[str, Any], best: int | None) -> list[str]:
        """Writes a checkpoint beside the others, renames it into place, and removes those that no rule keeps.

        `best` is the step with the highest reward. Returns a line about each that cannot be removed. Raises UserError
        on all ranks if any cannot write; the earlier checkpoints then remain.
        """
        partial = self.folder / f"partial-{step:06d}"
        self._write(step, lambda: self._prepare(partial))
        parts = self._write(step, lambda: seal_files(partial, self._write_part(partial, learner)))

        def finish() -> None:
            if self._ranks.first:
                (partial / STATE).write_text(json.dumps(state))
                entries = {name: entry for part in parts for name, entry in part.items()}
                write_manifest(partial, entries | seal_files(partial, [partial / STATE]))
                move_into_place(partial, self._path(step))

        self._write(step, finish)
        return self._prune(step, best) if self._ranks.first else []

    def _prepare(self, partial: Path) -> None:
        if self._ranks.first:
            shutil.rmtree(partial, ignore_errors=True)
            (partial / LEARNER).mkdir(parents=True)

    def _write_part(self, partial: Path, learner: Learner) -> list[Path]:
        random_file = partial / _random_file(self._ranks.rank)
        random_file.write_text(json.dumps(random_state()))
        return [*learner.save(partial / LEARNER), random_file]

    def _write(self, step: int, part: Callable[[], Result]) -> list[Result]:
        """Runs a part of saving on every rank; returns the results of all."""
        result, failure = None, ""
        try:
            result = part()
        except (OSError, SafetensorError) as error:
            failure = one_line(error)[:200]
        outcomes = all_gather((result, failure), self._ranks)
        failures = [failure for _, failure in outcomes if failure]
        if failures:
            if self._ranks.first:
                shutil.rmtree(self.folder / f"partial-{step:06d}", ignore_errors=True)
            steps = self.steps()
            raise UserError(
                f"checkpoint of step {step} cannot be written to {self.folder}: {failures[0]}; the last good one is "
                f"{self._path(steps[-1]) if steps else 'none'}"
            )
        return [result for result, _ in outcomes]  # type: ignore[misc]

    def _prune(self, newest: int, best: int | None) -> list[str]:
        section, steps = self._section, self.steps()
        kept = {newest, *steps[-section.keep_last :]}
        kept |= {step for step in steps if section.keep_every and step % section.keep_every == 0}
        if section.keep_best and best is not None:
            kept.add(best)
        notes = []
        for path in (self._path(step) for step in steps if step not in kept):
            try:
                shutil.rmtree(path)
            except OSError as error:
                notes.append(f"checkpoint {path.name}, which no rule keeps, cannot be removed: {one_line(error)}")
        return notes

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:06d}"


def saved_checkpoints(folder: Path) -> dict[int, Path]:
    """The checkpoints in a folder by step, whole or not, in order."""
    found = {int(name[1]): path for path in folder.glob("step-*") if (name := STEP.fullmatch(path.name))}
    return dict(sorted(found.items()))


def read_state(checkpoint: Path) -> dict[str, Any]:
    """The run's own state in a checkpoint."""
    return json.loads((checkpoint / STATE).read_text())


def _free(path: Path) -> Path:
    """The first of `path`, `PATH-2`, `PATH-3` and so on that does not exist."""
    numbered = (path.with_name(f"{path.name}-{number}") for number in count(2))
    return next(place for place in chain([path], numbered) if not place.exists())


def _random_file(rank: int) -> str:
    return f"random-{rank:05d}.json"
