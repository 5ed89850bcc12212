"""Evaluating a recipe's model, alone or inside a run."""

import hashlib
from dataclasses import replace
from pathlib import Path

from rlcore.data import load_problems
from rlcore.evaluate.journal import Journal
from rlcore.evaluate.results import Results, save_evaluation
from rlcore.evaluate.run import evaluate_policy, modes_of
from rlcore.interrupt import Interrupt, Stopped
from rlcore.learner import Ranks, start_distributed
from rlcore.recipe import Recipe, dump_recipe
from rlcore.rollout import Scorer
from rlcore.rollout.endpoint import Endpoint, EndpointRollout
from rlcore.setup import Setup
from rlcore.track import Tracker
from rlcore.types import UserError

BASE = "evaluation_base"
"""The evaluation of the policy that a run starts from, whatever the run's own arm."""
LATEST = "evaluation_latest"
"""The last evaluation while training: on fewer problems, one conversation each."""


def evaluate(recipe: Recipe) -> Results | None:
    """Measures the recipe's model, or that behind `evaluate.endpoint`, on the held-out problems, and writes a report.

    In the recipe's output: `evaluation.json`, `report.html` and what belongs to it, and the attempts as they come, so
    that the same command goes on where it was stopped. Returns None when it was asked to stop. Raises UserError, before
    anything is changed, where the output holds another evaluation.
    """
    if recipe.evaluate is None:
        raise UserError(f"recipe {recipe.name} has no evaluate section to say what to measure on")
    ranks = start_distributed(recipe.device)
    folder = Path(recipe.output)
    journal = Journal(folder / f"attempts-{ranks.rank}.jsonl", _identity(recipe, ranks))
    setup = ServedSetup(recipe) if recipe.evaluate.endpoint else Setup(recipe, ranks)
    try:
        with open_tracker(recipe, ranks, resume_step=None) as tracker:
            if journal.begun:
                tracker.say(f"what {folder} holds of this evaluation is not sampled again; another output samples anew")
            problems = recipe.evaluate.problems
            try:
                with Interrupt(ranks) as interrupt, interrupt.nothing_to_save():
                    results = evaluate_and_save(
                        recipe, setup, ranks, tracker, problems=problems, step=0, journal=journal
                    )
            except Stopped:
                tracker.say(f"stopped; what is done is kept in {folder}, and the same command goes on from there")
                return None
            tracker.log(0, "evaluation", {k: v for part in results.evaluations for k, v in part.values.items()})
            if ranks.first:
                from rlcore.evaluate.report import write_report  # draws plots: matplotlib

                tracker.say(f"report: {write_report(folder, [folder])}")
            return results
    finally:
        setup.close()


def evaluate_and_save(
    recipe: Recipe,
    setup: "Setup | ServedSetup",
    ranks: Ranks,
    tracker: Tracker,
    *,
    problems: int,
    step: int,
    name: str = "evaluation",
    journal: Journal | None = None,
) -> Results:
    """Evaluates on the first `problems` held-out problems, under a progress bar, and writes `NAME.json`."""
    held_out, full = setup.held_out[:problems], name != LATEST
    mine = len(held_out[ranks.rank :: ranks.world])
    total = mine * sum(mode.samples for mode in modes_of(recipe, full=full))
    with tracker.progress(name.replace("_", " "), total) as advance:
        results = evaluate_policy(
            recipe,
            setup.held_out_rollout,
            held_out,
            ranks,
            step=step,
            full=full,
            journal=journal,
            on_conversations=advance,
        )
    if name == BASE:
        results = replace(results, arm="base")
    if ranks.first:
        save_evaluation(Path(recipe.output) / f"{name}.json", results)
    tracker.evaluated(results)
    return results


def _identity(recipe: Recipe, ranks: Ranks) -> str:
    """A digest of all that the attempts depend on: the recipe's part in them, the weights, and how ranks share them."""
    parts = recipe.model_dump(mode="json", include={"seed", "model", "rollout", "rewards", "evaluate", "conversation"})
    path = Path(recipe.model.path or "")
    files = sorted(path.glob("*")) if recipe.model.path and path.is_dir() else []
    weights = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file()]
    return hashlib.blake2b(repr((parts, weights, ranks.world)).encode(), digest_size=16).hexdigest()


class ServedSetup:
    """What an evaluation needs of a recipe when a server holds the model: held-out problems, and conversations."""

    def __init__(self, recipe: Recipe):
        assert recipe.evaluate is not None
        assert recipe.evaluate.endpoint is not None
        endpoint = Endpoint(recipe.evaluate.endpoint, recipe.model.path, recipe.rollout.deadline)
        self.held_out = load_problems(recipe.evaluate.data)[: recipe.evaluate.problems]
        self._scorer = Scorer(recipe.rewards)
        self.held_out_rollout = EndpointRollout(recipe, recipe.held_out_conversation, endpoint, self._scorer)

    def close(self) -> None:
        self._scorer.close()


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
