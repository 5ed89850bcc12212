"""New weights straight into the parameters that a vLLM model computes with: one copy, where a reload makes several.

Layers that are not quantised compute with the weights as the checkpoint has them, so each parameter's own loader can
fill it in place. On the CPU, vLLM keeps linear layers in an order that their kernels work on, and nothing else: such a
layer is put together anew, and brought into that order once its last weight is there.
"""

from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from vllm.config import ModelConfig
from vllm.model_executor.layers.attention import Attention, is_deferred_attention_layer
from vllm.model_executor.layers.linear import LinearBase, UnquantizedLinearMethod
from vllm.model_executor.layers.vocab_parallel_embedding import (
    ParallelLMHead,
    UnquantizedEmbeddingMethod,
    VocabParallelEmbedding,
)
from vllm.model_executor.model_loader.reload.layerwise import get_layerwise_info
from vllm.model_executor.model_loader.reload.meta import (
    CopyCounter,
    materialize_meta_tensor,
    restore_layer_on_meta,
    to_meta_tensor,
)
from vllm.platforms import current_platform

from rlcore.policy.lora import plain_name


def fits(model: nn.Module, config: ModelConfig) -> bool:
    """Whether nothing in the model is made of its weights after loading but what is made anew here."""
    on_known_device = current_platform.is_cpu() or current_platform.is_cuda()
    return on_known_device and config.quantization is None and all(map(_is_known, model.modules()))


def fill(model: nn.Module, weights: Iterable[tuple[str, Tensor]]) -> set[str] | None:
    """Loads weights; the names of the parameters that got any, as vLLM's `load_weights` gives them.

    Each tensor is done with when the next is asked for. After an error the model is of no use until weights are loaded
    again. Raises ValueError for a packed layer that got a part of its weights only.
    """
    packed = [_PackedLayer(name, layer) for name, layer in model.named_modules() if _is_packed(layer)]
    try:
        loaded = model.load_weights(weights)  # type: ignore[operator]
        for layer in packed:
            layer.check()
    finally:
        for layer in packed:
            layer.close()
    if current_platform.is_cpu():
        for module in model.modules():
            if isinstance(module, VocabParallelEmbedding):
                _repack(module)
    return loaded


def _is_known(module: nn.Module) -> bool:
    method = getattr(module, "quant_method", None)
    if is_deferred_attention_layer(module):
        # Some kernels keep a converted copy of the sinks; other kinds of attention, products of their weights.
        return type(module) is Attention and method is None and getattr(module.impl, "sinks", None) is None
    if isinstance(module, LinearBase) and cast(Tensor, module.weight).ndim > 2:
        return False  # a convolution, which the CPU keeps in an order of its own
    return method is None or type(method) in (UnquantizedLinearMethod, UnquantizedEmbeddingMethod)


def _is_packed(layer: nn.Module) -> bool:
    """Whether vLLM let go of the weight for a packed one (on the CPU)."""
    return isinstance(layer, LinearBase) and cast(Tensor, layer.weight).numel() == 0


def _repack(embedding: Any) -> None:
    """Brings a head's packed copy of its weight up to date; an embedding that is looked up only needs none."""
    if isinstance(embedding, ParallelLMHead):
        _pack(embedding)
    else:
        embedding.cpu_linear = functional.linear


class _PackedLayer:
    """A linear layer while it is loaded. Its memory is taken when its first weight comes and let go after the last."""

    def __init__(self, name: str, layer: LinearBase):
        self._name, self._layer = name, layer
        restore_layer_on_meta(layer, get_layerwise_info(layer))
        parameter: Any = to_meta_tensor(cast(Tensor, layer.weight))  # a copy: vLLM's own keeps its loader
        self._load, parameter.weight_loader = parameter.weight_loader, self._receive
        self._parameter, self._size, self._missing = parameter, parameter.numel(), parameter.numel()
        layer.weight = parameter

    def check(self) -> None:
        """Raises ValueError where weights are missing."""
        if self._missing:
            name = plain_name(f"{self._name}.weight")
            raise ValueError(f"vLLM got no weights for {name} ({self._missing} of its {self._size} elements)")

    def close(self) -> None:
        """Leaves the layer without its weight, as vLLM does: packed, or of no use."""
        if self._missing:
            self._layer.weight = nn.Parameter(torch.empty(0), requires_grad=False)

    def _receive(self, _: nn.Parameter, weight: Tensor, *shard: Any, **named: Any) -> None:
        whole = weight.shape == self._parameter.shape and weight.dtype == self._parameter.dtype
        if whole and not shard and not named:
            self._layer.weight = nn.Parameter(weight, requires_grad=False)  # it is packed where it lies
            self._missing = 0
        else:
            if self._parameter.is_meta:
                with torch.device("cpu"):
                    self._parameter = self._layer.weight = materialize_meta_tensor(self._parameter)
            with CopyCounter() as counter:
                self._load(self._parameter, weight, *shard, **named)
            self._missing -= counter.copied_numel
        if not self._missing:
            _pack(self._layer)
            del self._parameter


def _pack(layer: Any) -> None:
    layer.cpu_linear = functional.linear  # frees the old one first, so that its memory is used again
    layer.quant_method.process_weights_after_loading(layer)
