"""Offloading, computing activations again and low precision change where and when things are computed, not what."""

from importlib.util import find_spec

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from tiny import grouped_batch, parameters, random_batch, tiny_learner, tiny_model

from rlcore.errors import UserError
from rlcore.learner.layers import use_fused_kernels
from rlcore.recipe.schema import LearnerConfig

pytestmark = pytest.mark.usefixtures("ranks")
SPLIT = {"zero_optimization": {"stage3_param_persistence_threshold": 0}}
"""Tiny parameters too are split and gathered, as those of large models are."""


@pytest.mark.parametrize(
    "section",
    [
        {"activation_checkpointing": True},
        {"offload": ["activations"]},
        {"zero": 1, "offload": ["optimizer"]},
        {"zero": 2, "offload": ["optimizer", "activations"], "activation_checkpointing": True},
        {"zero": 3, "deepspeed": SPLIT, "activation_checkpointing": True},
        {"zero": 3, "deepspeed": SPLIT, "offload": ["optimizer", "parameters"], "kl": "exact"},
    ],
    ids=str,
)
def test_updates_stay_what_they_are(section, tmp_path):
    kl = {"kl": section.get("kl", "k3")}
    plain, other = tiny_learner(micro_batch_tokens=60, **kl), tiny_learner(micro_batch_tokens=60, **section)
    for batch in (random_batch(seed=1), grouped_batch()):
        expected, report = plain.update(batch), other.update(batch)
        for name in ("loss", "grad_norm", "kl_t1", "kl_t2", "entropy_t1"):
            assert report[name] == pytest.approx(expected[name], rel=1e-3, abs=1e-5), name
    final = parameters(plain)
    for name, value in other.weights():
        torch.testing.assert_close(value, final[name], rtol=1e-3, atol=1e-4)
    other.save(tmp_path)
    resumed = tiny_learner(micro_batch_tokens=60, **section)
    resumed.load(tmp_path)
    assert resumed.update(random_batch(seed=2)) == other.update(random_batch(seed=2))


@pytest.fixture(scope="module")
def many_small(ranks):
    """A batch, settings that make a micro-batch of every trajectory, and the gradient's norm in float32 throughout."""
    batch = random_batch(100, kl_weight=0.0)
    settings = {"kl_used": False, "loss": "reinforce", "micro_batch_tokens": 1}
    rounded = tiny_model().to(torch.bfloat16).float()  # the same weights in both
    return batch, settings, tiny_learner(rounded, **settings).update(batch)["grad_norm"]


@pytest.mark.parametrize("zero", [1, 2, 3])  # in bfloat16, stage 0 becomes 1
def test_bfloat16_accumulates_small_gradients_in_float32(zero, many_small):
    """A hundred micro-batches, each below bfloat16's resolution of their sum."""
    batch, settings, expected = many_small
    learner = tiny_learner(tiny_model().to(torch.bfloat16), zero=zero, **settings)
    assert learner.update(batch)["grad_norm"] == pytest.approx(expected, rel=0.02)
    assert learner.module.dtype == torch.bfloat16


def test_a_step_that_is_not_finite_is_skipped_in_bfloat16_too():
    learner = tiny_learner(tiny_model().to(torch.bfloat16), kl_used=False)
    before, batch = parameters(learner), random_batch()
    batch.advantage_N[np.flatnonzero(batch.loss_mask_N)[0]] = np.nan
    assert learner.update(batch)["skipped"] == 1
    assert all(torch.equal(value, before[name]) for name, value in learner.weights())
    assert learner.update(random_batch(seed=1))["skipped"] == 0


@pytest.mark.parametrize("section", [{"offload": ["optimizer"]}, {"zero": 2, "offload": ["parameters"]}])
def test_offload_that_the_zero_stage_cannot_do_is_a_mistake(section):
    with pytest.raises(ValidationError, match="needs zero"):
        LearnerConfig.model_validate(section)


@pytest.mark.parametrize(("device", "message"), [("cpu", "needs CUDA"), ("cuda", r"rlcore\[liger\]")])
def test_fused_kernels_that_cannot_be_had_are_a_mistake(device, message):
    if device == "cuda" and find_spec("liger_kernel"):
        pytest.skip("liger-kernel is installed")
    with pytest.raises(UserError, match=rf"learner\.fused_kernels.*{message}"):
        use_fused_kernels(tiny_model(), torch.device(device))
