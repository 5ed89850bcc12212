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
            f"out of memory in a micro-batch of {micro.inputs}, {len(micro.index_n):,} in the loss: lower "
            f"learner.micro_batch_tokens (now {budget:,})"
        ) from None
