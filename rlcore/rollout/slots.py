"""The embedded engine's KV cache: one preallocated slot a sequence, written in place, read as views.

A forward pass works either on the first `n` slots (decoding: keys and values are views, nothing is copied) or on a
chosen list of slots (prompts and correction turns of many tokens: their keys and values are gathered once).
"""

import torch
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.cache_utils import Cache, CacheLayerMixin
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "rlcore_decode"
FEW_QUERIES = 64
"""Up to so many query tokens the whole matrix of scores is small, and no fused kernel pays."""


class _SlotLayer(CacheLayerMixin):
    """Keys and values of one layer, `[slots, kv_heads, capacity, head_dim]`."""

    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self, owner: "SlotCache"):
        super().__init__()
        self.owner = owner

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        shape = (self.owner.slots, key_states.shape[1], self.owner.capacity)
        self.keys = key_states.new_zeros((*shape, key_states.shape[-1]))
        self.values = value_states.new_zeros((*shape, value_states.shape[-1]))
        self.is_initialized = True

    def grow(self, capacity: int) -> None:
        extra = capacity - self.keys.shape[2]
        self.keys = functional.pad(self.keys, (0, 0, 0, extra))
        self.values = functional.pad(self.values, (0, 0, 0, extra))

    def update(self, key_states, value_states, *args, **kwargs):
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        rows, columns, width = self.owner.rows_R1, self.owner.columns_RQ, self.owner.width
        self.keys[rows, :, columns] = key_states.transpose(1, 2)
        self.values[rows, :, columns] = value_states.transpose(1, 2)
        if self.owner.first is not None:
            return self.keys[: self.owner.first, :, :width], self.values[: self.owner.first, :, :width]
        picked = rows[:, 0]
        return self.keys[:, :, :width].index_select(0, picked), self.values[:, :, :width].index_select(0, picked)

    def copy(self, sources: torch.Tensor, targets: torch.Tensor, width: int) -> None:
        for states in (self.keys, self.values):
            states[targets, :, :width] = states[sources, :, :width]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.owner.width, 0

    def get_seq_length(self) -> int:
        return 0

    def get_max_length(self) -> int:
        return -1


class SlotCache(Cache):
    """KV slots of all layers. The last column is never read: padding is written there."""

    def __init__(self, layers: int, slots: int, capacity: int):
        self.slots, self.capacity = slots, capacity
        self.rows_R1 = self.columns_RQ = torch.empty(0)
        self.first: int | None = None
        self.width = 0
        self._slot_layers = [_SlotLayer(self) for _ in range(layers)]
        super().__init__(layers=[*self._slot_layers])

    def reserve(self, tokens: int) -> bool:
        """Makes room for sequences of this many tokens; says whether it had to."""
        if tokens < self.capacity:
            return False
        self.capacity = -(-(tokens + 1) // 64) * 64
        for layer in self._slot_layers:
            if layer.is_initialized:
                layer.grow(self.capacity)
        return True

    def aim(self, rows_R: torch.Tensor, columns_RQ: torch.Tensor, width: int, first: int | None) -> None:
        """Says where the next forward pass writes (`columns_RQ` of `rows_R`) and reads (columns below `width`).

        `first` = n declares that the rows are exactly the first n slots, so that they are read without copying.
        """
        self.rows_R1, self.columns_RQ, self.width, self.first = rows_R[:, None], columns_RQ, width, first

    def copy(self, sources: torch.Tensor, targets: torch.Tensor, width: int) -> None:
        """Copies the first `width` columns of slots onto other slots."""
        for layer in self._slot_layers:
            layer.copy(sources, targets, width)


def decode_attention(module, query, key, value, attention_mask, scaling=None, **kwargs):
    """A few query tokens a row: grouped heads read keys and values in place instead of a repeated copy of them."""
    rows, heads, queries, size = query.shape
    few = queries <= FEW_QUERIES and attention_mask is not None and not torch.is_grad_enabled()
    if not few or key.device.type != "cpu" or kwargs.get("softcap") or kwargs.get("position_bias") is not None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    kv_heads, width = key.shape[1:3]
    shared = heads // kv_heads
    query = (query * (size**-0.5 if scaling is None else scaling)).reshape(rows, kv_heads, shared * queries, size)
    scores = torch.matmul(query, key.transpose(2, 3))
    scores.view(rows, kv_heads, shared, queries, width).add_(attention_mask[:, :, None])
    output = torch.matmul(scores.softmax(-1), value)
    return output.view(rows, heads, queries, size).transpose(1, 2).contiguous(), None


AttentionInterface.register(ATTENTION, decode_attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


def use_decode_attention(model: PreTrainedModel) -> None:
    """Lets a model that takes attention functions decode with the one above; others keep their own."""
    if getattr(model, "_supports_attention_backend", False) and model.config._attn_implementation == "sdpa":
        model.set_attn_implementation(ATTENTION)
