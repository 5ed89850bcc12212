"""Correction of sampler and learner: weights by hand, their mean under the sampler, and what they cost on policy."""

import dataclasses

import numpy as np
import pytest
import torch

from rlcore.learner.loss.losses import importance_weights
from rlcore.recipe.schema import CorrectionConfig
from tests.learner.tiny import gradient_learner, gradients, random_batch, tiny_learner

ATTEMPT = torch.tensor([0, 0, 2, 2, 2])
LOG_RATIO = torch.tensor([0.1, -0.5, 1.0, 0.2, -0.1]).double()


def weights(**settings: object) -> tuple[list[float], list[bool]]:
    weight, changed = importance_weights(LOG_RATIO, ATTEMPT, CorrectionConfig(**settings))
    return weight.tolist(), changed.tolist()


def test_weights_of_tokens_truncated_and_masked():
    ratio = np.exp(LOG_RATIO.numpy())
    truncated, changed = weights(bounds=(0.7, 2.0))
    assert truncated == pytest.approx([ratio[0], 0.7, 2.0, ratio[3], ratio[4]])
    assert changed == [False, True, True, False, False]
    assert weights(mode="mask", bounds=(0.7, 2.0))[0] == pytest.approx([ratio[0], 0, 0, ratio[3], ratio[4]])
    assert weights(mode="none") == ([1] * 5, [False] * 5)


def test_weights_of_attempts_are_products_over_their_tokens():
    first, second = np.exp(-0.4), np.exp(1.1)
    assert weights(level="attempt", bounds=(0.0, 4.0))[0] == pytest.approx([first] * 2 + [second] * 3)
    assert weights(level="attempt", mode="mask")[0] == pytest.approx([first] * 2 + [0] * 3)


