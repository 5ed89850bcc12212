"""Which models are of the common family, whose arithmetic rollout and learner also know in fewer operations."""

from transformers import LlamaForCausalLM, PreTrainedConfig, PreTrainedModel, Qwen2ForCausalLM, Qwen3ForCausalLM

DECODERS = (LlamaForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM)


def is_common_decoder(model: PreTrainedModel) -> bool:
    """Whether this is one of `DECODERS` in which every token sees all tokens before it."""
    return type(model) in DECODERS and not partial_layers(model.config)


def partial_layers(config: PreTrainedConfig) -> set[str]:
    """Kinds of a model's layers in which a token does not see all tokens before it."""
    return set(getattr(config, "layer_types", None) or ()) - {"full_attention"}
