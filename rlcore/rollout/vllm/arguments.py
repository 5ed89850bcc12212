"""What every vLLM engine is told, in this process or in a server: arguments, environment, and which model it is."""

import copy
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from rlcore.recipe import schema
from rlcore.types import UserError

ENVIRONMENT = {
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # whose threads run where is not vLLM's to say
    "VLLM_NO_USAGE_STATS": "1",
}
"""Set before vLLM is imported, where the user has not set them."""
CPU_ARGUMENTS = {
    "enforce_eager": True,  # compiling a model for the CPU takes longer than it saves
    "block_size": 32,  # the smallest, so that short prompts can share theirs
    "kv_cache_memory_bytes": 1 << 30,
    "enable_chunked_prefill": False,  # vLLM 0.32 cannot draw by seed on the CPU for a prompt computed in parts
}
CPU_HEAD_SIZES = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)
"""What vLLM's attention on the CPU is compiled for."""
CPU_PASS = 4096
"""Prompt tokens in one forward pass on the CPU, or one whole prompt if that is longer."""


def engine_arguments(section: schema.Rollout, model: PreTrainedModel, max_tokens: int) -> dict[str, Any]:
    """Arguments of vLLM's engine for an exact sampler of `model`, before what the mode and the recipe add.

    Raises UserError for a model that vLLM cannot run on the CPU, if that is where it lies.
    """
    return {
        "skip_tokenizer_init": True,
        "dtype": str(model.dtype).removeprefix("torch."),
        "max_model_len": max_tokens,
        "max_num_seqs": section.slots,
        "gpu_memory_utilization": section.vllm.gpu_memory_utilization,
        "quantization": section.vllm.quantization,
        "logprobs_mode": "processed_logprobs",  # of the distribution that was really sampled
        "enable_prefix_caching": True,
        "disable_log_stats": True,
        **(_cpu_arguments(model, max_tokens) if model.device.type == "cpu" else {}),
    }


def describe_model(model: PreTrainedModel, path: str | None, folder: Path) -> dict[str, Any]:
    """The arguments that say which model it is: one without weights in `folder`, as they are published anyway.

    A model whose checkpoint is quantised is loaded from `path`.
    """
    if getattr(model.config, "quantization_config", None) is not None:
        return {"model": path}
    config = copy.deepcopy(model.config)
    config.architectures = [type(model).__name__]
    config.save_pretrained(folder)
    return {"model": str(folder), "load_format": "dummy"}


def _cpu_arguments(model: PreTrainedModel, max_tokens: int) -> dict[str, Any]:
    config = model.config.get_text_config()
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if size not in CPU_HEAD_SIZES:
        sizes = ", ".join(map(str, CPU_HEAD_SIZES))
        raise UserError(f"rollout.engine vllm: the model has heads of size {size}; on the CPU vLLM takes {sizes}")
    return CPU_ARGUMENTS | {"max_num_batched_tokens": max(CPU_PASS, max_tokens)}
