"""Micro-batches: trajectories sorted by length, cut by a budget of padded tokens, as tensors a model reads.

Padding is on the right, so causal attention needs no mask: no real token ever sees a padded one.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rlcore.types import TokenBatch


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """R trajectories padded to T tokens, with the streams of their n loss tokens."""

    ids_RT: Tensor
    """`[R, T]` int64."""
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


def split_minibatches(batch: TokenBatch, parts: int, seed: tuple[int, ...]) -> list[np.ndarray]:
    """Indices of the trajectories of each of `parts` minibatches: a shuffle that `seed` fixes, dealt evenly."""
    count = len(batch.lengths_B)
    order_B = np.arange(count) if parts == 1 else np.random.default_rng(seed).permutation(count)
    return np.array_split(order_B, parts)


def plan_micro_batches(lengths_B: np.ndarray, chosen: np.ndarray, budget: int) -> list[np.ndarray]:
    """The `chosen` trajectories by falling length, cut so that rows times the longest row stays within `budget` tokens.

    A trajectory longer than the budget gets a micro-batch of its own. Longest first: too large a batch fails at once.
    """
    order = chosen[np.argsort(-lengths_B[chosen], kind="stable")]
    plan, start = [], 0
    while start < len(order):
        rows = max(1, budget // int(lengths_B[order[start]]))
        plan.append(order[start : start + rows])
        start += rows
    return plan


def micro_batches(batch: TokenBatch, plan: list[np.ndarray], count: int, device: torch.device) -> Iterator[MicroBatch]:
    """The planned micro-batches on `device`, filled up with empty ones to `count`, so that all ranks compute alike."""
    for rows in plan:
        yield _pad(batch, rows, device)
    for _ in range(count - len(plan)):
        yield _empty(device)


def _pad(batch: TokenBatch, rows: np.ndarray, device: torch.device) -> MicroBatch:
    lengths_R = batch.lengths_B[rows]
    column_T = np.arange(lengths_R.max())
    real_RT = column_T < lengths_R[:, None]
    index_RT = np.where(real_RT, batch.offsets_B1[rows][:, None] + column_T, 0)
    loss_RT = batch.loss_mask_N[index_RT] & real_RT
    if loss_RT[:, 0].any():
        raise ValueError("the first token of a trajectory has nothing before it that could predict it: no loss token")
    index_n = index_RT[loss_RT]

    def on_device(values: np.ndarray, dtype: torch.dtype) -> Tensor:
        return torch.from_numpy(values).to(device, dtype)

    return MicroBatch(
        ids_RT=on_device(np.where(real_RT, batch.ids_N[index_RT], 0), torch.int64),
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
        source_n=nothing,
        target_n=nothing,
        turn_n=nothing,
        advantage_n=floats,
        kl_weight_n=floats,
        sampler_logprob_n=floats,
        index_n=np.zeros(0, dtype=np.int64),
    )
