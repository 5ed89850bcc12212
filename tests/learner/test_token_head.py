"""The chunked output head against whole logits: values, and gradients that autograd finds by itself."""

import pytest
import torch

from rlcore.learner import token_head
from rlcore.learner.token_head import score_hidden, score_logits
from rlcore.policy.truncation import Truncation

TOKENS, HIDDEN, VOCABULARY, TEMPERATURE = 23, 8, 37, 0.7


@pytest.fixture(params=[1, 5 * VOCABULARY, 1 << 24], ids=["token by token", "five tokens", "one chunk"])
def chunk(request, monkeypatch):
    monkeypatch.setattr(token_head, "CHUNK_ELEMENTS", request.param)


def inputs() -> tuple[torch.Tensor, ...]:
    torch.manual_seed(0)
    hidden, weight = torch.randn(TOKENS, HIDDEN), torch.randn(VOCABULARY, HIDDEN)
    reference = torch.randn(TOKENS, HIDDEN + 1), torch.randn(VOCABULARY, HIDDEN + 1)
    return hidden, weight, torch.randint(VOCABULARY, (TOKENS,)), *reference


@pytest.mark.parametrize("truncation", [Truncation(), Truncation(top_k=5), Truncation(top_p=0.8, min_p=0.1)], ids=str)
@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.usefixtures("chunk")
def test_chunked_head_has_the_values_and_gradients_of_whole_logits(exact, truncation):
    hidden, weight, target, reference_hidden, reference_weight = inputs()
    upstream = torch.randn(3, TOKENS)
    results = []
    for chunked in (True, False):
        h, w = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
        if chunked:
            reference = (reference_hidden, reference_weight) if exact else None
            scores = score_hidden(h, w, target, TEMPERATURE, truncation, reference)
        else:
            reference = reference_hidden @ reference_weight.T if exact else None
            scores = score_logits(h @ w.T, target, TEMPERATURE, truncation, reference)
        logprob, entropy, kl = scores
        (logprob * upstream[0] + entropy * upstream[1] + kl * upstream[2]).sum().backward()
        results.append((*(score.detach() for score in scores), h.grad, w.grad))
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)
    assert not exact or results[0][2].min() > 0


def test_no_loss_tokens_give_empty_scores_and_zero_gradients():
    hidden, weight = torch.zeros(0, HIDDEN, requires_grad=True), torch.randn(VOCABULARY, HIDDEN, requires_grad=True)
    logprob, entropy, kl = score_hidden(hidden, weight, torch.zeros(0, dtype=torch.int64), TEMPERATURE)
    assert len(logprob) == len(entropy) == len(kl) == 0
    logprob.sum().backward()
    assert weight.grad.abs().sum() == 0
