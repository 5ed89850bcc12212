"""The batch arithmetic against numbers worked by hand."""

import pytest

from rlcore.errors import UserError
from rlcore.recipe import Recipe, batch_arithmetic

RECIPE = Recipe.model_validate(
    {
        "name": "hand",
        "model": {"path": "somewhere"},
        "data": {"source": "gsm8k"},
        "conversation": {"attempts": 2, "max_prompt_tokens": 200, "max_attempt_tokens": 400},
        "rewards": {"functions": [{"name": "math"}]},
        "batch": {"problems": 12, "group": 5},
        "stages": [{"name": "I", "steps": 1500, "kl": [0.1, 0.01]}, {"name": "II", "steps": 20, "kl": [0.01, 0]}],
        "learner": {"minibatches": 4, "micro_batch_tokens": 3100},
    }
)


def test_numbers_worked_by_hand():
    # 12 x 5 = 60 trajectories, 120 attempts; 200 + 2 x 400 = 1,000 tokens each, 60,000 in all. On 3 ranks 20 each, in 4
    # minibatches of 5, which at 3 rows of 1,000 in 3,100 tokens make 2 micro-batches. 1,520 steps x 4 = 6,080.
    assert batch_arithmetic(RECIPE, ranks=3) == [
        "12 problems x 5 trajectories = 60 trajectories a step, x 2 attempts = 120 attempts",
        "up to 1,000 tokens a trajectory (200 of prompt + 2 x 400 sampled, beside the instruction) = "
        "up to 60,000 tokens a step",
        "3 ranks: 20 trajectories each, 4 optimizer steps a step on 5 of them, "
        "at most 2 micro-batches of 3,100 tokens each",
        "I 1,500 + II 20 = 1,520 steps, 6,080 optimizer steps, 91,200 trajectories",
        "loss dapo: ppo surrogate, ratio per token, clip [0.2, 0.28], average token; "
        "old log-probabilities: the sampler's; reference pass: in I and II",
    ]


def test_a_trajectory_longer_than_a_micro_batch_stands_alone():
    learner = RECIPE.learner.model_copy(update={"micro_batch_tokens": 100})
    lines = batch_arithmetic(RECIPE.model_copy(update={"learner": learner}))
    assert "at most 15 micro-batches" in lines[2]


def test_problems_that_do_not_divide_over_the_ranks_are_refused():
    with pytest.raises(UserError, match=r"batch.problems 12 does not divide evenly over 8 ranks"):
        batch_arithmetic(RECIPE, ranks=8)


def test_ranks_that_share_sequences_train_together():
    # 60 trajectories for 2 pairs of ranks, 30 each, in 4 minibatches of up to 8; 6 rows of 1,000 in 2 x 3,100 tokens.
    learner = RECIPE.learner.model_copy(update={"sequence_parallel": 2})
    recipe = RECIPE.model_copy(update={"learner": learner})
    assert batch_arithmetic(recipe, ranks=4)[2] == (
        "4 ranks, 2 on each sequence: 30 trajectories each, 4 optimizer steps a step on 8 of them, "
        "at most 2 micro-batches of 6,200 tokens each"
    )
    with pytest.raises(UserError, match=r"learner.sequence_parallel 2 does not divide 3 ranks"):
        batch_arithmetic(recipe, ranks=3)


def test_what_is_sampled_beside_single_trajectories_has_its_lines():
    values = RECIPE.model_dump()
    values["batch"] = {"problems": 12, "group": 8, "branches": 2, "resample": 3}
    values["stages"][1]["base_first"] = 0.5
    assert batch_arithmetic(Recipe.model_validate(values))[5:] == [
        "trees: 4 first attempts a problem, 2 trajectories go on from each",
        "II: 2 of 4 first attempts are the starting policy's, not trained",
        "dead groups: up to 3 rounds of other problems, at most 48 groups a step",
    ]
