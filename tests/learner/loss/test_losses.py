"""Losses against float64 numpy, torch.distributions and gradients worked out by hand."""

import numpy as np
import pytest
import torch
from torch.distributions import Categorical, kl_divergence

from rlcore.entries import KL_ESTIMATORS
from rlcore.learner.loss.losses import attempt_mean, cispo, entropy, kl_exact, kl_k3, ppo, reinforce, sapo
from tests.learner.tiny import full_log_softmax, gradient_learner, gradients, random_batch, tiny_model

CLIP = (0.2, 0.3)


def test_policy_loss_is_the_clipped_surrogate_and_its_gradient_stops_where_the_clip_binds():
    ratio = np.array([0.5, 0.5, 0.9, 1.1, 1.25, 1.5, 1.5])
    advantage = np.array([1.0, -1.0, 2.0, -2.0, 1.0, 1.0, -1.0])
    sampler = np.array([-1.0, -2.0, -0.5, -3.0, -1.0, -0.1, -4.0])
    logprob = torch.tensor(sampler + np.log(ratio), requires_grad=True)
    loss, clipped = ppo(logprob, logprob - torch.tensor(sampler), torch.tensor(advantage), CLIP)
    # By hand: the clip binds only where it makes the objective smaller: low ratio and A < 0, high ratio and A > 0.
    assert loss.detach().numpy() == pytest.approx([-0.5, 0.8, -1.8, 2.2, -1.25, -1.3, 1.5])
    assert clipped.tolist() == [False, True, False, False, False, True, False]
    loss.sum().backward()
    assert logprob.grad.numpy() == pytest.approx(np.where(clipped, 0.0, -ratio * advantage))


def test_on_policy_gradient_is_minus_the_advantage():
    logprob = torch.tensor([-1.0, -2.0], requires_grad=True)
    loss, _ = ppo(logprob, logprob - logprob.detach(), torch.tensor([0.7, -1.3]), CLIP)
    loss.sum().backward()
    assert logprob.grad.tolist() == pytest.approx([-0.7, 1.3])


def test_k3_matches_its_formula_and_estimates_the_exact_kl():
    torch.manual_seed(0)
    log_p, log_q = torch.randn(2, 5, dtype=torch.float64).log_softmax(-1)
    tokens = torch.arange(5)
    k3 = kl_k3(log_p[tokens], log_q[tokens])
    ratio = np.exp((log_q - log_p).numpy())
    assert k3.numpy() == pytest.approx(ratio - 1 - np.log(ratio))
    assert (k3 >= 0).all()
    # Its mean under p, taken over all tokens, is KL(p ‖ q) exactly.
    assert (log_p.exp() * k3).sum().item() == pytest.approx(kl_exact(log_p, log_q).item())


def test_exact_kl_and_entropy_agree_with_torch_distributions():
    torch.manual_seed(1)
    log_p, log_q = torch.randn(2, 7, 11, dtype=torch.float64).mul(3).log_softmax(-1)
    p, q = Categorical(logits=log_p), Categorical(logits=log_q)
    torch.testing.assert_close(kl_exact(log_p, log_q), kl_divergence(p, q))
    torch.testing.assert_close(entropy(log_p), p.entropy())


def test_cispo_keeps_every_gradient_and_weighs_it_by_the_clipped_ratio():
    logprob = torch.tensor([-1.0, -2.0, -0.5], requires_grad=True)
    log_ratio = logprob - (logprob.detach() - torch.tensor([0.1, 2.0, -3.0]))
    loss, clipped = cispo(logprob, log_ratio, torch.tensor([2.0, 1.0, -1.0]), (1.0, 4.0))
    loss.sum().backward()
    assert clipped.tolist() == [False, True, False]
    assert logprob.grad.tolist() == pytest.approx([-2 * np.exp(0.1), -5, np.exp(-3)])


def test_reinforce_knows_no_ratio():
    logprob = torch.tensor([-1.0, -2.0], requires_grad=True)
    loss, clipped = reinforce(logprob, logprob - 7, torch.tensor([2.0, -1.0]), (0.0, 0.0))
    loss.sum().backward()
    assert loss.tolist() == [2, -2]
    assert logprob.grad.tolist() == [-2, 1]
    assert not clipped.any()


@pytest.mark.parametrize(("name", "value", "gradient"), [("k1", True, True), ("k2", False, True), ("k3", True, False)])
def test_which_kl_estimators_have_an_unbiased_value_and_which_an_unbiased_gradient(name, value, gradient):
    """Means under p, summed over all tokens, against the exact KL(p ‖ q) and its gradient."""
    torch.manual_seed(2)
    logits, log_q = torch.randn(5, dtype=torch.float64, requires_grad=True), torch.randn(5).double().log_softmax(-1)
    log_p = logits.log_softmax(-1)
    exact = kl_exact(log_p, log_q)
    (exact_gradient,) = torch.autograd.grad(exact, logits, retain_graph=True)
    mean = (log_p.detach().exp() * KL_ESTIMATORS[name](log_p, log_q)).sum()
    (found,) = torch.autograd.grad(mean, logits)
    assert torch.allclose(mean, exact) == value
    assert torch.allclose(found, exact_gradient) == gradient


def test_attempt_mean_is_the_mean_over_the_tokens_of_an_attempt():
    values, attempt = torch.tensor([1.0, 2.0, 3.0, 10.0]), torch.tensor([4, 4, 4, 1])
    assert attempt_mean(values, attempt).tolist() == [2, 2, 2, 10]


@pytest.mark.usefixtures("ranks")
def test_reinforce_is_the_mean_over_trajectories_of_the_sum_over_their_tokens():
    batch, longest = random_batch(6), 50
    learner = gradient_learner(loss="reinforce", kl_used=False, max_sampled_tokens=longest)
    learner.update(batch)
    model, mask = tiny_model(), torch.from_numpy(batch.loss_mask_N)
    logprob = full_log_softmax(model, batch).gather(1, torch.from_numpy(batch.ids_N)[:, None])[:, 0]
    (-(logprob * torch.from_numpy(batch.advantage_N))[mask].sum() / (6 * longest)).backward()
    found = gradients(learner)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-3, atol=1e-6)


def test_sapo_is_its_papers_gate_and_on_policy_its_gradient_is_minus_the_advantage():
    """arXiv 2511.20347: f(r) = 4/τ · sigmoid(τ (r - 1)), whose slope at 1 is 1 for both of its τ."""
    ratio, advantage = np.array([0.5, 1.0, 1.0, 3.0]), np.array([1.0, 2.0, -2.0, -1.0])
    logprob = torch.tensor(np.log(ratio), requires_grad=True)
    loss, clipped = sapo(logprob, logprob, torch.tensor(advantage), (1.05, 1.0))
    tau = np.where(advantage > 0, 1.0, 1.05)
    assert loss.detach().numpy() == pytest.approx(-advantage * 4 / tau / (1 + np.exp(-tau * (ratio - 1))))
    loss.sum().backward()
    assert logprob.grad[1:3].tolist() == pytest.approx([-2.0, 2.0])
    assert 0 < logprob.grad[3] < 3.0  # far from the sampler the gate has nearly closed, and never clips
    assert not clipped.any()
