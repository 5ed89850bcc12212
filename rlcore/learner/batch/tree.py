"""Trajectories that begin alike as a tree: a token and all that came before it is one node, computed once for all.

The trajectories of a group share their prompt, those of a branch their first attempt too, and a policy that is nearly
certain says the same more than once. Nothing is padded but in attention, which sees whole paths from root to leaf.

Shapes: R trajectories of a micro-batch, the longest of T tokens; N nodes.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from rlcore.types import TokenBatch

WASTE = 1.25
"""Paths are padded to one length in attention as long as it computes at most this many times what it must,"""
FREE = 8192
"""or so many scores a head more: what another call would cost."""


@dataclass(frozen=True, slots=True)
class Tree:
    """The tokens of R trajectories that a later loss token depends on: each up to the one before its last."""

    node_RT: np.ndarray
    """`[R, T]` int64: the node of each token, anything after the end of a trajectory."""
    length_R: np.ndarray
    """`[R]` int64: how many tokens each trajectory has here."""
    shared_R: np.ndarray
    """`[R]` int64: how many of them, at its beginning, are nodes of trajectories before it."""

    @classmethod
    def of(cls, batch: TokenBatch, rows_R: np.ndarray) -> "Tree":
        """The tree of these trajectories in this order; `in_order` gives one in which it is smallest."""
        length_R = last_loss_tokens(batch)[rows_R]
        shared_R = shared_beginnings(batch, rows_R)
        new_R = length_R - shared_R
        column_T = np.arange(length_R.max())
        number_RT = (new_R.cumsum() - length_R)[:, None] + column_T
        own_RT = _between(shared_R, length_R, column_T)
        # A token that is not its trajectory's own is the newest node of its column, by induction.
        node_RT = np.maximum.accumulate(np.where(own_RT, number_RT, 0), axis=0)
        return cls(node_RT, length_R, shared_R)

    @property
    def own_RT(self) -> np.ndarray:
        """`[R, T]` bool: where a node comes first; in this order nodes are numbered."""
        return _between(self.shared_R, self.length_R, np.arange(self.node_RT.shape[1]))

    @property
    def real_RT(self) -> np.ndarray:
        """`[R, T]` bool: False after the end of a trajectory."""
        return np.arange(self.node_RT.shape[1]) < self.length_R[:, None]

    def paths(self) -> tuple[list[tuple[np.ndarray, int]], np.ndarray]:
        """`node_RT` and `start` of `packing.Paths`, and `place_N` of `packing.Nodes`."""
        found, place_N, places = [], np.empty(int((self.length_R - self.shared_R).sum()), dtype=np.int64), 0
        own_RT = self.own_RT
        for rows_R, start, stop in self._alike():
            asked_RT = own_RT[rows_R, start:stop]
            place_N[self.node_RT[rows_R, start:stop][asked_RT]] = places + np.flatnonzero(asked_RT)
            found.append((self.node_RT[rows_R, :stop], start))
            places += asked_RT.size
        return found, place_N

    def _alike(self) -> Iterator[tuple[np.ndarray, int, int]]:
        """Trajectories of like start and length: their rows, the first start and the last stop."""
        (rows,) = np.nonzero(self.length_R > self.shared_R)
        rows = rows[np.lexsort((self.length_R[rows], self.shared_R[rows]))]
        scores_R = (self.length_R - self.shared_R) * self.length_R
        first, needed, stop = 0, 0, 0
        for at, row in enumerate(rows):
            start, longest = int(self.shared_R[rows[first]]), max(stop, int(self.length_R[row]))
            needed += int(scores_R[row])
            if (at + 1 - first) * (longest - start) * longest > max(WASTE * needed, needed + FREE):
                yield rows[first:at], start, stop
                first, needed, longest = at, int(scores_R[row]), int(self.length_R[row])
            stop = longest
        yield rows[first:], int(self.shared_R[rows[first]]), stop


def in_order(batch: TokenBatch, chosen: np.ndarray) -> np.ndarray:
    """The chosen trajectories so that those that begin alike follow each other."""
    # Sorted strings of bytes have those that begin alike side by side.
    ids = [each.tobytes() for each in _read(batch, chosen)]
    return chosen[sorted(range(len(chosen)), key=ids.__getitem__)]


def shared_beginnings(batch: TokenBatch, rows_R: np.ndarray) -> np.ndarray:
    """How many tokens of the tree each trajectory shares with the one before it, `[R]`."""
    ids = _read(batch, rows_R)
    return np.array([_shared(*pair) for pair in zip([ids[0][:0], *ids], ids, strict=False)], dtype=np.int64)


def last_loss_tokens(batch: TokenBatch) -> np.ndarray:
    """Place of each trajectory's last loss token, `[B]`; -1 if it has none. What comes from there on predicts none."""
    place_n = np.append(-1, np.flatnonzero(batch.loss_mask_N))
    last_B = place_n[np.searchsorted(place_n, batch.offsets_B1[1:]) - 1]
    return np.maximum(last_B - batch.offsets_B1[:-1], -1)


def _read(batch: TokenBatch, rows_R: np.ndarray) -> list[np.ndarray]:
    """The ids of each trajectory that a later loss token depends on."""
    start_R, length_R = batch.offsets_B1[rows_R], last_loss_tokens(batch)[rows_R]
    return [batch.ids_N[start : start + length] for start, length in zip(start_R, length_R, strict=True)]


def _shared(one: np.ndarray, other: np.ndarray) -> int:
    length = min(len(one), len(other))
    (differ,) = np.nonzero(one[:length] != other[:length])
    return int(differ[0]) if len(differ) else length


def _between(start_R: np.ndarray, stop_R: np.ndarray, column_T: np.ndarray) -> np.ndarray:
    return (start_R[:, None] <= column_T) & (column_T < stop_R[:, None])
