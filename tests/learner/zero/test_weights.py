"""Weights that ZeRO-3 has split, read whole: no more at once than was promised."""

import pytest
import torch

from rlcore.learner.zero import weights
from rlcore.recipe.schema import LoraConfig
from tests.learner.tiny import tiny_learner, tiny_model

pytestmark = pytest.mark.usefixtures("ranks")
SPLIT_ALL = {"zero_optimization": {"stage3_param_persistence_threshold": 0}}
"""DeepSpeed else keeps parameters as small as these whole."""


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=2)], ids=["plain", "merged"])
def test_split_weights_are_gathered_a_bucket_at_a_time(monkeypatch, lora):
    monkeypatch.setattr(weights, "BUCKET_BYTES", 12 << 10)
    learner = tiny_learner(zero=3, kl_used=False, lora=lora, deepspeed=SPLIT_ALL)
    parts = list(learner.module.parameters())
    assert sum(part.numel() for part in parts) == 0
    held, seen = [], {}
    for name, tensor in learner.weights():
        held.append(sum(part.numel() * part.element_size() for part in parts))
        seen[name] = tensor.clone()
    assert max(held) <= 12 << 10
    assert sum(part.ds_numel * 4 for part in parts) > 60 << 10
    assert sum(part.numel() for part in parts) == 0
    for name, parameter in tiny_model().named_parameters():
        torch.testing.assert_close(seen[name], parameter.detach())
