"""Trajectories change ranks before an update, so that no rank waits for one that drew longer attempts."""

import heapq
from dataclasses import fields

import numpy as np

from rlcore.learner.batch.planning import same_prompts
from rlcore.ranks import Ranks, all_gather
from rlcore.types import TokenBatch


def gathered(batch: TokenBatch, ranks: Ranks) -> tuple[TokenBatch, slice]:
    """The trajectories of all ranks, in the order of ranks, and where this rank's tokens stand among theirs.

    All ranks call it together. It is some 20 bytes a token, which is little beside one pass through a model.
    """
    batches = all_gather(batch, ranks)
    start = sum(len(other.ids_N) for other in batches[: ranks.rank])
    return _joined(batches) if len(batches) > 1 else batch, slice(start, start + len(batch.ids_N))


def part_of(batch: TokenBatch, chosen: np.ndarray, part: int, parts: int, *, share_prompts: bool) -> np.ndarray:
    """Those of the `chosen` trajectories that `part` computes; all `parts` have about as many tokens.

    With `share_prompts`, trajectories that begin with the same prompt stay together.
    """
    if parts == 1:
        return chosen
    units = [chosen[at : at + 1] for at in range(len(chosen))]
    if share_prompts and len(together := same_prompts(batch, chosen)) >= parts:
        units = together
    mine = balanced_parts(np.array([batch.lengths_B[rows].sum() for rows in units]), parts)[part]
    return np.sort(np.concatenate([units[unit] for unit in mine])) if len(mine) else chosen[:0]


def balanced_parts(costs_U: np.ndarray, parts: int) -> list[np.ndarray]:
    """Indices of U units for each part: the dearest unit left goes to the part that has least (Graham 1969).

    The fullest part then has at most 4/3 of what it must have.
    """
    units: list[list[int]] = [[] for _ in range(parts)]
    loads = [(0, part) for part in range(parts)]
    for unit in np.argsort(-costs_U, kind="stable"):
        load, part = heapq.heappop(loads)
        units[part].append(int(unit))
        heapq.heappush(loads, (load + int(costs_U[unit]), part))
    return [np.array(indices, dtype=np.int64) for indices in units]


def _joined(batches: list[TokenBatch]) -> TokenBatch:
    lengths_B = np.concatenate([batch.lengths_B for batch in batches])
    known = (name for name in _STREAMS if getattr(batches[0], name) is not None)
    streams = {name: np.concatenate([getattr(batch, name) for batch in batches]) for name in known}
    return TokenBatch(offsets_B1=np.r_[0, lengths_B.cumsum()], **streams)


_STREAMS = [field.name for field in fields(TokenBatch) if field.name.endswith("_N")]
