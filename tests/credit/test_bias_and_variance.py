"""Bias and variance of every baseline and scale, against the exact gradient of a small softmax policy.

Two attempts with three possible answers each; the second policy depends on the first answer. Problems are of two
kinds: what is right, and how often, differs. The gradient with respect to both attempts' logits is summed over all
outcomes, and estimated from many groups with the advantages that `rlcore.credit` gives them.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rlcore.credit import Turns, advantages, turn_returns
from rlcore.recipe.schema import CreditConfig, StageConfig

PROBLEMS, GROUP = 4_000, 8
STAGE = StageConfig(name="II", steps=1, bonus=10.0)
P1 = np.array([0.5, 0.3, 0.2])
P2 = np.array([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.1, 0.1, 0.8]])
"""Chance of answer 2 (column) after answer 1 (row): the policy that changes its answers."""
COPIER = np.array([[0.9, 0.06, 0.04], [0.05, 0.9, 0.05], [0.04, 0.06, 0.9]])
"""The same of one that hardly does."""
RIGHT = np.array([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]])
"""Reward of an answer (column) to a problem of each kind (row)."""


def exact_gradient() -> np.ndarray:
    """`[12]`: the mean over problems of E[R1 ∇ log π(y1)] and E[R2 ∇ log π(y2 | y1)], by enumeration."""
    gradient = np.zeros(12)
    for right in RIGHT:
        for y1 in range(3):
            for y2 in range(3):
                chance = P1[y1] * P2[y1, y2] / len(RIGHT)
                returns = right[y1], right[y2] + STAGE.bonus * (right[y2] - right[y1])
                gradient += chance * returns[0] * scores(np.array(y1), np.array(y2))[0]
                gradient += chance * returns[1] * scores(np.array(y1), np.array(y2))[1]
    return gradient


def scores(y1: np.ndarray, y2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """∇ log π of each attempt with respect to the 3 + 9 logits, `[..., 12]` each."""
    first, second = np.zeros((*y1.shape, 12)), np.zeros((*y1.shape, 3, 3))
    first[..., :3] = np.eye(3)[y1] - P1
    np.put_along_axis(second, y1[..., None, None], (np.eye(3)[y2] - P2[y1])[..., None, :], axis=-2)
    return first, np.concatenate([np.zeros((*y1.shape, 3)), second.reshape(*y1.shape, 9)], -1)


def estimates(credit: CreditConfig, branches: int = 1, group: int = GROUP) -> np.ndarray:
    """The gradient that each of many groups estimates, `[P, 12]`."""
    rng = np.random.default_rng(0)
    kind_P = rng.integers(len(RIGHT), size=PROBLEMS)
    y1_PG = rng.choice(3, (PROBLEMS, group // branches), p=P1).repeat(branches, axis=1)
    y2_PG = (rng.random((PROBLEMS, group, 1)) > P2.cumsum(1)[y1_PG]).sum(-1)
    rewards_PGA = np.stack([RIGHT[kind_P[:, None], y1_PG], RIGHT[kind_P[:, None], y2_PG]], -1)
    turns = Turns.of_attempts(rewards_PGA)
    if branches > 1:  # as rollouts mark them: a first attempt is trained in the first trajectory that has it
        trained_PGA = turns.trained_PGT.copy()
        trained_PGA[..., 0] = np.arange(group) % branches == 0
        first_PG = np.broadcast_to(np.arange(group) // branches * branches, (PROBLEMS, group))
        turns = replace(turns, trained_PGT=trained_PGA, first_PG=first_PG)
    advantages_PGA = np.nan_to_num(advantages(turn_returns(turns, STAGE, credit.discount), turns, credit))
    advantages_PGA[..., 0] *= turns.stands_for_PG  # as `assign` weighs them
    first_PGV, second_PGV = scores(y1_PG, y2_PG)
    return (advantages_PGA[..., :1] * first_PGV + advantages_PGA[..., 1:] * second_PGV).mean(1)


def deviations(estimates_PV: np.ndarray, expected_V: np.ndarray) -> np.ndarray:
    """Distance of the mean from what is expected, in standard errors."""
    error_V = estimates_PV.std(0) / np.sqrt(len(estimates_PV))
    return np.abs(estimates_PV.mean(0) - expected_V) / error_V


UNBIASED = {"none": 1, "leave_one_out": 1, "outcome": 1, "batch_outcome": 1, "batch": 1, "tree": 4}


@pytest.mark.parametrize(("baseline", "branches"), UNBIASED.items())
def test_unbiased_baselines_are_within_four_standard_errors_of_the_exact_gradient(baseline, branches):
    assert np.abs(exact_gradient()).min() > 0.02
    assert deviations(estimates(CreditConfig(baseline=baseline), branches), exact_gradient()).max() < 4


def test_the_mean_of_the_group_shrinks_the_gradient_by_what_it_takes_of_itself():
    found = estimates(CreditConfig(baseline="group"))
    assert deviations(found, exact_gradient()).max() > 10
    assert deviations(found, exact_gradient() * (GROUP - 1) / GROUP).max() < 4


def test_variance_falls_the_more_alike_and_the_more_numerous_those_are_that_an_attempt_is_compared_with():
    """At α = 10 the term -α r1 is most of the variance, which only those of the same first outcome share."""
    variance = {name: estimates(CreditConfig(baseline=name))[:, 3:].var(0).sum() for name in UNBIASED if name != "tree"}
    assert variance["batch_outcome"] < 0.9 * variance["outcome"]
    assert variance["outcome"] < 0.9 * variance["leave_one_out"]
    assert variance["batch"] < 0.95 * variance["leave_one_out"]


@pytest.mark.parametrize(("policy", "p2"), [("changes", P2), ("copies", COPIER)])
@pytest.mark.parametrize("alpha", [1, 10])
def test_variances_are_those_of_the_rooms_page(repository: Path, monkeypatch, policy, p2, alpha):
    """Of the second attempt's gradient, over that of leave_one_out; `tree` with two first attempts."""
    monkeypatch.setattr(f"{__name__}.P2", p2)
    monkeypatch.setattr(f"{__name__}.STAGE", STAGE.model_copy(update={"bonus": float(alpha)}))
    lines = (repository / "rlcore/credit/README.md").read_text().splitlines()
    start = next(at for at, line in enumerate(lines) if line.startswith("| second attempts, α |"))
    names = [name.strip(" `") for name in lines[start].split("|")[2:-1]]
    row = next(line for line in lines[start:] if line.startswith(f"| {policy}, {alpha} |"))
    printed = {name: float(cell) for name, cell in zip(names, row.split("|")[2:-1], strict=True)}
    found = {name: estimates(CreditConfig(baseline=name), UNBIASED[name])[:, 3:].var(0).sum() for name in printed}
    assert set(printed) == set(UNBIASED)
    for name, value in printed.items():
        assert found[name] / found["leave_one_out"] == pytest.approx(value, abs=0.02), name


