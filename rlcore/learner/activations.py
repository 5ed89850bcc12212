"""What the forward pass keeps for the backward pass: all of it, only what enters each layer, and where."""

from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from rlcore.errors import UserError


def checkpoint_layers(model: PreTrainedModel) -> None:
    """Each layer keeps only its input and is computed again in the backward pass; passes without gradient stay as are.

    transformers' own switch acts only in training mode, where dropout is on. Raises UserError where the model's layers
    cannot be told.
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
    """What is computed within keeps its activations in the host's memory, if `wanted`."""
    return torch.autograd.graph.save_on_cpu(pin_memory=device.type == "cuda") if wanted else nullcontext()
