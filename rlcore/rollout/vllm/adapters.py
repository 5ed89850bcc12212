"""LoRA adapters in the form that vLLM takes: folders in peft's layout that hold nothing else."""

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from rlcore.errors import UserError
from rlcore.policy.lora import save_adapter
from rlcore.recipe.schema import LoraConfig

LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Ranks that vLLM allocates; adapters of a lower rank fit into the next one."""


def adapter_arguments(lora: LoraConfig) -> dict[str, Any]:
    """Arguments of an engine that samples with one set of adapters. Raises UserError for a rank above vLLM's."""
    rank = next((rank for rank in LORA_RANKS if rank >= lora.rank), None)
    if rank is None:
        raise UserError(f"model.lora.rank {lora.rank}: vLLM takes {LORA_RANKS[-1]}; or rollout.vllm.merge_adapters")
    return {"enable_lora": True, "max_loras": 1, "max_cpu_loras": 1, "max_lora_rank": rank}


def write_adapters(folder: Path, lora: LoraConfig, weights: Iterable[tuple[str, torch.Tensor]]) -> int:
    """Writes the adapters of `gathered_adapters` into `folder`; returns their bytes."""
    tensors = {name: tensor.to("cpu", copy=True) for name, tensor in weights}
    save_adapter(folder, lora, tensors, None)
    return sum(tensor.nbytes for tensor in tensors.values())


class AdapterFolders:
    """A new folder in `parent` for each publication, so that a reader of an older one never sees a part of a newer."""

    def __init__(self, parent: Path, lora: LoraConfig):
        self._parent, self._lora = parent, lora
        self._count = 0

    def write(self, weights: Iterable[tuple[str, torch.Tensor]]) -> tuple[str, int]:
        """The new folder and its bytes. The one before it stays. Raises UserError if the write fails."""
        self._count += 1
        folder = self._parent / f"adapters-{self._count}"
        try:
            folder.mkdir()
            size = write_adapters(folder, self._lora, weights)
        except (OSError, SafetensorError) as error:
            raise UserError(f"rollout.vllm.weights_folder: adapters cannot be written to {folder}: {error}") from None
        shutil.rmtree(self._parent / f"adapters-{self._count - 2}", ignore_errors=True)
        return str(folder), size
