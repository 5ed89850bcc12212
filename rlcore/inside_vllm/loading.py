"""Whole weights into the model inside a vLLM worker, and proof that nothing was left out.

Layers that are not quantised compute with the weights as the checkpoint has them, so each parameter's own loader can
fill it in place: one copy. The rest goes by vLLM's reload, which builds each layer anew, processes it, and copies it
into its place. On the CPU the first holds for plain weights only (see `extension`).
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

from torch import Tensor, nn
from torch.nn import functional
from vllm.config import ModelConfig, set_current_vllm_config
from vllm.model_executor.layers.attention import Attention, is_deferred_attention_layer
from vllm.model_executor.layers.linear import LinearBase, UnquantizedLinearMethod
from vllm.model_executor.layers.vocab_parallel_embedding import (
    ParallelLMHead,
    UnquantizedEmbeddingMethod,
    VocabParallelEmbedding,
)
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload
from vllm.model_executor.model_loader.reload.layerwise import get_layerwise_info
from vllm.model_executor.model_loader.reload.meta import CopyCounter
from vllm.platforms import current_platform

from rlcore.policy.lora import plain_name


def load_weights(worker: Any, weights: Iterable[tuple[str, Tensor]]) -> None:
    """Replaces all weights in a worker of this process."""
    with set_current_vllm_config(worker.vllm_config):
        replacement = Replacement(worker.get_model(), worker.vllm_config.model_config)
        replacement.load(weights)
        replacement.finish()


class Replacement:
    """All weights of a worker's model replaced by others, in any number of parts, and quantised where they should be.

    From its making until `finish`, and for good after an error, the model is of no use; another replacement mends it.
    """

    def __init__(self, model: nn.Module, config: ModelConfig):
        self._model, self._config = model, config
        self._missing = {plain_name(name) for name, _ in model.named_parameters()}
        self._in_place = _computes_with_plain_weights(model, config)
        if self._in_place:
            self._layers: dict[str, Any] = {
                f"{name}.weight": layer
                for name, layer in model.named_modules()
                if isinstance(layer, (LinearBase, VocabParallelEmbedding))
            }
            # Those of linear layers may come in pieces. (The size of an embedding's counts rows that nothing fills.)
            linear = {name: layer for name, layer in self._layers.items() if isinstance(layer, LinearBase)}
            self._lacking = {name: cast(Tensor, layer.weight).numel() for name, layer in linear.items()}
        else:
            _forget_half_loaded(model)
            initialize_layerwise_reload(model)

    def load(self, weights: Iterable[tuple[str, Tensor]], *, lasting: bool = False) -> None:
        """Takes weights named as in the checkpoint. Each tensor is done with when the next is asked for.

        `lasting`: these tensors stay as they are until the next replacement, and on the CPU may become the model's own.
        """
        if self._in_place:
            with self._receiving(adopt=lasting and current_platform.is_cpu()):
                loaded = self._model.load_weights(weights)  # type: ignore[operator]
        else:  # a layer is filled once its last weight has come, when its first may already have been let go of
            loaded = self._model.load_weights((name, weight.clone()) for name, weight in weights)  # type: ignore[operator]
        if loaded is None:  # a model that does not tell
            self._missing.clear()
        else:
            self._missing.difference_update(map(plain_name, loaded))

    def finish(self) -> None:
        """Raises ValueError, naming the first, for parameters that got no weights or only a part of them."""
        if self._in_place:
            self._missing.update(plain_name(name) for name, lacking in self._lacking.items() if lacking > 0)
        if self._config.quantization is None and self._missing:
            first, *more = sorted(self._missing)
            raise ValueError(f"vLLM got no weights for {first}, or not all of them, and {len(more)} more parameters")
        if not self._in_place:
            finalize_layerwise_reload(self._model, self._config)
        for module in self._model.modules():
            if isinstance(module, ParallelLMHead):
                _repack(module)

    @contextmanager
    def _receiving(self, *, adopt: bool) -> Iterator[None]:
        """Counts what each linear layer gets; `adopt`: whole weights are taken over where they lie, not copied."""
        loaders = {name: layer.weight.weight_loader for name, layer in self._layers.items()}
        for name, load in loaders.items():
            self._layers[name].weight.weight_loader = partial(self._receive, name, load, adopt)
        try:
            yield
        finally:
            for name, load in loaders.items():
                self._layers[name].weight.weight_loader = load

    def _receive(
        self, name: str, load: Callable[..., None], adopt: bool, old: Tensor, new: Tensor, *shard: Any, **named: Any
    ) -> None:
        whole = not shard and not named and new.shape == old.shape and new.stride() == old.stride()
        if adopt and whole and new.dtype == old.dtype:
            old.data = new
            received = new.numel()
        else:
            with CopyCounter() as counter:
                load(old, new, *shard, **named)
            received = counter.copied_numel
        if name in self._lacking:
            self._lacking[name] -= received


def _computes_with_plain_weights(model: nn.Module, config: ModelConfig) -> bool:
    on_known_device = current_platform.is_cpu() or current_platform.is_cuda()
    return on_known_device and config.quantization is None and all(map(_is_plain, model.modules()))


def _is_plain(module: nn.Module) -> bool:
    method = getattr(module, "quant_method", None)
    if is_deferred_attention_layer(module):
        # Some kernels keep a converted copy of the sinks; other kinds of attention, products of their weights.
        return type(module) is Attention and method is None and getattr(module.impl, "sinks", None) is None
    if isinstance(module, LinearBase) and cast(Tensor, module.weight).ndim != 2:
        return False  # a convolution; or the CPU has packed the weight and let go of it
    return method is None or type(method) in (UnquantizedLinearMethod, UnquantizedEmbeddingMethod)


def _repack(head: Any) -> None:
    """Brings up to date what the CPU may have packed of a head's weight.

    vLLM's reload does not where the head shares the embedding's weight, which it reloads for one of the two only.
    """
    if isinstance(head.quant_method, UnquantizedEmbeddingMethod):
        head.cpu_linear = functional.linear  # frees the old copy first, so that its memory is used again
        head.quant_method.process_weights_after_loading(head)


def _forget_half_loaded(model: nn.Module) -> None:
    """Lets a reload fill these layers from the start: vLLM counts the elements that a layer has received."""
    for layer in model.modules():
        info = get_layerwise_info(layer)
        if info.can_load():
            info.loaded_weights.clear()
            info.load_numel = 0
