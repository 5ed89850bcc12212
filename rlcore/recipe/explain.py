"""What a recipe amounts to: its batch arithmetic, in lines a person can check."""

import math

from rlcore.recipe.schema import Recipe
from rlcore.types import UserError


def batch_arithmetic(recipe: Recipe, ranks: int = 1) -> list[str]:
    """Problems x group x attempts, tokens, micro-batches and optimizer steps; token counts are upper bounds.

    Raises UserError when the problems of a step do not divide evenly over the ranks.
    """
    problems, group, attempts = recipe.batch.problems, recipe.batch.group, recipe.conversation.attempts
    trajectories = problems * group
    longest = recipe.conversation.max_prompt_tokens + attempts * recipe.conversation.max_attempt_tokens
    if problems % ranks:
        raise UserError(f"batch.problems {problems} does not divide evenly over {ranks} ranks")
    local = trajectories // ranks
    minibatch = math.ceil(local / recipe.learner.minibatches)
    rows = max(1, recipe.learner.micro_batch_tokens // longest)
    stages, steps = " + ".join(f"{stage.name} {stage.steps:,}" for stage in recipe.stages) or "no stages", recipe.steps
    return [
        f"{problems} problems x {group} trajectories = {trajectories} trajectories a step, x {attempts} attempts = "
        f"{trajectories * attempts:,} attempts",
        f"up to {longest:,} tokens a trajectory ({recipe.conversation.max_prompt_tokens:,} of prompt + {attempts} x "
        f"{recipe.conversation.max_attempt_tokens:,} sampled, beside the instruction) = up to "
        f"{trajectories * longest:,} tokens a step",
        f"{ranks} rank{'s' * (ranks > 1)}: {local} trajectories each, {recipe.learner.minibatches} optimizer "
        f"step{'s' * (recipe.learner.minibatches > 1)} a step on {minibatch} of them, at most "
        f"{math.ceil(minibatch / rows)} micro-batches of {recipe.learner.micro_batch_tokens:,} tokens each",
        f"{stages} = {steps:,} steps, {steps * recipe.learner.minibatches:,} optimizer steps, "
        f"{steps * trajectories:,} trajectories",
    ]