def test_several_second_attempts_for_each_first_one_lower_the_variance():
    """Two first attempts: alone, and with four second attempts each."""
    alone = estimates(CreditConfig(baseline="leave_one_out"), group=2)[:, 3:].var(0).sum()
    tree = estimates(CreditConfig(baseline="tree"), branches=4)[:, 3:].var(0).sum()
    assert tree < 0.35 * alone


def test_a_scale_over_the_batch_only_weighs_the_attempts_and_one_over_the_group_turns_the_gradient():
    exact_V, plain_V = exact_gradient(), estimates(CreditConfig(baseline="leave_one_out")).mean(0)
    batch_V, group_V = (
        estimates(CreditConfig(baseline="leave_one_out", scale=scale)).mean(0) for scale in ("batch", "group")
    )
    for attempt in (slice(0, 3), slice(3, 12)):
        assert cosine(batch_V[attempt], plain_V[attempt]) == pytest.approx(1, abs=1e-6)
    assert cosine(batch_V, exact_V) < 0.7, "α no longer makes the second attempt weigh more"
    assert cosine(group_V[3:], plain_V[3:]) < 0.9995


@pytest.mark.parametrize("baseline", ["none", "batch", "batch_outcome", "outcome", "leave_one_out", "group"])
def test_a_scale_over_the_group_is_no_division_by_nothing(baseline):
    """A group whose returns are all equal has no scale: its advantages are 0."""
    rewards = np.array([[[1.0, 1.0], [0.0, 1.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]])
    found = advantages(rewards, Turns.of_attempts(rewards), CreditConfig(baseline=baseline, scale="group"))
    assert not found[0, :, 1].any()
    assert 0 < np.abs(found[1]).max() < 3


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
