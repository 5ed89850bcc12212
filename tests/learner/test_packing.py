"""Micro-batches: every loss token once, within the budget, padding that changes nothing."""

import dataclasses

import numpy as np
import pytest
import torch
from tiny import full_log_softmax, random_batch, subset, tiny_learner, tiny_model

from rlcore.learner.packing import micro_batches, plan_micro_batches, split_minibatches

CPU = torch.device("cpu")


@pytest.mark.parametrize("budget", [1, 40, 100, 10_000])
def test_every_trajectory_once_and_padded_size_within_the_budget(budget):
    batch = random_batch(40)
    plan = plan_micro_batches(batch.lengths_B, np.arange(40), budget)
    assert sorted(np.concatenate(plan)) == list(range(40))
    for rows in plan:
        longest = batch.lengths_B[rows].max()
        assert len(rows) == 1 or len(rows) * longest <= budget


def test_streams_follow_their_tokens():
    batch = random_batch(10)
    plan = plan_micro_batches(batch.lengths_B, np.arange(10), 60)
    micros = list(micro_batches(batch, plan, len(plan), CPU))
    index = np.concatenate([micro.index_n for micro in micros])
    assert sorted(index) == list(np.flatnonzero(batch.loss_mask_N))
    for micro in micros:
        assert micro.ids_RT.flatten()[micro.source_n + 1].tolist() == batch.ids_N[micro.index_n].tolist()
        assert micro.target_n.tolist() == batch.ids_N[micro.index_n].tolist()
        assert micro.turn_n.tolist() == batch.turn_N[micro.index_n].tolist()
        for name in ("advantage", "kl_weight", "sampler_logprob"):
            np.testing.assert_array_equal(
                getattr(micro, f"{name}_n").numpy(), getattr(batch, f"{name}_N")[micro.index_n]
            )


def test_a_rank_with_less_to_do_is_given_empty_micro_batches():
    batch = random_batch(3)
    micros = list(micro_batches(batch, plan_micro_batches(batch.lengths_B, np.arange(3), 1000), 4, CPU))
    assert [len(micro.target_n) > 0 for micro in micros] == [True, False, False, False]


def test_minibatches_share_out_all_trajectories_the_same_way_for_the_same_seed():
    batch = random_batch(11)
    parts = split_minibatches(batch, 3, (0, 5))
    assert sorted(np.concatenate(parts)) == list(range(11))
    assert [len(part) for part in parts] == [4, 4, 3]
    again, other = split_minibatches(batch, 3, (0, 5)), split_minibatches(batch, 3, (0, 6))
    assert all((a == b).all() for a, b in zip(parts, again, strict=True))
    assert any((a != b).any() for a, b in zip(parts, other, strict=True))


@pytest.mark.parametrize("budget", [1, 70, 10_000])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.usefixtures("ranks")
def test_logprobs_are_those_of_the_model_alone_whatever_the_padding(budget, temperature):
    batch = random_batch(12)
    learner = tiny_learner(temperature=temperature, kl_used=False, micro_batch_tokens=budget)
    whole = full_log_softmax(tiny_model(), batch, temperature)
    expected = whole.gather(1, torch.from_numpy(batch.ids_N)[:, None])[:, 0].detach().numpy()
    logprobs = learner.logprobs(batch)
    assert logprobs.dtype == np.float32
    np.testing.assert_allclose(logprobs, np.where(batch.loss_mask_N, expected, 0), atol=1e-5)
    alone = np.concatenate([learner.logprobs(subset(batch, [b])) for b in range(12)])
    np.testing.assert_allclose(logprobs, alone, atol=1e-5)


def test_a_first_token_that_nothing_predicts_is_refused():
    batch = random_batch(2)
    mask = batch.loss_mask_N.copy()
    mask[batch.offsets_B1[1]] = True
    broken = dataclasses.replace(batch, loss_mask_N=mask)
    with pytest.raises(ValueError, match="first token"):
        list(micro_batches(broken, [np.arange(2)], 1, CPU))
