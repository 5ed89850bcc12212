"""Micro-batches: planned trajectories as the tensors a model reads.

Padding is on the right, so causal attention needs no mask: no real token ever sees a padded one. Where attention keeps
apart what shares a row (`PolicyModule.packs`), trajectories are packed one after the other and nothing is padded.
The learner's own decoder reads them as trees (`tree.py`), in which equal beginnings are one.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlcore.errors import UserError
from rlcore.learner.batch.planning import Planned
from rlcore.learner.batch.tree import Tree
from rlcore.types import TokenBatch

UNPREDICTED = "the first token of a trajectory has nothing before it that could predict it: no loss token"


@dataclass(frozen=True, slots=True)
class Prompts:
    """P different prompts of S tokens that the trajectories of a micro-batch continue."""

    ids_PS: Tensor
    """`[P, S]` int64."""
    owner_R: Tensor
    """`[R]` int64: the prompt of each trajectory."""


@dataclass(frozen=True, slots=True)
class Paths:
    """Some trajectories of a tree as rows of nodes, as attention reads them."""

    node_RT: Tensor
    """`[R, T]` int64: the nodes of each, anything after its end."""
    start: int
    """The first column that asks: those before are asked for in other rows."""
    unseen_QT: Tensor | None
    """`[T - start, T]` float32: -∞ where a column comes after the one that asks, else 0; None with a start of 0."""

    @classmethod
    def of(cls, node_RT: Tensor, start: int) -> "Paths":
        """Paths of these nodes, from a first column that asks."""
        length, unseen_QT = node_RT.shape[1], None
        if start:
            unseen_QT = torch.full((length - start, length), -torch.inf, device=node_RT.device).triu_(start + 1)
        return cls(node_RT, start, unseen_QT)


@dataclass(frozen=True, slots=True)
class Rows:
    """R trajectories padded to T tokens, or one row (R = 1) of packed ones."""

    ids_RT: Tensor
    """`[R, T]` int64."""
    prompts: Prompts | None = None
    """The shared tokens before `ids_RT`, if any."""
    positions_RT: Tensor | None = None
    """`[R, T]` int64: the place of each token in its trajectory, by which attention tells packed ones apart."""

    def __str__(self) -> str:
        rows, width = self.ids_RT.shape
        before = ""
        if self.prompts:
            count, length = self.prompts.ids_PS.shape
            before = f" after {count} shared prompts of {length}"
        return f"{rows} trajectories padded to {width} tokens{before} ({rows * width:,} tokens)"


@dataclass(frozen=True, slots=True)
class Nodes:
    """The N nodes of a tree in one list, and how attention sees them, which needs whole trajectories."""

    ids_N: Tensor
    """`[N]` int64."""
    positions_N: Tensor
    """`[N]` int64: the place of each node in its trajectories."""
    paths: list[Paths]
    place_N: Tensor
    """`[N]` int64: where each node asks, in the `[R, T - start]` of all paths one after the other."""

    def __str__(self) -> str:
        return f"{len(self.ids_N):,} tokens, equal beginnings counted once"


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """A model's inputs, and the streams of its n loss tokens, which are u different predictions.

    In a tree, equal tokens after equal ones are one prediction; in rows each is its own.
    """

    inputs: Rows | Nodes
    source_u: Tensor
    """`[u]` int64: where in the flattened hidden states a token is predicted (one to its left)."""
    target_u: Tensor
    """`[u]` int64: the token that was sampled."""
    prediction_n: Tensor | None
    """`[n]` int64: which of the u is that of each loss token; None where u = n, in the same order."""
    turn_n: Tensor
    """`[n]` int64: attempt, counted from 1."""
    advantage_n: Tensor
    kl_weight_n: Tensor
    sampler_logprob_n: Tensor
    index_n: np.ndarray
    """`[n]` int64: place of each loss token in the flat streams of the batch."""


@contextmanager
def memory_named(micro: MicroBatch, budget: int) -> Iterator[None]:
    """Turns running out of memory within into a UserError that names the micro-batch; `budget` is its token limit."""
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError on CUDA is one
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        raise UserError(
            f"out of memory in a micro-batch of {micro.inputs}, {len(micro.index_n):,} in the loss: lower "
            f"learner.micro_batch_tokens (now {budget:,})"
        ) from None


def micro_batches(
    batch: TokenBatch, plan: list[Planned], count: int, device: torch.device, *, tree: bool = False
) -> Iterator[MicroBatch]:
    """The planned micro-batches on `device`, filled up with empty ones to `count`, so that all ranks compute alike.

    `tree`: whether the plan is of trees, and so the empty ones too.
    """
    for planned in plan:
        yield (_tree if tree else _rows)(batch, planned, device)
    for _ in range(count - len(plan)):
        yield _empty(batch, device, tree=tree)


def _rows(batch: TokenBatch, planned: Planned, device: torch.device) -> MicroBatch:
    start_R = batch.offsets_B1[planned.rows_R] + planned.prefix
    lengths_R = batch.lengths_B[planned.rows_R] - planned.prefix
    column_T = np.arange(lengths_R.max())
    real_RT = column_T < lengths_R[:, None]
    column_RT = np.broadcast_to(column_T, real_RT.shape)
    if planned.packed:
        start_R = np.repeat(start_R, lengths_R)
        column_RT, real_RT = column_RT[real_RT][None], np.ones((1, len(start_R)), dtype=bool)
        index_RT = start_R[None] + column_RT
    else:
        index_RT = np.where(real_RT, start_R[:, None] + column_RT, 0)
    loss_RT = batch.loss_mask_N[index_RT] & real_RT
    if loss_RT[column_RT == 0].any():
        raise ValueError(UNPREDICTED)
    index_n = index_RT[loss_RT]
    prompts = None
    if planned.prefix:
        prompts_RS = batch.ids_N[start_R[:, None] + np.arange(-planned.prefix, 0)]
        prompts_PS, owner_R = np.unique(prompts_RS, axis=0, return_inverse=True)
        prompts = Prompts(_on(device, prompts_PS), _on(device, owner_R))
    positions_RT = _on(device, column_RT) if planned.packed else None
    return MicroBatch(
        Rows(_on(device, np.where(real_RT, batch.ids_N[index_RT], 0)), prompts, positions_RT),
        source_u=_on(device, np.flatnonzero(loss_RT) - 1),
        target_u=_on(device, batch.ids_N[index_n]),
        prediction_n=None,
        **_streams(batch, index_n, device),
    )


def _tree(batch: TokenBatch, planned: Planned, device: torch.device) -> MicroBatch:
    start_R = batch.offsets_B1[planned.rows_R]
    if batch.loss_mask_N[start_R].any():
        raise ValueError(UNPREDICTED)
    tree = Tree.of(batch, planned.rows_R)
    index_RT = np.where(tree.real_RT, start_R[:, None] + np.arange(tree.node_RT.shape[1]), 0)
    loss_RT = tree.real_RT & batch.loss_mask_N[index_RT + 1]
    index_n, source_n = index_RT[loss_RT] + 1, tree.node_RT[loss_RT]
    target_n = batch.ids_N[index_n]
    vocabulary = int(target_n.max()) + 1
    pair_u, prediction_n = np.unique(source_n * vocabulary + target_n, return_inverse=True)
    paths, place_N = tree.paths()
    return MicroBatch(
        Nodes(
            ids_N=_on(device, batch.ids_N[index_RT[tree.own_RT]]),
            positions_N=_on(device, np.nonzero(tree.own_RT)[1]),
            paths=[Paths.of(_on(device, nodes), start) for nodes, start in paths],
            place_N=_on(device, place_N),
        ),
        source_u=_on(device, pair_u // vocabulary),
        target_u=_on(device, pair_u % vocabulary),
        prediction_n=_on(device, prediction_n),
        **_streams(batch, index_n, device),
    )


def _empty(batch: TokenBatch, device: torch.device, *, tree: bool) -> MicroBatch:
    """One padding token and no loss token: its forward and backward pass take part in collectives and add nothing."""
    nothing, first_RT = np.zeros(0, dtype=np.int64), torch.zeros(1, 1, dtype=torch.int64, device=device)
    # ZeRO reduces gradients in the order in which a backward pass gives them: this one goes the way of the others.
    one = Nodes(first_RT[0], first_RT[0], [Paths.of(first_RT, 0)], first_RT[0])
    return MicroBatch(
        one if tree else Rows(first_RT, positions_RT=first_RT),
        source_u=_on(device, nothing),
        target_u=_on(device, nothing),
        prediction_n=None,
        **_streams(batch, nothing, device),
    )


def _streams(batch: TokenBatch, index_n: np.ndarray, device: torch.device) -> dict[str, Any]:
    floats = {name: getattr(batch, f"{name}_N")[index_n] for name in ("advantage", "kl_weight", "sampler_logprob")}
    return {
        "turn_n": _on(device, batch.turn_N[index_n]),
        **{f"{name}_n": _on(device, stream, torch.float32) for name, stream in floats.items()},
        "index_n": index_n,
    }


def _on(device: torch.device, values: np.ndarray, dtype: torch.dtype = torch.int64) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).to(device, dtype)
