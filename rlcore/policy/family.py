"""Which models are of the common family, whose arithmetic rollout and learner also know in fewer operations."""

from transformers import LlamaForCausalLM, PreTrainedModel, Qwen2ForCausalLM, Qwen3ForCausalLM

DECODERS = (LlamaForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM)


def is_common_decoder(model: PreTrainedModel) -> bool:
    """Whether this is one of `DECODERS` in which every token sees all tokens before it."""
    windows = {kind for kind in getattr(model.config, "layer_types", None) or [] if kind != "full_attention"}
    return type(model) in DECODERS and not windows
