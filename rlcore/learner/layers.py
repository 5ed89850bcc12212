"""How a model's layers are computed: Liger's fused kernels, and what their forward pass keeps for the backward pass."""

from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils import is_liger_kernel_available

from rlcore.errors import UserError

FUSED = {
    "rope": True,
    "rms_norm": True,
    "swiglu": True,
    "geglu": True,
    "cross_entropy": False,
    "fused_linear_cross_entropy": False,
}
"""Which of Liger's kernels are taken: the output head stays the learner's own (`token_head.py`)."""


def use_fused_kernels(model: PreTrainedModel, device: torch.device) -> None:
    """Norms, rotary embeddings and gated activations of `model` are Liger's from here on (Hsu et al. 2024, 2410.10989).

    Raises UserError as `check_fused_kernels` does, and for a kind of model that Liger has no kernels for.
    """
    check_fused_kernels(device.type)
    from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN  # needs Triton
    from transformers.integrations.liger import apply_liger_kernel  # imports peft, which takes a second

    if model.config.model_type not in MODEL_TYPE_TO_APPLY_LIGER_FN:
        raise UserError(f"learner.fused_kernels: Liger has none for models of type {model.config.model_type}")
    apply_liger_kernel(model, FUSED)


def check_fused_kernels(kind: str) -> None:
    """Raises UserError without CUDA, or without the package."""
    if kind != "cuda":
        raise UserError("learner.fused_kernels needs CUDA: they are written in Triton")
    if not is_liger_kernel_available():
        raise UserError("learner.fused_kernels needs liger-kernel: pip install 'rlcore[liger]'")


def checkpoint_layers(model: PreTrainedModel) -> None:
    """Each layer keeps only its input and is computed again in the backward pass; passes without gradient stay as are.

    transformers' own switch acts only in training mode, where dropout is on. Raises UserError where the model does
    not mark its layers.
    """
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise UserError(f"learner.activation_checkpointing: {type(model).__name__} does not say what its layers are")
    for layer in layers:
        layer.forward = _checkpointed(layer.forward)


def _checkpointed(forward: Any) -> Any:
    @wraps(forward)
    def run(*arguments: Any, **named: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*arguments, **named)
        return checkpoint(forward, *arguments, use_reentrant=False, **named)

    return run


def kept_on_host(wanted: bool, device: torch.device) -> AbstractContextManager[Any]:
    """Activations of what is computed within are kept in the host's memory, if `wanted`."""
    return torch.autograd.graph.save_on_cpu(pin_memory=device.type == "cuda") if wanted else nullcontext()
