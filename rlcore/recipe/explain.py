"""What a recipe amounts to: its batch arithmetic, in lines a person can check."""

import math

from rlcore.errors import UserError
from rlcore.recipe.schema import Recipe


def batch_arithmetic(recipe: Recipe, ranks: int = 1) -> list[str]:
    """Problems x group x attempts, tokens, micro-batches and optimizer steps; token counts are upper bounds.

    Raises UserError when the problems of a step do not divide evenly over the ranks.
    """
    problems, group, replies = recipe.batch.problems, recipe.batch.group, recipe.conversation.replies
    trajectories = problems * group
    longest = recipe.conversation.max_prompt_tokens + replies * recipe.conversation.max_attempt_tokens
    words = "attempts" if replies == recipe.conversation.attempts else "replies"
    if problems % ranks:
        raise UserError(f"batch.problems {problems} does not divide evenly over {ranks} ranks")
    updates = recipe.learner.optimizer_steps
    stages, steps = " + ".join(f"{stage.name} {stage.steps:,}" for stage in recipe.stages) or "no stages", recipe.steps
    return [
        f"{problems} problems x {group} trajectories = {trajectories} trajectories a step, x {replies} {words} = "
        f"{trajectories * replies:,} {words}",
        f"up to {longest:,} tokens a trajectory ({recipe.conversation.max_prompt_tokens:,} of prompt + {replies} x "
        f"{recipe.conversation.max_attempt_tokens:,} sampled, beside the instruction) = up to "
        f"{trajectories * longest:,} tokens a step",
        _learner_line(recipe, ranks, trajectories, longest),
        f"{stages} = {steps:,} steps, {steps * updates:,} optimizer steps, {steps * trajectories:,} trajectories",
        _loss_line(recipe),
        *_sampling_lines(recipe),
    ]


def _learner_line(recipe: Recipe, ranks: int, trajectories: int, longest: int) -> str:
    """What each rank trains on, or each group of ranks that share sequences."""
    learner, many = recipe.learner, "s" * (ranks > 1)
    sharing, updates = learner.sequence_parallel, learner.optimizer_steps
    if ranks % sharing:
        raise UserError(f"learner.sequence_parallel {sharing} does not divide {ranks} rank{many}")
    each = f", {sharing} on each sequence" if sharing > 1 else ""
    local, tokens = trajectories * sharing // ranks, learner.micro_batch_tokens * sharing
    minibatch, rows = math.ceil(local / learner.minibatches), max(1, tokens // longest)
    return (
        f"{ranks} rank{many}{each}: {local} trajectories each, {updates} optimizer step{'s' * (updates > 1)} a step on "
        f"{minibatch} of them, at most {math.ceil(minibatch / rows)} micro-batches of {tokens:,} tokens each"
    )


def _loss_line(recipe: Recipe) -> str:
    """The loss, what its ratio compares with, and the forward passes that this and the KL term cost."""
    learner = recipe.learning
    if learner.old_logprobs == "sampler" or (learner.old_logprobs == "auto" and recipe.exact_sampler):
        old = "the sampler's"
    else:
        old = f"the learner's ({'a pass of their own' if learner.optimizer_steps > 1 else 'no pass: on policy'})"
    held = " and ".join(stage.name for stage in recipe.stages if any(stage.kl))
    return (
        f"loss {learner.loss}: {learner.surrogate} surrogate, ratio per {learner.ratio}, clip {list(learner.clip)}, "
        f"average {learner.average}; old log-probabilities: {old}; reference pass: {f'in {held}' if held else 'none'}"
    )


def _sampling_lines(recipe: Recipe) -> list[str]:
    """What a step samples beside one attempt after the other, where the recipe asks for it."""
    batch, lines = recipe.batch, []
    if batch.ahead:
        lines.append(f"ahead: a step is sampled up to {batch.ahead} updates early; no token is more updates old")
    firsts = batch.group // batch.branches
    if batch.branches > 1:
        lines.append(f"trees: {firsts} first attempts a problem, {batch.branches} trajectories go on from each")
    for stage in recipe.stages:
        if stage.base_first:
            offline = recipe.offline_first_attempts(stage)
            lines.append(f"{stage.name}: {offline} of {firsts} first attempts are the starting policy's, not trained")
    if batch.resample:
        most = batch.problems * (1 + batch.resample)
        lines.append(f"dead groups: up to {batch.resample} rounds of other problems, at most {most:,} groups a step")
    return lines
