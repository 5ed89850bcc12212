"""The learner against calculations done another way: whole logits, autograd on one trajectory at a time, bare torch."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from tiny import full_log_softmax, gradient_learner, gradients, parameters, random_batch, tiny_learner, tiny_model
from transformers import Gemma2Config, Gemma2ForCausalLM

from rlcore.entries import LOSSES
from rlcore.errors import UserError
from rlcore.learner import Learner
from rlcore.learner.zero.engine import LearningRate
from rlcore.recipe.schema import LearnerConfig
from rlcore.types import TokenBatch

pytestmark = pytest.mark.usefixtures("ranks")
LR, BETAS, CLIP, MAX_NORM = 1e-2, (0.9, 0.95), (0.2, 0.3), 0.5


def loss_by_hand(model, reference, batch: TokenBatch, kind: str) -> tuple[torch.Tensor, dict[str, float]]:
    """The documented loss and report, from whole logits in float64 and plain formulas."""
    mask = torch.from_numpy(batch.loss_mask_N)
    target = torch.from_numpy(batch.ids_N)[mask, None]
    log_p = full_log_softmax(model, batch)[mask]
    log_q = full_log_softmax(reference, batch).detach()[mask]
    logprob, other = log_p.gather(1, target)[:, 0], log_q.gather(1, target)[:, 0]
    streams = (batch.advantage_N, batch.kl_weight_N, batch.sampler_logprob_N)
    advantage, kl_weight, sampler = (torch.from_numpy(stream)[mask].double() for stream in streams)
    ratio = torch.exp(logprob - sampler)
    clipped = torch.clip(ratio, 1 - CLIP[0], 1 + CLIP[1])
    policy = -torch.min(ratio * advantage, clipped * advantage)
    exact = (log_p.exp() * (log_p - log_q)).sum(1)
    kl = exact if kind == "exact" else torch.exp(other - logprob) - 1 - (other - logprob)
    loss = (policy + kl_weight * kl).sum() / mask.sum()
    gap = sampler - logprob
    report = {"loss": loss.item(), "policy_loss": policy.mean().item(), "tokens": float(mask.sum())}
    report |= {"clip_fraction": (clipped * advantage < ratio * advantage).double().mean().item()}
    report |= {"mismatch_kl": (torch.exp(-gap) - 1 + gap).mean().item(), "max_abs_logprob_gap": gap.abs().max().item()}
    turn = torch.from_numpy(batch.turn_N)[mask]
    for t in (1, 2):
        report[f"kl_t{t}"] = kl[turn == t].mean().item()
        report[f"entropy_t{t}"] = -(log_p.exp() * log_p).sum(1)[turn == t].mean().item()
    return loss, report


@pytest.mark.parametrize("kind", ["exact", "k3"])
def test_updates_and_reports_are_those_of_a_plain_torch_loop(kind):
    settings = {"lr": LR, "betas": BETAS, "clip": CLIP, "max_grad_norm": MAX_NORM, "weight_decay": 0.1}
    learner = tiny_learner(kl=kind, micro_batch_tokens=60, warmup_steps=2, **settings)
    model, reference = tiny_model(), tiny_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, betas=BETAS, weight_decay=0.1)
    for step in range(3):
        batch = random_batch(seed=step)
        loss, expected = loss_by_hand(model, reference, batch, kind)
        optimizer.zero_grad()
        loss.backward()
        expected["grad_norm"] = torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM).item()
        expected["lr"] = optimizer.param_groups[0]["lr"] = LR * min(1, (step + 1) / 2)
        optimizer.step()
        report = learner.update(batch)
        assert report["micro_batches"] > 1
        assert report["skipped"] == 0
        for name, value in expected.items():
            assert report[name] == pytest.approx(value, rel=1e-3, abs=1e-5), (step, name)
    for name, tensor in model.named_parameters():
        torch.testing.assert_close(parameters(learner)[name], tensor.detach(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("loss", LOSSES.registered)
def test_micro_batch_size_does_not_change_the_update(loss):
    results = []
    for budget in (1, 50, 10_000):
        learner = gradient_learner(loss=loss, kl="exact", micro_batch_tokens=budget)
        report = learner.update(random_batch(20))
        results.append((report, gradients(learner)))
    counts = [report["micro_batches"] for report, _ in results]
    assert counts[0] == 20
    assert counts[0] > counts[1] > counts[2] == 1
    for report, found in results[1:]:
        assert report["loss"] == pytest.approx(results[0][0]["loss"], rel=1e-5)
        assert report["grad_norm"] == pytest.approx(results[0][0]["grad_norm"], rel=1e-4)
        for name, gradient in found.items():  # not the weights: Adam magnifies the rounding of a gradient near 0
            torch.testing.assert_close(gradient, results[0][1][name], rtol=1e-4, atol=1e-5 * report["grad_norm"])


def test_minibatches_and_epochs_take_as_many_steps_and_compare_with_the_sampler_only_before_the_first():
    batch = random_batch(12)
    learner = tiny_learner(kl_used=False, minibatches=3, epochs=2, micro_batch_tokens=60, warmup_steps=10)
    on_policy = dataclasses.replace(batch, sampler_logprob_N=learner.logprobs(batch))
    report = learner.update(on_policy)
    assert report["lr"] == pytest.approx(LR * 6 / 10)
    assert report["max_abs_logprob_gap"] < 1e-5
    assert report["tokens"] == 2 * batch.loss_mask_N.sum()
    assert "kl_t1" not in report


@pytest.mark.parametrize("zero", [0, 2, 3])
def test_a_batch_without_loss_tokens_changes_nothing(zero):
    learner = tiny_learner(zero=zero)
    before = parameters(learner)
    batch = random_batch(4)
    nothing = dataclasses.replace(batch, loss_mask_N=np.zeros_like(batch.loss_mask_N))
    report = learner.update(nothing)
    assert (report["tokens"], report["loss"], report["grad_norm"], report["skipped"]) == (0, 0, 0, 0)
    assert not learner.logprobs(nothing).any()
    assert all(torch.equal(tensor, before[name]) for name, tensor in learner.weights())


@pytest.mark.parametrize("zero", [0, 2, 3])
def test_a_gradient_that_is_not_finite_is_skipped_and_counted_and_the_next_step_is_clean(zero):
    batch = random_batch(8)
    advantage = batch.advantage_N.copy()
    advantage[np.flatnonzero(batch.loss_mask_N)[3]] = np.nan
    learner, control = tiny_learner(zero=zero, warmup_steps=4), tiny_learner(zero=zero, warmup_steps=4)
    before = parameters(learner)
    report = learner.update(dataclasses.replace(batch, advantage_N=advantage))
    assert report["skipped"] == 1
    assert not math.isfinite(report["grad_norm"])
    assert all(torch.equal(tensor, before[name]) for name, tensor in learner.weights())
    assert learner.update(batch) == control.update(batch)
    expected = parameters(control)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in learner.weights())


@pytest.mark.parametrize("zero", [0, 1, 2, 3])
def test_a_loaded_learner_goes_on_bit_for_bit(zero, tmp_path):
    settings = {"zero": zero, "warmup_steps": 5, "minibatches": 2, "kl": "exact"}
    learner = tiny_learner(**settings)
    for step in range(2):
        learner.update(random_batch(seed=step))
    learner.save(tmp_path)
    expected = [learner.update(random_batch(seed=step)) for step in (2, 3)]
    # Other weights than it started from; the reference is always the model at the start of the run.
    resumed = tiny_learner(**settings)
    resumed.load(tmp_path)
    assert [resumed.update(random_batch(seed=step)) for step in (2, 3)] == expected
    final = parameters(learner)
    assert all(torch.equal(tensor, final[name]) for name, tensor in resumed.weights())


def test_a_checkpoint_without_learner_state_is_named(tmp_path):
    with pytest.raises(UserError, match=str(tmp_path)):
        tiny_learner().load(tmp_path)


def test_weights_are_the_live_parameters_of_the_model():
    learner = tiny_learner()
    learner.update(random_batch())
    live = dict(learner.module.named_parameters())
    given = dict(learner.weights())
    assert given.keys() == live.keys()
    assert all(tensor.data_ptr() == live[name].data_ptr() for name, tensor in given.items())


def test_a_model_that_caps_its_logits_is_trained_on_its_own_logits():
    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=61, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, head_dim=8,
        intermediate_size=16, max_position_embeddings=64, final_logit_softcapping=2.0, initializer_range=0.5,
    )  # fmt: skip
    model = Gemma2ForCausalLM(config).eval()
    batch = random_batch(4)
    whole = full_log_softmax(model, batch).detach()
    learner = Learner(LearnerConfig(lr=LR, kl="exact"), model, temperature=1.0, kl_used=True, total_steps=100, seed=0)
    expected = whole.gather(1, torch.from_numpy(batch.ids_N)[:, None])[:, 0].numpy()
    np.testing.assert_allclose(learner.logprobs(batch), np.where(batch.loss_mask_N, expected, 0), atol=1e-5)
    first, second = learner.update(batch), learner.update(batch)
    assert first["kl_t1"] < 1e-6 < second["kl_t1"]


@pytest.mark.parametrize("zero", [0, 2])
def test_a_bfloat16_model_keeps_float32_master_weights(zero):
    """Steps far below bfloat16's resolution add up: without master weights nothing would ever change."""
    learner = tiny_learner(tiny_model().to(torch.bfloat16), lr=1e-5, zero=zero, kl_used=False)
    batch = random_batch(seed=3)
    before = parameters(learner)
    for _ in range(60):
        learner.update(batch)
    changed = [name for name, tensor in learner.weights() if not torch.equal(tensor, before[name])]
    assert learner.module.dtype == torch.bfloat16
    assert len(changed) > len(before) / 2


