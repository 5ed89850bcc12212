"""Sizes of the models that recipes name, as their config.json has them: a plan of those needs no hub."""

from typing import Any

from transformers import AutoConfig

QWEN2_7B = ("qwen2", 3584, 28, 28, 4, 18944, 152064, False)
MODELS = {
    "Qwen/Qwen2.5-1.5B-Instruct": ("qwen2", 1536, 28, 12, 2, 8960, 151936, True),
    "Qwen/Qwen2.5-7B": QWEN2_7B,
    "Qwen/Qwen2.5-7B-Instruct": QWEN2_7B,
    "Qwen/Qwen2.5-Coder-0.5B-Instruct": ("qwen2", 896, 24, 14, 2, 4864, 151936, True),
    "Qwen/Qwen2.5-Coder-7B-Instruct": QWEN2_7B,
    "Qwen/Qwen3-4B": ("qwen3", 2560, 36, 32, 8, 9728, 151936, True),
    "HuggingFaceTB/SmolLM2-135M-Instruct": ("llama", 576, 30, 9, 3, 1536, 49152, True),
    "meta-llama/Llama-3.1-8B-Instruct": ("llama", 4096, 32, 32, 8, 14336, 128256, False),
    "meta-llama/Llama-3.3-70B-Instruct": ("llama", 8192, 80, 64, 8, 28672, 128256, False),
}
"""By hub name: type, hidden size, layers, heads of queries and of keys, width of the feed-forward layers, vocabulary,
whether the output matrix is the embedding."""
HEAD_DIMS = {"qwen3": 128}
"""Of types whose heads are not hidden size / heads wide."""


def known_config(name: str) -> Any | None:
    """The configuration of a model of the table, as far as its sizes follow from it; None for another."""
    if name not in MODELS:
        return None
    kind, hidden, layers, heads, kv_heads, wide, words, tied = MODELS[name]
    return AutoConfig.for_model(
        kind,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        intermediate_size=wide,
        vocab_size=words,
        tie_word_embeddings=tied,
        head_dim=HEAD_DIMS.get(kind, hidden // heads),
    )
