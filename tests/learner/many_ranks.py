"""Run by one process or by torchrun: each rank trains on its share of the same batches; rank 0 writes.

Arguments: output file (.npz), folder of checkpoints, whether to go on from them ("" for no), then the learners to train
one after the other, as `ZERO,KL` or `ZERO,KL,EXTRA,...`. An extra is a loss or one of `EXTRAS`; `sequence` lets all
ranks share each sequence, `pairs` two of them. With `dead` few trajectories carry a gradient, in the second step none.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tiny import random_batch, subset, tiny_learner, tiny_model

from rlcore.entries import LOSSES
from rlcore.learner import Learner
from rlcore.ranks import start_distributed
from rlcore.recipe.schema import LoraConfig
from rlcore.types import TokenBatch

TRAJECTORIES, STEPS = 13, 2
EXTRAS = {
    "lora": {"lora": LoraConfig(rank=4, targets=["q_proj", "down_proj"])},
    "minibatches": {"minibatches": 3, "epochs": 2, "old_logprobs": "learner"},
    "recomputed": {"activation_checkpointing": True},
}


def share(batch, rank: int, world: int):
    """Uneven on purpose: the last of several ranks holds the three last trajectories."""
    bounds = [*np.linspace(0, TRAJECTORIES - 3, world).astype(int), TRAJECTORIES]
    return subset(batch, list(range(bounds[rank], bounds[rank + 1])))


def is_saved(arm: str) -> bool:
    """Whether what is saved of the arm is unlike that of another one."""
    return not {"dead", "sequence"} & set(arm.split(","))


def batch_of(step: int, arm: str) -> TokenBatch:
    batch = random_batch(TRAJECTORIES, seed=step)
    if "dead" not in arm:
        return batch
    nothing_N = np.zeros_like(batch.kl_weight_N)
    live_N = np.arange(len(nothing_N)) < (0 if step == 1 else batch.offsets_B1[5])
    return replace(batch, kl_weight_N=nothing_N, advantage_N=np.where(live_N, batch.advantage_N, nothing_N))


def learner_of(arm: str) -> Learner:
    zero, kl, *extra = arm.split(",")
    settings = {"zero": int(zero), "kl": kl, "micro_batch_tokens": 60, "max_grad_norm": 0.5}
    world = torch.distributed.get_world_size()
    for name in extra:
        if name in LOSSES.registered:
            settings |= {"loss": name, "entropy_bonus": 0.1}
        elif name in ("sequence", "pairs"):
            settings["sequence_parallel"] = min(world, 2) if name == "pairs" else world
        else:
            settings |= EXTRAS.get(name, {})
    if zero == "3":  # tiny parameters too are split
        settings["deepspeed"] = {"zero_optimization": {"stage3_param_persistence_threshold": 0}}
    model = tiny_model(kv_heads=1 if "one_key" in extra else 2)
    return tiny_learner(model.to(torch.bfloat16) if "bf16" in extra else model, **settings)


def train(arms: list[str], folder: Path, *, resume: bool) -> dict[str, np.ndarray]:
    """Reports and weights of each arm: of all steps, or of the last one after what `folder` holds.

    What is before the last step is saved there, and loaded again, by arms that differ in what is saved.
    """
    ranks = start_distributed("cpu")
    results = {}
    for arm in arms:
        batches = [share(batch_of(step, arm), ranks.rank, ranks.world) for step in range(STEPS + 1)]
        learner, reports = learner_of(arm), []
        if resume:
            learner.load(folder / arm)
        else:
            reports = [learner.update(batch) for batch in batches[:STEPS]]
        if not resume and is_saved(arm):
            learner.save(folder / arm)
            trained, learner = learner, learner_of(arm)
            learner.load(folder / arm)
            same = np.array_equal(trained.logprobs(batches[0]), learner.logprobs(batches[0]))
            results[f"{arm}/resumed_equal"] = np.array(same)
        reports.append(learner.update(batches[STEPS]))
        for step, report in enumerate(reversed(reports)):
            results |= {f"{arm}/{step}/{name}": np.array(value) for name, value in report.items()}
        results |= {f"{arm}/weight/{name}": tensor.float().numpy().copy() for name, tensor in learner.weights()}
    return results


if __name__ == "__main__":
    output, folder, resume, *arms = sys.argv[1:]
    results = train(arms, Path(folder), resume=bool(resume))
    if torch.distributed.get_rank() == 0:
        np.savez(output, **results)
