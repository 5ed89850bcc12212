"""The reference policy, which KL is measured against: the policy as it was at the start of the run."""

import copy
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from rlcore.learner.batch.packing import MicroBatch
from rlcore.learner.policy_module import Compared, PolicyModule
from rlcore.learner.zero.engine import split_parameters
from rlcore.policy.lora import lora_layers, lora_off


class Reference:
    """Neither trained nor saved. With adapters it is the policy without them; else a copy, which ZeRO-3 splits too."""

    def __init__(self, policy: PolicyModule, settings: dict[str, Any]) -> None:
        """`settings` are those of the policy's engine, which must not have been started yet."""
        self._shared = bool(lora_layers(policy.model))
        self._policy = policy if self._shared else copy.deepcopy(policy).requires_grad_(False)
        if not self._shared and settings["zero_optimization"]["stage"] == 3:
            self._policy = _split(self._policy, settings)

    @torch.no_grad()
    def compared(self, micro: MicroBatch) -> Compared:
        """States and output matrix, from which the exact KL is computed."""
        with self._as_at_start():
            return self._policy(micro, states_only=True), self._head()

    @torch.no_grad()
    def logprobs(self, micro: MicroBatch) -> Tensor:
        """Log-probabilities of the loss tokens, `[n]`."""
        with self._as_at_start():
            return self._policy(micro)[0]

    def _as_at_start(self) -> AbstractContextManager[None]:
        return lora_off(self._policy.model) if self._shared else nullcontext()

    def _head(self) -> Tensor:
        weight = self._policy.model.get_output_embeddings()._parameters.get("weight")
        if not hasattr(weight, "ds_id"):
            return self._policy.head
        import deepspeed  # takes seconds

        with deepspeed.zero.GatheredParameters([weight]):
            return weight.detach().clone()


def _split(policy: PolicyModule, settings: dict[str, Any]) -> PolicyModule:
    """Each rank keeps its part of the weights; DeepSpeed gathers a layer when it is computed."""
    import deepspeed  # takes seconds

    kept = ("train_micro_batch_size_per_gpu", "bf16", "fp16", "steps_per_print")
    zero = {name: value for name, value in settings["zero_optimization"].items() if name != "offload_optimizer"}
    config = {name: settings[name] for name in kept} | {"zero_optimization": zero}
    split_parameters(policy, config)
    engine, *_ = deepspeed.initialize(model=policy, config=config, dist_init_required=False)
    return engine.module
