"""With top-k, top-p or min-p the learner scores what was sampled under the distribution that it was sampled from."""

import json

import pytest
import torch

from rlcore.cli import main
from rlcore.policy.truncation import Truncation
from tests.learner.tiny import full_log_softmax, parameters, random_batch, tiny_learner, tiny_model
from tests.refusals import refusal
from tests.tiny import write_recipe

SAMPLED = {"top_k": 5, "top_p": 0.9, "min_p": 0.02}


def test_sampler_and_learner_agree_and_nothing_is_weighed_by_what_was_left_out(tmp_path):
    stages = [{"name": "one", "steps": 3, "kl": [0.1, 0.1]}]
    recipe = write_recipe(tmp_path, rollout=SAMPLED, evaluate=None, stages=stages)
    main(["train", str(recipe), f"output={tmp_path / 'run'}", "learner.old_logprobs=learner", "learner.lr=0.03"])
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    for metrics in map(json.loads, lines):
        assert metrics["learner/correction"] == pytest.approx(1, abs=1e-3)
        assert metrics["learner/max_abs_logprob_gap"] < 1e-2
    assert len(lines) == 3


def test_log_probabilities_are_of_the_kept_tokens_alone():
    model, batch = tiny_model(), random_batch()
    learner = tiny_learner(model, truncation=Truncation(top_k=5), kl_used=False)
    log_p_NV = full_log_softmax(model, batch).detach()
    expected = []
    for row, token in zip(log_p_NV, batch.ids_N, strict=True):
        kept = set(row.topk(5).indices.tolist()) | {int(token)}
        expected.append(float(row[token] - row[sorted(kept)].logsumexp(0)))
    expected_N = torch.tensor(expected) * torch.from_numpy(batch.loss_mask_N)
    assert learner.logprobs(batch) == pytest.approx(expected_N.numpy(), abs=1e-4)


def test_tokens_that_could_not_be_drawn_are_not_moved_by_the_update():
    """Outside the top k the gradient at the logits is 0: with an output head of its own, so is that of their rows."""
    model, batch = tiny_model(tie=False), random_batch(trajectories=1)
    before = {name: tensor.clone() for name, tensor in model.named_parameters()}["lm_head.weight"]
    log_p_NV = full_log_softmax(model, batch)[batch.loss_mask_N]
    learner = tiny_learner(model, truncation=Truncation(top_k=3), kl_used=False, exact_sampler=False)
    learner.update(batch)
    moved = (parameters(learner)["lm_head.weight"] != before).any(1)
    reachable = set(log_p_NV.topk(3).indices.flatten().tolist()) | set(batch.ids_N[batch.loss_mask_N].tolist())
    assert set(moved.nonzero().flatten().tolist()) == reachable


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["learner.minibatches=2"], "rollout.top_p 0.9: which tokens are kept changes with the weights"),
        (["learner.old_logprobs=sampler", "model.dtype=bfloat16"], "take learner.old_logprobs learner"),
        (["learner.kl=k3"], "take learner.kl exact"),
    ],
)
def test_what_a_truncated_distribution_cannot_be_trained_with_is_refused(capfd, tmp_path, overrides, said):
    assert said in refusal(capfd, "train", write_recipe(tmp_path), "rollout.top_p=0.9", *overrides)
