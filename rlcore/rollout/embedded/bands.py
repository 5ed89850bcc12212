"""How the embedded engine's KV cache is laid out.

Rows of about one length lie together in a band, a rectangle with a little room to grow; slots are numbered through the
bands. So the cache holds at most `MOST_WASTE` times the tokens of live sequences, and a step attends band by band, each
only as far as its own longest row. When a band is full, or too much of the cache is unused, all live rows are sorted
into new bands. A cache that is small in any case is a single band of all slots, and is never rearranged.
"""

from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedConfig

MOST_WASTE = 1.25
"""Columns of the cache for each token of live sequences, at most (of conversations above some 50 tokens)."""
SPREAD = ROOM = 10
"""Rows of a band are at most a tenth shorter than the longest, which has a tenth of its length left to grow."""
LEAST_ROOM = 4


@dataclass(frozen=True, slots=True)
class Band:
    """Slots from `start` on, in rows of `capacity` columns, the last of which is for padding."""

    start: int
    rows: int
    capacity: int


@dataclass(frozen=True, slots=True)
class Part:
    """The rows of a forward pass that lie in one band, which are read up to column `width`."""

    band: int
    of_batch: slice | torch.Tensor
    rows_R: slice | torch.Tensor
    """Their places in the band."""
    rows_R1: torch.Tensor
    columns_RQ: torch.Tensor
    width: int


@dataclass(frozen=True, slots=True)
class Move:
    """Rows of an old band that go to a new one, with their first `width` columns."""

    source: int
    target: int
    from_R: torch.Tensor
    to_R: torch.Tensor
    width: int


def bands_of(lengths_R: np.ndarray) -> list[Band]:
    """The bands for rows of these lengths, which are sorted, the longest first."""
    bands: list[Band] = []
    start = 0
    while start < len(lengths_R):
        longest = int(lengths_R[start])
        rows = int((lengths_R[start:] * (SPREAD + 1) > longest * SPREAD).sum())
        bands.append(Band(start, rows, longest + max(longest // ROOM, LEAST_ROOM) + 1))
        start += rows
    return bands


def token_bytes(config: PreTrainedConfig, dtype: torch.dtype) -> int:
    """Bytes of the keys and values of one token in all layers."""
    text = config.get_text_config()
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return 2 * text.num_hidden_layers * heads * size * dtype.itemsize
