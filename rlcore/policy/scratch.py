"""A small policy with random weights, for tests of the path and for teaching, and tokenizers of its own."""

from collections.abc import Iterable, Sequence

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2Tokenizer,
)

from rlcore.recipe.schema import ScratchConfig

TURN, END, PAD = "<|turn|>", "<|end|>", "<|pad|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|turn|>{{ message['role'] }}\n{{ message['content'] }}<|end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
)
"""ChatML's form: every turn opens with a marker and its role, and closes with the end token."""
PHRASE_PAD, UNKNOWN, _, USER, ASSISTANT = SPECIAL = ("<|pad|>", "<|unknown|>", "<|end|>", "<|user|>", "<|assistant|>")
PHRASE_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|> {{ message['content'] | trim }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""Every turn is a role, a space and the content, so that the words of a turn all begin with their space."""


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


def phrase_tokenizer(phrases: Sequence[str]) -> PreTrainedTokenizerFast:
    """A tokenizer with one token for each phrase; at every place of a text the longest phrase wins.

    Phrases contain the spaces before them (" and"). What is not covered by phrases becomes the unknown token.
    """
    ordered = sorted(dict.fromkeys(phrases), key=len, reverse=True)
    vocabulary = {token: i for i, token in enumerate((*SPECIAL, *ordered))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    # A backslash makes any punctuation literal there.
    literal = ["".join(c if c.isalnum() or c == " " else f"\\{c}" for c in phrase) for phrase in ordered]
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("|".join(literal)), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    whole = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PHRASE_PAD,
        unk_token=UNKNOWN,
        eos_token=END,
        extra_special_tokens=[USER, ASSISTANT],
    )
    whole.chat_template = PHRASE_TEMPLATE
    return whole