def test_unbounded_weights_make_the_samplers_gradient_the_learners():
    """Over draws from μ, the mean of (π/μ) ∇ log π(y) r(y) is the gradient under π; without weights it is not."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.tensor([0.0, 1.0, -1.0], requires_grad=True)
    log_pi, log_mu = logits.log_softmax(-1), torch.tensor([1.0, 0.0, 0.0]).log_softmax(-1)
    reward = torch.tensor([1.0, 0.0, 2.0])
    (exact,) = torch.autograd.grad((log_pi.exp() * reward).sum(), logits, retain_graph=True)
    drawn = torch.multinomial(log_mu.exp(), 200_000, replacement=True, generator=generator)
    log_ratio = (log_pi - log_mu).detach()[drawn]
    attempt = torch.arange(len(drawn))
    for mode, unbiased in (("truncate", True), ("none", False)):
        weight, _ = importance_weights(log_ratio, attempt, CorrectionConfig(mode=mode, bounds=(0, 1e9)))
        (found,) = torch.autograd.grad((weight * reward[drawn] * log_pi[drawn]).mean(), logits, retain_graph=True)
        assert torch.allclose(found, exact, atol=0.01) == unbiased


@pytest.mark.parametrize(("level", "unbiased"), [("trajectory", True), ("attempt", False), ("token", False)])
def test_only_weights_of_whole_trajectories_make_the_gradient_of_second_attempts_the_learners(level, unbiased):
    """Over all conversations of two attempts of one token: second attempts follow first ones that μ drew, too."""
    generator = torch.Generator().manual_seed(1)
    first, second = (torch.randn(*shape, generator=generator).double() for shape in ((3,), (3, 3)))
    noise_1, noise_2 = (torch.randn(*shape, generator=generator).double() / 2 for shape in ((3,), (3, 3)))
    second.requires_grad_()
    log_pi = torch.stack([first.log_softmax(-1)[:, None].expand(3, 3), second.log_softmax(-1)], -1).reshape(9, 2)
    log_mu = torch.stack(
        [(first + noise_1).log_softmax(-1)[:, None].expand(3, 3), (second.detach() + noise_2).log_softmax(-1)], -1
    ).reshape(9, 2)
    reward = torch.tensor([0.0, 0.0, 1.0]).repeat(3).double()
    (exact,) = torch.autograd.grad((log_pi.sum(-1).exp() * reward).sum(), second, retain_graph=True)
    unit = torch.arange(9).repeat_interleave(2) if level == "trajectory" else torch.arange(18)
    correction = CorrectionConfig(level=level, bounds=(0, 1e9))
    weight, _ = importance_weights((log_pi - log_mu).detach().reshape(-1), unit, correction)
    chance = log_mu.sum(-1).exp()
    (found,) = torch.autograd.grad((chance * weight.reshape(9, 2)[:, 1] * reward * log_pi[:, 1]).sum(), second)
    error = (found - exact).norm() / exact.norm()
    assert error < 1e-9 if unbiased else error > 0.2


@pytest.mark.usefixtures("ranks")
def test_all_loss_tokens_of_a_trajectory_share_one_weight():
    """The gradient is that of a sampler that agrees and advantages that hold the weights."""
    batch = random_batch(8, kl_weight=0.0)
    batch = dataclasses.replace(batch, sampler_logprob_N=tiny_learner().logprobs(batch) + 0.01 * batch.advantage_N)
    learner = gradient_learner(kl_used=False, exact_sampler=False, correction={"level": "trajectory"})
    log_ratio_N = (learner.logprobs(batch) - batch.sampler_logprob_N) * batch.loss_mask_N
    weight_B = np.exp(np.add.reduceat(log_ratio_N, batch.offsets_B1[:-1]))
    report = learner.update(batch)
    assert report["corrected"] == 0
    assert np.ptp(weight_B) > 0.02
    plain = gradient_learner(kl_used=False)
    weight_N = weight_B.repeat(batch.lengths_B).astype(np.float32)
    plain.update(
        dataclasses.replace(batch, advantage_N=batch.advantage_N * weight_N, sampler_logprob_N=plain.logprobs(batch))
    )
    for name, expected in gradients(plain).items():
        torch.testing.assert_close(gradients(learner)[name], expected, rtol=1e-3, atol=1e-6)


@pytest.mark.usefixtures("ranks")
def test_tokens_are_weighted_by_learner_over_sampler_and_the_mismatch_is_reported():
    batch = random_batch(8, kl_weight=0.0)
    learner = gradient_learner(kl_used=False, exact_sampler=False, correction={"bounds": (0.5, 3.0)})
    log_ratio_N = learner.logprobs(batch) - batch.sampler_logprob_N
    weight_N = np.exp(log_ratio_N).clip(0.5, 3.0) * batch.loss_mask_N
    report = learner.update(batch)
    # The same gradient, from a sampler that agrees, with advantages that hold the weights.
    plain = gradient_learner(kl_used=False)
    agreeing = dataclasses.replace(
        batch, advantage_N=batch.advantage_N * weight_N, sampler_logprob_N=plain.logprobs(batch)
    )
    plain.update(agreeing)
    for name, expected in gradients(plain).items():
        torch.testing.assert_close(gradients(learner)[name], expected, rtol=1e-3, atol=1e-6)
    mask = batch.loss_mask_N
    ratio = np.exp(log_ratio_N[mask])
    assert report["correction"] == pytest.approx(weight_N[mask].mean(), rel=1e-4)
    assert report["corrected"] == pytest.approx(((ratio < 0.5) | (ratio > 3)).mean())
    assert report["mismatch_k1"] == pytest.approx(-log_ratio_N[mask].mean(), rel=1e-4)
    assert report["mismatch_kl"] == pytest.approx((ratio - 1 - np.log(ratio)).mean(), rel=1e-4)


@pytest.mark.usefixtures("ranks")
def test_where_sampler_and_learner_agree_the_correction_changes_nothing():
    batch = random_batch(8)
    batch = dataclasses.replace(batch, sampler_logprob_N=tiny_learner().logprobs(batch))
    found = []
    for settings in ({"exact_sampler": True}, {"exact_sampler": False}):
        learner = gradient_learner(**settings)
        report = learner.update(batch)
        assert report["correction"] == pytest.approx(1, abs=1e-5)
        assert report["corrected"] == 0
        found.append(gradients(learner))
    for name, expected in found[0].items():
        torch.testing.assert_close(found[1][name], expected, rtol=1e-4, atol=1e-7)


@pytest.mark.usefixtures("ranks")
@pytest.mark.parametrize("loss", ["dapo", "gspo"])
def test_recomputed_old_logprobs_are_those_before_the_update(loss):
    """Over several epochs: as with a sampler that had said exactly them."""
    settings = {"loss": loss, "epochs": 2, "minibatches": 2, "correction": {"mode": "none"}, "lr": 1e-3}
    batch = random_batch(8)
    recomputing = tiny_learner(exact_sampler=False, **settings)
    told = tiny_learner(exact_sampler=True, **settings)
    first = told.update(dataclasses.replace(batch, sampler_logprob_N=told.logprobs(batch)))
    second = recomputing.update(batch)
    assert first["clip_fraction"] > 0
    for name in ("loss", "policy_loss", "clip_fraction", "grad_norm", "kl_t1"):
        assert second[name] == pytest.approx(first[name], rel=1e-5), name
    expected = dict(told.weights())
    assert all(torch.allclose(tensor, expected[name], atol=1e-6) for name, tensor in recomputing.weights())


@pytest.mark.usefixtures("ranks")
@pytest.mark.parametrize(
    ("settings", "passes"),
    [
        ({"exact_sampler": True, "minibatches": 2}, 2),
        ({"exact_sampler": False}, 1),
        ({"exact_sampler": False, "minibatches": 2}, 3),
        ({"exact_sampler": False, "minibatches": 2, "old_logprobs": "sampler"}, 2),
        ({"old_logprobs": "learner", "epochs": 2}, 3),
        ({"kl_used": True}, 1),
    ],
)
def test_no_forward_pass_is_made_that_nothing_needs(settings, passes):
    """Old log-probabilities cost a pass only if other weights follow; without any β the reference is never run."""
    counted = []
    learner = tiny_learner(**{"kl_used": False, **settings})
    learner.module.get_input_embeddings().register_forward_hook(lambda *_: counted.append("policy"))
    if learner._reference:
        embedding = learner._reference._policy.model.get_input_embeddings()
        embedding.register_forward_hook(lambda *_: counted.append("reference"))
    learner.update(random_batch(6, kl_weight=0.0))
    assert counted == ["policy"] * passes
