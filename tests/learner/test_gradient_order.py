"""ZeRO-2 adds up over ranks what a backward pass gives first, then second: all micro-batches give gradients alike."""

import numpy as np
import pytest
import torch
from tiny import branching_batch, grouped_batch, random_batch, subset, tiny_model

from rlcore.learner.batch.packing import micro_batches
from rlcore.learner.batch.planning import plan_micro_batches
from rlcore.learner.policy_module import PolicyModule

CPU = torch.device("cpu")
BATCHES = [random_batch(), grouped_batch(), subset(grouped_batch(), [0]), branching_batch()]


def orders(tree: bool) -> set[tuple[str, ...]]:
    """The orders in which parameters get their gradients, over micro-batches of every kind."""
    module = PolicyModule(tiny_model(), 1.0)
    given: list[str] = []
    for name, parameter in module.named_parameters():
        parameter.register_post_accumulate_grad_hook(lambda _, name=name: given.append(name))
    found, kinds = set(), set()
    for batch in BATCHES:
        for budget in (1, 60, 10_000):
            every = np.arange(len(batch.lengths_B))
            plan = plan_micro_batches(batch, every, budget, share_prompts=True, tree=tree)
            for micro in micro_batches(batch, plan, len(plan) + 1, CPU, tree=tree):  # the last one is empty
                kinds.add((getattr(micro.inputs, "prompts", None) is not None, len(micro.index_n) > 0))
                given.clear()
                sum(scores.sum() for scores in module(micro) if scores is not None).backward()
                found.add(tuple(given))
    assert len(kinds) == (2 if tree else 3)
    assert {len(order) for order in found} == {len(list(module.parameters()))}
    return found


@pytest.mark.parametrize("tree", [False, True])
def test_every_micro_batch_gives_its_gradients_in_the_same_order(tree):
    assert len(orders(tree)) == 1
