"""Imported by each worker of vLLM before it loads a model, because `worker_extension_cls` names it."""

from typing import Any

from vllm import _custom_ops
from vllm.lora.request import LoRARequest

from rlcore.inside_vllm.plugin import ADAPTERS

# On the CPU, layers are to compute with plain weights, as on a GPU. Otherwise they keep a copy in the order that
# oneDNN's kernels work on, which takes several times as long to make as a copy: a publication would be mostly that.
_custom_ops._supports_onednn = False


class WorkerExtension:
    """Further methods of vLLM's workers."""

    def load_adapters(self: Any, folder: str) -> None:
        """Replaces the registered adapters by those in `folder`, for running requests too.

        vLLM's own route for that would have each request load them again at each step. Raises ValueError where none
        are registered, and for adapters that do not fit the model, before anything is changed.
        """
        (number,) = self.list_loras()
        self.add_lora(LoRARequest(ADAPTERS, number, folder, load_inplace=True))
