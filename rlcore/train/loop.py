"""The training loop, as the story of a step. On many GPUs: `torchrun ... -m rlcore train RECIPE [key=value ...]`."""

from functools import partial
from pathlib import Path

from rlcore import credit
from rlcore.evaluate.results import Results
from rlcore.files import holding
from rlcore.ranks import own_first, start_distributed
from rlcore.recipe import Recipe
from rlcore.train.run import Run
from rlcore.train.step_metrics import Clock, check_scored, reward_counts, step_metrics


def train(recipe: Recipe, base: Results | None = None) -> Results | None:
    """Runs a recipe's stages to their end, from its newest checkpoint if there is one.

    `base` is the evaluation of the policy before the first step, if it is known. Returns the evaluation at the end;
    None for a recipe without one, or when asked to stop. Raises UserError for mistakes in the recipe.
    """
    ranks = start_distributed(recipe.device, recipe.learner.deadline)
    with holding(Path(recipe.output), ranks.first), Run(recipe, ranks) as run:
        run.measure_base(base)
        collector = run.collector()
        for step, stage in run.steps():
            clock = Clock(step)
            clock.start("rollout")
            with run.interrupt.stoppable():
                collected = collector.collect(step, stage)
            check_scored(collected.measured, recipe.rewards.max_failed, ranks)
            clock.start("credit")
            batch = credit.assign(collected.groups, stage, recipe.credit, partial(own_first, ranks=ranks), version=step)
            clock.start("learner")
            run.rollout.engine.sleep()
            report = run.learner.update(batch)
            clock.start("publish")
            run.rollout.engine.publish(run.weights(), version=step + 1)
            clock.start("measure")
            metrics = step_metrics(collected.measured, recipe, report, clock, ranks, run.base_t1)
            metrics |= run.rollout.engine.metrics() | reward_counts(run.rollout.reward_counts(), ranks)
            run.record(stage, collected.groups, metrics)
        return run.finish()
    return None
