"""Every recipe in recipes/ loads, validates and gives its batch arithmetic."""

from pathlib import Path

import pytest

from rlcore.data import load_problems
from rlcore.policy import load_policy, stop_ids
from rlcore.recipe import batch_arithmetic, load_recipe
from rlcore.rollout import Conversation

RECIPES = Path(__file__).resolve().parents[1] / "recipes"
QUICKSTART = [RECIPES / "quickstart.yaml", *sorted((RECIPES / "quickstart").glob("*.yaml"))]


ALL = sorted({*RECIPES.glob("score_*.yaml"), RECIPES / "gsm8k_tiny.yaml", *QUICKSTART})


@pytest.mark.parametrize("path", ALL, ids=[path.name for path in ALL])
def test_a_recipe_loads_and_explains_itself(path):
    recipe = load_recipe(path)
    assert f"= {recipe.batch.problems * recipe.batch.group} trajectories a step" in batch_arithmetic(recipe)[0]


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
