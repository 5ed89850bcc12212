"""Losses and divergences: pure functions on per-token tensors. n tokens, V vocabulary entries; natural logarithms.

`rlcore/entries.py` has the names by which a recipe takes them; `rlcore/learner/README.md` says which of them the
published methods are made of.
"""

import torch
from torch import Tensor

from rlcore.recipe.schema import CorrectionConfig

Clip = tuple[float, float]
TokenLoss = tuple[Tensor, Tensor]
"""The loss of each token, and whether the clip changed its gradient (bool), `[n]` each."""


def ppo(logprob_n: Tensor, log_ratio_n: Tensor, advantage_n: Tensor, clip: Clip) -> TokenLoss:
    """The smaller of ratio · A and clipped ratio · A, as a loss; the ratio is kept within [1 - low, 1 + high].

    Schulman et al. 2017, equation 7, with the two sides apart as in DAPO, Yu et al. 2025, equation 10.
    """
    low, high = clip
    ratio_n = log_ratio_n.exp()
    free_n = ratio_n * advantage_n
    clipped_n = ratio_n.clamp(1 - low, 1 + high) * advantage_n
    return -torch.minimum(free_n, clipped_n), clipped_n < free_n


def cispo(logprob_n: Tensor, log_ratio_n: Tensor, advantage_n: Tensor, clip: Clip) -> TokenLoss:
    """REINFORCE weighted by the clipped ratio, a constant: every token keeps a gradient.

    MiniMax-M1, Chen et al. 2025, equation 4.
    """
    low, high = clip
    ratio_n = log_ratio_n.detach().exp()
    weight_n = ratio_n.clamp(1 - low, 1 + high)
    return -weight_n * advantage_n * logprob_n, weight_n != ratio_n


def sapo(logprob_n: Tensor, log_ratio_n: Tensor, advantage_n: Tensor, clip: Clip) -> TokenLoss:
    """A · 4/τ · sigmoid(τ (ratio - 1)), as a loss: a gate that closes gradually instead of a clip.

    Soft Adaptive Policy Optimization, arXiv 2511.20347. `clip` holds its τ for advantages up to 0 and for those above.
    """
    tau_n = torch.where(advantage_n > 0, clip[1], clip[0])
    gate_n = torch.sigmoid(tau_n * (log_ratio_n.exp() - 1)) * 4 / tau_n
    return -gate_n * advantage_n, torch.zeros_like(advantage_n, dtype=torch.bool)


def reinforce(logprob_n: Tensor, log_ratio_n: Tensor, advantage_n: Tensor, clip: Clip) -> TokenLoss:
    """Minus A · log π, whatever the ratio: Williams 1992. Right only on policy: for one optimizer step a batch."""
    return -advantage_n * logprob_n, torch.zeros_like(advantage_n, dtype=torch.bool)


def kl_k1(logprob_n: Tensor, other_logprob_n: Tensor) -> Tensor:
    """One-sample estimate of KL(p ‖ q): log(p/q) of a token that p sampled. Unbiased, of either sign.

    Its own gradient is pure noise (the mean of a score is 0); the gradient here is that of k2, log(p/q) · ∇ log p, as
    from a KL penalty inside the reward.
    """
    k2_n = kl_k2(logprob_n, other_logprob_n)
    return k2_n + (logprob_n - other_logprob_n - k2_n).detach()


def kl_k2(logprob_n: Tensor, other_logprob_n: Tensor) -> Tensor:
    """log(p/q)² / 2: a biased value of KL(p ‖ q) with an unbiased gradient on policy (Schulman 2020)."""
    return (logprob_n - other_logprob_n).square() / 2


def kl_k3(logprob_n: Tensor, other_logprob_n: Tensor) -> Tensor:
    """q/p - 1 - log(q/p): unbiased, never negative (Schulman 2020); its gradient on policy is that of KL(q ‖ p)."""
    log_ratio_n = other_logprob_n - logprob_n
    return log_ratio_n.exp() - 1 - log_ratio_n


def kl_reward(logprob_n: Tensor, other_logprob_n: Tensor) -> Tensor:
    """The value of k1 without a gradient: its penalty is inside the advantages (`with_kl_in_reward`)."""
    return (logprob_n - other_logprob_n).detach()


def kl_exact(log_p_nV: Tensor, log_q_nV: Tensor) -> Tensor:
    """KL(p ‖ q), `[n]`, summed over the vocabulary of two log-softmaxes."""
    return (log_p_nV.exp() * (log_p_nV - log_q_nV)).sum(-1)


def entropy(log_p_nV: Tensor) -> Tensor:
    """Entropy of each distribution, `[n]`, from its log-softmax."""
    return -(log_p_nV.exp() * log_p_nV).sum(-1)


def attempt_mean(values_n: Tensor, attempt_n: Tensor) -> Tensor:
    """At each token the mean over the tokens of its attempt; `attempt_n` numbers attempts from 0.

    Of log-ratios it is the logarithm of GSPO's sequence ratio (Zheng et al. 2025, equation 7).
    """
    count_n = attempt_sum(torch.ones_like(values_n), attempt_n)
    return attempt_sum(values_n, attempt_n) / count_n


def attempt_sum(values_n: Tensor, attempt_n: Tensor) -> Tensor:
    """At each token the sum over the tokens of its attempt, or of whatever else `attempt_n` numbers."""
    if not len(values_n):
        return values_n
    sums = values_n.new_zeros(int(attempt_n.max()) + 1).index_add(0, attempt_n, values_n)
    return sums[attempt_n]


def within_ratio(log_ratio_n: Tensor, advantage_n: Tensor, highest: float) -> Tensor:
    """Whether each token stays in the loss: not one of negative advantage whose ratio is above `highest` (bool).

    There the smaller of ratio · A and clipped ratio · A is the former, which nothing bounds: one token that the policy
    has made many times as likely since it was sampled would decide the step (compare Ye et al. 2020, "dual clip").
    """
    return (advantage_n >= 0) | (log_ratio_n.detach().exp() <= highest)


def importance_weights(log_ratio_n: Tensor, unit_n: Tensor, correction: CorrectionConfig) -> tuple[Tensor, Tensor]:
    """Weight of each token's policy loss from log π/μ of learner and sampler, and whether a bound changed it (bool).

    A token was drawn with μ, and what came before it too: its gradient is unbiased where it is weighed by π/μ of the
    whole trajectory; that of the token or attempt alone has less variance and leaves out the rest. A bound keeps rare,
    huge weights from deciding the step (truncated importance sampling: Ionides 2008; for language models Yao et al.
    2025).

    `unit_n` numbers the attempt or trajectory (`correction.level`) that each token is in: all tokens of one have one
    weight, π/μ of all of them together. At level token it is not read. Outside the bounds `truncate` takes the nearer
    bound, `mask` takes 0.
    """
    ones_n = torch.ones_like(log_ratio_n)
    if correction.mode == "none":
        return ones_n, ones_n < 0
    if correction.level != "token":
        log_ratio_n = attempt_sum(log_ratio_n, unit_n)
    low, high = correction.bounds
    ratio_n = log_ratio_n.exp()
    bounded_n = ratio_n.clamp(low, high)
    outside_n = bounded_n != ratio_n
    return torch.where(outside_n & (correction.mode == "mask"), 0.0, bounded_n), outside_n
