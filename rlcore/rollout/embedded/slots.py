"""The embedded engine's KV cache: rows of keys and values in bands, written in place, read as views.

A forward pass works either on the first `n` slots (decoding: keys and values are views, nothing is copied) or on a
chosen list of slots (prompts and correction turns of many tokens: their keys and values are gathered once).
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import product

import numpy as np
import torch
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import Cache, CacheLayerMixin
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from rlcore.errors import UserError
from rlcore.rollout.embedded.bands import MOST_WASTE, Band, Move, Part, Places, bands_of, runs, token_bytes

ATTENTION = "rlcore_decode"
FEW_QUERIES = 64
"""Query tokens up to which the whole matrix of scores is small and no fused kernel pays."""
FAR = 1e30
"""Subtracted from the score of an unseen column, times its distance from the last column that is seen."""
SMALL = 256 << 20
"""Bytes up to which a cache is not worth rearranging."""
GIB = 1 << 30
PADDING = -1
"""The column that padding is written to: a row's last, which is never read."""


Bands = list[tuple[torch.Tensor, torch.Tensor]]
"""Keys and values of each band."""


class SlotLayer(CacheLayerMixin):
    """Keys `[rows, kv_heads, head_dim, capacity]` and values `[rows, kv_heads, capacity, head_dim]` of each band.

    Consecutive columns of keys lie side by side, which makes their product with few queries much faster; but in half
    precision on a CPU each token's key lies together, as torch's fused attention reads it (`lie_by_token`).
    """

    def __init__(self, owner: "SlotCache"):
        super().__init__()
        self.owner = owner
        self.bands: Bands = []

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Allocates the bands for states of this shape, `[R, kv_heads, tokens, head_dim]`."""
        self.bands = [_zeros(band, key_states, value_states) for band in self.owner.bands]
        self.is_initialized = True

    def write(self, keys_RQGd: torch.Tensor, values_RQGd: torch.Tensor) -> None:
        """Stores the keys and values of new tokens."""
        if not self.is_initialized:
            self.lazy_initialization(keys_RQGd.transpose(1, 2), values_RQGd.transpose(1, 2))
        for part in self.owner.parts:
            keys, values = self.bands[part.band]
            keys[part.rows_R1, :, :, part.columns_RQ] = keys_RQGd[part.of_batch]
            values[part.rows_R1, :, part.columns_RQ] = values_RQGd[part.of_batch]

    def read(self, part: Part) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys `[R, kv_heads, head_dim, width]` and values `[R, kv_heads, width, head_dim]` of a part."""
        keys, values = self.bands[part.band]
        keys, values = keys.narrow(3, 0, part.width), values.narrow(2, 0, part.width)
        if isinstance(part.rows_R, slice):
            return keys[part.rows_R], values[part.rows_R]
        values = values.index_select(0, part.rows_R)
        if lie_by_token(keys):  # of another layout `index_select` would make its own
            return keys.transpose(2, 3).index_select(0, part.rows_R).transpose(2, 3), values
        return keys.index_select(0, part.rows_R), values

    def update(self, key_states, value_states, *args, **kwargs):
        """Writes and reads states in transformers' shape, `[R, kv_heads, tokens, head_dim]`."""
        self.write(key_states.transpose(1, 2), value_states.transpose(1, 2))
        read = [self.read(part) for part in self.owner.parts]
        if len(read) == 1:
            return read[0][0].transpose(2, 3), read[0][1]
        shape = (*key_states.shape[:2], self.owner.width)
        keys, values = (states.new_zeros(*shape, states.shape[3]) for states in (key_states, value_states))
        for part, (part_keys, part_values) in zip(self.owner.parts, read, strict=True):
            keys[part.of_batch, :, : part.width] = part_keys.transpose(2, 3)
            values[part.of_batch, :, : part.width] = part_values
        return keys, values

    def arrange(self, bands: Sequence[Band], moves: Sequence[Move]) -> None:
        """Moves rows into new bands and drops the old ones."""
        if not self.is_initialized:
            return
        old, (keys, values) = self.bands, self.bands[0]
        self.bands = [_zeros(band, keys.transpose(2, 3), values) for band in bands]
        self.is_initialized = bool(bands)
        self.copy(old, moves)

    def copy(self, old: Bands, moves: Sequence[Move]) -> None:
        """Copies rows of the bands `old` onto rows of the present ones."""
        for move in moves:
            for dim, before, after in zip((3, 2), old[move.source], self.bands[move.target], strict=True):
                after.narrow(dim, 0, move.width)[move.to_R] = before.narrow(dim, 0, move.width)[move.from_R]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.owner.width, 0

    def get_seq_length(self) -> int:
        return 0

    def get_max_length(self) -> int:
        return -1


