"""A tokenizer whose tokens are whole phrases, for a small model of one narrow task: short sequences, quick to learn."""

from collections.abc import Sequence

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

PAD, UNKNOWN, END, USER, ASSISTANT = SPECIAL = ("<|pad|>", "<|unknown|>", "<|end|>", "<|user|>", "<|assistant|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|> {{ message['content'] | trim }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""Every turn is a role, a space and the content, so that the words of a turn all begin with their space."""


def phrase_tokenizer(phrases: Sequence[str]) -> PreTrainedTokenizerFast:
    """A tokenizer with one token for each phrase; at every place of a text the longest phrase wins.

    Phrases contain the spaces before them (" and"). What is not covered by phrases becomes the unknown token.
    """
    ordered = sorted(dict.fromkeys(phrases), key=len, reverse=True)
    vocabulary = {token: i for i, token in enumerate((*SPECIAL, *ordered))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("|".join(map(_literal, ordered))), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    whole = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNKNOWN,
        eos_token=END,
        extra_special_tokens=[USER, ASSISTANT],
    )
    whole.chat_template = CHAT_TEMPLATE
    return whole


def _literal(phrase: str) -> str:
    """The phrase as a pattern of the tokenizers library, where a backslash makes any punctuation literal."""
    return "".join(c if c.isalnum() or c == " " else f"\\{c}" for c in phrase)
