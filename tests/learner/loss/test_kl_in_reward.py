"""`learner.kl: reward` through the learner: over all answers, the exact gradient of the KL of whole attempts."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from rlcore.learner.loss.averaging import LossTokens
from rlcore.types import TokenBatch
from tests.learner.tiny import gradient_learner, gradients, random_batch

ANSWERS, BETA, LENGTH = 3, 0.7, 2


def tiny_policy() -> Qwen2ForCausalLM:
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = Qwen2Config(vocab_size=ANSWERS, num_key_value_heads=1, initializer_range=0.4, **shape)
    return Qwen2ForCausalLM(config).eval()


def answer_logprobs(model: Qwen2ForCausalLM) -> torch.Tensor:
    """Of both tokens of every answer, `[9, 2]`, after the one-token prompt 0."""
    rows = torch.tensor([(0, *answer) for answer in product(range(ANSWERS), repeat=LENGTH)])
    return model(input_ids=rows).logits.log_softmax(-1)[:, :-1].gather(2, rows[:, 1:, None])[..., 0]


def every_answer(logprob_92: np.ndarray) -> TokenBatch:
    """All answers, each with a β that is weighed by its chance, and no reward."""
    count = ANSWERS**LENGTH
    mask = np.tile([False, True, True], count)

    def stream(values: np.ndarray) -> np.ndarray:
        return np.pad(values, ((0, 0), (1, 0))).ravel().astype(np.float32)

    chance_92 = np.exp(logprob_92.sum(1, keepdims=True)).repeat(LENGTH, 1)
    return TokenBatch(
        offsets_B1=np.arange(count + 1) * (LENGTH + 1),
        ids_N=np.array([(0, *answer) for answer in product(range(ANSWERS), repeat=LENGTH)]).ravel(),
        turn_N=np.ones(len(mask), np.int8),
        loss_mask_N=mask,
        advantage_N=np.zeros(len(mask), np.float32),
        kl_weight_N=stream(BETA * chance_92),
        sampler_logprob_N=stream(logprob_92),
    )


@pytest.mark.usefixtures("ranks")
@pytest.mark.parametrize("old_logprobs", ["sampler", "learner"])
@pytest.mark.parametrize("loss", ["reinforce", "dapo"])
def test_the_mean_over_all_answers_is_the_gradient_of_the_kl_of_whole_attempts(loss, old_logprobs):
    reference = tiny_policy()
    settings = {"loss": loss, "average": "constant", "old_logprobs": old_logprobs, "kl": "reward"}
    learner = gradient_learner(tiny_policy(), max_sampled_tokens=LENGTH, **settings)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in learner.module.parameters():  # the policy has moved away from its reference
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    model = tiny_policy()
    model.load_state_dict(learner.module.state_dict())
    logprob, other = answer_logprobs(model), answer_logprobs(reference).detach()
    kl = (logprob.sum(1).exp() * (logprob.sum(1) - other.sum(1))).sum()
    (BETA * kl / (LENGTH * ANSWERS**LENGTH)).backward()
    learner.update(every_answer(logprob.detach().double().numpy()))
    found = gradients(learner)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, rtol=2e-3, atol=2e-6)
    assert max(parameter.grad.abs().max() for parameter in model.parameters()) > 1e-3


def test_sums_to_go_end_with_their_attempt():
    batch = random_batch(7)
    values_N = np.where(batch.loss_mask_N, np.random.default_rng(0).normal(size=len(batch.ids_N)), 0.0)
    found_N = LossTokens.of(batch).to_go_N(values_N)
    for place in np.flatnonzero(batch.loss_mask_N):
        end = place
        while end < len(values_N) and batch.loss_mask_N[end]:
            end += 1
        assert found_N[place] == pytest.approx(values_N[place:end].sum())


@pytest.mark.usefixtures("ranks")
def test_without_a_beta_nothing_is_taken_from_the_advantages():
    batch = random_batch(6, kl_weight=0.0)
    plain, penal = (gradient_learner(kl=kl) for kl in ("k3", "reward"))
    plain.update(batch)
    penal.update(replace(batch))
    for name, gradient in gradients(plain).items():
        assert torch.equal(gradients(penal)[name], gradient)
