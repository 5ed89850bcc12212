"""Liger's fused Triton kernels inside a model (Hsu et al. 2024, arXiv 2410.10989)."""

import torch
from transformers import PreTrainedModel
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
    """Norms, rotary embeddings and gated activations of `model` are Liger's from here on.

    Raises UserError without CUDA or the package, and for a kind of model that Liger has no kernels for.
    """
    if device.type != "cuda":
        raise UserError("learner.fused_kernels needs CUDA: they are written in Triton")
    if not is_liger_kernel_available():
        raise UserError("learner.fused_kernels needs liger-kernel: pip install 'rlcore[liger]'")
    from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN  # needs Triton
    from transformers.integrations.liger import apply_liger_kernel  # imports peft, which takes a second

    if model.config.model_type not in MODEL_TYPE_TO_APPLY_LIGER_FN:
        raise UserError(f"learner.fused_kernels: Liger has none for models of type {model.config.model_type}")
    apply_liger_kernel(model, FUSED)
