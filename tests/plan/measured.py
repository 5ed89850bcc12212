"""Run by one process or by torchrun: bytes that a rank really holds at an optimizer step.

Arguments: output file (.json), then the learners to measure one after the other, as `ZERO,DTYPE` or
`ZERO,DTYPE,optimizer`, with the optimizer in the host's memory; rank 0 writes.
"""

import gc
import json
import sys
import time

import numpy as np
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

import rlcore.learner.learner
from rlcore.learner import Learner
from rlcore.ranks import start_distributed
from rlcore.recipe.schema import LearnerConfig
from rlcore.types import TokenBatch

CONFIG = {
    "vocab_size": 2000,
    "hidden_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 384,
    "tie_word_embeddings": False,
}


def batch() -> TokenBatch:
    """Four trajectories, of which one is a micro-batch."""
    ids = np.arange(4 * 24)
    mask = ids % 24 >= 8
    ones = np.where(mask, 1, 0).astype(np.float32)
    turn = np.ones(len(ids), dtype=np.int8)
    return TokenBatch(np.arange(5) * 24, ids, turn, mask, ones, ones, -7 * ones)


def live() -> int:
    """Bytes of all tensors that Python can reach, each storage once."""
    gc.collect()
    storages = {}
    for thing in gc.get_objects():
        try:
            if isinstance(thing, torch.Tensor):
                storage = thing.untyped_storage()
                storages[storage._cdata] = storage.nbytes()
        except Exception:  # objects that only pretend to be tensors
            continue
    return sum(storages.values())


def settled() -> int:
    """`live` once nothing is let go of: threads of the process group hold what they reduced for some milliseconds."""
    before, held = sys.maxsize, live()
    while held < before:
        time.sleep(0.2)
        before, held = held, live()
    return held


def main() -> None:
    output, *arms = sys.argv[1:]
    ranks = start_distributed("cpu")
    gc.freeze()  # `live` need not look at what was imported
    held: dict[str, int] = {}
    alive = []  # what an engine leaves behind when it ends would blur the next one's figures
    step = rlcore.learner.learner.guarded_step

    def measured_step(engine: object, max_grad_norm: float) -> tuple[float, bool]:
        at_step.append(settled())
        return step(engine, max_grad_norm)

    for arm in arms:
        zero, dtype, *away = arm.split(",")
        section = LearnerConfig(zero=int(zero), offload=away, micro_batch_tokens=1)
        before, at_step = live(), list[int]()
        model = Qwen2ForCausalLM(Qwen2Config(**CONFIG)).eval().to(getattr(torch, dtype))
        learner = Learner(section, model, temperature=1.0, kl_used=False, total_steps=10, seed=0)
        alive.append(learner)
        learner.update(batch())  # the optimizer's state is made in the first step
        rlcore.learner.learner.guarded_step = measured_step
        learner.update(batch())
        rlcore.learner.learner.guarded_step = step
        held[arm] = at_step[0] - before
    if ranks.first:
        with open(output, "w") as file:
            json.dump(held, file)


if __name__ == "__main__":
    main()