def test_deepspeed_settings_of_the_recipe_win():
    start, moved = parameters(tiny_learner()), []
    for extra in ({}, {"optimizer": {"params": {"eps": 1e3}}}):
        learner = tiny_learner(deepspeed=extra)
        learner.update(random_batch())
        moved.append(max((tensor - start[name]).abs().max().item() for name, tensor in learner.weights()))
    assert moved[0] == pytest.approx(LR, rel=0.1)
    assert 0 < moved[1] < 1e-3 * LR  # a large epsilon makes Adam's steps tiny


def test_the_learning_rate_rises_stays_and_falls():
    schedule = LearningRate(LearnerConfig(warmup_steps=4, decay=0.5), total_steps=20)
    shares = [schedule(step) for step in range(21)]
    assert shares[:5] == [0.25, 0.5, 0.75, 1, 1]
    assert shares[10:] == pytest.approx([1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0])


@pytest.mark.parametrize(
    ("size", "change", "message"),
    [
        (3, {}, "3 does not divide the 4 heads"),
        (2, {}, "2 does not divide 1 rank"),
        (2, {"sliding_window": 8}, "without full attention"),
        (2, {"_attn_implementation": "eager"}, r"model\.attention eager"),
    ],
)
def test_models_and_ranks_that_cannot_share_sequences_are_named(size, change, message):
    model = tiny_model()
    for name, value in change.items():
        setattr(model.config, name, value)
    with pytest.raises(UserError, match=rf"learner\.sequence_parallel.*{message}"):
        tiny_learner(model, sequence_parallel=size)
