"""What goes wrong in a step, said in words that name the micro-batch and the setting to change."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from rlcore.errors import UserError
from rlcore.learner.batch.packing import Inputs, MicroBatch


@contextmanager
def memory_named(micro: MicroBatch, budget: int) -> Iterator[None]:
    """Turns running out of memory within into a UserError that names the micro-batch; `budget` is its token limit."""
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError on CUDA is one
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        raise UserError(
            f"out of memory in a micro-batch of {_described(micro.inputs)}, {len(micro.index_n):,} in the loss: lower "
            f"learner.micro_batch_tokens (now {budget:,})"
        ) from None


def _described(inputs: Inputs) -> str:
    rows, width = inputs.ids_RT.shape
    if inputs.branches:
        return f"{width:,} tokens, equal beginnings counted once"
    prompts = ""
    if inputs.prompts:
        count, length = inputs.prompts.ids_PS.shape
        prompts = f" after {count} shared prompts of {length}"
    return f"{rows} trajectories padded to {width} tokens{prompts} ({rows * width:,} tokens)"
