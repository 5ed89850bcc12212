"""Changes that make a recipe fit: each is allowed, and none takes what the host does not have."""

import pytest
from transformers import Qwen2Config

from rlcore.cli import main
from rlcore.plan.advice import changes_until_it_fits
from rlcore.plan.memory import GIB, memory_parts, peak
from rlcore.plan.shapes import known_config, shapes_of
from rlcore.recipe import Recipe
from rlcore.recipe.load import with_overrides
from tests.tiny import write_recipe

SMALL = "HuggingFaceTB/SmolLM2-135M-Instruct"


def recipe(**changes: object) -> Recipe:
    values = {"name": "plan", "model": {"path": SMALL}, "data": {"source": "arithmetic"}, "stages": []}
    return Recipe.model_validate({**values, "rewards": {"functions": [{"name": "pair_sum"}]}, **changes})


def test_an_optimizer_is_moved_away_with_the_partition_that_this_needs():
    made, shapes = recipe(rollout={"kv_memory": 1}), shapes_of(known_config(SMALL), SMALL)
    changes = changes_until_it_fits(made, shapes, 2, 2 * GIB)
    keys = [change.override for change in changes]
    assert keys[keys.index("learner.offload=[optimizer]") - 1] == "learner.zero=1"
    assert peak(memory_parts(with_overrides(made, keys), shapes, 2, 2 * GIB)) == changes[-1].peak


def test_ranks_share_sequences_only_where_the_heads_allow_it():
    """Three heads of keys go neither into two parts nor twice into four; supervised rounds share none at all."""
    long = {"max_prompt_tokens": 20_000, "max_attempt_tokens": 20_000}
    tried = {}
    for keys in (3, 4):
        sizes = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "vocab_size": 300}
        config = Qwen2Config(**sizes, num_attention_heads=12, num_key_value_heads=keys)
        changes = changes_until_it_fits(recipe(conversation=long), shapes_of(config, "tiny"), 8, GIB // 100)
        tried[keys] = [change.override for change in changes if "sequence_parallel" in change.override]
    assert tried == {3: [], 4: ["learner.sequence_parallel=2", "learner.sequence_parallel=4"]}
    supervised = recipe(conversation=long, sft={"rows": "column"})
    told = changes_until_it_fits(supervised, shapes_of(config, "tiny"), 8, GIB // 100)
    assert not [change for change in told if change.fits or "sequence_parallel" in change.override]


def test_a_change_that_the_host_has_no_memory_for_is_left_out():
    made, shapes = recipe(rollout={"kv_memory": 1}, learner={"zero": 2}), shapes_of(known_config(SMALL), SMALL)
    told = [
        [change.override for change in changes_until_it_fits(made, shapes, 2, 2 * GIB, host=host)]
        for host in (8 * GIB, GIB // 2)
    ]
    assert "learner.offload=[optimizer]" in told[0]
    assert not [override for override in told[1] if "offload" in override]


@pytest.mark.parametrize(("host", "told"), [(100, "it fits"), (1, "it does not fit")])
def test_a_recipe_fits_only_where_the_host_has_what_it_takes_there(host, told, capsys, tmp_path):
    learner = {"zero": 2, "offload": ["optimizer"]}
    path, cluster = write_recipe(tmp_path, model={"path": SMALL}, learner=learner), tmp_path / "cluster.yaml"
    cluster.write_text(f"gpus: 4\nhost_memory_gib: {host}\n")
    main(["plan", str(path), "--cluster", str(cluster)])
    assert told in capsys.readouterr().out
