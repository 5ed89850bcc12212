"""Configurations of the models that recipes name, as published, where no hub can be reached."""

from functools import cache

from transformers import AutoConfig

from rlcore.plan.shapes import Shapes, shapes_of
from rlcore.recipe import schema


def _config(kind: str, hidden: int, layers: int, heads: int, kv_heads: int, wide: int, words: int, tied: bool, **more):
    sizes = {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads}
    sizes |= {"num_key_value_heads": kv_heads, "intermediate_size": wide, "vocab_size": words}
    return AutoConfig.for_model(kind, **sizes, tie_word_embeddings=tied, **more)


MODELS = {
    "Qwen/Qwen2.5-1.5B-Instruct": ("qwen2", 1536, 28, 12, 2, 8960, 151936, True),
    "Qwen/Qwen2.5-7B-Instruct": ("qwen2", 3584, 28, 28, 4, 18944, 152064, False),
    "Qwen/Qwen2.5-7B": ("qwen2", 3584, 28, 28, 4, 18944, 152064, False),
    "Qwen/Qwen2.5-Coder-7B-Instruct": ("qwen2", 3584, 28, 28, 4, 18944, 152064, False),
    "Qwen/Qwen2.5-Coder-0.5B-Instruct": ("qwen2", 896, 24, 14, 2, 4864, 151936, True),
    "HuggingFaceTB/SmolLM2-135M-Instruct": ("llama", 576, 30, 9, 3, 1536, 49152, True),
    "meta-llama/Llama-3.1-8B-Instruct": ("llama", 4096, 32, 32, 8, 14336, 128256, False),
    "meta-llama/Llama-3.3-70B-Instruct": ("llama", 8192, 80, 64, 8, 28672, 128256, False),
    "Qwen/Qwen3-4B": ("qwen3", 2560, 36, 32, 8, 9728, 151936, True),
}


@cache
def _shapes(path: str, lora: schema.Lora | None) -> Shapes:
    more = {"head_dim": 128} if path.startswith("Qwen/Qwen3") else {}
    return shapes_of(_config(*MODELS[path], **more), path, lora)


def shapes(section: schema.Model) -> Shapes:
    """Sizes of a recipe's model."""
    return _shapes(str(section.path), section.lora)
