"""The output head at chosen positions, in chunks: the `[tokens, vocabulary]` matrix never exists as a whole.

The backward pass computes each chunk's logits again and uses the closed-form gradients, with z the logits over the
temperature and p = softmax(z), of

    log p(t):     ∂/∂z = onehot(t) - p, where p is 0 outside the tokens that may be drawn, and their sum is 1
    KL(p ‖ q):    ∂/∂z = p · (log p - log q - KL)
    H(p):         ∂/∂z = -p · (log p + H)

One autograd node for all chunks gives the head's weight its gradient once, which ZeRO's hooks count on.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from rlcore.learner.loss.losses import entropy, kl_exact
from rlcore.policy.truncation import KEEP_ALL, Truncation

CHUNK_ELEMENTS = 1 << 24
"""Logits computed at once: 64 MiB in float32."""

Scores = tuple[Tensor, Tensor, Tensor]
"""`(logprob_n, entropy_n, kl_n)` in float32."""


def score_logits(
    logits_nV: Tensor,
    target_n: Tensor,
    temperature: float,
    truncation: Truncation = KEEP_ALL,
    reference_nV: Tensor | None = None,
) -> Scores:
    """Scores of tokens from whole logits; KL(policy ‖ reference) is 0 without reference logits."""
    log_p_nV = _tempered(logits_nV, temperature).log_softmax(-1)
    logprob_n = log_p_nV.gather(-1, target_n[:, None]).squeeze(-1)
    if not truncation.keeps_all:
        logprob_n = logprob_n - truncation.kept(log_p_nV, target_n)[1].squeeze(-1)
    if reference_nV is None:
        kl_n = torch.zeros_like(logprob_n)
    else:
        kl_n = kl_exact(log_p_nV, _tempered(reference_nV, temperature).log_softmax(-1))
    return logprob_n, entropy(log_p_nV), kl_n


def score_hidden(
    hidden_nH: Tensor,
    weight_VH: Tensor,
    target_n: Tensor,
    temperature: float,
    truncation: Truncation = KEEP_ALL,
    reference: tuple[Tensor, Tensor] | None = None,
) -> Scores:
    """`score_logits` of `hidden_nH @ weight_VH.T` in chunks; `reference` is another such pair of hidden and weight."""
    return _ScoreHidden.apply(hidden_nH, weight_VH, target_n, temperature, truncation, *(reference or (None, None)))


def _tempered(logits_nV: Tensor, temperature: float) -> Tensor:
    """Logits over the temperature, in float32; the same tensor where nothing changes."""
    logits_nV = logits_nV.float()
    return logits_nV if temperature == 1 else logits_nV / temperature


def _chunks(count: int, vocabulary: int) -> Iterator[slice]:
    size = max(1, CHUNK_ELEMENTS // vocabulary)
    return (slice(start, start + size) for start in range(0, max(count, 1), size))


class _ScoreHidden(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_nH: Tensor,
        weight_VH: Tensor,
        target_n: Tensor,
        temperature: float,
        truncation: Truncation,
        reference_hidden_nK: Tensor | None,
        reference_weight_VK: Tensor | None,
    ) -> Scores:
        chunks = []
        for chunk in _chunks(len(target_n), len(weight_VH)):
            reference_nV = None
            if reference_hidden_nK is not None and reference_weight_VK is not None:
                reference_nV = reference_hidden_nK[chunk] @ reference_weight_VK.T
            logits_nV = hidden_nH[chunk] @ weight_VH.T
            chunks.append(score_logits(logits_nV, target_n[chunk], temperature, truncation, reference_nV))
        logprob_n, entropy_n, kl_n = (torch.cat(parts) for parts in zip(*chunks, strict=True))
        ctx.save_for_backward(hidden_nH, weight_VH, target_n, entropy_n, kl_n, reference_hidden_nK, reference_weight_VK)
        ctx.temperature, ctx.truncation = temperature, truncation
        ctx.set_materialize_grads(False)
        return logprob_n, entropy_n, kl_n

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        hidden_nH, weight_VH, target_n, entropy_n, kl_n, reference_hidden_nK, reference_weight_VK = ctx.saved_tensors
        grad_logprob_n, grad_entropy_n, grad_kl_n = gradients
        if grad_logprob_n is None:
            grad_logprob_n = torch.zeros_like(kl_n)
        grad_hidden_nH = torch.empty_like(hidden_nH)
        grad_weight_VH = torch.zeros(weight_VH.shape, device=weight_VH.device)
        for chunk in _chunks(len(target_n), len(weight_VH)):
            log_p_nV = _tempered(hidden_nH[chunk] @ weight_VH.T, ctx.temperature).log_softmax(-1)
            weights_nV = -grad_logprob_n[chunk, None]
            if not ctx.truncation.keeps_all:
                kept_nV, log_mass_n1 = ctx.truncation.kept(log_p_nV, target_n[chunk])
                weights_nV = weights_nV * kept_nV / log_mass_n1.exp()
            if grad_entropy_n is not None:
                weights_nV = weights_nV - grad_entropy_n[chunk, None] * (log_p_nV + entropy_n[chunk, None])
            if grad_kl_n is not None and reference_hidden_nK is not None:
                log_q_nV = _tempered(reference_hidden_nK[chunk] @ reference_weight_VK.T, ctx.temperature)
                log_q_nV = log_q_nV.log_softmax(-1)
                weights_nV = weights_nV + grad_kl_n[chunk, None] * (log_p_nV - log_q_nV - kl_n[chunk, None])
            grad_nV = log_p_nV.exp_().mul_(weights_nV)
            grad_nV.scatter_add_(-1, target_n[chunk, None], grad_logprob_n[chunk, None])
            if ctx.temperature != 1:
                grad_nV.div_(ctx.temperature)
            grad_nV = grad_nV.to(hidden_nH.dtype)
            grad_hidden_nH[chunk] = grad_nV @ weight_VH
            if ctx.needs_input_grad[1]:  # not with adapters, which leave the head alone
                if hidden_nH.dtype == torch.float32:
                    grad_weight_VH.addmm_(grad_nV.T, hidden_nH[chunk])
                else:
                    grad_weight_VH += grad_nV.T @ hidden_nH[chunk]
        return grad_hidden_nH, grad_weight_VH.to(weight_VH.dtype), None, None, None, None, None
