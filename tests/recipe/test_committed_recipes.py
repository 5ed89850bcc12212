"""Every recipe in recipes/ loads, and says what its header promises."""

from pathlib import Path

import pytest

from rlcore.data import load_problems
from rlcore.policy import load_policy, stop_ids
from rlcore.recipe import batch_arithmetic, load_recipe, load_section
from rlcore.rollout import Conversation
from rlcore.sft import WarmStart

RECIPES = Path(__file__).parents[2] / "recipes"
WARM_STARTS = {RECIPES / "quickstart_base.yaml"}
QUICKSTART = [RECIPES / "quickstart.yaml", *sorted((RECIPES / "quickstart").glob("*.yaml"))]


@pytest.mark.parametrize("path", sorted({*RECIPES.rglob("*.yaml")} - WARM_STARTS), ids=lambda path: path.stem)
def test_a_recipe_loads(path):
    assert len(batch_arithmetic(load_recipe(path))) == 5


@pytest.mark.parametrize("path", sorted(WARM_STARTS), ids=lambda path: path.stem)
def test_a_warm_start_loads(path):
    assert load_section(WarmStart, path).phases


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


def test_the_arms_of_the_quickstart_differ_in_credit_and_stages_alone():
    recipes = [load_recipe(path) for path in QUICKSTART]
    assert len({recipe.name for recipe in recipes}) == len(recipes) > 1
    assert len({recipe.steps * recipe.batch.problems * recipe.batch.group for recipe in recipes}) == 1
    alike = {"name", "output", "credit", "stages"}
    shared = [recipe.model_dump(exclude=alike) for recipe in recipes]
    assert all(other == shared[0] for other in shared)


def test_the_quickstart_trains_on_none_of_its_held_out_problems():
    recipe = load_recipe(QUICKSTART[0])
    texts = [{p.messages[0]["content"] for p in load_problems(data)} for data in (recipe.data, recipe.evaluate.data)]
    assert len(texts[0]) > 10_000
    assert not texts[0] & texts[1]
    assert len(texts[1]) >= 2000


def test_the_quickstart_template_is_proven_exact():
    recipe = load_recipe(QUICKSTART[0])
    policy = load_policy(recipe.model)
    conversation = Conversation(policy.tokenizer, recipe.conversation, stop_ids(policy))
    problem = load_problems(recipe.data)[0]
    answer = policy.tokenizer(" b and c: 8 + 5 = 13", add_special_tokens=False)["input_ids"]
    messages = [
        *problem.messages,
        {"role": "assistant", "content": "b and c: 8 + 5 = 13"},
        {"role": "user", "content": recipe.conversation.instruction},
    ]
    rendered = policy.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    appended = [*conversation.open(problem), *answer, policy.tokenizer.eos_token_id, *conversation.follow("stop")]
    assert policy.tokenizer(rendered, add_special_tokens=False)["input_ids"] == appended
    assert policy.tokenizer.unk_token_id not in appended