def _zeros(band: Band, key_states: torch.Tensor, value_states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    heads, size = key_states.shape[1], key_states.shape[-1]
    if lie_by_token(key_states):
        keys = key_states.new_zeros((band.rows, heads, band.capacity, size)).transpose(2, 3)
    else:
        keys = key_states.new_zeros((band.rows, heads, size, band.capacity))
    return keys, value_states.new_zeros((band.rows, heads, band.capacity, value_states.shape[-1]))


def lie_by_token(keys: torch.Tensor) -> bool:
    """Whether each token's key lies together, and torch's fused attention reads them, in half the time of two products.

    So it is in half precision on a CPU.
    """
    return keys.device.type == "cpu" and keys.dtype.itemsize == 2


class SlotCache(Cache):
    """KV slots of all layers, for at most `slots` sequences of fewer than `capacity` tokens."""

    def __init__(self, config: PreTrainedConfig, dtype: torch.dtype, device: torch.device, slots: int, capacity: int):
        self.slots, self.capacity = slots, capacity
        self._tensor = partial(torch.as_tensor, device=device)
        self._token_bytes = token_bytes(config, dtype)
        self._budget = 0
        self.bands: list[Band] = []
        self.parts: list[Part] = []
        self.width = 0
        self.slot_layers = [SlotLayer(self) for _ in range(config.get_text_config().num_hidden_layers)]
        super().__init__(layers=[*self.slot_layers])

    @property
    def whole(self) -> bool:
        """Whether all slots are one band, which is never rearranged."""
        return self.slots * self.capacity * self._token_bytes <= min(SMALL, self._budget)

    @property
    def most_tokens(self) -> int:
        """The most tokens of all live sequences together."""
        return int(self._budget / self._token_bytes / MOST_WASTE)

    def begin(self, budget: int) -> None:
        """Starts to sample within `budget` bytes. Raises UserError if not even one sequence fits."""
        self._budget = budget
        if self.whole and not self.bands:
            self.bands = [Band(0, self.slots, self.capacity)]
        self._check()

    def end(self) -> None:
        """Frees the cache, unless it is small."""
        if not self.whole:
            nobody = np.zeros(0, dtype=np.int64)
            self.arrange([], nobody, nobody)

    def reserve(self, tokens: int) -> bool:
        """Makes room for sequences of `tokens`; returns whether it had to. Raises UserError as `begin` does."""
        if tokens < self.capacity:
            return False
        rows = np.arange(self.slots) if self.whole else None
        cached_S = np.full(self.slots, self.capacity - 1)
        self.capacity = -(-(tokens + 1) // 64) * 64
        self._check()
        if rows is not None:
            self.arrange([Band(0, self.slots, self.capacity)], rows, cached_S)
        return True

    def _check(self) -> None:
        if self.whole or self.capacity <= self.most_tokens:
            return
        needed = self.capacity * self._token_bytes * MOST_WASTE
        raise UserError(
            f"rollout.kv_memory: a KV cache of {self._budget / GIB:.3g} GiB holds not even one conversation of "
            f"{self.capacity - 1:,} tokens, which takes {needed / GIB:.3g}: give it more, or lower "
            "conversation.max_prompt_tokens or conversation.max_attempt_tokens"
        )

    def holds(self, slots_R: np.ndarray, lengths_R: np.ndarray) -> bool:
        """Whether rows of these lengths fit where they are, without much waste."""
        capacity_S = np.zeros(self.slots, dtype=np.int64)
        for band in self.bands:
            capacity_S[band.start : band.start + band.rows] = band.capacity
        if (lengths_R >= capacity_S[slots_R]).any():
            return False
        columns = capacity_S.sum()
        if columns <= MOST_WASTE * lengths_R.sum():
            return True
        return bool(columns <= sum(band.rows * band.capacity for band in bands_of(np.sort(lengths_R)[::-1])))

    def arrange(self, bands: list[Band], slots_R: np.ndarray, cached_R: np.ndarray) -> None:
        """Moves the rows of these slots into the slots of new `bands`, in this order, with their cached columns."""
        moves = self._moves(bands, slots_R, np.arange(len(slots_R)), cached_R, runs)
        for layer in self.slot_layers:
            layer.arrange(bands, moves)
        self.bands = bands

    def copy(self, sources_R: np.ndarray, targets_R: np.ndarray, cached_R: np.ndarray) -> None:
        """Copies the cached columns of slots onto other slots."""
        moves = self._moves(self.bands, sources_R, targets_R, cached_R, self._at_once)
        for layer in self.slot_layers:
            layer.copy(layer.bands, moves)

    def _at_once(self, from_R: np.ndarray, to_R: np.ndarray) -> list[tuple[Places, Places]]:
        """The same places as arrays on the device: one copy for all, where single rows are copied to many places."""
        return [(self._tensor(from_R), self._tensor(to_R))]

    def _moves(
        self,
        bands: list[Band],
        sources_R: np.ndarray,
        targets_R: np.ndarray,
        cached_R: np.ndarray,
        parted: Callable[[np.ndarray, np.ndarray], Sequence[tuple[Places, Places]]],
    ) -> list[Move]:
        """The moves from slots of the present bands to slots of `bands`, with their cached columns."""
        moves = []
        for (source, before), (target, after) in product(enumerate(self.bands), enumerate(bands)):
            from_R, to_R = sources_R - before.start, targets_R - after.start
            inside_R = (from_R >= 0) & (from_R < before.rows) & (to_R >= 0) & (to_R < after.rows)
            mine = np.flatnonzero(inside_R & (cached_R > 0))
            if len(mine):
                width = int(cached_R[mine].max())
                moves += [Move(source, target, *places, width) for places in parted(from_R[mine], to_R[mine])]
        return moves

    def aim_first(self, columns_S: np.ndarray, positions_S: np.ndarray) -> None:
        """Prepares a forward pass of the first slots: where each writes its token, which sees up to its position."""
        parts, span = [], len(columns_S)
        for at, band in enumerate(self.bands):
            if band.start >= span:
                break
            mine = slice(band.start, min(span, band.start + band.rows))
            rows, columns = mine.stop - mine.start, self._tensor(columns_S[mine, None])
            rows_R1 = torch.arange(rows, device=columns.device)[:, None]
            parts.append(Part(at, mine, slice(0, rows), rows_R1, columns, int(positions_S[mine].max()) + 1))
        self._aim(parts)

    def aim(self, slots_R: np.ndarray, columns_RQ: np.ndarray) -> None:
        """Prepares a forward pass of these slots: where they write their tokens, the last of which sees all."""
        parts = []
        for at, band in enumerate(self.bands):
            mine = np.flatnonzero((slots_R >= band.start) & (slots_R < band.start + band.rows))
            if not len(mine):
                continue
            rows_R, width = self._tensor(slots_R[mine] - band.start), int(columns_RQ[mine].max()) + 1
            of_batch = slice(None) if len(mine) == len(slots_R) else self._tensor(mine)
            parts.append(Part(at, of_batch, rows_R, rows_R[:, None], self._tensor(columns_RQ[mine]), width))
        self._aim(parts)

    def _aim(self, parts: list[Part]) -> None:
        self.parts, self.width = parts, max(part.width for part in parts)


def decode_attention(module, query, key, value, attention_mask, scaling=None, **kwargs):
    """Attention of few query tokens a row: grouped heads read keys and values in place instead of a repeated copy."""
    rows, heads, queries, size = query.shape
    added = attention_mask is not None and attention_mask.dtype != torch.bool
    few = queries <= FEW_QUERIES and added and not torch.is_grad_enabled()
    if not few or kwargs.get("softcap") or kwargs.get("position_bias") is not None:
        return sdpa_attention_forward(module, query, key.contiguous(), value, attention_mask, scaling=scaling, **kwargs)
    kv_heads, width = key.shape[1:3]
    shared = heads // kv_heads
    scaling = size**-0.5 if scaling is None else scaling
    query = query.reshape(rows, kv_heads, shared * queries, size)
    if lie_by_token(key):
        mask = attention_mask[:, :, None].expand(-1, -1, shared, -1, -1).reshape(rows, 1, shared * queries, width)
        output = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scaling)
        return output.view(rows, heads, queries, size).transpose(1, 2).contiguous(), None
    scores = torch.matmul(query * scaling, key.transpose(2, 3))
    scores.view(rows, kv_heads, shared, queries, width).add_(attention_mask[:, :, None])
    output = torch.matmul(scores.softmax(-1), value)
    return output.view(rows, heads, queries, size).transpose(1, 2).contiguous(), None


def unseen(positions: torch.Tensor, width: int, dtype: torch.dtype) -> torch.Tensor:
    """The mask to add to scores of queries at these positions: `[*positions, width]`, 0 up to their own column."""
    columns_W = torch.arange(width, device=positions.device, dtype=torch.float32)
    return (positions.unsqueeze(-1) - columns_W).clamp_(max=0).mul_(FAR).to(dtype)


AttentionInterface.register(ATTENTION, decode_attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


def use_decode_attention(model: PreTrainedModel) -> None:
    """Lets a model that takes attention functions decode with `decode_attention`; others keep their own."""
    if getattr(model, "_supports_attention_backend", False) and model.config._attn_implementation == "sdpa":
        model.set_attn_implementation(ATTENTION)
