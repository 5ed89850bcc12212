"""The rollout engines and their facts. Their modules are imported when they start: a recipe needs the facts alone."""

from pathlib import Path
from typing import TYPE_CHECKING

from rlcore.entries import Engine

if TYPE_CHECKING:
    import torch

    from rlcore.policy import Policy
    from rlcore.recipe import Recipe
    from rlcore.rollout import RolloutEngine

GIB = 1 << 30


def _embedded(recipe: "Recipe", policy: "Policy", *, device: "torch.device", max_tokens: int) -> "RolloutEngine":
    """Samples from the learner's own tensors; with ZeRO-3, which splits them, from a whole copy on each device."""
    import copy

    import torch

    from rlcore.policy import stop_ids
    from rlcore.rollout import TorchEngine

    split = recipe.learner.zero == 3
    sampled = copy.deepcopy(policy.model) if split else policy.model
    torch.nn.Module.to(sampled, device)
    section = recipe.rollout
    kv_bytes = int(section.kv_memory * GIB) if section.kv_memory else None
    stops = stop_ids(policy)
    return TorchEngine(sampled, stops, slots=section.slots, max_tokens=max_tokens, kv_bytes=kv_bytes, live=not split)


def _in_process(recipe: "Recipe", policy: "Policy", *, device: "torch.device", max_tokens: int) -> "RolloutEngine":
    from rlcore.policy import stop_ids
    from rlcore.rollout.vllm.in_process import InProcessEngine
    from rlcore.rollout.vllm.tensor_parallel import TensorParallelEngine

    section, lora = recipe.rollout, recipe.adapters_apart
    kind = TensorParallelEngine if section.vllm.tensor_parallel > 1 else InProcessEngine
    tokenizer = policy.tokenizer if section.stop else None
    return kind(section, policy.model, recipe.model.path, stop_ids(policy), max_tokens, device, lora, tokenizer)


def _servers(recipe: "Recipe", policy: "Policy", *, device: "torch.device", max_tokens: int) -> "RolloutEngine":
    from rlcore.policy import stop_ids
    from rlcore.rollout.servers.engine import ServersEngine

    section, folder, lora = recipe.rollout, Path(recipe.output) / "servers", recipe.adapters_apart
    tokenizer = policy.tokenizer if section.stop else None
    return ServersEngine(section, policy.model, stop_ids(policy), max_tokens, folder, device, lora, tokenizer)


TORCH = Engine(_embedded, weights="learner", exact=True)
VLLM = Engine(_in_process, weights="device", takes_adapters=True, servers=Engine(_servers, takes_adapters=True))
