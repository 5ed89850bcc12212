"""What every vLLM engine is told, in this process or in a server: arguments, environment, and which model it is."""

import copy
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from rlcore.recipe import schema

ENVIRONMENT = {
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # whose threads run where is not vLLM's to say
    "VLLM_NO_USAGE_STATS": "1",
}
"""Set before vLLM is imported, where the user has not set them."""
CPU_ARGUMENTS = {"enforce_eager": True, "block_size": 32, "kv_cache_memory_bytes": 1 << 30}
"""Compiling a model for the CPU takes longer than it saves; small blocks let short prompts share theirs."""


def engine_arguments(section: schema.Rollout, model: PreTrainedModel, max_tokens: int) -> dict[str, Any]:
    """Arguments of vLLM's engine for an exact sampler of `model`, before what the mode and the recipe add."""
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
        **(CPU_ARGUMENTS if model.device.type == "cpu" else {}),
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
