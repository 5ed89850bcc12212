"""Run by one process or by torchrun: each rank trains on its share of the same batches; rank 0 writes what came out.

Arguments: output file (.npz), then the learners to train one after the other, as `ZERO,KL` or `ZERO,KL,LOSS`.
"""

import sys
from pathlib import Path

import numpy as np
from tiny import random_batch, subset, tiny_learner

from rlcore.learner import start_distributed

TRAJECTORIES, STEPS = 13, 3


def share(batch, rank: int, world: int):
    """Uneven on purpose: with two ranks, the last one holds the three last trajectories."""
    bounds = [0, *[TRAJECTORIES - 3] * (world - 1), TRAJECTORIES]
    return subset(batch, list(range(bounds[rank], bounds[rank + 1])))


def main() -> None:
    output, *arms = sys.argv[1:]
    ranks = start_distributed("cpu")
    results = {}
    for arm in arms:
        zero, kl, *loss = arm.split(",")
        settings = {"zero": int(zero), "kl": kl, "micro_batch_tokens": 60, "max_grad_norm": 0.5}
        settings |= {"loss": loss[0], "entropy_bonus": 0.1} if loss else {}
        learner = tiny_learner(**settings)
        shares = [share(random_batch(TRAJECTORIES, seed=step), ranks.rank, ranks.world) for step in range(STEPS)]
        reports = [learner.update(batch) for batch in shares]
        for step, report in enumerate(reports):
            results |= {f"{arm}/{step}/{name}": value for name, value in report.items()}
        # What is written went through a checkpoint into another learner.
        logprobs = learner.logprobs(shares[0])
        folder = Path(output).parent / f"checkpoint-{ranks.world}-{arm}"
        learner.save(folder)
        resumed = tiny_learner(**settings)
        resumed.load(folder)
        results[f"{arm}/resumed_equal"] = np.array_equal(logprobs, resumed.logprobs(shares[0]))
        results |= {f"{arm}/weight/{name}": tensor.numpy().copy() for name, tensor in resumed.weights()}
    if ranks.first:
        np.savez(output, **results)


if __name__ == "__main__":
    main()
