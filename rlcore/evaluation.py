"""Evaluating a recipe's model, alone or inside a run."""

from dataclasses import replace
from pathlib import Path

from rlcore.evaluate.results import Results, save_evaluation
from rlcore.evaluate.run import evaluate_policy
from rlcore.learner import Ranks, start_distributed
from rlcore.recipe import Recipe, dump_recipe
from rlcore.setup import Setup
from rlcore.track import Tracker
from rlcore.types import UserError

BASE = "evaluation_base"
"""The evaluation of the policy that a run starts from, whatever the run's own arm."""


def evaluate(recipe: Recipe) -> Results:
    """Measures the recipe's model on its held-out problems and writes `evaluation.json` into the recipe's output."""
    if recipe.evaluate is None:
        raise UserError(f"recipe {recipe.name} has no evaluate section to say what to measure on")
    ranks = start_distributed(recipe.device)
    setup = Setup(recipe, ranks)
    try:
        with open_tracker(recipe, ranks, resume_step=None) as tracker:
            results = evaluate_and_save(
                recipe, setup, ranks, tracker, problems=recipe.evaluate.problems, step=0, name="evaluation"
            )
            tracker.log(0, "evaluation", {k: v for part in results.evaluations for k, v in part.values.items()})
            return results
    finally:
        setup.close()


def evaluate_and_save(
    recipe: Recipe, setup: Setup, ranks: Ranks, tracker: Tracker, *, problems: int, step: int, name: str
) -> Results:
    """Evaluates on the first `problems` held-out problems, under a progress bar, and writes `NAME.json`."""
    held_out = setup.held_out[:problems]
    with tracker.progress(name.replace("_", " "), 2 * len(held_out[ranks.rank :: ranks.world])) as advance:
        results = evaluate_policy(recipe, setup.held_out_rollout, held_out, ranks, step=step, on_problems=advance)
    if name == BASE:
        results = replace(results, arm="base")
    if ranks.first:
        save_evaluation(Path(recipe.output) / f"{name}.json", results)
    tracker.evaluated(results)
    return results


def open_tracker(recipe: Recipe, ranks: Ranks, *, resume_step: int | None, run_id: str = "") -> Tracker:
    """The tracker of a run in its folder, where the resolved recipe is written first."""
    folder = Path(recipe.output)
    if ranks.first:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "recipe.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
        except OSError as error:
            raise UserError(f"the run's folder {folder} cannot be written: {error.strerror}") from None
    return Tracker(
        folder,
        recipe.track,
        recipe.model_dump(mode="json"),
        run_name=recipe.name,
        resume_step=resume_step,
        run_id=run_id,
        enabled=ranks.first,
        total_steps=recipe.steps,
    )
