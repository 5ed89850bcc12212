"""Loading whole weights into the model inside a vLLM worker, and proof that nothing was left out."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn
from vllm.config import ModelConfig, set_current_vllm_config
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, UnquantizedEmbeddingMethod
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload
from vllm.model_executor.model_loader.reload.layerwise import get_layerwise_info

from rlcore.policy.lora import plain_name
from rlcore.rollout.vllm import in_place


def load_weights(worker: Any, weights: Iterable[tuple[str, Tensor]]) -> None:
    """`replace_weights` in a worker of this process."""
    with set_current_vllm_config(worker.vllm_config):
        replace_weights(worker.get_model(), worker.vllm_config.model_config, weights)


def replace_weights(model: nn.Module, config: ModelConfig, weights: Iterable[tuple[str, Tensor]]) -> None:
    """Replaces all weights of a worker's model by these, named as in the checkpoint, quantising them where it should.

    Each tensor is done with when the next is asked for. After an error the model is of no use until weights are loaded
    again. Raises ValueError, naming the first, for parameters that got no weights.
    """
    expected = {plain_name(name) for name, _ in model.named_parameters()}
    loaded = in_place.fill(model, weights) if in_place.fits(model, config) else _reload(model, config, weights)
    if config.quantization is None and loaded is not None and (missing := expected - set(map(plain_name, loaded))):
        first, *more = sorted(missing)
        raise ValueError(f"vLLM got no weights for {first} and {len(more)} more parameters")


def _reload(model: nn.Module, config: ModelConfig, weights: Iterable[tuple[str, Tensor]]) -> set[str] | None:
    """By vLLM's reload, which builds each layer anew, processes it, and copies it into its place."""
    initialize_layerwise_reload(model)
    try:
        # A layer is filled once its last weight has come, when its first may already have been let go of.
        loaded = model.load_weights((name, tensor.clone()) for name, tensor in weights)  # type: ignore[operator]
        finalize_layerwise_reload(model, config)
    except BaseException:
        _forget_half_loaded(model)
        raise
    _repack_tied_heads(model)
    return loaded  # type: ignore[no-any-return]


def _repack_tied_heads(model: nn.Module) -> None:
    """Brings heads that share the embedding's weights up to date after a reload.

    vLLM reloads a shared weight for one of its layers only; on the CPU the other, the head, has a packed copy.
    """
    for module in model.modules():
        if isinstance(module, ParallelLMHead) and isinstance(module.quant_method, UnquantizedEmbeddingMethod):
            module.quant_method.process_weights_after_loading(module)


def _forget_half_loaded(model: nn.Module) -> None:
    """Lets the next reload fill these layers from the start: vLLM counts the elements that a layer has received."""
    for layer in model.modules():
        info = get_layerwise_info(layer)
        if info.can_load():
            info.loaded_weights.clear()
            info.load_numel = 0
