"""A small policy with random weights and a tokenizer of its own, for tests of the path and for teaching."""

from collections.abc import Iterable

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer

from rlcore.recipe.schema import ScratchConfig

TURN, END, PAD = "<|turn|>", "<|end|>", "<|pad|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|turn|>{{ message['role'] }}\n{{ message['content'] }}<|end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
)
"""ChatML's form: every turn opens with a marker and its role, and closes with the end token."""


def scratch_tokenizer(texts: Iterable[str], vocab_size: int) -> Qwen2Tokenizer:
    """A byte-level BPE tokenizer of at most `vocab_size` tokens trained on `texts`; it encodes any text.

    Its class is Qwen2's own, because AutoTokenizer gives every Qwen2 model that class whatever its folder says.
    """
    untrained = Qwen2Tokenizer(unk_token=PAD, eos_token=END, pad_token=PAD, extra_special_tokens=[TURN])
    tokenizer = untrained.train_new_from_iterator(texts, vocab_size, show_progress=False)
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def scratch_config(sizes: ScratchConfig, vocab_size: int) -> Qwen2Config:
    """The configuration of a model of these sizes. A trained tokenizer may have fewer tokens than `sizes` allow."""
    return Qwen2Config(
        vocab_size=vocab_size,
        hidden_size=sizes.hidden_size,
        intermediate_size=sizes.intermediate_size,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.kv_heads,
        initializer_range=sizes.init_std,
        max_position_embeddings=sizes.max_positions,
        tie_word_embeddings=True,
        bos_token_id=None,
    )


def scratch_model(sizes: ScratchConfig, tokenizer: PreTrainedTokenizerBase, seed: int) -> PreTrainedModel:
    """A Qwen2-architecture model with random weights from `seed`; the caller's random state is left as it was."""
    config = scratch_config(sizes, len(tokenizer))
    config.eos_token_id, config.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Qwen2ForCausalLM(config)
