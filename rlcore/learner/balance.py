"""Trajectories change ranks before an update, so that no rank waits for one that drew longer attempts."""

import heapq
from dataclasses import fields
from typing import Any

import numpy as np
import torch

from rlcore.learner.planning import same_prompts
from rlcore.types import TokenBatch

WORTHWHILE = 1.05
"""Nothing moves where the fullest rank has fewer tokens than this times the mean."""


def balanced(batch: TokenBatch, *, share_prompts: bool) -> TokenBatch:
    """This rank's part of the trajectories of all ranks, with about as many tokens as every other part.

    All ranks call it together. With `share_prompts`, trajectories that begin with the same prompt stay together. What
    is gathered is the whole batch: some 20 bytes a token, which is little beside one pass through a model.
    """
    world = torch.distributed.get_world_size()
    if world == 1:
        return batch
    tokens = _gathered(len(batch.ids_N), world)
    if max(tokens) * world < WORTHWHILE * sum(tokens):
        return batch
    whole = _joined(_gathered(batch, world))
    units = [np.array([row]) for row in range(len(whole.lengths_B))]
    if share_prompts and len(together := same_prompts(whole)) >= world:
        units = together
    shares = share_out(np.array([whole.lengths_B[rows].sum() for rows in units]), world)
    mine = shares[torch.distributed.get_rank()]
    return _chosen(whole, np.sort(np.concatenate([units[unit] for unit in mine])) if len(mine) else np.arange(0))


def share_out(costs_U: np.ndarray, parts: int) -> list[np.ndarray]:
    """Indices of U units for each part: the dearest unit left goes to the part that has least (Graham 1969).

    The fullest part then has at most 4/3 of what it must have.
    """
    shares: list[list[int]] = [[] for _ in range(parts)]
    loads = [(0, part) for part in range(parts)]
    for unit in np.argsort(-costs_U, kind="stable"):
        load, part = heapq.heappop(loads)
        shares[part].append(int(unit))
        heapq.heappush(loads, (load + int(costs_U[unit]), part))
    return [np.array(share, dtype=np.int64) for share in shares]


def _gathered(thing: Any, world: int) -> list[Any]:
    things: list[Any] = [None] * world
    torch.distributed.all_gather_object(things, thing)
    return things


def _joined(batches: list[TokenBatch]) -> TokenBatch:
    lengths_B = np.concatenate([batch.lengths_B for batch in batches])
    streams = {name: np.concatenate([getattr(batch, name) for batch in batches]) for name in _STREAMS}
    return TokenBatch(offsets_B1=np.r_[0, lengths_B.cumsum()], **streams)


def _chosen(batch: TokenBatch, rows: np.ndarray) -> TokenBatch:
    member_B = np.isin(np.arange(len(batch.lengths_B)), rows)
    member_N = np.repeat(member_B, batch.lengths_B)
    streams = {name: getattr(batch, name)[member_N] for name in _STREAMS}
    return TokenBatch(offsets_B1=np.r_[0, batch.lengths_B[member_B].cumsum()], **streams)


_STREAMS = [field.name for field in fields(TokenBatch) if field.name.endswith("_N")]
