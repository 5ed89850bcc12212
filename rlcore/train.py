"""The training loop, as the story of a step. On many GPUs: `torchrun ... -m rlcore.train RECIPE [key=value ...]`."""

from functools import partial

from rlcore import credit
from rlcore.data import rank_slice
from rlcore.evaluate.gather import own_first
from rlcore.evaluate.results import Results
from rlcore.learner import start_distributed
from rlcore.measure_step import Clock, check_scored, step_metrics
from rlcore.recipe import Recipe
from rlcore.run import Run


def train(recipe: Recipe) -> Results | None:
    """Runs a recipe's stages to their end, from its newest checkpoint if there is one.

    Returns the evaluation at the end; None for a recipe without one, or when the run was asked to stop. Raises
    UserError, in one line, for what the recipe's author has to mend.
    """
    ranks = start_distributed(recipe.device)
    with Run(recipe, ranks) as run:
        run.measure_base()
        for step, stage in run.steps():
            clock = Clock()
            problems = rank_slice(run.order.batch(step, recipe.batch.problems), ranks.rank, ranks.world)
            groups = run.rollout.attempts(
                problems,
                group=recipe.batch.group,
                branches=recipe.batch.branches,
                temperature=recipe.rollout.temperature,
                draw=("train", step, ranks.rank),
            )
            check_scored(groups, recipe.rewards.max_failed)
            clock.lap("rollout")
            batch = credit.assign(groups, stage, recipe.credit, gather=partial(own_first, ranks=ranks))
            clock.lap("credit")
            run.rollout.engine.sleep()
            report = run.learner.update(batch)
            clock.lap("learner")
            run.rollout.engine.publish(run.learner.weights(), version=step + 1)
            clock.lap("publish")
            metrics = step_metrics(groups, recipe.conversation, report, clock, ranks, run.base_t1)
            run.record(stage, groups, metrics)
        return run.finish()


def main() -> None:
    """`python -m rlcore.train` is `rlcore train`."""
    import sys

    from rlcore.cli import main as command

    command(["train", *sys.argv[1:]])


if __name__ == "__main__":
    main()
