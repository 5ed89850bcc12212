"""A recipe with an `sft` section: supervised rounds on the policy's own corrections or on demonstrations."""

import math
from pathlib import Path
from random import Random

import yaml

from rlcore.data import ProblemOrder, rank_slice
from rlcore.evaluate.gather import gather_list
from rlcore.evaluate.results import Results, load_evaluation
from rlcore.evaluation import evaluate_and_save, open_tracker
from rlcore.learner import Ranks, start_distributed
from rlcore.measure_step import check_scored
from rlcore.policy import save_policy
from rlcore.recipe import Recipe
from rlcore.recipe.compare import check_same_recipe
from rlcore.recipe.schema import Sft
from rlcore.setup import Setup
from rlcore.sft.corrections import column_rows, sampled_rows
from rlcore.sft.trainer import Row, Schedule, train_supervised
from rlcore.track import Tracker
from rlcore.types import Groups, Problem, UserError


def fine_tune(recipe: Recipe) -> Results | None:
    """Runs the rounds, writes the policy to `final/` and evaluates it; a run that is finished is only read.

    Returns the evaluation, None for a recipe without one. Raises UserError where too few conversations are worth
    learning, or the folder holds a run of another recipe.
    """
    assert recipe.sft
    folder, done = Path(recipe.output), Path(recipe.output) / "evaluation.json"
    if (folder / "final").is_dir() and (done.exists() or recipe.evaluate is None):
        check_same_recipe(folder, yaml.safe_load((folder / "recipe.yaml").read_text()), recipe)
        return load_evaluation(done) if recipe.evaluate else None
    ranks = start_distributed(recipe.device)
    if recipe.sft.batch % ranks.world:
        raise UserError(f"sft.batch {recipe.sft.batch} does not divide evenly over {ranks.world} ranks")
    setup = Setup(recipe, ranks)
    try:
        with open_tracker(recipe, ranks, resume_step=None) as tracker:
            for number in range(recipe.sft.rounds):
                _round(recipe, recipe.sft, setup, ranks, tracker, number)
            if ranks.first:
                save_policy(setup.policy, folder / "final")
            if recipe.evaluate is None:
                return None
            return evaluate_and_save(
                recipe,
                setup,
                ranks,
                tracker,
                problems=recipe.evaluate.problems,
                step=recipe.sft.rounds,
                name="evaluation",
            )
    finally:
        setup.close()


def _round(recipe: Recipe, section: Sft, setup: Setup, ranks: Ranks, tracker: Tracker, number: int) -> None:
    """Collects rows, learns them and hands the new policy to the rollout engine."""
    order = ProblemOrder(setup.problems, recipe.seed)
    count = section.problems or len(setup.problems) // ranks.world * ranks.world
    problems = rank_slice(order.batch(number, count), ranks.rank, ranks.world)
    if section.rows == "column":
        conversations = len(problems)
        mine = list(column_rows(problems, setup.conversation, section.column))
    else:
        conversations = len(problems) * section.samples
        groups = _sample(recipe, section, setup, ranks, tracker, problems, number)
        mine = sampled_rows(groups, section, Random(f"{recipe.seed} {number} {ranks.rank}"))
    rows = gather_list(mine, ranks)
    if len(rows) < section.batch:
        raise UserError(
            f"sft: round {number + 1} found {len(rows)} conversations to learn among {conversations * ranks.world}, "
            f"fewer than sft.batch {section.batch}; sample more (sft.problems, sft.samples) or lower sft.batch"
        )
    setup.rollout.engine.sleep()
    loss = _learn(recipe, section, setup, ranks, tracker, rows)
    setup.rollout.engine.publish(setup.policy.model.named_parameters(), version=number + 1)
    kept = len(rows) / (conversations * ranks.world)
    tracker.say(f"round {number + 1}: {len(rows):,} rows ({100 * kept:.1f} % of the conversations), loss {loss:.4f}")
    tracker.log(number + 1, section.rows, {"sft/rows": len(rows), "sft/kept": kept, "sft/loss": loss})


def _sample(
    recipe: Recipe, section: Sft, setup: Setup, ranks: Ranks, tracker: Tracker, problems: list[Problem], number: int
) -> Groups:
    """Scored conversations on the problems, as many at once as the engine has slots."""
    groups: Groups = []
    part = max(1, recipe.rollout.slots // section.samples)
    with tracker.progress(f"sampling for round {number + 1}", len(problems) * section.samples) as advance:
        for start in range(0, len(problems), part):
            groups += setup.rollout.attempts(
                problems[start : start + part],
                group=section.samples,
                temperature=recipe.rollout.temperature,
                draw=("sft", number, start, ranks.rank),
            )
            advance(section.samples * len(problems[start : start + part]))
    check_scored(groups, recipe.rewards.max_failed)
    return groups


def _learn(recipe: Recipe, section: Sft, setup: Setup, ranks: Ranks, tracker: Tracker, rows: list[Row]) -> float:
    """The mean loss of the epochs over the rows, so many at once as `learner.micro_batch_tokens` hold."""
    steps = math.ceil(section.epochs * len(rows) / section.batch)
    learner, share = recipe.learner, section.batch // ranks.world
    fitting = learner.micro_batch_tokens // max(len(row["input_ids"]) for row in rows)
    at_once = max(divisor for divisor in range(1, share + 1) if share % divisor == 0 and divisor <= max(1, fitting))
    schedule = Schedule(steps, section.batch, learner.lr, min(learner.warmup_steps, steps // 2), learner.decay)
    with tracker.progress(f"learning {len(rows):,} rows", steps) as advance:
        return train_supervised(
            setup.policy,
            rows,
            schedule,
            Path(recipe.output),
            seed=recipe.seed,
            world=ranks.world,
            rows_at_once=at_once,
            on_step=advance,
        )
