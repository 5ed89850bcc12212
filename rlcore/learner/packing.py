"""Micro-batches: planned trajectories as the tensors a model reads.

Padding is on the right, so causal attention needs no mask: no real token ever sees a padded one. Where attention keeps
apart what stands in one row (`PolicyModule.packs`), trajectories are packed one after the other and nothing is padded.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rlcore.learner.planning import Planned
from rlcore.types import TokenBatch


@dataclass(frozen=True, slots=True)
class Prompts:
    """P different prompts of S tokens that the trajectories of a micro-batch go on from."""

    ids_PS: Tensor
    """`[P, S]` int64."""
    owner_R: Tensor
    """`[R]` int64: the prompt of each trajectory."""


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """R trajectories padded to T tokens, or one row (R = 1) of packed ones, with the streams of their n loss tokens."""

    ids_RT: Tensor
    """`[R, T]` int64."""
    prompts: Prompts | None
    """What comes before `ids_RT`, if anything is shared."""
    positions_RT: Tensor | None
    """`[R, T]` int64: the place of each token in its trajectory, by which attention tells packed ones apart."""
    source_n: Tensor
    """`[n]` int64: where in the flattened `[R * T]` hidden states each loss token is predicted (one to its left)."""
    target_n: Tensor
    """`[n]` int64: the token that was sampled."""
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
        yield _tensors(batch, planned, device)
    for _ in range(count - len(plan)):
        yield _empty(device)


def _tensors(batch: TokenBatch, planned: Planned, device: torch.device) -> MicroBatch:
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
        raise ValueError("the first token of a trajectory has nothing before it that could predict it: no loss token")
    index_n = index_RT[loss_RT]

    def on_device(values: np.ndarray, dtype: torch.dtype) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(device, dtype)

    prompts = None
    if planned.prefix:
        prompts_RS = batch.ids_N[start_R[:, None] + np.arange(-planned.prefix, 0)]
        prompts_PS, owner_R = np.unique(prompts_RS, axis=0, return_inverse=True)
        prompts = Prompts(on_device(prompts_PS, torch.int64), on_device(owner_R, torch.int64))
    return MicroBatch(
        ids_RT=on_device(np.where(real_RT, batch.ids_N[index_RT], 0), torch.int64),
        prompts=prompts,
        positions_RT=on_device(column_RT, torch.int64) if planned.packed else None,
        source_n=on_device(np.flatnonzero(loss_RT) - 1, torch.int64),
        target_n=on_device(batch.ids_N[index_n], torch.int64),
        turn_n=on_device(batch.turn_N[index_n], torch.int64),
        advantage_n=on_device(batch.advantage_N[index_n], torch.float32),
        kl_weight_n=on_device(batch.kl_weight_N[index_n], torch.float32),
        sampler_logprob_n=on_device(batch.sampler_logprob_N[index_n], torch.float32),
        index_n=index_n,
    )


def _empty(device: torch.device) -> MicroBatch:
    """One padding token and no loss token: its forward and backward pass take part in collectives and add nothing."""
    nothing, floats = torch.zeros(0, dtype=torch.int64, device=device), torch.zeros(0, device=device)
    return MicroBatch(
        ids_RT=torch.zeros(1, 1, dtype=torch.int64, device=device),
        prompts=None,
        positions_RT=None,
        source_n=nothing,
        target_n=nothing,
        turn_n=nothing,
        advantage_n=floats,
        kl_weight_n=floats,
        sampler_logprob_n=floats,
        index_n=np.zeros(0, dtype=np.int64),
    )
