"""Half precision with a scaled loss. DeepSpeed takes it on CUDA alone, but computes it here, too, if it is let."""

import pytest
import torch
from deepspeed.accelerator import get_accelerator

from rlcore.errors import UserError
from tests.learner.tiny import parameters, random_batch, tiny_learner, tiny_model

pytestmark = pytest.mark.usefixtures("ranks")

NO_CLIP = {"lr": 1e-3, "max_grad_norm": 1e9, "kl_used": False}


@pytest.fixture
def let(monkeypatch):
    kind = type(get_accelerator())
    monkeypatch.setattr(kind, "is_fp16_supported", lambda self: True)
    monkeypatch.setattr(kind, "supported_dtypes", lambda self: [torch.float32, torch.bfloat16, torch.float16])


@pytest.mark.skipif(get_accelerator().is_fp16_supported(), reason="DeepSpeed takes float16 on this device")
def test_a_device_that_cannot_is_named():
    with pytest.raises(UserError, match=r"model\.dtype float16: .* take bfloat16 or float32"):
        tiny_learner(tiny_model().half())


@pytest.mark.usefixtures("let")
@pytest.mark.parametrize("zero", [0, 2, 3])
def test_gradients_that_float16_cannot_hold_reach_the_float32_weights(zero):
    """Advantages of 1e-8 give gradients below float16's smallest number: unscaled, nothing would be learned."""
    batch = random_batch(kl_weight=0)
    batch.advantage_N[:] *= 1e-8
    reports = [
        tiny_learner(model, zero=stage, **NO_CLIP).update(batch)
        for model, stage in ((tiny_model(), 0), (tiny_model().half(), zero))
    ]
    assert 0 < reports[0]["grad_norm"] < 1e-6
    assert reports[1]["grad_norm"] == pytest.approx(reports[0]["grad_norm"], rel=0.05)
    assert reports[1]["skipped"] == 0


@pytest.mark.usefixtures("let")
def test_a_scale_too_high_skips_steps_until_it_is_not(tmp_path):
    settings = {"deepspeed": {"fp16": {"initial_scale_power": 30, "hysteresis": 1}}, "max_skipped": 40, **NO_CLIP}
    learner, batch = tiny_learner(tiny_model().half(), **settings), random_batch(kl_weight=0)
    before = parameters(learner)
    assert learner.update(batch)["skipped"] == 1
    assert all(torch.equal(tensor, before[name]) for name, tensor in learner.weights())
    while learner.update(batch)["skipped"]:
        pass
    assert not all(torch.equal(tensor, before[name]) for name, tensor in learner.weights())
    learner.save(tmp_path)
    again = tiny_learner(tiny_model().half(), **settings)
    again.load(tmp_path)
    assert again.update(batch)["skipped"] == 0, "the search for a scale goes on from where it was"
    learner.update(batch)
    for name, tensor in learner.weights():
        assert torch.equal(tensor, parameters(again)[name])
