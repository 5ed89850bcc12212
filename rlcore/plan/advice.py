"""Changes to a recipe until it fits: settings tried one on top of the other, the most costly in time last."""

import math
from dataclasses import dataclass

from pydantic import ValidationError

from rlcore.plan.lengths import longest_conversation
from rlcore.plan.memory import host_bytes, memory_parts, peak
from rlcore.plan.shapes import Shapes
from rlcore.recipe import Recipe
from rlcore.recipe.load import with_overrides

KV_MEMORIES = (32, 16, 8, 4, 2, 1)
"""GiB."""


@dataclass(frozen=True, slots=True)
class Change:
    """An override, the device's peak with it and those before it, and whether the recipe then fits device and host."""

    override: str
    peak: int
    fits: bool


def changes_until_it_fits(
    recipe: Recipe, shapes: Shapes, ranks: int, memory: int, reserved: int = 0, host: float = math.inf
) -> list[Change]:
    """The changes that help, up to the one with which the recipe fits; none if it fits as it is.

    `ranks` learn, on devices of `memory` bytes, of which `reserved` are left free, with `host` bytes of the host's
    memory for each. A change helps if it lowers what device or host lack, and raises neither.
    """
    room = memory - reserved

    def needed(tried: Recipe) -> tuple[int, float, float]:
        parts = memory_parts(tried, shapes, ranks, memory)
        return peak(parts), max(0, peak(parts) - room), max(0, host_bytes(parts) - host)

    changes: list[Change] = []
    _, *lacking = needed(recipe)
    for override in _candidates(recipe, ranks, shapes):
        if not any(lacking):
            break
        # The optimizer goes to the host only in ZeRO's partition.
        first = ["learner.zero=1"] if override.startswith("learner.offload=") and not recipe.learner.zero else []
        tried, steps = recipe, list[Change]()
        try:
            for each in [*first, override]:
                tried = with_overrides(tried, [each])
                most, *then = needed(tried)
                steps.append(Change(each, most, not any(then)))
        except ValidationError:  # settings of the recipe that do not go together
            continue
        if then != lacking and all(new <= old for new, old in zip(then, lacking, strict=True)):
            recipe, lacking = tried, then
            changes += steps
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
        keys = shapes.key_heads
        divided = shapes.heads % size == 0 and (keys % size == 0 or size % keys == 0)
        if size > learner.sequence_parallel and ranks % size == 0 and divided:
            tried.append(f"learner.sequence_parallel={size}")
    if max(learner.zero, *stages, 0):
        offload = ",".join(dict.fromkeys([*learner.offload, "optimizer"]))
        tried.append(f"learner.offload=[{offload}]")
    # Again at the end: a change for the learner may have made the sampler the fuller phase.
    return [*caches, *tried, *caches]
