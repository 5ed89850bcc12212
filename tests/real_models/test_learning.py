"""Learning on a real model: the learner against the sampler and transformers' autograd, and what is exported."""

import copy
import dataclasses
from importlib.util import find_spec

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from talks import QUESTIONS
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlcore.credit.streams import token_batch
from rlcore.learner import Learner
from rlcore.ranks import start_distributed
from rlcore.recipe.schema import LearnerConfig, LoraConfig
from tests.processes import rlcore
from tests.rollout.vllm.asking import answers_in_vllm_are_those_of_transformers

LORA = LoraConfig(rank=4, targets=["q_proj", "v_proj", "down_proj"])


@pytest.fixture(scope="module")
def batch(trajectories):
    """Two sampled trajectories, with their log-probabilities and some advantages."""
    advantages_BT = np.array([[-1.0, -0.2], [0.6, 1.5]])
    return token_batch(trajectories[:2], advantages_BT, np.zeros((2, 2)), np.tile([0, 1], (2, 1)))


def learner_of(model, lora: LoraConfig | None = None) -> Learner:
    """One whose first update leaves its gradient where `gradients` finds it."""
    start_distributed("cpu")
    section = LearnerConfig.model_validate({"lr": 1e-5, "betas": (0.0, 0.9), "max_grad_norm": 1e9, "loss": "grpo"})
    settings = {"temperature": 1.0, "kl_used": False, "total_steps": 10, "seed": 0, "max_sampled_tokens": 32}
    return Learner(section, model, lora=lora, exact_sampler=True, **settings)


def gradients(learner: Learner) -> dict[str, torch.Tensor]:
    """Adam's first moment after one step with a decay of 0."""
    state, named = learner._engine.optimizer.state, learner.module.named_parameters()
    return {name: state[parameter]["exp_avg"] for name, parameter in named if parameter.requires_grad}


@pytest.fixture(scope="module")
def by_autograd(model, batch) -> dict[str, torch.Tensor]:
    """Gradient of −mean over attempts of the mean over tokens of ratio · advantage, where the ratio is 1."""
    model = copy.deepcopy(model)
    attempts = 2 * len(batch.lengths_B)
    for start, stop in zip(batch.offsets_B1, batch.offsets_B1[1:], strict=False):
        ids = torch.from_numpy(batch.ids_N[start:stop])
        logprob = model(ids[None]).logits[0, :-1].log_softmax(-1).gather(1, ids[1:, None])[:, 0]
        gain = torch.exp(logprob - logprob.detach()) * torch.from_numpy(batch.advantage_N[start + 1 : stop])
        turns = (batch.loss_mask_N & (batch.turn_N == turn) for turn in (1, 2))
        loss = -sum(gain[torch.from_numpy(mine_N[start + 1 : stop])].mean() for mine_N in turns) / attempts
        loss.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def of_adapters(whole: dict[str, torch.Tensor], learner: Learner) -> dict[str, torch.Tensor]:
    """From the gradient of all weights W + α/rank·B·A that of A and B, where B is 0 and A is the learner's."""
    found = {}
    for name, A_RI in learner.module.named_parameters():
        if ".lora_A." in name:
            gradient_OI = whole[name.replace(".lora_A.default", "")]
            found[name] = torch.zeros_like(A_RI)
            found[name.replace("lora_A", "lora_B")] = LORA.alpha / LORA.rank * gradient_OI @ A_RI.detach().T
    return found


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_one_step_has_the_gradient_of_autograd_and_log_probabilities_are_the_samplers(lora, model, batch, by_autograd):
    learner = learner_of(copy.deepcopy(model), lora)
    expected = of_adapters(by_autograd, learner) if lora else by_autograd
    found = learner.logprobs(batch)
    mask_N = batch.loss_mask_N
    np.testing.assert_allclose(found[mask_N], batch.sampler_logprob_N[mask_N], atol=1e-3)

    learner.update(dataclasses.replace(batch, sampler_logprob_N=found))
    got = gradients(learner)
    assert got.keys() == expected.keys()
    for name, gradient in got.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-3, atol=1e-3 * float(expected[name].abs().max()))


@pytest.mark.parametrize("lora", [None, LORA.model_dump()], ids=["full", "lora"])
def test_transformers_and_vllm_load_what_a_step_of_training_exports(lora, smollm2, model, tmp_path):
    (tmp_path / "reward.py").write_text("def length(completions):\n    return [len(c) % 7 / 7 for c in completions]\n")
    (tmp_path / "problems.jsonl").write_text('{"prompt": "Count to five."}\n{"prompt": "Say hello."}\n')
    recipe = {
        "name": "real",
        "device": "cpu",
        "model": {"path": str(smollm2), "lora": lora},
        "data": {"source": "jsonl", "path": "./problems.jsonl"},
        "conversation": {"instruction": "Check it.", "max_prompt_tokens": 64, "max_attempt_tokens": 4},
        "rewards": {"functions": [{"name": "./reward.py:length"}]},
        "batch": {"problems": 2, "group": 2},
        "stages": [{"name": "one", "steps": 1}],
        "learner": {"lr": 1e-4, "micro_batch_tokens": 256},
        "checkpoint": {"every": 1},
        "track": {"wandb": "off"},
        "output": str(tmp_path / "run"),
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    out = tmp_path / "exported"
    for words in (["train", tmp_path / "recipe.yaml"], ["export", tmp_path / "run", out]):
        done = rlcore(*words)
        assert done.returncode == 0, done.stderr
    exported, report = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    before = dict(model.named_parameters())
    assert any(not torch.equal(value, before[name]) for name, value in exported.named_parameters())
    written, final = (load_file(folder / "model.safetensors") for folder in (out, tmp_path / "run/final"))
    assert written.keys() == final.keys()
    assert all(torch.equal(value, final[name]) for name, value in written.items())
    assert AutoTokenizer.from_pretrained(out).chat_template == AutoTokenizer.from_pretrained(smollm2).chat_template
    if find_spec("vllm"):
        answers_in_vllm_are_those_of_transformers(out, QUESTIONS)
