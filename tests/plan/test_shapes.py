"""Sizes of models whose configurations name them otherwise than Llama's."""

import pytest
from transformers import AutoConfig, AutoModelForCausalLM

from rlcore.errors import UserError
from rlcore.plan import start
from rlcore.plan.shapes import shapes_of
from rlcore.recipe import load_recipe
from tests.tiny import write_recipe

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.mark.parametrize(
    ("kind", "sizes", "wide"),
    [
        ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 2}, 128),
        ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_inner": 48}, 48),
        ("gpt_bigcode", {"n_embd": 32, "n_layer": 2, "n_head": 2}, 128),
        ("opt", {**SIZES, "ffn_dim": 64, "word_embed_proj_dim": 32}, 64),
        ("falcon", {**SIZES, "ffn_hidden_size": 96}, 96),
        ("bloom", {"hidden_size": 32, "n_layer": 2, "n_head": 2}, 128),
        ("mpt", {"d_model": 32, "n_layers": 2, "n_heads": 2}, 128),
        ("gpt_neo", {"hidden_size": 32, "num_layers": 2, "num_heads": 2, "attention_types": [[["global"], 2]]}, 128),
    ],
)
def test_the_width_of_the_feed_forward_layers_is_found_under_every_name(kind, sizes, wide):
    config = AutoConfig.for_model(kind, vocab_size=300, **sizes)
    shapes, model = shapes_of(config, kind), AutoModelForCausalLM.from_config(config)
    assert (shapes.layers, shapes.hidden, shapes.heads, shapes.intermediate) == (2, 32, 2, wide)
    assert shapes.parameters == sum(parameter.numel() for parameter in model.parameters())
    matrices = {tuple(parameter.shape) for parameter in model.parameters() if parameter.ndim == 2}
    assert {(32, wide), (wide, 32)} <= matrices


def test_a_model_without_attention_is_not_planned_but_started(tmp_path):
    config = AutoConfig.for_model("mamba", hidden_size=32, num_hidden_layers=2, vocab_size=300)
    with pytest.raises(UserError, match="of mamba: its configuration has no num_attention_heads"):
        shapes_of(config, "mamba")
    config.save_pretrained(tmp_path / "mamba")
    recipe = load_recipe(write_recipe(tmp_path, model={"path": str(tmp_path / "mamba")}))
    assert start.memory_demand(recipe, 1, training=True) is None
