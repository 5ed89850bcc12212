"""What must hold between the sections of a recipe: rows that each say what is wrong with a recipe that breaks them."""

from collections.abc import Callable, Iterator
from typing import Any

from rlcore.entries import BASELINES, KINDS


def broken_rules(recipe: Any) -> Iterator[str]:
    """What is wrong with a `rlcore.recipe.Recipe`, a line for each rule that it breaks."""
    for rule in RULES:
        yield from rule(recipe)


def _stages(recipe: Any) -> Iterator[str]:
    attempts = recipe.conversation.attempts
    for stage in recipe.stages:
        for key in ("reward", "kl"):
            if len(getattr(stage, key)) != attempts:
                yield f"stage {stage.name}: {key} needs {attempts} values, one for each attempt"
        reviews = KINDS[recipe.conversation.kind].reviews and recipe.credit.unit == "attempt"
        if stage.trains == "critiques" and not reviews:
            yield f"stage {stage.name}: trains critiques needs conversation.kind critique, and credit.unit attempt"


def _offline_first_attempts(recipe: Any) -> Iterator[str]:
    firsts = recipe.batch.group // recipe.batch.branches
    for stage in recipe.stages:
        if not stage.base_first:
            continue
        share = f"stage {stage.name}: base_first {stage.base_first:g} of {firsts} first attempts is"
        offline = recipe.offline_first_attempts(stage)
        if not offline:
            yield f"{share} none"
        if offline == firsts:
            yield f"{share} all of them: none of the policy's own would be left to measure it by"
        if _credits_whole_conversations(recipe):
            yield f"stage {stage.name}: base_first needs a second attempt, and credit.unit attempt"


def _adapts(recipe: Any) -> Iterator[str]:
    if recipe.adapt and (recipe.stages or recipe.sft):
        yield "adapt answers held-out problems by the policy as it is: take no sft, and stages: []"


def _engine(recipe: Any) -> Iterator[str]:
    rollout, model = recipe.rollout, recipe.model
    if rollout.entry.weights == "learner" and model.attention.startswith("flash"):
        yield f"model.attention {model.attention} needs a rollout.engine with weights of its own, such as vllm"
    if recipe.adapters_apart and rollout.mode == "servers" and rollout.vllm.transfer != "files":
        yield "rollout.vllm.transfer: adapters travel by files; nccl and ipc need vllm.merge_adapters"
    if model.lora and model.lora.quantize != "none" and recipe.learner.zero == 3:
        yield "model.lora.quantize needs learner.zero 2 or less: quantised weights are not split"


def _truncation(recipe: Any) -> Iterator[str]:
    """The learner scores a token among those kept under its own weights, which are to be the sampler's."""
    learner, truncated = recipe.learner, recipe.rollout.truncated
    if not (recipe.stages and truncated):
        return
    said = f"rollout.{' and '.join(truncated)}"
    if learner.optimizer_steps > 1:
        yield (
            f"{said}: which tokens are kept changes with the weights, so a batch takes one optimizer step, not "
            f"{learner.optimizer_steps}: set learner.minibatches and learner.epochs to 1, or keep all tokens"
        )
    if learner.old_logprobs == "sampler" and not recipe.exact_sampler:
        yield (
            f"{said}: learner.old_logprobs sampler needs a sampler that keeps exactly the learner's tokens (engine "
            "torch, float32): take learner.old_logprobs learner"
        )
    if learner.kl != "exact" and any(any(stage.kl) for stage in recipe.stages):
        yield (
            f"{said}: learner.kl {learner.kl} estimates the KL of all tokens from those sampled, which are only some: "
            "take learner.kl exact"
        )


def _ahead(recipe: Any) -> Iterator[str]:
    """Samples of earlier weights are right where what was drawn from is known, and the ratio to it bounded."""
    ahead, learner = recipe.batch.ahead, recipe.learning
    if not (recipe.stages and ahead):
        return
    if truncated := recipe.rollout.truncated:
        yield (
            f"batch.ahead {ahead} with rollout.{' and '.join(truncated)}: which tokens are kept changes with the "
            "weights: keep all tokens, or take batch.ahead 0"
        )
    if learner.old_logprobs == "learner" and learner.optimizer_steps == 1 and ahead > 1:
        yield (
            f"batch.ahead {ahead} with learner.old_logprobs learner and one optimizer step: no clip bounds how far the "
            "policy goes from what sampled, which diverges above 1: take learner.old_logprobs sampler, or batch.ahead 1"
        )
    if learner.surrogate == "reinforce" and learner.old_logprobs == "sampler":
        yield (
            f"batch.ahead {ahead} with learner.surrogate reinforce, which has no ratio: take learner.old_logprobs "
            "learner, whose learner.correction weighs what earlier weights sampled, or another surrogate"
        )


