"""Which models are of the common family, and what the forward passes in few operations of rollout and learner share."""

from typing import Any

import torch
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedConfig, PreTrainedModel, Qwen2ForCausalLM, Qwen3ForCausalLM

DECODERS = (LlamaForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM)
VARYING = ("dynamic", "longrope")
"""Rotary embeddings whose angles depend on how long a batch is."""


def is_common_decoder(model: PreTrainedModel) -> bool:
    """Whether this is one of `DECODERS` with gates of SiLU, in which a token sees all tokens before it.

    Its place alone says by what angles it is turned.
    """
    config = model.config
    if type(model) not in DECODERS or config.hidden_act != "silu" or partial_layers(config):
        return False
    return (config.rope_parameters or {}).get("rope_type") not in VARYING


def partial_layers(config: PreTrainedConfig) -> set[str]:
    """Kinds of a model's layers in which a token does not see all tokens before it."""
    return set(getattr(config, "layer_types", None) or ()) - {"full_attention"}


def seen_back(config: PreTrainedConfig) -> int | None:
    """How many tokens back some layer sees at most, itself included; None for all, 0 where a layer keeps a state."""
    kinds = partial_layers(config)
    spans = [getattr(config, "attention_chunk_size", None)] if "chunked_attention" in kinds else []
    if "sliding_attention" in kinds or not getattr(config, "layer_types", None):
        spans.append(getattr(config, "sliding_window", None))
    states = kinds - {"sliding_attention", "chunked_attention"}
    return 0 if states else min((span for span in spans if span), default=None)


def in_pairs(weight: Tensor, size: int) -> Tensor:
    """Rows of heads of `size` in another order: after each of the first half its partner in the second.

    What a rotation turns into each other is then side by side, as the parts of a complex number. Queries and keys
    are reordered alike, so their products stay what they are. With `size` 0 the order stays.
    """
    if not size:
        return weight
    return weight.unflatten(0, (-1, 2, size // 2)).transpose(1, 2).flatten(0, 2)


def rotations(decoder: Any, positions_N: Tensor) -> Tensor:
    """e^(i · angle) of each pair at these positions, `[N, d / 2]` (RoPE, arXiv 2104.09864, equation 12)."""
    cos_NX, sin_NX = (
        part[0] for part in decoder.rotary_emb(torch.empty(0, device=positions_N.device), positions_N[None])
    )
    half = cos_NX.shape[-1] // 2
    return torch.complex(cos_NX[:, :half], sin_NX[:, :half])
