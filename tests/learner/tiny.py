"""A tiny model, random batches of two-attempt trajectories, and learners on them."""

from dataclasses import replace

import numpy as np
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from rlcore.learner import Learner
from rlcore.policy.truncation import KEEP_ALL, Truncation
from rlcore.recipe.schema import LearnerConfig, LoraConfig
from rlcore.types import TokenBatch

VOCABULARY = 61


def tiny_model(seed: int = 0, tie: bool = True, kv_heads: int = 2) -> Qwen2ForCausalLM:
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=kv_heads,
        intermediate_size=48,
        max_position_embeddings=128,
        initializer_range=0.2,  # far from uniform, so that log-probabilities tell tokens apart
        tie_word_embeddings=tie,
    )
    return Qwen2ForCausalLM(config).eval()


def random_batch(trajectories: int = 12, seed: int = 0, kl_weight: float = 0.1) -> TokenBatch:
    """Trajectories of prompt, attempt 1, prompt, attempt 2, each part of 1 to 9 tokens."""
    rng = np.random.default_rng(seed)
    return _batch(rng, rng.integers(1, 10, (trajectories, 4)), kl_weight)


def grouped_batch(groups: int = 4, size: int = 4, prompt: int = 20) -> TokenBatch:
    """The same, in groups that begin with one prompt of `prompt` tokens (one token less in every other group)."""
    rng = np.random.default_rng(1)
    prompt_B = (prompt - np.arange(groups) % 2 * (prompt > 10)).repeat(size)
    parts_B4 = np.column_stack([prompt_B, rng.integers(1, 6, (groups * size, 3))])
    batch = _batch(rng, parts_B4, kl_weight=0.1)
    for b in range(groups * size):
        start, first = batch.offsets_B1[b], batch.offsets_B1[b - b % size]
        batch.ids_N[start : start + prompt_B[b]] = batch.ids_N[first : first + prompt_B[b]]
    return batch


def branching_batch(trajectories: int = 24) -> TokenBatch:
    """A batch of two different tokens alone, so that beginnings are alike; every third trajectory is there twice."""
    batch = random_batch(trajectories)
    batch = replace(batch, ids_N=batch.ids_N % 2)
    return subset(batch, sorted([*range(trajectories), *range(0, trajectories, 3)]))


def _batch(rng: np.random.Generator, parts_B4: np.ndarray, kl_weight: float) -> TokenBatch:
    trajectories = len(parts_B4)
    turn_N = np.repeat(np.tile([1, 1, 2, 2], trajectories), parts_B4.ravel()).astype(np.int8)
    loss_mask_N = np.repeat(np.tile([False, True, False, True], trajectories), parts_B4.ravel())
    count = len(turn_N)

    def stream(values: np.ndarray) -> np.ndarray:
        return np.where(loss_mask_N, values, 0).astype(np.float32)

    return TokenBatch(
        offsets_B1=np.r_[0, parts_B4.sum(1).cumsum()],
        ids_N=rng.integers(0, VOCABULARY, count),
        turn_N=turn_N,
        loss_mask_N=loss_mask_N,
        advantage_N=stream(rng.normal(size=count)),
        kl_weight_N=stream(np.full(count, kl_weight) * turn_N),
        sampler_logprob_N=stream(rng.normal(-4, 0.5, count)),
    )


def subset(batch: TokenBatch, chosen: list[int]) -> TokenBatch:
    """The batch of only the chosen trajectories."""
    index = np.concatenate([np.arange(batch.offsets_B1[b], batch.offsets_B1[b + 1]) for b in chosen])
    streams = ("ids_N", "turn_N", "loss_mask_N", "advantage_N", "kl_weight_N", "sampler_logprob_N")
    return TokenBatch(
        offsets_B1=np.r_[0, batch.lengths_B[chosen].cumsum()],
        **{name: getattr(batch, name)[index] for name in streams},
    )


def tiny_learner(
    model: Qwen2ForCausalLM | None = None,
    *,
    temperature: float = 1.0,
    kl_used: bool = True,
    max_sampled_tokens: int = 32,
    exact_sampler: bool = True,
    lora: LoraConfig | None = None,
    truncation: Truncation = KEEP_ALL,
    **section: object,
) -> Learner:
    return Learner(
        LearnerConfig.model_validate({"lr": 1e-2, **section}),
        model or tiny_model(),
        temperature=temperature,
        kl_used=kl_used,
        total_steps=100,
        seed=0,
        lora=lora,
        exact_sampler=exact_sampler,
        truncation=truncation,
        max_sampled_tokens=max_sampled_tokens,
    )


def gradient_learner(model: Qwen2ForCausalLM | None = None, **settings: object) -> Learner:
    """A learner whose first update leaves its gradient, as it is, where `gradients` finds it."""
    return tiny_learner(model, betas=(0.0, 0.9), max_grad_norm=1e9, **settings)


def gradients(learner: Learner) -> dict[str, torch.Tensor]:
    """Adam's first moment after one step with a decay of 0 is the gradient."""
    state = learner._engine.optimizer.state
    return {name: state[parameter]["exp_avg"].clone() for name, parameter in learner.module.named_parameters()}


def parameters(learner: Learner) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in learner.weights()}


def full_log_softmax(model: Qwen2ForCausalLM, batch: TokenBatch, temperature: float = 1.0) -> torch.Tensor:
    """Log-probabilities of the whole vocabulary before each token, `[N, V]`, one trajectory at a time.

    The first token of a trajectory has none (zeros).
    """
    rows = []
    for start, stop in zip(batch.offsets_B1, batch.offsets_B1[1:], strict=False):
        ids = torch.from_numpy(batch.ids_N[start:stop])[None]
        logits = model(input_ids=ids).logits[0, :-1].double() / temperature
        rows += [torch.zeros(1, VOCABULARY, dtype=torch.float64), logits.log_softmax(-1)]
    return torch.cat(rows)
