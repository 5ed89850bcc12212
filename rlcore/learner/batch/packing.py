"""Micro-batches: planned trajectories as the tensors a model reads.

Padding is on the right, so causal attention needs no mask: no real token ever sees a padded one. Where attention keeps
apart what stands in one row (`PolicyModule.packs`), trajectories are packed one after the other and nothing is padded.
The learner's own decoder reads them as trees (`tree.py`), in which equal beginnings are one.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rlcore.learner.batch.planning import Planned
from rlcore.learner.batch.tree import Tree
from rlcore.types import TokenBatch

UNPREDICTED = "the first token of a trajectory has nothing before it that could predict it: no loss token"


@dataclass(frozen=True, slots=True)
class Prompts:
    """P different prompts of S tokens that the trajectories of a micro-batch go on from."""

    ids_PS: Tensor
    """`[P, S]` int64."""
    owner_R: Tensor
    """`[R]` int64: the prompt of each trajectory."""


@dataclass(frozen=True, slots=True)
class Paths:
    """What attention sees of a tree: some of its trajectories as rows of nodes."""

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
class Branches:
    """How the N nodes of a tree are seen by attention, which needs whole trajectories."""

    paths: list[Paths]
    place_N: Tensor
    """`[N]` int64: where each node asks, in the `[R, T - start]` of all paths one after the other."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a model reads, and the u predictions it is asked for.

    R trajectories padded to T tokens, or one row (R = 1) of packed ones or of a tree's nodes. In a tree, equal tokens
    after equal ones are one prediction; else each of the n loss tokens is its own.
    """

    ids_RT: Tensor
    """`[R, T]` int64."""
    prompts: Prompts | None
    """What comes before `ids_RT`, if anything is shared."""
    positions_RT: Tensor | None
    """`[R, T]` int64: the place of each token in its trajectory, by which attention tells packed ones apart."""
    branches: Branches | None
    """How attention tells the trajectories of a tree."""
    source_u: Tensor
    """`[u]` int64: where in the flattened `[R * T]` hidden states a token is predicted (one to its left)."""
    target_u: Tensor
    """`[u]` int64: the token that was sampled."""
    prediction_n: Tensor | None
    """`[n]` int64: which of the u is that of each loss token; None where u = n, in the same order."""


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Trajectories that are computed together: what the model reads, and the streams of their n loss tokens."""

    inputs: Inputs
    turn_n: Tensor
    """`[n]` int64: attempt, counted from 1."""
    advantage_n: Tensor
    kl_weight_n: Tensor
    sampler_logprob_n: Tensor
    index_n: np.ndarray
    """`[n]` int64: place of each loss token in the flat streams of the batch."""


def micro_batches(batch: TokenBatch, plan: list[Planned], count: int, device: torch.device) -> Iterator[MicroBatch]:
    """The planned micro-batches on `device`, filled up with empty ones to `count`, so that all ranks compute alike."""
    for planned in plan:
        yield (_tree if planned.layout == "tree" else _rows)(batch, planned, device)
    for _ in range(count - len(plan)):
        yield _empty(device)


def _rows(batch: TokenBatch, planned: Planned, device: torch.device) -> MicroBatch:
    start_R = batch.offsets_B1[planned.rows_R] + planned.prefix
    lengths_R = batch.lengths_B[planned.rows_R] - planned.prefix
    column_T = np.arange(lengths_R.max())
    real_RT = column_T < lengths_R[:, None]
    column_RT = np.broadcast_to(column_T, real_RT.shape)
    if planned.layout == "packed":
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
    inputs = Inputs(
        ids_RT=_on(device, np.where(real_RT, batch.ids_N[index_RT], 0)),
        prompts=prompts,
        positions_RT=_on(device, column_RT) if planned.layout == "packed" else None,
        branches=None,
        source_u=_on(device, np.flatnonzero(loss_RT) - 1),
        target_u=_on(device, batch.ids_N[index_n]),
        prediction_n=None,
    )
    return _with_streams(inputs, batch, index_n, device)


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
    inputs = Inputs(
        ids_RT=_on(device, batch.ids_N[index_RT[tree.own_RT]][None]),
        prompts=None,
        positions_RT=_on(device, np.nonzero(tree.own_RT)[1][None]),
        branches=Branches([Paths.of(_on(device, nodes), start) for nodes, start in paths], _on(device, place_N)),
        source_u=_on(device, pair_u // vocabulary),
        target_u=_on(device, pair_u % vocabulary),
        prediction_n=_on(device, prediction_n),
    )
    return _with_streams(inputs, batch, index_n, device)


def _empty(device: torch.device) -> MicroBatch:
    """One padding token and no loss token: its forward and backward pass take part in collectives and add nothing.

    It is padded, packed and a tree alike: ZeRO reduces gradients in the order in which a backward pass gives them, so
    this one must go the way of the others.
    """
    nothing, floats = torch.zeros(0, dtype=torch.int64, device=device), torch.zeros(0, device=device)
    first_RT = torch.zeros(1, 1, dtype=torch.int64, device=device)
    branches = Branches([Paths.of(first_RT, 0)], first_RT[0])
    inputs = Inputs(first_RT, None, first_RT, branches, source_u=nothing, target_u=nothing, prediction_n=None)
    return MicroBatch(inputs, nothing, floats, floats, floats, index_n=np.zeros(0, dtype=np.int64))


def _with_streams(inputs: Inputs, batch: TokenBatch, index_n: np.ndarray, device: torch.device) -> MicroBatch:
    """The micro-batch of these loss tokens, which are places in the flat streams."""
    streams = (batch.advantage_N, batch.kl_weight_N, batch.sampler_logprob_N)
    advantage_n, kl_weight_n, sampler_logprob_n = (_on(device, each_N[index_n], torch.float32) for each_N in streams)
    turn_n = _on(device, batch.turn_N[index_n])
    return MicroBatch(inputs, turn_n, advantage_n, kl_weight_n, sampler_logprob_n, index_n)


def _on(device: torch.device, values: np.ndarray, dtype: torch.dtype = torch.int64) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).to(device, dtype)
