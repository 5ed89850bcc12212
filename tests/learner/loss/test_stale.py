"""Samples of earlier weights: their exact gradient, the bound that the clip lacks, their age in the report."""

import dataclasses

import numpy as np
import pytest
import torch

from rlcore.learner.loss.losses import importance_weights, ppo, within_ratio
from rlcore.recipe.schema import CorrectionConfig
from tests.learner.tiny import gradient_learner, gradients, random_batch, tiny_learner, tiny_model

A = torch.randn(9, generator=torch.Generator().manual_seed(2)).double()
"""The advantage of each of the 9 sequences of two tokens out of three."""


def tables(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of the first token, and of the second after each first."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, generator=generator).double(), torch.randn(3, 3, generator=generator).double()


def sequences(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Log-probabilities of both tokens of all sequences, `[9, 2]`."""
    return torch.stack([first.log_softmax(-1)[:, None].expand(3, 3), second.log_softmax(-1)], -1).reshape(9, 2)


@pytest.fixture
def mixed():
    """The present policy, and sequences whose first token one version sampled and the second token another."""
    policy = [table.requires_grad_() for table in tables(3)]
    log_pi = sequences(*policy)
    log_mu = torch.stack([sequences(*tables(4))[:, 0], sequences(*tables(5))[:, 1]], -1)
    return policy, log_pi, log_mu, log_mu.sum(-1).exp()


def test_weights_of_trajectories_give_the_exact_gradient_under_mixed_versions(mixed):
    policy, log_pi, log_mu, chance = mixed
    exact = torch.autograd.grad((log_pi.sum(-1).exp() * A).sum(), policy, retain_graph=True)
    unit = torch.arange(9).repeat_interleave(2)
    free = CorrectionConfig(level="trajectory", bounds=(0, 1e9))
    weight, _ = importance_weights((log_pi.detach() - log_mu).ravel(), unit, free)
    loss = (chance * A * (weight.view(9, 2) * log_pi).sum(-1)).sum()
    for found, expected in zip(torch.autograd.grad(loss, policy), exact, strict=True):
        torch.testing.assert_close(found, expected)


def test_the_clipped_ratio_to_what_was_drawn_from_has_the_gradient_of_its_own_surrogate(mixed):
    """Token by token, π/μ · A within the clip, whatever version μ was of; nothing beyond it but where A < 0."""
    policy, log_pi, log_mu, chance = mixed
    advantage = A[:, None].expand(9, 2)
    loss, clipped = ppo(log_pi, log_pi - log_mu, advantage, (0.2, 0.3))
    kept = within_ratio(log_pi - log_mu, advantage, 2.0)
    found = torch.autograd.grad((chance[:, None] * loss * kept).sum(), policy, retain_graph=True)
    ratio = (log_pi - log_mu).exp()
    inside = torch.where(advantage > 0, ratio.detach() <= 1.3, (ratio.detach() >= 0.8) & (ratio.detach() <= 2.0))
    assert 0 < int(clipped.sum()) < 18
    assert 0 < int((~kept).sum()) < 18
    surrogate = -(chance[:, None] * advantage * torch.where(inside, ratio, 0.0)).sum()
    for one, other in zip(found, torch.autograd.grad(surrogate, policy), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.usefixtures("ranks")
def test_tokens_of_negative_advantage_beyond_the_bound_leave_the_loss_alone():
    batch, model = random_batch(), tiny_model()
    ratio = np.exp(tiny_learner(model).logprobs(batch) - batch.sampler_logprob_N)
    bound = 1.01
    far = batch.loss_mask_N & (ratio > bound) & (batch.advantage_N < 0)
    assert 0 < far.sum() < batch.loss_mask_N.sum()
    without = dataclasses.replace(batch, advantage_N=np.where(far, 0, batch.advantage_N).astype(np.float32))
    found = []
    for given, limit in ((batch, bound), (without, None), (batch, None)):
        learner = gradient_learner(tiny_model(), old_logprobs="sampler", max_ratio=limit, clip=(0.9, 50.0))
        report = learner.update(given)
        found.append(gradients(learner))
        if limit:
            assert report["corrected"] == pytest.approx(far.sum() / batch.loss_mask_N.sum())
    for name, gradient in found[0].items():
        torch.testing.assert_close(gradient, found[1][name], msg=name)
    assert any(not torch.allclose(found[0][name], found[2][name]) for name in found[0])


@pytest.mark.usefixtures("ranks")
def test_a_report_says_how_old_tokens_are_and_how_far_from_the_learner_at_each_age():
    batch = random_batch()
    lag_N = np.where(batch.loss_mask_N, np.arange(len(batch.ids_N)) % 3, 0).astype(np.int16)
    learner = tiny_learner()
    gap_N = (learner.logprobs(batch) - batch.sampler_logprob_N).astype(np.float64)
    k3_N = np.exp(gap_N) - 1 - gap_N
    report = learner.update(dataclasses.replace(batch, lag_N=lag_N))
    assert report["lag"] == pytest.approx(lag_N[batch.loss_mask_N].mean())
    for lag in range(3):
        assert report[f"mismatch_kl_lag{lag}"] == pytest.approx(
            k3_N[batch.loss_mask_N & (lag_N == lag)].mean(), rel=1e-4
        )
    assert not any("lag" in name for name in tiny_learner().update(batch))
    new = dataclasses.replace(batch, lag_N=np.zeros_like(lag_N))
    assert not any("lag" in name for name in tiny_learner().update(new))
