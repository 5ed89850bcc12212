"""Where ZeRO keeps the trained state: which elements of which parameter this rank holds, as views of its tensors.

All stages but plain data parallelism keep float32 master weights and the optimizer's moments in flat tensors of their
own, cut without regard to where a parameter begins or ends. A piece names what lies where, so that state can be written
by one number of ranks and ZeRO stage and read by another.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

WEIGHT = "weight"
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Piece:
    """Elements `start : start + count` of the flattened parameter `name`, held from `offset` on in `flat`."""

    name: str
    start: int
    count: int
    flat: Tensor
    """One-dimensional but for plain data parallelism; the optimizer's state is found by it."""
    offset: int

    def of(self, tensor: Tensor) -> Tensor:
        """The view of this piece in `flat`, or in a moment of the same shape."""
        return tensor.detach().view(-1)[self.offset : self.offset + self.count]


def pieces(engine: Any, model: nn.Module) -> list[Piece]:
    """The trained elements that this rank holds, named as in `model`, a part of what `engine` trains."""
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    optimizer = engine.optimizer
    if replicated(engine):
        return [Piece(name, 0, parameter.numel(), parameter, 0) for name, parameter in named]
    if hasattr(optimizer, "fp32_partitioned_groups_flat"):
        found = [_piece_of_zero3(optimizer, name, parameter) for name, parameter in named]
    else:
        found = [_piece_of_zero12(optimizer, name, parameter) for name, parameter in named]
    return [piece for piece in found if piece is not None]


def in_buckets(items: Iterable[Item], size: Callable[[Item], int], most: int) -> Iterator[list[Item]]:
    """Consecutive items of at most `most` bytes together; a larger one by itself."""
    bucket: list[Item] = []
    total = 0
    for item in items:
        if bucket and total + size(item) > most:
            yield bucket
            bucket, total = [], 0
        bucket.append(item)
        total += size(item)
    if bucket:
        yield bucket


def replicated(engine: Any) -> bool:
    """Whether every rank holds all of the state."""
    return isinstance(engine.optimizer, torch.optim.Optimizer)


def moments(engine: Any, piece: Piece) -> dict[str, Tensor]:
    """The optimizer's tensors for a piece, by their name; none before its first step."""
    state = engine.basic_optimizer.state.get(piece.flat, {})
    return {key: value for key, value in state.items() if torch.is_tensor(value) and value.shape == piece.flat.shape}


@torch.no_grad()
def refresh_weights(engine: Any) -> None:
    """Makes the weights that the model computes with those of the master weights, as after an optimizer step."""
    optimizer = engine.optimizer
    if replicated(engine):
        return
    if not hasattr(optimizer, "fp32_partitioned_groups_flat"):
        optimizer.update_lp_params()
        return
    optimizer._partition_all_parameters()
    for group in range(len(optimizer.fp16_groups)):
        optimizer._reassign_or_swap_out_partitioned_parameters(group)
    optimizer._post_step(set())


def _piece_of_zero12(optimizer: Any, name: str, parameter: Any) -> Piece | None:
    mapping = parameter._hp_mapping
    if mapping is None:
        return None
    flats = getattr(optimizer, "single_partition_of_fp32_groups", None) or optimizer.fp32_groups_flat_partition
    held, meant = mapping.hp_fragment_address, mapping.lp_fragment_address
    return Piece(name, meant.start, meant.numel, flats[mapping.param_group_index], held.start)


def _piece_of_zero3(optimizer: Any, name: str, parameter: Any) -> Piece | None:
    group, offset, count = optimizer.grad_position[optimizer.get_param_id(parameter)]
    start = count * optimizer._get_param_partition_rank(parameter)
    count = min(count, parameter.ds_numel - start)  # the last parts are padded
    return Piece(name, start, count, optimizer.fp32_partitioned_groups_flat[group], offset) if count > 0 else None
