"""Loading whole weights into the model inside a vLLM worker, and proof that nothing was left out."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn
from vllm.config import set_current_vllm_config
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, UnquantizedEmbeddingMethod
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload


def load_weights(worker: Any, weights: Iterable[tuple[str, Tensor]]) -> None:
    """Replaces all weights of a worker's model by these, named as in the checkpoint, quantising them where it should.

    Raises ValueError, naming the first, for parameters that got no weights.
    """
    with set_current_vllm_config(worker.vllm_config):
        model, config = worker.get_model(), worker.vllm_config.model_config
        expected = {name for name, _ in model.named_parameters()}
        initialize_layerwise_reload(model)
        # A layer is filled once its last weight has come, when the learner may already have let go of the first.
        loaded = model.load_weights((name, tensor.clone()) for name, tensor in weights)
        finalize_layerwise_reload(model, config)
        repack_tied_heads(model)
    if config.quantization is None and loaded is not None and expected - loaded:
        first, *more = sorted(expected - loaded)
        raise ValueError(f"vLLM got no weights for {first} and {len(more)} more parameters")


def repack_tied_heads(model: nn.Module) -> None:
    """Brings heads that share the embedding's weights up to date after a reload.

    vLLM reloads a shared weight for one of its layers only; on the CPU the other, the head, has a packed copy.
    """
    for module in model.modules():
        if isinstance(module, ParallelLMHead) and isinstance(module.quant_method, UnquantizedEmbeddingMethod):
            module.quant_method.process_weights_after_loading(module)
