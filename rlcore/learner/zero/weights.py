"""Reading the whole weights of a model that ZeRO-3 may have split over the ranks: adapters merged, or they alone."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from rlcore.learner.zero.pieces import in_buckets
from rlcore.policy.lora import is_adapter, lora_layers, merged_weight, plain_name, quantized, whole_weight

BUCKET_BYTES = 512 << 20
"""Most memory that gathered parameters take at once (one larger parameter alone is still gathered whole)."""


@dataclass(frozen=True, slots=True)
class _Weight:
    """A parameter of the model without adapters, and what it is computed from."""

    name: str
    parts: list[nn.Parameter]
    value: Callable[[], Tensor]


@torch.no_grad()
def gathered_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """`(name, tensor)` of every parameter of the model without adapters, into which they are merged.

    ZeRO-3 parts are gathered by bucket, by all ranks together: a tensor is valid only until the next one is asked for.
    """
    yield from _gathered(model, _weights(model))


@torch.no_grad()
def gathered_adapters(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """`(name, tensor)` of every parameter of the adapters, as `gathered_weights` gives the others."""
    named = model.named_parameters()
    yield from _gathered(model, [_Weight(name, [part], part.detach) for name, part in named if is_adapter(name)])


def _gathered(model: nn.Module, weights: list[_Weight]) -> Iterator[tuple[str, Tensor]]:
    if not any(hasattr(parameter, "ds_id") for parameter in model.parameters()):
        yield from ((weight.name, weight.value()) for weight in weights)
        return
    import deepspeed  # takes seconds

    for bucket in in_buckets(weights, _bytes, BUCKET_BYTES):
        with deepspeed.zero.GatheredParameters([part for weight in bucket for part in weight.parts]):
            for weight in bucket:
                yield weight.name, weight.value()


def _weights(model: nn.Module) -> list[_Weight]:
    layers = lora_layers(model)
    adapted = {f"{name}.base_layer.weight": layer for name, layer in layers.items()}
    weights = []
    for name, parameter in model.named_parameters():
        if name in adapted:
            layer = adapted[name]
            weights.append(_Weight(plain_name(name), list(layer.parameters()), partial(merged_weight, layer)))
        elif quantized(parameter):
            layer = model.get_submodule(name.removesuffix(".weight"))
            weights.append(_Weight(name, [parameter], partial(whole_weight, layer)))
        elif not is_adapter(name):
            weights.append(_Weight(plain_name(name), [parameter], parameter.detach))
    return weights


def _bytes(weight: _Weight) -> int:
    """The size of the whole weight: `numel()` of a split parameter is 0."""
    return sum(part.ds_numel * part.element_size() for part in weight.parts)  # type: ignore[attr-defined]
