"""The rollout engines and their facts. Their modules are imported when they start: a recipe needs the facts alone."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from rlcore.entries import Engine
from rlcore.errors import UserError

if TYPE_CHECKING:
    import torch

    from rlcore.policy import Policy
    from rlcore.recipe import Recipe
    from rlcore.recipe.schema import RolloutConfig
    from rlcore.rollout import RolloutEngine

GIB = 1 << 30
VLLM_INSTALL = "pip install -e '.[vllm]' on a machine with a GPU, launch/setup_vllm_cpu.sh on one without"


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


def _check_vllm(section: "RolloutConfig") -> None:
    """Raises UserError where vLLM is to run in this environment, and is not installed."""
    elsewhere = section.mode == "servers" and (section.servers or section.vllm.command)
    if not elsewhere and find_spec("vllm") is None:
        raise UserError(f"rollout.engine vllm: vLLM is not installed; {VLLM_INSTALL}")


TORCH = Engine(_embedded, weights="learner", exact=True)
VLLM = Engine(
    _in_process,
    weights="device",
    check=_check_vllm,
    takes_adapters=True,
    servers=Engine(_servers, check=_check_vllm, takes_adapters=True),
)
