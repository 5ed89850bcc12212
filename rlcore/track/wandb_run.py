"""The run on Weights & Biases: online, or in the run's folder until it is synchronised."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # read at import: else wandb reports to its maker, offline too

import wandb

from rlcore.recipe.schema import Track


def open_wandb(
    folder: Path, section: Track, recipe: Mapping[str, Any], name: str, run_id: str, *, say: Callable[[str], None]
) -> "wandb.Run | None":
    """Start or go on with the W&B run `run_id`; None where the recipe switches it off.

    `auto` is online where an API key is known and offline elsewhere, also where W&B cannot be reached: a dashboard must
    not keep a run from training. `say` is given the line that tells how to synchronise an offline run.
    """
    if section.wandb == "off":
        return None
    wandb.setup(wandb.Settings(silent=True))
    if section.wandb == "auto":
        try:
            if wandb.login(prompt=False, verify=False):
                return _start(folder, section, recipe, name, run_id, "online")
        except wandb.Error as error:
            wandb.teardown()  # else the id stays taken by the run that did not start
            say(f"W&B cannot be reached, so the run is kept offline: {' '.join(str(error).split())}")
    run = _start(folder, section, recipe, name, run_id, "offline")
    say(f"W&B is offline; to see the run there: wandb sync {run.settings.sync_dir}")
    return run


def _start(folder: Path, section: Track, recipe: Mapping[str, Any], name: str, run_id: str, mode: Any) -> "wandb.Run":
    run = wandb.init(
        project=section.project,
        name=name,
        id=run_id,
        dir=str(folder),
        config=dict(recipe),
        mode=mode,
        resume="allow",
        settings=wandb.Settings(silent=True, console="off"),
    )
    run.define_metric("trainer/step")
    run.define_metric("*", step_metric="trainer/step")
    return run
