"""Every recipe in recipes/ loads; those for GSM8K and MATH say what their headers promise."""

from pathlib import Path

import pytest

from rlcore.recipe import batch_arithmetic, load_recipe

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.mark.parametrize("path", sorted(RECIPES.rglob("*.yaml")), ids=lambda path: path.stem)
def test_a_recipe_loads(path):
    assert len(batch_arithmetic(load_recipe(path))) == 4


def test_gsm8k_tiny():
    recipe = load_recipe(RECIPES / "gsm8k_tiny.yaml", ["data.path=train.jsonl", "evaluate.data.path=test.jsonl"])
    assert (recipe.data.path, recipe.evaluate.data.path) == ("train.jsonl", "test.jsonl")
    assert recipe.data.prompt == recipe.evaluate.data.prompt
    for ranks, share in ((1, "1 rank: 32 trajectories each"), (2, "2 ranks: 16 trajectories each")):
        lines = batch_arithmetic(recipe, ranks)
        assert lines[0].startswith("8 problems x 4 trajectories = 32 trajectories a step")
        assert lines[2].startswith(share)
        assert lines[3].startswith("stage_1 2 + stage_2 2 = 4 steps")


def test_score_on_math_has_the_published_settings():
    recipe = load_recipe(RECIPES / "score_math_qwen2.5_1.5b.yaml")
    stage_1, stage_2 = recipe.stages
    assert (stage_1.reward, stage_1.bonus, stage_1.kl) == ([0, 1], 0, [0.1, 0.01])
    assert (stage_2.reward, stage_2.bonus, stage_2.kl) == ([1, 1], 10, [0.01, 0.01])
    assert recipe.learner.lr == 5e-6
    assert recipe.data.system == recipe.evaluate.data.system
    assert "\\boxed{}" in recipe.data.system
    lines = batch_arithmetic(recipe, ranks=8)
    assert lines[0] == "64 problems x 8 trajectories = 512 trajectories a step, x 2 attempts = 1,024 attempts"
    assert lines[2].startswith("8 ranks: 64 trajectories each")
    assert lines[3].startswith("stage_1 1,500 + stage_2 1,500 = 3,000 steps")
