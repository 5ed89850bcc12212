"""Whether the run in a folder is of the same recipe."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlcore.errors import UserError
from rlcore.recipe.load import saved_recipe
from rlcore.recipe.schema import Recipe

FREE_KEYS = (
    "output",
    "track",
    "checkpoint",
    "device",
    "learner.zero",
    "learner.micro_batch_tokens",
    "learner.offload",
    "learner.activation_checkpointing",
    "learner.deepspeed",
    "learner.deadline",
    "learner.max_skipped",
)
"""What a run may change when it goes on: nothing that its figures depend on, but for the order of additions."""


def check_same_recipe(folder: Path, saved: Mapping[str, Any], recipe: Recipe) -> None:
    """Raises UserError when `saved`, the recipe of the run in `folder`, differs from `recipe` beyond free keys."""
    before = saved_recipe(saved, folder).model_dump(mode="json")
    different = [
        key
        for key in _differences(before, recipe.model_dump(mode="json"))
        if not any(f"{key}.".startswith(f"{free}.") for free in FREE_KEYS)
    ]
    if different:
        raise UserError(
            f"{folder} holds a run of another recipe ({', '.join(different[:3])} differ): give another output, or "
            "remove the folder"
        )


def _differences(saved: object, mine: object, at: str = "") -> list[str]:
    """Dotted keys whose values differ."""
    if isinstance(saved, dict) and isinstance(mine, dict):
        keys = [*saved, *(key for key in mine if key not in saved)]
        return [d for key in keys for d in _differences(saved.get(key), mine.get(key), f"{at}.{key}" if at else key)]
    return [] if saved == mine else [at]
