"""Trees through credit and the learner: the gradient of all possible groups together against the exact one."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from tiny import gradient_learner, gradients
from transformers import Qwen2Config, Qwen2ForCausalLM

from rewards import Verdict
from rlcore.credit import assign
from rlcore.recipe.schema import CreditConfig, StageConfig
from rlcore.types import Groups, Problem, Trajectory, Turn

ANSWERS, LONGEST = 3, 7
STAGE = StageConfig(name="II", steps=1, bonus=2.0, kl=[0.3, 0.1])
PROMPT, CORRECTION = 0, 1
"""Tokens that ask for the first attempt and for the second; an attempt is one token, and answer 2 is right."""


def tiny_policy() -> Qwen2ForCausalLM:
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = Qwen2Config(vocab_size=ANSWERS, num_key_value_heads=1, initializer_range=0.4, **shape)
    return Qwen2ForCausalLM(config).eval()


def logprobs(model: Qwen2ForCausalLM) -> tuple[torch.Tensor, torch.Tensor]:
    """Of every first answer, `[3]`, and of every second answer after each first one, `[3, 3]`."""
    rows = torch.tensor([[PROMPT, first, CORRECTION] for first in range(ANSWERS)])
    log_p = model(input_ids=rows).logits.log_softmax(-1)
    return log_p[0, 0], log_p[:, 2]


def trajectory(first: int, second: int, *, trained: bool) -> Trajectory:
    turns = (
        Turn((PROMPT,), (first,), (0.0,), "stop", "", (0,), trained=trained),
        Turn((CORRECTION,), (second,), (0.0,), "stop", "", (0,)),
    )
    verdicts = tuple(Verdict(float(y == 2), "correct" if y == 2 else "wrong") for y in (first, second))
    return Trajectory(Problem("p", ()), turns, verdicts)


def all_groups(trees: int, branches: int) -> Iterator[tuple[list[Trajectory], list[tuple[int, int]]]]:
    """Every group of so many first attempts and second attempts after each, and its answers."""
    for firsts in product(range(ANSWERS), repeat=trees):
        for seconds in product(range(ANSWERS), repeat=trees * branches):
            answers = list(zip(np.repeat(firsts, branches).tolist(), seconds, strict=True))
            yield [trajectory(*pair, trained=g % branches == 0) for g, pair in enumerate(answers)], answers


@pytest.mark.usefixtures("ranks")
@pytest.mark.parametrize(("baseline", "trees", "branches"), [("tree", 2, 2), ("leave_one_out", 4, 1)])
def test_the_mean_gradient_over_all_groups_is_the_exact_one(baseline, trees, branches):
    """Groups are weighed by their chance, so that nothing is left to it; attempt 1 sees r1, attempt 2 its return."""
    log_1, log_2 = (log_p.detach().double().numpy() for log_p in logprobs(tiny_policy()))
    groups, chances = [], []
    for group, answers in all_groups(trees, branches):
        groups.append(group)
        firsts = sum(log_1[first] for first, _ in answers[::branches])
        chances.append(np.exp(firsts + sum(log_2[pair] for pair in answers)))
    assert sum(chances) == pytest.approx(1)
    batch = assign(groups, replace_kl(STAGE, 0.0), CreditConfig(baseline=baseline))
    weight_N = np.repeat(np.array(chances) * len(groups), len(groups[0])).repeat(batch.lengths_B)
    batch = replace(batch, advantage_N=(batch.advantage_N * weight_N).astype(np.float32))
    learner = gradient_learner(tiny_policy(), loss="reinforce", kl_used=False, max_sampled_tokens=LONGEST)
    learner.update(batch)
    model = tiny_policy().double()
    objective = expected_return(*logprobs(model))
    (-objective / LONGEST).backward()
    assert_same_gradient(gradients(learner), model)


def expected_return(log_1: torch.Tensor, log_2: torch.Tensor) -> torch.Tensor:
    """Its gradient is E[r1 ∇ log π(y1)] + E[(r2 + α (r2 - r1)) ∇ log π(y2 | y1)]."""
    right = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    progress = right[None] + STAGE.bonus * (right[None] - right[:, None])
    p_1, p_2 = log_1.exp().detach(), log_2.exp().detach()
    return (p_1 * right * log_1).sum() + (p_1[:, None] * p_2 * progress * log_2).sum()


@pytest.mark.usefixtures("ranks")
def test_the_kl_of_a_shared_first_attempt_counts_for_all_that_go_on_from_it():
    """As if each of the four trajectories had trained it."""
    shared = [trajectory(1, second, trained=second == 0) for second in (0, 1, 2, 1)]
    apart = [replace(t, turns=(replace(t.turns[0], trained=True), t.turns[1])) for t in shared]
    found = [kl_gradient([group]) for group in (shared, apart)]
    assert max(gradient.abs().max() for gradient in found[0].values()) > 1e-3
    for name, gradient in found[0].items():
        torch.testing.assert_close(gradient, found[1][name], rtol=1e-4, atol=1e-7)


def kl_gradient(groups: Groups) -> dict[str, torch.Tensor]:
    """Of the KL term alone, for a policy that has left its reference."""
    batch = assign(groups, replace_kl(STAGE, 1.0), CreditConfig())
    batch = replace(batch, advantage_N=np.zeros_like(batch.advantage_N))
    learner = gradient_learner(tiny_policy(), loss="reinforce", kl="exact", max_sampled_tokens=LONGEST)
    with torch.no_grad():
        for parameter in learner.module.parameters():
            parameter += 0.3 * torch.sin(torch.arange(parameter.numel())).reshape(parameter.shape)
    learner.update(batch)
    return gradients(learner)


def replace_kl(stage: StageConfig, beta: float) -> StageConfig:
    return stage.model_copy(update={"kl": [beta, beta]})


def assert_same_gradient(found: dict[str, torch.Tensor], model: Qwen2ForCausalLM) -> None:
    largest = max(parameter.grad.abs().max().item() for parameter in model.parameters())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found[name].double(), parameter.grad, rtol=1e-3, atol=1e-5 * largest)
