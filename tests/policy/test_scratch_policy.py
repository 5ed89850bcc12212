"""Policies made from nothing: reproducible in any process, able to encode any text."""

import json

import pytest
import torch
from transformers import AutoTokenizer

from rlcore.policy import load_policy, phrase_tokenizer, save_policy, stop_ids
from rlcore.policy.load import Policy
from rlcore.policy.scratch import scratch_model
from rlcore.recipe.schema import ModelConfig, ScratchConfig
from tests.processes import python

SECTION = ModelConfig(
    scratch=ScratchConfig(hidden_size=32, layers=1, heads=4, kv_heads=2, intermediate_size=48, vocab_size=280)
)
TEXTS = [f"A farmer has {i} sheep and sells {i // 2} of the sheep. How many sheep are left?" for i in range(50)]
STRANGE = "  naïve 日本語 \t\r\n\n <b>{x}</b> \\boxed{½}  "


def test_sizes_and_special_tokens():
    policy = load_policy(SECTION, TEXTS)
    config, tokenizer = policy.model.config, policy.tokenizer
    assert (config.model_type, config.hidden_size, config.num_hidden_layers) == ("qwen2", 32, 1)
    assert (config.num_attention_heads, config.num_key_value_heads, config.intermediate_size) == (4, 2, 48)
    assert len(tokenizer) == config.vocab_size == 280
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert stop_ids(policy) == (tokenizer.eos_token_id,)
    assert len(tokenizer.encode(" sheep")) < len(tokenizer.encode(" pehse"))


def test_every_turn_ends_with_the_stop_token_and_any_text_survives(tmp_path):
    policy = load_policy(SECTION, TEXTS)
    turns = [{"role": "user", "content": STRANGE}, {"role": "assistant", "content": "9"}]
    ids = policy.tokenizer.apply_chat_template(turns, add_generation_prompt=True)["input_ids"]
    assert ids.count(policy.tokenizer.eos_token_id) == 2
    assert policy.tokenizer.decode(policy.tokenizer.encode(STRANGE)) == STRANGE
    save_policy(policy, tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path).encode(STRANGE) == policy.tokenizer.encode(STRANGE)


def test_the_seed_decides_the_weights_and_leaves_the_random_state_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, same, other = (load_policy(SECTION, TEXTS, seed).model.lm_head.weight for seed in (1, 1, 2))
    assert torch.rand(3).equal(expected)
    assert one.equal(same)
    assert not one.equal(other)


def test_no_texts_give_a_tokenizer_of_bytes():
    policy = load_policy(SECTION)
    assert policy.tokenizer.decode(policy.tokenizer.encode(STRANGE)) == STRANGE
    assert policy.model.config.vocab_size == len(policy.tokenizer) == 256 + 3


SCRIPT = """
import json, sys
from rlcore.policy import load_policy, save_policy
from rlcore.recipe.schema import ModelConfig
save_policy(load_policy(ModelConfig.model_validate_json(sys.argv[1]), json.loads(sys.argv[2]), 3), sys.argv[3])
"""


def test_another_process_makes_the_same_policy(tmp_path):
    save_policy(load_policy(SECTION, TEXTS, 3), tmp_path / "here")
    (tmp_path / "make.py").write_text(SCRIPT)
    arguments = [SECTION.model_dump_json(), json.dumps(TEXTS), tmp_path / "there"]
    assert python(tmp_path / "make.py", *arguments, env={"RAYON_NUM_THREADS": "1"}).returncode == 0
    for name in ("model.safetensors", "tokenizer.json"):
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes()


@pytest.fixture(scope="module")
def words():
    return phrase_tokenizer([" red", " red hat", " and", "?", " (x)", " 1", " 12"])


def test_the_longest_phrase_wins(words):
    text = " red hat and red 12 1 (x)?"
    assert words.convert_ids_to_tokens(words.encode(text)) == [" red hat", " and", " red", " 12", " 1", " (x)", "?"]
    assert words.decode(words.encode(text)) == text


def test_what_no_phrase_covers_is_unknown(words):
    assert words.convert_ids_to_tokens(words.encode(" red blue and")) == [" red", "<|unknown|>", " and"]


def test_turns_of_phrases(words):
    turns = [{"role": "user", "content": "red and 12?"}, {"role": "assistant", "content": " red "}]
    ids = words.apply_chat_template(turns, add_generation_prompt=True)["input_ids"]
    assert words.convert_ids_to_tokens(ids) == [
        "<|user|>", " red", " and", " 12", "?", "<|end|>", "<|assistant|>", " red", "<|end|>", "<|assistant|>",
    ]  # fmt: skip
    assert words.decode(ids, skip_special_tokens=True) == " red and 12? red"


def test_a_saved_phrase_tokenizer_keeps_its_phrases_though_the_model_is_qwen2(words, tmp_path):
    save_policy(Policy(scratch_model(SECTION.scratch, words, 0), words), tmp_path)
    loaded = load_policy(ModelConfig(path=str(tmp_path)))
    assert loaded.tokenizer.encode(" red hat and?") == words.encode(" red hat and?")
    assert stop_ids(loaded) == (words.eos_token_id,)
