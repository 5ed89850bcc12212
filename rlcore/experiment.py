"""A recipe from its beginning to its end: the recipe it comes after, then supervised rounds, stages, or neither."""

from pathlib import Path

import torch

from rlcore.evaluate.results import Results
from rlcore.evaluation import evaluate
from rlcore.recipe import Recipe, load_recipe

BEFORE = "before"
"""Where in its folder a run keeps the run that it comes after."""


def run_experiment(recipe: Recipe) -> Results | None:
    """Runs what a recipe says; what was finished before is not done again.

    Returns the evaluation at the end; None for a recipe without one, or when the run was asked to stop.
    """
    if recipe.after:
        folder = Path(recipe.output) / BEFORE
        if not (folder / "final").is_dir():
            first = load_recipe(recipe.after, [f"seed={recipe.seed}", f"device={recipe.device}"])
            run_experiment(first.model_copy(update={"output": str(folder)}))
            torch.distributed.barrier()  # one rank writes the policy that all of them load
        if not (folder / "final").is_dir():
            return None  # it was asked to stop
        model = recipe.model.model_copy(update={"path": str(folder / "final"), "scratch": None})
        recipe = recipe.model_copy(update={"model": model})
    if recipe.sft:
        from rlcore.sft.fine_tune import fine_tune  # TRL takes seconds to import

        return fine_tune(recipe)
    if not recipe.stages:
        return evaluate(recipe)
    from rlcore.train import train

    return train(recipe)