def _supervised_rounds(recipe: Any) -> Iterator[str]:
    sft, conversation = recipe.sft, recipe.conversation
    if not sft:
        return
    if recipe.stages:
        yield "sft stands in place of stages: give one of them, the other in a recipe named by after"
    if recipe.model.lora or recipe.learner.sequence_parallel > 1:
        yield "sft trains all weights, on whole sequences: no model.lora or learner.sequence_parallel"
    if recipe.model.dtype == "float16":
        yield "sft trains without a scaled loss, which float16 needs: model.dtype bfloat16 or float32"
    if sft.rows != "column" and (conversation.kind, conversation.attempts) != ("correct", 2):
        yield f"sft.rows {sft.rows} needs conversations of two attempts, of kind correct"


def _baseline(recipe: Any) -> Iterator[str]:
    name, kind = recipe.credit.baseline, recipe.conversation.kind
    baseline = BASELINES[name]
    if recipe.batch.group == 1 and baseline.compares:
        yield f"batch.group is 1, but the {name} baseline compares a group's trajectories"
    elif recipe.stages and recipe.batch.problems * recipe.batch.group == 1 and name != "none":
        yield f"batch.problems and batch.group are 1, but the {name} baseline compares a step's trajectories"
    if recipe.stages and recipe.batch.group == 1 and recipe.credit.scale == "group":
        yield "batch.group is 1, so credit.scale group would make every advantage 0: take none or batch"
    if recipe.stages and KINDS[kind].may_end and baseline.biased_by_stops:
        yield (
            f"credit.baseline {name} is biased where the policy ends conversations (conversation.kind {kind}): it "
            "shrinks a turn's advantages by how few reach it; take leave_one_out, outcome or batch_outcome"
        )
    if recipe.batch.resample and not baseline.within_group:
        within = [other for other in BASELINES.registered if BASELINES[other].within_group]
        yield (
            f"batch.resample with credit.baseline {name} biases the gradient: the dead groups that it replaces have "
            f"advantages; take {', '.join(within[:-1])} or {within[-1]}"
        )


def _discount(recipe: Any) -> Iterator[str]:
    discount = recipe.credit.discount
    if discount and recipe.credit.unit == "trajectory":
        yield (
            f"credit.discount {discount:g} with credit.unit trajectory, whose sum counts later attempts already: take "
            "credit.unit attempt, or credit.discount 0"
        )


def _best_of(recipe: Any) -> Iterator[str]:
    best_of, group = recipe.credit.best_of, recipe.batch.group
    if best_of == 1:
        return
    if best_of >= group:
        yield f"credit.best_of {best_of} needs a batch.group above it, not {group}: all would be paid alike"
    if recipe.credit.unit == "trajectory":
        yield "credit.best_of pays each turn: credit.unit attempt"


def _branches(recipe: Any) -> Iterator[str]:
    branches, baseline = recipe.batch.branches, recipe.credit.baseline
    if recipe.batch.group % branches:
        yield f"batch.branches {branches} does not divide batch.group {recipe.batch.group}"
    if branches > 1 and _credits_whole_conversations(recipe):
        yield "batch.branches needs a second attempt, and credit.unit attempt"
    if branches == 1 and BASELINES[baseline].needs_branches:
        yield f"credit.baseline {baseline} compares trajectories of one first attempt: batch.branches above 1"
    if branches > 1 and recipe.learner.correction.level == "trajectory":
        yield "learner.correction.level trajectory needs first attempts of its own: batch.branches 1"


def _minibatches(recipe: Any) -> Iterator[str]:
    trajectories, minibatches = recipe.batch.problems * recipe.batch.group, recipe.learner.minibatches
    if trajectories < minibatches:
        yield f"learner.minibatches {minibatches} is more than {trajectories} trajectories"


def _credits_whole_conversations(recipe: Any) -> bool:
    """Whether no later attempt has credit of its own."""
    return recipe.credit.unit == "trajectory" or recipe.conversation.attempts == 1


RULES: tuple[Callable[[Any], Iterator[str]], ...] = (
    _stages,
    _offline_first_attempts,
    _adapts,
    _engine,
    _truncation,
    _ahead,
    _supervised_rounds,
    _baseline,
    _discount,
    _best_of,
    _branches,
    _minibatches,
)
