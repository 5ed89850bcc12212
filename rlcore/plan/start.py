"""Before a run: whether the least memory it takes is free on this machine."""

import math
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import try_to_load_from_cache

from rlcore.errors import UserError
from rlcore.machine import free_bytes
from rlcore.plan.advice import changes_until_it_fits
from rlcore.plan.lengths import longest_conversation
from rlcore.plan.memory import GIB, Part, dtype_bytes, kv_cache_bytes, memory_parts, peak, sampler_parts, weight_bytes
from rlcore.plan.shapes import MODELS, Shapes, recipe_shapes
from rlcore.recipe import Recipe
from rlcore.rollout.embedded.bands import MOST_WASTE

TIGHT = 0.8
"""More than this share of what is free is likely not to fit: other programs, and what is not counted, take some too."""


@dataclass(frozen=True, slots=True)
class Demand:
    """The least bytes that a run's fullest phase takes of each rank's device, and the bytes that are free."""

    device: str
    needed: int
    free: int
    remedy: str
    """What to change if it does not fit."""

    @property
    def fits(self) -> bool:
        return self.needed <= self.free

    @property
    def tight(self) -> bool:
        """Whether it takes nearly all that is free, or more."""
        return self.needed > TIGHT * self.free

    def __str__(self) -> str:
        whose = "this machine's" if self.device == "cpu" else "each GPU's"
        return f"at least {self.needed / GIB:.3g} GiB of {whose} memory, where {self.free / GIB:.3g} are free"


def check_memory(recipe: Recipe, *, training: bool) -> None:
    """Raises UserError, with overrides that make it fit, if the recipe takes more memory than is free."""
    demand = memory_demand(recipe, int(os.environ.get("WORLD_SIZE", "1")), training=training)
    if demand and not demand.fits:
        raise UserError(f"memory: {recipe.name} takes {demand}: {demand.remedy}")


def memory_demand(recipe: Recipe, ranks: int, *, training: bool) -> Demand | None:
    """The memory of a recipe on `ranks` ranks if only one conversation is sampled at once.

    With `rollout.kv_memory` the whole KV cache counts. None if the model is not one of `MODELS` and its configuration
    not on this machine, or if another machine serves the model.
    """
    shapes = None if is_served(recipe, training=training) else _known_shapes(recipe)
    if shapes is None:
        return None
    kind = "cuda" if recipe.device != "cpu" and torch.cuda.is_available() else "cpu"
    device = torch.device(kind, int(os.environ.get("LOCAL_RANK", "0")) if kind == "cuda" else 0)
    free, recipe = free_bytes(device), _with_least_cache(recipe, shapes)
    weights = weight_bytes(recipe, shapes)
    evaluated = [Part("weights", weights, weights), *sampler_parts(recipe, shapes, free)]
    needed = peak(memory_parts(recipe, shapes, ranks, free) if training else evaluated)
    left = free - needed + evaluated[-1].sampling
    remedy = "it takes a smaller model, or more memory"
    if training:
        changes = changes_until_it_fits(recipe, shapes, ranks, free)
        if changes and changes[-1].fits:
            last = {change.override.partition("=")[0]: change.override for change in changes}
            remedy = f"{' '.join(last.values())} makes it fit"
    elif recipe.rollout.entry.weights == "learner" and left > _least_cache(recipe, shapes):
        remedy = f"rollout.kv_memory={math.floor(left / GIB * 100) / 100} makes it fit"
    return Demand(kind, needed, free, remedy)


def is_served(recipe: Recipe, *, training: bool) -> bool:
    """Whether the model is only asked, at an endpoint."""
    return recipe.evaluate is not None and recipe.evaluate.endpoint is not None and not training


def _known_shapes(recipe: Recipe) -> Shapes | None:
    path = recipe.model.path or ""
    try:
        if recipe.model.scratch or path in MODELS or Path(path).is_dir():
            return recipe_shapes(recipe)
        kept = try_to_load_from_cache(path, "config.json")
        return recipe_shapes(recipe, Path(kept)) if isinstance(kept, str) else None
    except (UserError, ValueError):  # loading the model will say what is wrong
        return None


def _with_least_cache(recipe: Recipe, shapes: Shapes) -> Recipe:
    if recipe.rollout.kv_memory:
        return recipe
    least = {"kv_memory": _least_cache(recipe, shapes) / GIB}
    return recipe.model_copy(update={"rollout": recipe.rollout.model_copy(update=least)})


def _least_cache(recipe: Recipe, shapes: Shapes) -> float:
    """Bytes of a cache that holds one conversation of the greatest length."""
    return MOST_WASTE * kv_cache_bytes(shapes, 1, longest_conversation(recipe) + 1, dtype_bytes(recipe))
