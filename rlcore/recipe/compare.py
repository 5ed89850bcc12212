"""What a run may change of its recipe when it resumes, and what it may not."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlcore.errors import UserError
from rlcore.recipe.load import load_recipe, saved_recipe
from rlcore.recipe.schema import Recipe

FIXED_KEYS = (
    "seed",
    "model",
    "data",
    "batch.problems",
    "conversation.kind",
    "conversation.attempts",
    "learner.kl",
    "after",
    "sft",
)
"""What saved state depends on: the order of problems, the parameters and their reference, and what was learned before.
Everything else may change when a run resumes: it holds from the next step on."""
SILENT_KEYS = ("output", "device", "track")
"""Changes that no figure depends on, so nobody needs to be told of them."""
SPEED = {
    "zero",
    "offload",
    "activation_checkpointing",
    "sequence_parallel",
    "fused_kernels",
    "micro_batch_tokens",
    "max_skipped",
    "deadline",
}
"""Keys of the learner that its weights do not depend on, but for rounding."""
MACHINE_KEYS = (
    *SILENT_KEYS,
    *(f"learner.{key}" for key in SPEED),
    *(f"rollout.{key}" for key in ("slots", "kv_memory", "vllm")),
    *(f"rewards.{key}" for key in ("workers", "deadline", "max_failed")),
    "checkpoint",
    "evaluate",
)
"""What a policy that was trained does not depend on, but for rounding."""


def recipe_changes(folder: Path, saved: Mapping[str, Any], recipe: Recipe, step: int = 0) -> dict[str, list[Any]]:
    """What `recipe` changes of `saved`, the recipe of the run in `folder`: `[before, now]` by dotted key.

    Raises UserError where the run, which has done `step` steps, cannot resume under the change.
    """
    former = saved_recipe(saved, folder)
    changes = differences(former.model_dump(mode="json"), recipe.model_dump(mode="json"))
    fixed = [key for key in changes if _below(key, FIXED_KEYS)]
    if _schedule(former)[:step] != _schedule(recipe)[:step]:
        fixed.append("stages")
    if fixed:
        verb = "differs" if len(fixed) == 1 else "differ"
        raise UserError(
            f"{folder} holds a run of another recipe ({', '.join(fixed[:3])} {verb}): give another output, or "
            "remove the folder"
        )
    return {key: change for key, change in changes.items() if not _below(key, SILENT_KEYS)}


def check_unchanged(folder: Path, recipe: Recipe) -> None:
    """Raises UserError where the finished run in `folder`, which is not run again, was of another recipe."""
    saved = load_recipe(folder / "recipe.yaml")
    changes = differences(saved.model_dump(mode="json"), recipe.model_dump(mode="json"))
    for key, (before, now) in changes.items():
        if not _below(key, MACHINE_KEYS):
            raise UserError(
                f"after: {folder} was trained with {key} {before}, not {now}: restore it, or remove the folder to "
                "train again"
            )


def _schedule(recipe: Recipe) -> list[str]:
    """The stage of each step."""
    return [stage.name for stage in recipe.stages for _ in range(stage.steps)]


def _below(key: str, sections: tuple[str, ...]) -> bool:
    return any(f"{key}.".startswith(f"{section}.") for section in sections)


def differences(saved: Any, mine: Any, at: str = "") -> dict[str, list[Any]]:
    """Both values, the saved one first, of each dotted key in which nested dicts, or lists of as many dicts, differ.

    Paths to one place are the same however they are written.
    """
    lists = isinstance(saved, list) and isinstance(mine, list) and len(saved) == len(mine)
    if lists and all(isinstance(one, dict) for one in (*saved, *mine)):
        saved, mine = dict(enumerate(saved)), dict(enumerate(mine))
    if isinstance(saved, dict) and isinstance(mine, dict):
        found: dict[str, list[Any]] = {}
        for key in [*saved, *(key for key in mine if key not in saved)]:
            found |= differences(saved.get(key), mine.get(key), f"{at}.{key}" if at else key)
        return found
    return {} if saved == mine or _same_place(saved, mine) else {at: [saved, mine]}


def _same_place(saved: Any, mine: Any) -> bool:
    texts = isinstance(saved, str) and isinstance(mine, str)
    return texts and "/" in (saved[:1], mine[:1]) and Path(saved).resolve() == Path(mine).resolve()
