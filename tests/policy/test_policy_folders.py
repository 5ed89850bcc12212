"""Policies from folders: the way there and back, and what is said of folders that do not work."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from rlcore.errors import UserError
from rlcore.policy import Policy, check_same_parameters, load_policy, parameter_shapes, save_policy, stop_ids
from rlcore.recipe.schema import ModelConfig, ScratchConfig

SIZES = ScratchConfig(hidden_size=16, layers=2, heads=2, kv_heads=1, intermediate_size=24, vocab_size=300)
TEXTS = ["How many apples are left?", "Tom has 3 apples and eats 2 of them."]
MESSAGES = [{"role": "user", "content": "How many?"}, {"role": "assistant", "content": "Three.\n"}]


@pytest.fixture(scope="module")
def policy() -> Policy:
    return load_policy(ModelConfig(scratch=SIZES), TEXTS, seed=1)


@pytest.fixture
def folder(policy, tmp_path) -> Path:
    save_policy(policy, tmp_path / "policy")
    return tmp_path / "policy"


def mistake(**section) -> str:
    with pytest.raises(UserError) as error:
        load_policy(ModelConfig(**section))
    assert "\n" not in str(error.value)
    return str(error.value)


def edit(file: Path, **changes) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_a_saved_policy_comes_back_the_same(policy, folder):
    loaded = load_policy(ModelConfig(path=str(folder)))
    text = policy.tokenizer.apply_chat_template(MESSAGES, tokenize=False)
    ids = policy.tokenizer(text, return_tensors="pt").input_ids
    assert loaded.tokenizer(text, return_tensors="pt").input_ids.equal(ids)
    assert loaded.tokenizer.apply_chat_template(MESSAGES, tokenize=False) == text
    assert stop_ids(loaded) == stop_ids(policy) == (policy.tokenizer.eos_token_id,)
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(ids).logits, policy.model(ids).logits)


def test_files_are_readable_for_whom_the_umask_says(folder):
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    (folder / "any").write_text("")
    assert modes["model.safetensors"] == modes["config.json"] == (folder / "any").stat().st_mode & 0o777


MODELING = """
from transformers import Qwen2Config, Qwen2ForCausalLM
class MineConfig(Qwen2Config):
    model_type = "mine"
class MineForCausalLM(Qwen2ForCausalLM):
    config_class = MineConfig
