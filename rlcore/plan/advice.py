"""Changes to a recipe until it fits: settings tried one on top of the other, the most costly in time last."""

from dataclasses import dataclass

from rlcore.plan.lengths import longest_conversation
from rlcore.plan.memory import memory_parts, peak
from rlcore.plan.shapes import Shapes
from rlcore.recipe import Recipe
from rlcore.recipe.load import with_overrides

KV_MEMORIES = (32, 16, 8, 4, 2, 1)
"""GiB."""


@dataclass(frozen=True, slots=True)
class Change:
    """An override, and the peak of memory with it and those before it."""

    override: str
    peak: int
    fits: bool


def changes_until_it_fits(recipe: Recipe, shapes: Shapes, ranks: int, memory: int, reserved: int = 0) -> list[Change]:
    """The changes that each lower the peak, up to the one with which the recipe fits; none if it fits as it is.

    `ranks` learn, on devices of `memory` bytes, of which `reserved` are left free.
    """
    room = memory - reserved

    def needed(tried: Recipe) -> int:
        return peak(memory_parts(tried, shapes, ranks, memory))

    changes: list[Change] = []
    now = needed(recipe)
    for override in _candidates(recipe, ranks, shapes):
        if now <= room:
            break
        changed = with_overrides(recipe, [override])
        then = needed(changed)
        if then < now:
            recipe, now = changed, then
            changes.append(Change(override, now, now <= room))
    return changes


def _candidates(recipe: Recipe, ranks: int, shapes: Shapes) -> list[str]:
    learner, rollout, tried = recipe.learner, recipe.rollout, list[str]()
    caches = [f"rollout.kv_memory={gib}" for gib in KV_MEMORIES] if rollout.entry.weights == "learner" else []
    longest = longest_conversation(recipe)
    if learner.micro_batch_tokens > longest:
        tried.append(f"learner.micro_batch_tokens={longest}")
    if recipe.adapt and recipe.adapt.together > 1:
        tried.append("adapt.together=1")
    if rollout.entry.weights == "device" and not rollout.vllm.sleep_level:
        tried.append("rollout.vllm.sleep_level=2")
    stages = [stage for stage in (2, 3) if stage > learner.zero and ranks > 1]
    tried += [f"learner.zero={stage}" for stage in stages]
    if not learner.activation_checkpointing:
        tried.append("learner.activation_checkpointing=true")
    for size in (2, 4, 8):
        if size > learner.sequence_parallel and ranks % size == 0 and shapes.heads % size == 0:
            tried.append(f"learner.sequence_parallel={size}")
    if max(learner.zero, *stages, 0):
        offload = ",".join(dict.fromkeys([*learner.offload, "optimizer"]))
        tried.append(f"learner.offload=[{offload}]")
    # Again at the end: a change for the learner may have made the sampler the fuller phase.
    return [*caches, *tried, *caches]
