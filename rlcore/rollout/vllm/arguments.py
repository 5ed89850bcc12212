"""Arguments, environment and model of every vLLM engine, in this process or in a server."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from rlcore.errors import UserError
from rlcore.inside_vllm.plugin import BACKEND
from rlcore.recipe import schema
from rlcore.recipe.schema import LoraConfig
from rlcore.rollout.engine import Sampling
from rlcore.rollout.vllm.adapters import adapter_arguments

ENVIRONMENT = {
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # binding threads to cores is not vLLM's decision
    "VLLM_NO_USAGE_STATS": "1",
}
"""Set before vLLM is imported, unless the user has set them."""
EXTENSION = "rlcore.inside_vllm.extension.WorkerExtension"
CPU_ARGUMENTS = {
    "enforce_eager": True,  # compiling a model for the CPU takes longer than it saves
    "block_size": 32,  # the smallest, so that short prompts can share theirs
    "kv_cache_memory_bytes": 1 << 30,
    "enable_chunked_prefill": False,  # vLLM 0.32 cannot draw by seed on the CPU for a prompt computed in parts
}
CPU_HEAD_SIZES = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)
"""Head sizes that vLLM's attention on the CPU is compiled for."""
CPU_QUANTIZATIONS = ("fp8_per_channel", "int8_per_channel_weight_only")
"""Quantisations that vLLM 0.32 has on the CPU."""
CPU_PASS = 4096
"""Prompt tokens in one forward pass on the CPU; a longer prompt takes one pass of its own."""


def engine_arguments(
    section: schema.RolloutConfig, config: PretrainedConfig, dtype: torch.dtype, max_tokens: int, *, on_cpu: bool
) -> dict[str, Any]:
    """Arguments of vLLM's engine for an exact sampler of a model; mode and recipe add theirs.

    Raises UserError if it is to run on the CPU and vLLM cannot run the model or the quantisation there.
    """
    return {
        "skip_tokenizer_init": not section.stop,  # ids go in and come out; only texts that end a reply are read
        "dtype": str(dtype).removeprefix("torch."),
        "max_model_len": max_tokens,
        "max_num_seqs": section.slots,
        "gpu_memory_utilization": section.vllm.gpu_memory_utilization,
        "quantization": section.vllm.quantization,
        "logprobs_mode": "processed_logprobs",  # of the distribution that was really sampled
        "enable_prefix_caching": True,
        "disable_log_stats": True,
        "worker_extension_cls": EXTENSION,
        **(_cpu_arguments(section.vllm.quantization, config, dtype, max_tokens) if on_cpu else {}),
    }


def server_arguments(section: schema.VllmConfig, lora: LoraConfig | None) -> dict[str, Any]:
    """Further arguments of a server: its GPUs, its routes, and how it receives weights or adapters alone."""
    return {
        "tensor_parallel_size": section.tensor_parallel,
        "data_parallel_size": section.data_parallel,
        "generation_config": "vllm",
        "weight_transfer_config": {"backend": BACKEND if section.transfer == "files" else section.transfer},
        "enable_scale_out": True,  # the route for token ids in and out
        "disable_uvicorn_access_log": True,
        # One server in front: several would each need the adapters registered.
        **({**adapter_arguments(lora), "api_server_count": 1} if lora else {}),
    }


def request_settings(sampling: Sampling, stop_ids: Sequence[int], seed: int) -> dict[str, Any]:
    """The fields of vLLM's `SamplingParams` for one continuation of token ids."""
    return {
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        **sampling.truncation._asdict(),
        "seed": seed,
        "stop_token_ids": list(stop_ids),
        "ignore_eos": True,  # only `stop_ids` and texts stop, as in every other engine
        "stop": list(sampling.stop.texts) if sampling.stop else [],
        "detokenize": sampling.stop is not None,
        "logprobs": 0,  # that of the sampled token alone
    }


def describe_model(
    model: PreTrainedModel, path: str | None, folder: Path, tokenizer: PreTrainedTokenizerBase | None
) -> dict[str, Any]:
    """The arguments that name the model: one written to `folder` without weights, which are published later.

    The tokenizer, if given, is written there too. A model whose checkpoint is quantised is loaded from `path`.
    """
    if getattr(model.config, "quantization_config", None) is not None:
        return {"model": path}
    config = copy.deepcopy(model.config)
    config.architectures = [type(model).__name__]
    config.save_pretrained(folder)
    if tokenizer:
        tokenizer.save_pretrained(folder)
    return {"model": str(folder), "load_format": "dummy"}


def _cpu_arguments(
    quantization: str | None, config: PretrainedConfig, dtype: torch.dtype, max_tokens: int
) -> dict[str, Any]:
    text = config.get_text_config()
    size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    if size not in CPU_HEAD_SIZES:
        sizes = ", ".join(map(str, CPU_HEAD_SIZES))
        raise UserError(f"rollout.engine vllm: the model has heads of size {size}; on the CPU vLLM takes {sizes}")
    if quantization and (quantization not in CPU_QUANTIZATIONS or dtype != torch.bfloat16):
        possible = " and ".join(CPU_QUANTIZATIONS)
        raise UserError(f"rollout.vllm.quantization {quantization}: on the CPU vLLM has {possible}, of bfloat16 models")
    return CPU_ARGUMENTS | {"max_num_batched_tokens": max(CPU_PASS, max_tokens)}
