"""Frozen weights in four bits under adapters, on the CPU: what is computed, trained, merged and saved."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import parameters, random_batch, tiny_learner
from transformers import AutoModelForCausalLM

from rlcore.policy import Policy, load_policy, save_policy
from rlcore.policy.lora import lora_layers
from rlcore.recipe.schema import LoraConfig, ModelConfig, ScratchConfig

pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed (extra qlora)")
pytestmark = pytest.mark.usefixtures("ranks")
LORA = LoraConfig(rank=4, targets=["q_proj", "down_proj"], quantize="nf4")
SIZES = ScratchConfig(
    hidden_size=64, layers=2, heads=4, kv_heads=2, intermediate_size=128, vocab_size=300, init_std=0.1
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    save_policy(load_policy(ModelConfig(scratch=SIZES), ["Two and two?"], seed=1), folder)
    return folder


def quantised(folder: Path, dtype: str = "float32") -> Policy:
    return load_policy(ModelConfig(path=str(folder), dtype=dtype, lora=LORA))


@pytest.mark.parametrize(("zero", "dtype"), [(0, "float32"), (2, "bfloat16")])
def test_adapters_are_trained_upon_weights_of_four_bits(zero, dtype, folder, tmp_path):
    policy, batch = quantised(folder, dtype), random_batch()
    before = tiny_learner(policy.model, lora=LORA, zero=zero, kl="exact")
    assert policy.model.model.layers[0].mlp.down_proj.base_layer.weight.dtype == torch.uint8
    start, weights = before.logprobs(batch), parameters(before)
    whole = AutoModelForCausalLM.from_pretrained(folder)
    errors = [(weights[name].float() - value).abs().max() / value.std() for name, value in whole.named_parameters()]
    assert 0.05 < max(errors) < 1  # four bits, not the wrong weights
    first, second = before.update(batch), before.update(batch)
    assert first["kl_t1"] == pytest.approx(0, abs=1e-6)
    assert second["kl_t1"] > 1e-5
    changed = {name for name, value in before.weights() if not torch.equal(value, weights[name])}
    assert changed == {f"{name}.weight" for name in lora_layers(before.module)}
    # What is sampled from elsewhere, saved and loaded: whole weights, the adapters merged, that give the same.
    save_policy(policy, tmp_path, before.whole_weights())
    loaded = tiny_learner(AutoModelForCausalLM.from_pretrained(tmp_path, dtype=dtype), kl_used=False)
    tolerance = 1e-4 if dtype == "float32" else 0.1
    np.testing.assert_allclose(loaded.logprobs(batch), before.logprobs(batch), atol=tolerance)
    assert np.abs(before.logprobs(batch) - start).max() > 3 * tolerance
