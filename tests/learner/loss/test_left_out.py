"""Trajectories that carry no gradient are not computed: the update is the one with them."""

import dataclasses

import numpy as np
import pytest
import torch

from rlcore.types import TokenBatch
from tests.learner.tiny import gradient_learner, gradients, parameters, random_batch, tiny_learner

pytestmark = pytest.mark.usefixtures("ranks")
COMPUTED = {"entropy_bonus": 1e-30}
"""Every token then has a gradient, too small to change any number."""


def dead(batch: TokenBatch, rows: list[int]) -> TokenBatch:
    """The batch with no KL weight anywhere, and advantage 0 in these trajectories."""
    advantage_N = batch.advantage_N.copy()
    for row in rows:
        advantage_N[batch.offsets_B1[row] : batch.offsets_B1[row + 1]] = 0
    return dataclasses.replace(batch, advantage_N=advantage_N, kl_weight_N=np.zeros_like(advantage_N))


@pytest.mark.parametrize("budget", [40, 10_000])
@pytest.mark.parametrize("loss", ["dapo", "grpo", "dr_grpo", "gspo"])
def test_gradients_are_the_same_without_dead_trajectories(loss, budget):
    batch = dead(random_batch(12), [0, 3, 4, 7, 11])
    learner, whole = (gradient_learner(loss=loss, micro_batch_tokens=budget, **extra) for extra in ({}, COMPUTED))
    report, expected = learner.update(batch), whole.update(batch)
    tokens = np.add.reduceat(batch.loss_mask_N, batch.offsets_B1[:-1])
    assert report["left_out"] == pytest.approx(tokens[[0, 3, 4, 7, 11]].sum() / tokens.sum())
    assert expected["left_out"] == 0
    assert report["micro_batches"] < expected["micro_batches"] or budget == 10_000
    for name in ("loss", "policy_loss", "grad_norm"):
        assert report[name] == pytest.approx(expected[name], rel=1e-5)
    assert report["tokens"] == expected["tokens"] == tokens.sum()
    gradient = gradients(whole)
    for name, found in gradients(learner).items():
        torch.testing.assert_close(found, gradient[name], rtol=1e-4, atol=1e-5 * report["grad_norm"])


@pytest.mark.parametrize("zero", [0, 1, 2, 3])
def test_a_step_in_which_all_are_dead_is_one_of_gradient_zero(zero):
    """Adam still moves by its momentum, and the schedule goes on."""
    settings = {"zero": zero, "warmup_steps": 4, "weight_decay": 0.1}
    learner, whole = tiny_learner(**settings), tiny_learner(**settings, **COMPUTED)
    live, nothing = random_batch(8), dead(random_batch(8, seed=1), list(range(8)))
    for each in (learner, whole):
        each.update(live)
    before = parameters(learner)
    report = learner.update(nothing)
    assert (report["left_out"], report["grad_norm"], report["loss"], report["skipped"]) == (1, 0, 0, 0)
    assert report["lr"] == whole.update(nothing)["lr"]
    moved = parameters(learner)
    assert any(not torch.equal(moved[name], before[name]) for name in moved)
    for name, tensor in whole.weights():
        torch.testing.assert_close(moved[name], tensor, rtol=1e-5, atol=1e-6)
    assert learner.update(live)["left_out"] == 0


def test_one_live_attempt_keeps_its_trajectory_and_any_kl_weight_does():
    batch = random_batch(6)
    second = dead(batch, list(range(6)))
    second.advantage_N[np.flatnonzero(batch.loss_mask_N & (batch.turn_N == 2))] = 0.5
    assert tiny_learner().update(second)["left_out"] == 0
    held = dataclasses.replace(batch, advantage_N=np.zeros_like(batch.advantage_N))
    assert tiny_learner().update(held)["left_out"] == 0


def test_minibatches_of_several_steps_leave_the_same_ones_out():
    batch = dead(random_batch(12), [0, 1, 2, 3, 4, 5, 6])
    settings = {"minibatches": 3, "epochs": 2, "old_logprobs": "learner", "lr": 1e-4}
    learner, whole = tiny_learner(**settings), tiny_learner(**settings, **COMPUTED)
    report, expected = learner.update(batch), whole.update(batch)
    assert report["tokens"] == expected["tokens"] == 2 * batch.loss_mask_N.sum()
    assert report["loss"] == pytest.approx(expected["loss"], rel=1e-4)
    for name, tensor in whole.weights():
        torch.testing.assert_close(parameters(learner)[name], tensor, rtol=1e-4, atol=1e-5)