"""


def test_code_of_a_model_runs_only_where_it_is_trusted(policy, folder, tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    (folder / "modeling_mine.py").write_text(MODELING)
    classes = {"AutoConfig": "modeling_mine.MineConfig", "AutoModelForCausalLM": "modeling_mine.MineForCausalLM"}
    edit(folder / "config.json", model_type="mine", architectures=["MineForCausalLM"], auto_map=classes)
    assert mistake(path=str(folder)).endswith("read it, then say model.trust_remote_code=true")
    loaded = load_policy(ModelConfig(path=str(folder), trust_remote_code=True))
    assert type(loaded.model).__name__ == "MineForCausalLM"
    save_policy(loaded, tmp_path / "again")
    assert (tmp_path / "again" / "modeling_mine.py").read_text() == MODELING, "what is written loads by itself"


def test_dtype_and_chat_template_of_the_recipe_win(folder):
    loaded = load_policy(ModelConfig(path=str(folder), dtype="bfloat16", chat_template="{{ messages[0]['content'] }}!"))
    assert loaded.model.dtype == torch.bfloat16
    assert loaded.tokenizer.apply_chat_template(MESSAGES, tokenize=False) == "How many?!"


def test_stop_tokens_are_the_tokenizers_and_the_generation_settings(folder):
    edit(folder / "generation_config.json", eos_token_id=[7, 5])
    loaded = load_policy(ModelConfig(path=str(folder)))
    assert stop_ids(loaded) == (loaded.tokenizer.eos_token_id, 5, 7)


def test_folders_that_are_not_there(folder):
    assert mistake(path=str(folder.with_name("polcy"))).endswith(f"does not exist; did you mean {folder}?")
    assert mistake(path="runs/some/best").startswith("model folder runs/some/best does not exist")
    assert mistake(path=str(folder.parent)).startswith(f"model {folder.parent} cannot be loaded")


def test_a_hub_that_cannot_be_reached(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert mistake(path="nobody/no-such-model").startswith("model nobody/no-such-model cannot be loaded")


def test_weights_that_do_not_fit_or_cannot_be_read(policy, folder):
    weights, config = folder / "model.safetensors", folder / "config.json"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    assert mistake(path=str(folder)).startswith(f"model {folder} cannot be loaded")
    weights.write_bytes(whole)
    edit(config, num_hidden_layers=3, layer_types=None)
    assert f"model {folder} is incomplete: its weights lack model.layers.2" in mistake(path=str(folder))
    edit(config, num_hidden_layers=2, intermediate_size=48)
    assert mistake(path=str(folder)).startswith(f"model {folder} cannot be loaded")
    config.write_text("{")
    assert mistake(path=str(folder)).startswith(f"model {folder} cannot be loaded")


def test_tokenizers_that_cannot_be_used(folder, tmp_path):
    broken = shutil.copytree(folder, tmp_path / "broken")
    (broken / "chat_template.jinja").unlink()
    assert mistake(path=str(broken)) == (f"tokenizer of {broken} has no chat template; give one as model.chat_template")
    assert "chat template of" in mistake(path=str(folder), chat_template="{% for m in messages %}")
    (broken / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    edit(broken / "tokenizer_config.json", eos_token=None)
    assert mistake(path=str(broken)).startswith(f"tokenizer of {broken} has no end token")
    (broken / "tokenizer.json").write_text("{}")
    assert mistake(path=str(broken)).startswith(f"tokenizer of {broken} cannot be loaded")
    (broken / "tokenizer.json").write_text("not JSON")
    assert mistake(path=str(broken)).startswith(f"tokenizer of {broken} cannot be loaded")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    known = len(tokenizer)
    tokenizer.add_tokens(["<|more|>"])
    tokenizer.save_pretrained(folder)
    assert mistake(path=str(folder)) == f"tokenizer of {folder} has {known + 1} tokens, its model only {known}"


def test_a_policy_that_cannot_be_written(policy, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="the policy cannot be written to") as error:
        save_policy(policy, tmp_path / "file")
    assert "\n" not in str(error.value)


def test_parameters_of_another_model_are_told_apart(policy):
    shapes = parameter_shapes(policy.model)
    check_same_parameters(policy.model, shapes, "checkpoint is of another model")
    cases = [
        ({"model.norm.weight": [32]}, [], r"model.norm.weight is 32 there and 16 in the recipe's model"),
        ({}, ["model.layers.1.mlp.up_proj.weight"], r"it has no parameter model.layers.1.mlp.up_proj.weight"),
        ({"model.layers.2.mlp.up_proj.weight": [24, 16]}, [], r"it has a parameter model.layers.2.mlp.up_proj.weight"),
    ]
    for changed, dropped, message in cases:
        saved = {name: shape for name, shape in (shapes | changed).items() if name not in dropped}
        with pytest.raises(UserError, match=f"checkpoint is of another model: {message}"):
            check_same_parameters(policy.model, saved, "checkpoint is of another model")


def test_buffers_are_saved_with_weights_that_are_given(tmp_path):
    """As a mixture of experts has them, for its router."""
    policy = load_policy(ModelConfig(scratch=SIZES), TEXTS, seed=1)
    policy.model.model.register_buffer("biases", torch.tensor([1.0, 2.0]))
    policy.model.model.register_buffer("computed", torch.tensor([3.0]), persistent=False)
    given = {name: torch.zeros_like(weight) for name, weight in policy.model.named_parameters()}
    save_policy(policy, tmp_path / "policy", given)
    saved = load_file(tmp_path / "policy" / "model.safetensors")
    assert saved["model.biases"].tolist() == [1.0, 2.0]
    assert "model.computed" not in saved
    assert not saved["model.norm.weight"].any()
