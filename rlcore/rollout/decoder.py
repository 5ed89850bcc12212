"""The forward pass of the common decoders, for sampling: the same arithmetic as transformers', with fewer operations.

Decoding a small step is bound by the number of operations, not by their size. Here a norm is one operation, a rotation
three, and the last layer computes only the last token of each row, the one whose logits are drawn from. Projections are
called as the modules that they are, so adapters in them take part. Other models run by their own `forward`.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from rlcore.rollout.slots import SlotCache, decode_attention


def last_logits(
    model: PreTrainedModel, ids_RQ: Tensor, positions_RQ: Tensor, mask_R1QW: Tensor, cache: SlotCache
) -> Tensor:
    """Logits `[R, V]` after the last token of each row. The mask is added to scores; `cache` says where to write."""
    decoder = model.model
    hidden_RQD = decoder.embed_tokens(ids_RQ)
    cos_RQD, sin_RQD = decoder.rotary_emb(hidden_RQD, positions_RQ)
    half = sin_RQD.shape[-1] // 2
    sin_RQD = torch.cat((-sin_RQD[..., :half], sin_RQD[..., half:]), -1)
    for layer in decoder.layers:
        attention = layer.self_attn
        normed_RQD = _norm(layer.input_layernorm, hidden_RQD)
        keys = _heads(attention.k_proj(normed_RQD), attention, "k_norm")
        values = _heads(attention.v_proj(normed_RQD), attention)
        keys, values = cache.update(_rotate(keys, cos_RQD, sin_RQD), values.transpose(1, 2), attention.layer_idx)
        if layer is decoder.layers[-1]:
            hidden_RQD, normed_RQD, cos_RQD, sin_RQD = (
                states[:, -1:] for states in (hidden_RQD, normed_RQD, cos_RQD, sin_RQD)
            )
            mask_R1QW = mask_R1QW[:, :, -1:]
        queries = _rotate(_heads(attention.q_proj(normed_RQD), attention, "q_norm"), cos_RQD, sin_RQD)
        mixed, _ = decode_attention(attention, queries, keys, values, mask_R1QW, scaling=attention.scaling)
        hidden_RQD = hidden_RQD + attention.o_proj(mixed.flatten(2))
        hidden_RQD = hidden_RQD + layer.mlp(_norm(layer.post_attention_layernorm, hidden_RQD))
    return model.lm_head(_norm(decoder.norm, hidden_RQD))[:, 0]


def _norm(norm: Any, states: Tensor) -> Tensor:
    return functional.rms_norm(states, norm.weight.shape, norm.weight, norm.variance_epsilon)


def _heads(states_RQD: Tensor, attention: Any, norm: str = "") -> Tensor:
    """`[R, Q, heads, head_dim]`, normed where the model norms its queries and keys."""
    states = states_RQD.unflatten(-1, (-1, attention.head_dim))
    return _norm(getattr(attention, norm), states) if norm and hasattr(attention, norm) else states


def _rotate(states_RQHd: Tensor, cos_RQd: Tensor, signed_sin_RQd: Tensor) -> Tensor:
    """Rotary position embedding of two halves (Su et al. 2021, arXiv 2104.09864), as `[R, heads, Q, head_dim]`."""
    swapped = states_RQHd.roll(states_RQHd.shape[-1] // 2, -1)
    return torch.addcmul(states_RQHd * cos_RQd[:, :, None], swapped, signed_sin_RQd[:, :, None]).transpose(1, 2)
