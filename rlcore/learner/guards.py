"""What goes wrong in a step, said in words that name the micro-batch and the setting to change."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from rlcore.learner.packing import MicroBatch
from rlcore.types import UserError


@contextmanager
def memory_named(micro: MicroBatch, budget: int) -> Iterator[None]:
    """Turns running out of memory within into a UserError that names the micro-batch; `budget` is its token limit."""
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError on CUDA is one
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        rows, width = micro.ids_RT.shape
        prompts = ""
        if micro.prompts:
            count, length = micro.prompts.ids_PS.shape
            prompts = f" after {count} shared prompts of {length}"
        raise UserError(
            f"out of memory in a micro-batch of {rows} trajectories padded to {width} tokens{prompts} "
            f"({rows * width:,} tokens, {len(micro.target_n):,} in the loss): lower learner.micro_batch_tokens "
            f"(now {budget:,})"
        ) from None
