"""A learner under a real limit of memory; prints what it says of trees and of padded trajectories."""

import resource
from pathlib import Path

import numpy as np
from tiny import random_batch, tiny_learner

from rlcore.errors import UserError
from rlcore.ranks import start_distributed
from rlcore.types import TokenBatch


def long_batch(trajectories: int, length: int) -> TokenBatch:
    """Trajectories of a short prompt and one long attempt."""
    loss_mask_N = np.tile(np.arange(length) > 3, trajectories)
    count = trajectories * length
    return TokenBatch(
        offsets_B1=np.arange(trajectories + 1) * length,
        ids_N=np.r_[tuple(np.r_[b // 61, b % 61, np.arange(length - 2) % 61] for b in range(trajectories))],
        turn_N=np.ones(count, dtype=np.int8),
        loss_mask_N=loss_mask_N,
        advantage_N=loss_mask_N.astype(np.float32),
        kl_weight_N=np.zeros(count, dtype=np.float32),
        sampler_logprob_N=np.zeros(count, dtype=np.float32),
    )


start_distributed("cpu")
learner = tiny_learner(kl_used=False, micro_batch_tokens=800_000)
learner.update(random_batch())
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (300 << 20), resource.RLIM_INFINITY))
for tree in (True, False):
    learner._trees = tree
    try:
        learner.update(long_batch(400, 2000))
    except UserError as error:
        print(error)
