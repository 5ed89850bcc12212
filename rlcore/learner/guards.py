"""What goes wrong in a step, said in words that name the micro-batch and the setting to change."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from rlcore.errors import UserError
from rlcore.learner.batch.packing import MicroBatch


@contextmanager
def memory_named(micro: MicroBatch, budget: int) -> Iterator[None]:
    """Turns running out of memory within into a UserError that names the micro-batch; `budget` is its token limit."""
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError on CUDA is one
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        raise UserError(
            f"out of memory in a micro-batch of {_described(micro)}, {len(micro.index_n):,} in the loss: lower "
            f"learner.micro_batch_tokens (now {budget:,})"
        ) from None


def _described(micro: MicroBatch) -> str:
    rows, width = micro.ids_RT.shape
    if micro.branches:
        return f"{width:,} tokens, equal beginnings counted once"
    prompts = ""
    if micro.prompts:
        count, length = micro.prompts.ids_PS.shape
        prompts = f" after {count} shared prompts of {length}"
    return f"{rows} trajectories padded to {width} tokens{prompts} ({rows * width:,} tokens)"
