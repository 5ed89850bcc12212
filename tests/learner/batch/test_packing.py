"""Micro-batches: every loss token once, within the budget, padding that changes nothing."""

import dataclasses

import numpy as np
import pytest
import torch

from rlcore.learner.batch.packing import micro_batches
from rlcore.learner.batch.planning import Planned, plan_micro_batches, split_minibatches
from rlcore.learner.policy_module import PolicyModule, keeps_apart
from rlcore.types import TokenBatch
from tests.learner.tiny import (
    branching_batch,
    full_log_softmax,
    grouped_batch,
    parameters,
    random_batch,
    subset,
    tiny_learner,
    tiny_model,
)

CPU = torch.device("cpu")


def plan(batch: TokenBatch, budget: int, share_prompts: bool = True, tree: bool = False) -> list[Planned]:
    every = np.arange(len(batch.lengths_B))
    return plan_micro_batches(batch, every, budget, share_prompts=share_prompts, tree=tree)


@pytest.mark.parametrize("share_prompts", [False, True])
@pytest.mark.parametrize("budget", [1, 40, 100, 10_000])
def test_every_trajectory_once_and_padded_size_within_the_budget(budget, share_prompts):
    batch = grouped_batch()
    planned = plan(batch, budget, share_prompts=share_prompts)
    assert sorted(np.concatenate([each.rows_R for each in planned])) == list(range(len(batch.lengths_B)))
    for each, micro in zip(planned, micro_batches(batch, planned, len(planned), CPU), strict=True):
        rows = micro.inputs
        size = rows.ids_RT.numel() + (rows.prompts.ids_PS.numel() if rows.prompts else 0)
        assert size <= each.tokens
        assert len(each.rows_R) == 1 or each.tokens <= budget


@pytest.mark.parametrize("tree", [False, True])
@pytest.mark.parametrize("make_batch", [random_batch, grouped_batch, branching_batch])
def test_streams_follow_their_tokens(make_batch, tree):
    batch = make_batch()
    planned = plan(batch, 60, tree=tree)
    micros = list(micro_batches(batch, planned, len(planned), CPU, tree=tree))
    index = np.concatenate([micro.index_n for micro in micros])
    assert sorted(index) == list(np.flatnonzero(batch.loss_mask_N))
    for micro in micros:
        # Where a loss token is predicted, the model reads the token before it.
        each_n = torch.arange(len(micro.index_n)) if micro.prediction_n is None else micro.prediction_n
        ids_N = micro.inputs.ids_N if tree else micro.inputs.ids_RT.flatten()
        assert ids_N[micro.source_u][each_n].tolist() == batch.ids_N[micro.index_n - 1].tolist()
        assert micro.target_u[each_n].tolist() == batch.ids_N[micro.index_n].tolist()
        assert micro.turn_n.tolist() == batch.turn_N[micro.index_n].tolist()
        for name in ("advantage", "kl_weight", "sampler_logprob"):
            stream = getattr(batch, f"{name}_N")[micro.index_n]
            np.testing.assert_array_equal(getattr(micro, f"{name}_n").numpy(), stream)


def test_the_prompt_of_a_group_is_computed_once():
    batch = grouped_batch(groups=3, size=4, prompt=9)
    (planned,) = plan(batch, 10_000)
    (micro,) = micro_batches(batch, [planned], 1, CPU)
    assert micro.inputs.prompts.ids_PS.shape == (3, 8)  # the last prompt token predicts: each trajectory has its own
    for row, owner, ids in zip(planned.rows_R, micro.inputs.prompts.owner_R, micro.inputs.ids_RT, strict=True):
        start, stop = batch.offsets_B1[row : row + 2]
        read = [*micro.inputs.prompts.ids_PS[owner].tolist(), *ids.tolist()]
        assert read[: stop - start] == batch.ids_N[start:stop].tolist()


def test_nothing_is_shared_where_it_saves_little():
    assert all(each.prefix == 0 for each in plan(random_batch(), 10_000))
    assert all(each.prefix == 0 for each in plan(grouped_batch(prompt=2), 10_000))


def test_trajectories_without_a_loss_token_are_not_computed():
    batch = random_batch(5)
    mask = batch.loss_mask_N.copy()
    mask[batch.offsets_B1[1] : batch.offsets_B1[3]] = False
    planned = plan(dataclasses.replace(batch, loss_mask_N=mask), 10_000)
    assert sorted(np.concatenate([each.rows_R for each in planned])) == [0, 3, 4]


@pytest.mark.usefixtures("ranks")
def test_shared_prompts_change_neither_logprobs_nor_updates():
    """Held against ZeRO-3, which never shares them."""
    batch = grouped_batch()
    learner, alone = tiny_learner(kl="exact"), tiny_learner(kl="exact", zero=3)
    learner._trees = False
    np.testing.assert_allclose(learner.logprobs(batch), alone.logprobs(batch), atol=1e-5)
    for _ in range(2):
        shared, expected = learner.update(batch), alone.update(batch)
        assert (shared.pop("micro_batches"), expected.pop("micro_batches")) == (2, 1)  # prompts of two lengths
        assert shared == pytest.approx(expected, rel=1e-4, abs=1e-5)
    weights = parameters(alone)
    for name, tensor in learner.weights():
        torch.testing.assert_close(tensor, weights[name], rtol=1e-3, atol=1e-4)


def test_a_rank_with_less_to_do_is_given_empty_micro_batches():
    batch = random_batch(3)
    micros = list(micro_batches(batch, plan(batch, 1000), 4, CPU))
    assert [len(micro.target_u) > 0 for micro in micros] == [True, False, False, False]


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
    for tree in (False, True):
        with pytest.raises(ValueError, match="first token"):
            list(micro_batches(broken, plan(broken, 1000, tree=tree), 1, CPU, tree=tree))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("budget", [1, 70, 10_000])
def test_packed_trajectories_have_the_logprobs_and_gradients_they_have_alone(attention, budget):
    batch, results = random_batch(12), []
    for pack in (True, False):
        model = tiny_model()
        model.set_attn_implementation(attention)
        assert keeps_apart(model)
        policy = PolicyModule(model, 1.0)
        planned = plan_micro_batches(batch, np.arange(12), budget if pack else 1, pack=pack)
        logprob_N = torch.zeros(len(batch.ids_N))
        for micro in micro_batches(batch, planned, len(planned), CPU):
            ids_RT = micro.inputs.ids_RT
            assert not pack or (len(ids_RT) == 1 and ids_RT.numel() <= max(budget, batch.lengths_B.max()))
            logprob_n, _, _ = policy(micro)
            (logprob_n * micro.advantage_n).sum().backward()
            logprob_N[micro.index_n] = logprob_n.detach()
        results.append((logprob_N, *(parameter.grad for parameter in model.parameters())))
    for packed, alone in zip(*results, strict=True):
        torch.testing.assert_close(packed, alone, rtol=1e-4, atol=1e-4)


def test_a_packed_row_holds_no_padding_and_as_few_rows_as_fit():
    batch = random_batch(40)
    planned = plan_micro_batches(batch, np.arange(40), 100, pack=True)
    assert sorted(np.concatenate([each.rows_R for each in planned])) == list(range(40))
    assert all(each.tokens == batch.lengths_B[each.rows_R].sum() <= 100 for each in planned)
    assert len(planned) <= len(batch.ids_N) / 100 * 11 / 9 + 1
    micros = micro_batches(batch, planned, len(planned), CPU)
    assert sum(micro.inputs.ids_RT.numel() for micro in micros) == len(batch.ids_N)
