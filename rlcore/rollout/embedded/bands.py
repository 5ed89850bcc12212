"""The layout of the embedded engine's KV cache.

Rows of similar length share a band, a rectangle with a little room to grow; slots are numbered through the bands. The
cache thus holds at most `MOST_WASTE` times the tokens of live sequences, and a step attends band by band, each only as
far as its longest row. When a band is full, or too much of the cache is unused, all live rows are sorted into new
bands. A small cache is a single band of all slots, which is never rearranged.
"""

from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedConfig

MOST_WASTE = 1.25
"""Most columns of the cache per token of live sequences, for conversations above some 50 tokens."""
SPREAD = ROOM = 10
"""Rows of a band are at most a tenth shorter than the longest, which has room to grow by a tenth."""
LEAST_ROOM = 4


@dataclass(frozen=True, slots=True)
class Band:
    """`rows` slots from `start` on, each of `capacity` columns, the last of which takes padding."""

    start: int
    rows: int
    capacity: int


@dataclass(frozen=True, slots=True)
class Part:
    """The rows of a forward pass in one band, which are read up to column `width`."""

    band: int
    of_batch: slice | torch.Tensor
    rows_R: slice | torch.Tensor
    """Their places in the band."""
    rows_R1: torch.Tensor
    columns_RQ: torch.Tensor
    width: int


Places = slice | torch.Tensor
"""Rows of a band."""


@dataclass(frozen=True, slots=True)
class Move:
    """Rows that move from an old band to a new one, with their first `width` columns."""

    source: int
    target: int
    from_R: Places
    to_R: Places
    width: int


def runs(from_R: np.ndarray, to_R: np.ndarray) -> list[tuple[slice, slice]]:
    """The same places as slices, of rows that stay side by side: these are copied without an array between."""
    ends = np.flatnonzero((np.diff(from_R) != 1) | (np.diff(to_R) != 1)) + 1
    each = zip(np.split(from_R, ends), np.split(to_R, ends), strict=True)
    return [(slice(here[0], here[-1] + 1), slice(there[0], there[-1] + 1)) for here, there in each]


def bands_of(lengths_R: np.ndarray) -> list[Band]:
    """The bands for rows of these lengths, sorted with the longest first."""
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
