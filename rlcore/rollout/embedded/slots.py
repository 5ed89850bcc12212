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


FAR = 1e30
"""How far below all others the scores of unseen columns are for each column between."""


class SlotLayer(CacheLayerMixin):
    """Keys `[slots, kv_heads, head_dim, capacity]` and values `[slots, kv_heads, capacity, head_dim]` of one layer.

    Few queries are multiplied with keys much faster if those of consecutive columns lie side by side.
    """

    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self, owner: "SlotCache"):
        super().__init__()
        self.owner = owner

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        slots, heads, capacity = self.owner.slots, key_states.shape[1], self.owner.capacity
        self.keys = key_states.new_zeros((slots, heads, key_states.shape[-1], capacity))
        self.values = value_states.new_zeros((slots, heads, capacity, value_states.shape[-1]))
        self.is_initialized = True

    def grow(self, capacity: int) -> None:
        extra = capacity - self.keys.shape[3]
        self.keys = functional.pad(self.keys, (0, extra))
        self.values = functional.pad(self.values, (0, 0, 0, extra))

    def write(self, keys_RQGd: torch.Tensor, values_RQGd: torch.Tensor) -> None:
        """Takes up the keys and values of new tokens."""
        rows, columns = self.owner.rows_R1, self.owner.columns_RQ
        self.keys[rows, :, :, columns] = keys_RQGd
        self.values[rows, :, columns] = values_RQGd

    def read(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys `[R, kv_heads, head_dim, width]` and values `[R, kv_heads, width, head_dim]` of the rows aimed at."""
        keys, values = self.keys.narrow(3, 0, self.owner.width), self.values.narrow(2, 0, self.owner.width)
        if self.owner.first is not None:
            return keys.narrow(0, 0, self.owner.first), values.narrow(0, 0, self.owner.first)
        picked = self.owner.rows_R1[:, 0]
        return keys.index_select(0, picked), values.index_select(0, picked)

    def update(self, key_states, value_states, *args, **kwargs):
        """Writes and reads; all are `[R, kv_heads, tokens, head_dim]`, as transformers has them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.write(key_states.transpose(1, 2), value_states.transpose(1, 2))
        keys, values = self.read()
        return keys.transpose(2, 3), values

    def copy(self, sources: torch.Tensor, targets: torch.Tensor, width: int) -> None:
        self.keys[targets, :, :, :width] = self.keys[sources, :, :, :width]
        self.values[targets, :, :width] = self.values[sources, :, :width]

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
        self.slot_layers = [SlotLayer(self) for _ in range(layers)]
        super().__init__(layers=[*self.slot_layers])

    def reserve(self, tokens: int) -> bool:
        """Makes room for sequences of this many tokens; says whether it had to."""
        if tokens < self.capacity:
            return False
        self.capacity = -(-(tokens + 1) // 64) * 64
        for layer in self.slot_layers:
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
        for layer in self.slot_layers:
            layer.copy(sources, targets, width)


def decode_attention(module, query, key, value, attention_mask, scaling=None, **kwargs):
    """A few query tokens a row: grouped heads read keys and values in place instead of a repeated copy of them."""
    rows, heads, queries, size = query.shape
    few = queries <= FEW_QUERIES and attention_mask is not None and not torch.is_grad_enabled()
    if not few or kwargs.get("softcap") or kwargs.get("position_bias") is not None:
        return sdpa_attention_forward(module, query, key.contiguous(), value, attention_mask, scaling=scaling, **kwargs)
    kv_heads, width = key.shape[1:3]
    shared = heads // kv_heads
    query = (query * (size**-0.5 if scaling is None else scaling)).reshape(rows, kv_heads, shared * queries, size)
    scores = torch.matmul(query, key.transpose(2, 3))
    scores.view(rows, kv_heads, shared, queries, width).add_(attention_mask[:, :, None])
    output = torch.matmul(scores.softmax(-1), value)
    return output.view(rows, heads, queries, size).transpose(1, 2).contiguous(), None


def unseen(positions: torch.Tensor, width: int, dtype: torch.dtype) -> torch.Tensor:
    """What is added to scores of queries at these positions: `[*positions, width]`, 0 up to the own one."""
    columns_W = torch.arange(width, device=positions.device, dtype=torch.float32)
    return (positions.unsqueeze(-1) - columns_W).clamp_(max=0).mul_(FAR).to(dtype)


AttentionInterface.register(ATTENTION, decode_attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


def use_decode_attention(model: PreTrainedModel) -> None:
    """Lets a model that takes attention functions decode with the one above; others keep their own."""
    if getattr(model, "_supports_attention_backend", False) and model.config._attn_implementation == "sdpa":
        model.set_attn_implementation(ATTENTION)
