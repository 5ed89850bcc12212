"""Checkpoints of a run: whole or not there at all, the newest two kept."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch

from rlcore.learner.distributed import Ranks
from rlcore.learner.learner import Learner
from rlcore.types import UserError

LEARNER, STATE = "learner", "state.json"
KEEP = 2


class Checkpoints:
    """The folders `step-000050` below `folder`; each becomes visible only once everything in it is written."""

    def __init__(self, folder: Path, ranks: Ranks):
        self.folder = folder
        self._ranks = ranks

    def newest(self) -> Path | None:
        """The latest whole checkpoint."""
        whole = sorted(path.parent for path in self.folder.glob(f"step-*/{STATE}"))
        return whole[-1] if whole else None

    def state(self, checkpoint: Path) -> dict[str, Any]:
        """The trainer's own state in a checkpoint. Raises UserError when it cannot be read."""
        try:
            return json.loads((checkpoint / STATE).read_text())
        except (OSError, ValueError) as error:
            raise UserError(f"checkpoint {checkpoint} cannot be read: {error}; remove it for the one before") from None

    def save(self, step: int, learner: Learner, state: dict[str, Any]) -> None:
        """Writes a checkpoint beside the others, then renames it into place and removes the oldest.

        Raises UserError when it cannot be written; the earlier ones are then as they were.
        """
        final = self.folder / f"step-{step:06d}"
        partial = self.folder / f"partial-{step:06d}"
        try:
            if self._ranks.first:
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir(parents=True)
            self._wait()
            learner.save(partial / LEARNER)
            self._wait()
            if self._ranks.first:
                (partial / STATE).write_text(json.dumps(state))
                shutil.rmtree(final, ignore_errors=True)
                os.replace(partial, final)
                for old in sorted(self.folder.glob("step-*"))[:-KEEP]:
                    shutil.rmtree(old)
            self._wait()
        except (OSError, RuntimeError) as error:
            shutil.rmtree(partial, ignore_errors=True)
            reason, good = " ".join(str(error).split())[:200], self.newest() or "none"
            raise UserError(
                f"checkpoint of step {step} cannot be written to {self.folder}: {reason}; the last good one is {good}"
            ) from None

    def _wait(self) -> None:
        if self._ranks.world > 1:
            torch.distributed.barrier()
