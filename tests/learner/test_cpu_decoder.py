"""The learner's own forward pass of the common decoders against transformers': states, and gradients of all weights."""

import copy

import numpy as np
import pytest
import torch
from tiny import VOCABULARY, branching_batch, gradient_learner, gradients, grouped_batch, random_batch, tiny_model
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from rlcore.learner import cpu_decoder
from rlcore.learner.batch.packing import micro_batches
from rlcore.learner.batch.planning import plan_micro_batches
from rlcore.learner.cpu_decoder import has_few_operations
from rlcore.learner.policy_module import PolicyModule
from rlcore.recipe.schema import LoraConfig
from rlcore.types import TokenBatch

SIZES = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 48, "max_position_embeddings": 128, "initializer_range": 0.2,
}  # fmt: skip
LLAMA_3 = {
    "rope_type": "llama3", "rope_theta": 1e4, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}  # fmt: skip
BATCHES = [random_batch(8, kl_weight=1.0), grouped_batch(3, 3, 20), branching_batch()]


def models() -> dict[str, PreTrainedModel]:
    torch.manual_seed(0)
    made = {
        "qwen2": Qwen2ForCausalLM(Qwen2Config(**SIZES, num_key_value_heads=2, tie_word_embeddings=True)),
        "qwen3": Qwen3ForCausalLM(Qwen3Config(**SIZES, num_key_value_heads=1, head_dim=16)),
        "llama": LlamaForCausalLM(LlamaConfig(**SIZES, num_key_value_heads=4, attention_bias=True, mlp_bias=True)),
        "llama 3": LlamaForCausalLM(LlamaConfig(**SIZES, num_key_value_heads=2, rope_parameters=LLAMA_3)),
    }
    for model in made.values():
        for parameter in model.parameters():  # norms and biases are all ones and zeros at first
            parameter.data += 0.1 * torch.randn_like(parameter)
    return {name: model.eval() for name, model in made.items()}


def states(model: PreTrainedModel, batch: TokenBatch, *, tree: bool) -> torch.Tensor:
    """What each loss token is predicted from, `[N, D]`, zeros elsewhere."""
    plan = plan_micro_batches(batch, np.arange(len(batch.lengths_B)), 120, tree=tree)
    assert len(plan) > 1
    found = torch.zeros(len(batch.ids_N), model.config.hidden_size)
    policy = PolicyModule(model, 1.0)
    for micro in micro_batches(batch, plan, len(plan), torch.device("cpu"), tree=tree):
        states_uD = policy.states(micro)
        states_nD = states_uD[micro.prediction_n] if tree else states_uD
        found = found.index_add(0, torch.from_numpy(micro.index_n), states_nD)
    return found


@pytest.mark.parametrize("name", ["qwen2", "qwen3", "llama", "llama 3"])
@pytest.mark.parametrize("batch", BATCHES, ids=["strangers", "groups", "branches"])
@pytest.mark.parametrize("widest", [0, cpu_decoder.WIDEST_MERGED], ids=["wide", "narrow"])
def test_states_and_gradients_are_those_of_transformers(name, batch, widest, monkeypatch):
    monkeypatch.setattr(cpu_decoder, "WIDEST_MERGED", widest)
    own = models()[name]
    other = copy.deepcopy(own)
    assert has_few_operations(own)
    ours, theirs = states(own, batch, tree=True), states(other, batch, tree=False)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    upstream = torch.randn(ours.shape)
    ours.backward(upstream)
    theirs.backward(upstream)
    grads = dict(own.named_parameters())
    for key, parameter in other.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(grads[key].grad, parameter.grad, rtol=1e-3, atol=1e-3)


@pytest.mark.usefixtures("ranks")
@pytest.mark.parametrize("loss", ["dapo", "gspo"])
@pytest.mark.parametrize("batch", BATCHES, ids=["strangers", "groups", "branches"])
def test_learners_with_and_without_it_have_the_same_gradients(batch, loss):
    results = []
    for trees in (True, False):
        learner = gradient_learner(kl="exact", micro_batch_tokens=80, entropy_bonus=0.1, loss=loss)
        assert learner._trees
        learner._trees = trees
        results.append((learner.update(batch), gradients(learner)))
    (report, found), (expected, gradient) = results
    assert report.pop("micro_batches") <= expected.pop("micro_batches")
    assert report == pytest.approx(expected, rel=1e-4, abs=1e-5)
    for key, value in gradient.items():
        torch.testing.assert_close(found[key], value, rtol=1e-3, atol=1e-5)


@pytest.mark.usefixtures("ranks")
def test_other_models_and_settings_run_by_transformers():
    plain = {"num_key_value_heads": 2, "head_dim": 8}
    assert not has_few_operations(Gemma2ForCausalLM(Gemma2Config(**SIZES, **plain)))
    assert not has_few_operations(MistralForCausalLM(MistralConfig(**SIZES, **plain)))
    assert not has_few_operations(LlamaForCausalLM(LlamaConfig(**SIZES, hidden_act="gelu")))
    windows = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 0}
    assert not has_few_operations(Qwen2ForCausalLM(Qwen2Config(**SIZES, num_key_value_heads=2, **windows)))
    assert not has_few_operations(tiny_model().to(torch.bfloat16))
    settings = [{"lora": LoraConfig()}, {"zero": 3}, {"activation_checkpointing": True}, {"zero": 2}]
    chosen = [gradient_learner(**each)._trees for each in settings]
    assert chosen == [False, False, False, True]
