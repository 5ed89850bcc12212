"""The sizes of a model, from its configuration: no weights are read."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from rlcore.errors import UserError, nearest_path, one_line
from rlcore.hub import hub_or_cache
from rlcore.policy.lora import is_target
from rlcore.policy.scratch import scratch_config
from rlcore.recipe import Recipe, schema

PERSISTENT_NUMEL = 100_000
"""ZeRO-3 leaves parameters with fewer elements whole on every rank (stage3_param_persistence_threshold)."""

PROJECTIONS = ("q_proj", "k_proj", "v_proj")
QWEN2_05B = ("qwen2", 896, 24, 14, 2, 4864, 151936, True)
QWEN2_7B = ("qwen2", 3584, 28, 28, 4, 18944, 152064, False)
MODELS = {
    "Qwen/Qwen2.5-1.5B-Instruct": ("qwen2", 1536, 28, 12, 2, 8960, 151936, True),
    "Qwen/Qwen2.5-0.5B-Instruct": QWEN2_05B,
    "Qwen/Qwen2.5-7B": QWEN2_7B,
    "Qwen/Qwen2.5-7B-Instruct": QWEN2_7B,
    "Qwen/Qwen2.5-Coder-0.5B-Instruct": QWEN2_05B,
    "Qwen/Qwen2.5-Coder-7B-Instruct": QWEN2_7B,
    "Qwen/Qwen3-4B": ("qwen3", 2560, 36, 32, 8, 9728, 151936, True),
    "HuggingFaceTB/SmolLM2-135M-Instruct": ("llama", 576, 30, 9, 3, 1536, 49152, True),
    "meta-llama/Llama-3.1-8B-Instruct": ("llama", 4096, 32, 32, 8, 14336, 128256, False),
    "meta-llama/Llama-3.3-70B-Instruct": ("llama", 8192, 80, 64, 8, 28672, 128256, False),
}
"""By hub name: type, hidden size, layers, heads of queries and of keys, width of the feed-forward layers, vocabulary,
whether the output matrix is the embedding."""
SIZES = ("num_hidden_layers", "hidden_size", "num_attention_heads", "vocab_size")
WIDTHS = ("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size")
"""What configurations call the width of the feed-forward layers; without one it is four times the hidden size."""
HEAD_DIMS = {"qwen3": 128}
"""The size of a head by type, if it is not hidden size / heads."""


@dataclass(frozen=True, slots=True)
class Shapes:
    """Sizes that memory and time follow from. Parameters are counted in elements."""

    name: str
    parameters: int
    small_parameters: int
    """In parameters that ZeRO-3 leaves whole."""
    head_parameters: int
    """In the output matrix, even if that is the embedding."""
    embedding_parameters: int
    linear_parameters: int
    """In the layers' matrices, without the output matrix."""
    projected_parameters: int
    """In the projections to queries, keys and values."""
    adapter_parameters: int
    """In the recipe's low-rank adapters, if it has any."""
    layers: int
    hidden: int
    intermediate: int
    heads: int
    key_heads: int
    kv_size: int
    """Elements of a token's keys in one layer: heads of keys x their size."""
    vocabulary: int
    tied: bool
    """Whether the output matrix is the embedding."""

    @property
    def computed(self) -> int:
        """Parameters that every token is multiplied with, which leaves out an embedding that is only looked up."""
        return self.parameters - (0 if self.tied else self.embedding_parameters)


def model_shapes(section: schema.ModelConfig, config_file: Path | None = None) -> Shapes:
    """The sizes of a recipe's model, or of the Hugging Face config.json `config_file`.

    Raises UserError if no configuration is available, or if it is not that of a causal language model.
    """
    if config_file is None and section.scratch is not None:
        return shapes_of(scratch_config(section.scratch, section.scratch.vocab_size), "model.scratch", section.lora)
    if config_file and not config_file.exists():
        raise UserError(f"model configuration {config_file} does not exist{nearest_path(config_file)}")
    where, trusted = str(config_file or section.path), section.trust_remote_code
    return shapes_of(known_config(where) or _read_config(where, trusted), where, section.lora, trusted=trusted)


def recipe_shapes(recipe: Recipe, config_file: Path | None = None) -> Shapes:
    """`model_shapes` of the recipe's model, with the adapters that are trained: its own, or those of `adapt`.

    Raises UserError as `model_shapes` does.
    """
    section = recipe.model
    if recipe.adapt:
        section = section.model_copy(update={"lora": recipe.adapt.lora})
    return model_shapes(section, config_file)


def known_config(name: str) -> Any | None:
    """The configuration of a model in `MODELS`, as far as its sizes depend on it; None for any other."""
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


def _read_config(where: str, trusted: bool) -> Any:
    try:
        with hub_or_cache(where):
            return AutoConfig.from_pretrained(where, trust_remote_code=trusted)
    except Exception as error:  # a broken config.json raises no narrower class
        reason = str(error).split("\n")[0].rstrip(".")
        raise UserError(
            f"no configuration of model {where}: {reason}; give its config.json as --model-config FILE"
        ) from None


def shapes_of(config: Any, name: str, lora: schema.LoraConfig | None = None, *, trusted: bool = False) -> Shapes:
    """The sizes of a configuration's model, which is built on the meta device: parameters have shapes but no memory.

    Raises UserError if it is not that of a causal language model, or does not say the sizes of its attention.
    """
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=trusted)
    except Exception as error:  # nor do sizes that fit no model
        raise UserError(f"{name} is no causal language model: {one_line(error)}") from None
    text = config.get_text_config()
    layers, hidden, heads, vocabulary = (_size(text, name, key) for key in SIZES)
    key_heads = getattr(text, "num_key_value_heads", None) or heads
    size = getattr(text, "head_dim", None) or hidden // heads
    width = next((key for key in WIDTHS if getattr(text, key, None) is not None), None)
    numels = [parameter.numel() for parameter in model.parameters()]
    linear = {
        name: (module.in_features, module.out_features)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not model.get_output_embeddings()
    }
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    return Shapes(
        name=name,
        parameters=sum(numels),
        small_parameters=sum(numel for numel in numels if numel < PERSISTENT_NUMEL),
        head_parameters=head.weight.numel(),
        embedding_parameters=embedding.weight.numel(),
        linear_parameters=sum(inputs * outputs for inputs, outputs in linear.values()),
        projected_parameters=sum(
            inputs * outputs for name, (inputs, outputs) in linear.items() if name.endswith(PROJECTIONS)
        ),
        adapter_parameters=_adapter_parameters(linear, lora) if lora else 0,
        layers=layers,
        hidden=hidden,
        intermediate=_size(text, name, width) if width else 4 * hidden,
        heads=heads,
        key_heads=key_heads,
        kv_size=key_heads * size,
        vocabulary=vocabulary,
        tied=head.weight is embedding.weight,
    )


def _size(text: Any, name: str, key: str) -> int:
    """A size that a configuration gives. Raises UserError if it gives none, or one for each layer."""
    size = getattr(text, key, None)
    if not isinstance(size, int):
        raise UserError(f"no sizes of {name}: its configuration has no {key} that is one number")
    return size


def _adapter_parameters(linear: dict[str, tuple[int, int]], lora: schema.LoraConfig) -> int:
    """Elements of two matrices of `rank` for each layer that gets an adapter."""
    wanted = [sides for name, sides in linear.items() if is_target(name, lora)]
    return lora.rank * sum(inputs + outputs for inputs, outputs in wanted)
