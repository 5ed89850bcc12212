"""Adapters against peft's own model: where they start, what is trained, what is merged, what the reference is."""

import numpy as np
import pytest
import torch
from peft import get_peft_model
from tiny import parameters, random_batch, tiny_learner, tiny_model

from rlcore.errors import UserError
from rlcore.policy.lora import lora_config, lora_layers
from rlcore.recipe.schema import LoraConfig

pytestmark = pytest.mark.usefixtures("ranks")
LORA = LoraConfig(rank=4, alpha=8, targets=["q_proj", "v_proj", "down_proj"])


@pytest.mark.parametrize("zero", [0, 2, 3])
def test_adapters_start_without_effect_and_alone_are_trained(zero):
    plain, batch = tiny_model(), random_batch()
    expected = tiny_learner(kl_used=False).logprobs(batch)
    learner = tiny_learner(lora=LORA, zero=zero, kl="exact")
    np.testing.assert_allclose(learner.logprobs(batch), expected, atol=1e-5)
    first, second = learner.update(batch), learner.update(batch)
    assert first["kl_t1"] == pytest.approx(0, abs=1e-6)
    assert second["kl_t1"] > 1e-5
    changed = {name for name, value in learner.weights() if not torch.equal(value, plain.get_parameter(name))}
    assert changed == {f"{name}.weight" for name in lora_layers(learner.module)}


def test_updates_are_those_of_pefts_own_model():
    """One policy-gradient step with plain torch on `get_peft_model`, from the same adapters."""
    batch = random_batch(6, kl_weight=0.0)
    learner = tiny_learner(lora=LORA, kl_used=False, loss="reinforce", max_grad_norm=1e9)
    peft_model = get_peft_model(tiny_model(), lora_config(LORA)).eval()
    own = dict(learner.module.named_parameters())
    trained = [(name, value) for name, value in peft_model.named_parameters() if value.requires_grad]
    with torch.no_grad():
        for name, value in trained:
            value.copy_(own[name.removeprefix("base_model.model.")])
    optimizer = torch.optim.AdamW([value for _, value in trained], lr=1e-2, betas=(0.9, 0.95), weight_decay=0.0)
    loss = torch.zeros(())
    for start, stop in zip(batch.offsets_B1, batch.offsets_B1[1:], strict=False):
        ids = torch.from_numpy(batch.ids_N[start:stop])
        log_p = peft_model(input_ids=ids[None]).logits[0, :-1].log_softmax(-1).gather(1, ids[1:, None])[:, 0]
        weight = torch.from_numpy((batch.loss_mask_N * batch.advantage_N)[start + 1 : stop])
        loss = loss - (weight * log_p).sum() / batch.loss_mask_N.sum()
    loss.backward()
    optimizer.step()
    learner.update(batch)
    merged = peft_model.merge_and_unload()
    for name, value in learner.weights():
        torch.testing.assert_close(value, merged.get_parameter(name).detach(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("zero", [0, 3])
def test_adapters_alone_can_be_read_whole(zero):
    learner = tiny_learner(lora=LORA, zero=zero, kl_used=False)
    shapes = {name: tuple(tensor.shape) for name, tensor in learner.adapters()}
    assert len(shapes) == 2 * len(lora_layers(learner.module))
    assert {shape[0] if "lora_A" in name else shape[1] for name, shape in shapes.items()} == {LORA.rank}


@pytest.mark.parametrize("zero", [0, 2, 3])
def test_a_loaded_learner_goes_on_bit_for_bit(zero, tmp_path):
    learner, resumed = (tiny_learner(lora=LORA, zero=zero, kl="k3") for _ in range(2))
    learner.update(random_batch())
    learner.save(tmp_path)
    resumed.load(tmp_path)
    assert learner.update(random_batch(seed=1)) == resumed.update(random_batch(seed=1))
    expected = parameters(learner)
    assert all(torch.equal(value, expected[name]) for name, value in resumed.weights())


def test_dropout_acts_in_updates_alone():
    batch = random_batch()
    dropping, plain = tiny_learner(lora=LORA.model_copy(update={"dropout": 0.5})), tiny_learner(lora=LORA)
    for learner in (dropping, plain):
        torch.manual_seed(0)
        learner.update(batch)
        learner.update(batch)
    before = dropping.logprobs(batch)
    assert not np.allclose(before, plain.logprobs(batch), atol=1e-6)
    assert np.array_equal(before, dropping.logprobs(batch))


@pytest.mark.parametrize("targets", [["no_such_layer"], ["lm_head"], ["embed_tokens"]])
def test_targets_that_cannot_be_are_a_mistake(targets):
    with pytest.raises(UserError, match=r"^model\.lora"):
        tiny_learner(tiny_model(tie=False), lora=LoraConfig(targets=targets))
