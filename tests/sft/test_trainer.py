"""Supervised steps themselves: what a half-precision policy learns, and the optimizer that a schedule asks for."""

from dataclasses import replace

import pytest
import torch

from rlcore.policy import Policy
from rlcore.policy.scratch import scratch_model, scratch_tokenizer
from rlcore.recipe.schema import ScratchConfig
from rlcore.sft.trainer import IGNORED, SftSchedule, train_supervised

SIZES = ScratchConfig(hidden_size=32, layers=1, heads=2, kv_heads=1, intermediate_size=64, vocab_size=300)
TOKENIZER = scratch_tokenizer(["Write the letter a.", "aaaa"], 300)
ROWS = [
    {"input_ids": [5, 6 + i, 7, *range(20, 24 + i % 3)], "labels": [IGNORED] * 3 + [*range(20, 24 + i % 3)]}
    for i in range(8)
]
SCHEDULE = SftSchedule(steps=20, batch=4, lr=1e-5)


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)  # accelerate takes it for torchrun's


def trained(folder, dtype: torch.dtype, schedule: SftSchedule, *, rounds: int = 1) -> tuple[Policy, torch.Tensor]:
    """A policy after `rounds` of the schedule, and how far its weights have moved."""
    policy = Policy(torch.nn.Module.to(scratch_model(SIZES, TOKENIZER, 0), dtype), TOKENIZER)
    for layer in policy.model.modules():  # as in a model that is loaded
        for name, buffer in layer.named_buffers(recurse=False):
            layer.register_buffer(name, buffer.float(), persistent=False)
    start = flat(policy)
    for _ in range(rounds):
        train_supervised(policy, ROWS, schedule, folder, seed=0, rows_at_once=2, on_step=lambda done: None)
    return policy, flat(policy) - start


def flat(policy: Policy) -> torch.Tensor:
    return torch.cat([weight.detach().float().flatten() for weight in policy.model.parameters()])


@pytest.mark.parametrize("rounds", [1, 2])
def test_a_policy_in_bfloat16_learns_as_one_in_float32(tmp_path, rounds):
    _, exact = trained(tmp_path, torch.float32, SCHEDULE, rounds=rounds)
    policy, rounded = trained(tmp_path, torch.bfloat16, SCHEDULE, rounds=rounds)
    assert 0.9 < (exact @ rounded / (exact @ exact)).item() < 1.1
    model = policy.model
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
    assert {buffer.dtype for buffer in model.buffers()} == {torch.float32}
    assert model.lm_head.weight is model.get_input_embeddings().weight
    assert model(input_ids=torch.tensor([[5, 6, 7]])).logits.dtype == torch.bfloat16
    assert all(weight.grad is None for weight in model.parameters())


@pytest.mark.parametrize("changed", [{"betas": (0.5, 0.5)}, {"weight_decay": 10.0}, {"max_grad_norm": 1e-9}], ids=str)
def test_the_optimizer_is_the_schedules(tmp_path, changed):
    usual = replace(SCHEDULE, steps=3, lr=1e-3)
    (_, one), (_, other) = (
        trained(tmp_path, torch.float32, schedule) for schedule in (usual, replace(usual, **changed))
    )
    assert (one - other).norm() > 0.01 * one.norm()
