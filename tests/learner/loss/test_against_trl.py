"""Loss values and gradients against those of TRL's own GRPOTrainer on the same model, tokens and advantages.

TRL sees every attempt as a sample of its own, whose prompt is all that came before it; rlcore sees the trajectories.
"""

import dataclasses

import numpy as np
import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer

from rlcore.types import TokenBatch
from tests.learner.tiny import gradient_learner, gradients, random_batch, tiny_learner, tiny_model

pytestmark = pytest.mark.usefixtures("ranks")
MAX_TOKENS, PAD, POLICY_SEED = 12, 0, 1
LOSSES = {
    "grpo": {"loss_type": "grpo", "epsilon": 0.2},
    "dr_grpo": {"loss_type": "dr_grpo", "epsilon": 0.2},
    "dapo": {"loss_type": "dapo", "epsilon": 0.2, "epsilon_high": 0.28},
    "gspo": {"loss_type": "grpo", "epsilon": 3e-4, "epsilon_high": 4e-4, "importance_sampling_level": "sequence"},
    "cispo": {"loss_type": "cispo", "epsilon_high": 5.0},
}


def no_reward(completions: list[str], **columns: object) -> list[float]:
    return [0.0] * len(completions)


def trainer(folder: str, model: torch.nn.Module, beta: float, **settings: object) -> GRPOTrainer:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"<pad>": PAD, "a": 1}, "<pad>")), pad_token="<pad>", eos_token="a"
    )
    config = GRPOConfig(
        output_dir=folder, use_cpu=True, report_to=[], beta=beta, max_completion_length=MAX_TOKENS, temperature=1.0,
        per_device_train_batch_size=8, num_generations=8, steps_per_generation=1, use_bias_correction_kl=False,
        bf16=False, gradient_checkpointing=False, **settings,
    )  # fmt: skip
    data = Dataset.from_dict({"prompt": ["a"] * 8})
    model.save_pretrained(folder)  # from where the trainer loads its reference
    model.config._name_or_path = folder
    made = GRPOTrainer(model, no_reward, config, data, processing_class=tokenizer)
    made.current_gradient_accumulation_steps = 1
    made.model.train()
    return made


def samples(batch: TokenBatch, reference_logprob_N: np.ndarray) -> dict[str, torch.Tensor]:
    """Every attempt as a row: what came before it, padded on the left, and its tokens, padded on the right."""
    rows = []
    for start, stop in zip(batch.offsets_B1, batch.offsets_B1[1:], strict=False):
        for turn in (1, 2):
            places = start + np.flatnonzero((batch.turn_N[start:stop] == turn) & batch.loss_mask_N[start:stop])
            rows.append((batch.ids_N[start : places[0]], places))
    width = max(len(prompt) for prompt, _ in rows)
    longest = max(len(places) for _, places in rows)

    def left(values: np.ndarray) -> np.ndarray:
        return np.pad(values, (width - len(values), 0))

    def right(stream_N: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.stack([np.pad(stream_N[p], (0, longest - len(p))) for _, p in rows]))

    return {
        "prompt_ids": torch.from_numpy(np.stack([left(prompt) for prompt, _ in rows])),
        "prompt_mask": torch.from_numpy(np.stack([left(np.ones(len(prompt), dtype=np.int64)) for prompt, _ in rows])),
        "completion_ids": right(batch.ids_N),
        "completion_mask": right(batch.loss_mask_N.astype(np.int64)),
        "advantages": torch.from_numpy(np.array([batch.advantage_N[places[0]] for _, places in rows])),
        "old_per_token_logps": right(batch.sampler_logprob_N),
        "ref_per_token_logps": right(reference_logprob_N),
        "num_items_in_batch": torch.tensor(batch.loss_mask_N.sum()),
    }


def off_policy_batch(beta: float) -> TokenBatch:
    """One advantage an attempt, and old log-probabilities on both sides of the present ones, some beyond the clips."""
    batch, rng = random_batch(6, kl_weight=0.0), np.random.default_rng(1)
    attempt_N = np.arange(6).repeat(batch.lengths_B) * 2 + batch.turn_N - 1
    advantage_N = rng.normal(size=12).astype(np.float32)[attempt_N] * batch.loss_mask_N
    present = tiny_learner(tiny_model(POLICY_SEED), kl_used=False).logprobs(batch)
    noise_N = rng.standard_t(2, len(attempt_N)).astype(np.float32) * 0.4 * batch.loss_mask_N
    kl_weight_N = (beta * batch.loss_mask_N).astype(np.float32)
    return dataclasses.replace(
        batch, advantage_N=advantage_N, sampler_logprob_N=present + noise_N, kl_weight_N=kl_weight_N
    )


@pytest.mark.parametrize("beta", [0.0, 0.1])
@pytest.mark.parametrize("name", LOSSES)
def test_value_and_gradient_are_those_of_trl(name, beta, tmp_path):
    batch = off_policy_batch(beta)
    learner = gradient_learner(loss=name, kl="k3", kl_used=beta > 0, max_sampled_tokens=2 * MAX_TOKENS)
    reference_logprob_N = learner.logprobs(batch)
    # The policy moves away from its reference, so that the KL term has a value and a gradient.
    moved = tiny_model(POLICY_SEED)
    for parameter, value in zip(learner.module.parameters(), moved.parameters(), strict=True):
        parameter.data.copy_(value)
    report = learner.update(batch)

    theirs = trainer(str(tmp_path), moved, beta, **LOSSES[name])
    loss = theirs.compute_loss(theirs.model, samples(batch, reference_logprob_N))
    loss.backward()
    assert report["loss"] == pytest.approx(loss.item(), rel=1e-4, abs=1e-6)
    assert report["clip_fraction"] > 0
    ours = gradients(learner)
    for name, parameter in theirs.model.named_parameters():
        torch.testing.assert_close(
            ours[name], parameter.grad, rtol=1e-3, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}"
        )
