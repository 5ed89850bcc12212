"""Products with a layer's weights, for sampling: from a merged copy of them, or from the weights themselves."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from rlcore.policy.common_decoder import in_pairs
from rlcore.policy.lora import present_weight, quantized

MOST_MERGED = 256 << 20
"""Bytes of the layers' weights up to which a merged copy of them pays: larger products are few enough as they are."""


def are_large(layers: nn.Module) -> bool:
    """Whether layers are better computed from their own weights."""
    return sum(parameter.nbytes for parameter in layers.parameters()) > MOST_MERGED


class Norm:
    """x / √(|x|² + D ε): the root-mean-square norm (arXiv 1910.07467) without its weight, which here includes √D."""

    def __init__(self, norm: Any):
        size = len(norm.weight)
        self.weight = norm.weight.detach() * size**0.5
        self._floor = torch.tensor((norm.variance_epsilon * size) ** 0.5, device=norm.weight.device)

    def __call__(self, states: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(states, dim=-1, keepdim=True, dtype=torch.float32)
        return (states / torch.hypot(length, self._floor, out=length)).to(states.dtype)


class MergedProduct:
    """x · W + b for layers of one input side by side; the weight of `norm`, which normed the input, is merged in."""

    def __init__(self, *layers: Any, norm: Norm | None = None, paired: tuple[int, ...] = ()):
        sizes = paired or (0,) * len(layers)
        parts = list(zip(layers, sizes, strict=True))
        self._outputs = [layer.out_features for layer in layers]
        weight_OI = torch.cat([in_pairs(present_weight(layer), size) for layer, size in parts])
        # With the outputs last, a product of few rows is faster.
        self._weight_IO = (weight_OI * norm.weight if norm else weight_OI).T.contiguous()
        self._bias_O = (
            torch.cat([in_pairs(layer.bias, size) for layer, size in parts]) if layers[0].bias is not None else None
        )

    def __call__(self, states_NI: Tensor) -> Tensor:
        if self._bias_O is None:
            return torch.mm(states_NI, self._weight_IO)
        return torch.addmm(self._bias_O, states_NI, self._weight_IO)

    def parts(self, states_NI: Tensor) -> Sequence[Tensor]:
        """The output of each layer."""
        return self(states_NI).split(self._outputs, dim=1)

    def added(self, to_NO: Tensor, states_NI: Tensor) -> Tensor:
        """The sum with `to_NO`."""
        sum_NO = torch.addmm(to_NO, states_NI, self._weight_IO)
        return sum_NO if self._bias_O is None else sum_NO.add_(self._bias_O)


class OwnProduct:
    """The same from the layers' own weights, which are not copied."""

    def __init__(self, *layers: Any, norm: Norm | None = None):
        self._layers, self._norm = layers, norm

    def __call__(self, states_NI: Tensor) -> Tensor:
        (states_NO,) = self.parts(states_NI)
        return states_NO

    def parts(self, states_NI: Tensor) -> Sequence[Tensor]:
        """The output of each layer."""
        if self._norm:
            states_NI = states_NI * self._norm.weight
        return [_linear(states_NI, layer.weight, layer.bias) for layer in self._layers]

    def added(self, to_NO: Tensor, states_NI: Tensor) -> Tensor:
        """The sum with `to_NO`."""
        return self(states_NI).add_(to_NO)


def product(*layers: Any, norm: Norm | None = None, large: bool) -> MergedProduct | OwnProduct:
    """A product from the layers' own weights if these are `large`, and neither adapted nor quantised."""
    own = large and not any(hasattr(layer, "get_delta_weight") or quantized(layer.weight) for layer in layers)
    return OwnProduct(*layers, norm=norm) if own else MergedProduct(*layers, norm=norm)


def _linear(states_NI: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
    if weight_OI.dtype == torch.float32 and weight_OI.device.type == "cpu" and torch.backends.mkldnn.is_available():
        # oneDNN's product of few rows is up to 1.5 times as fast as that of functional.linear, which is MKL's.
        return torch.ops.mkldnn._linear_pointwise(states_NI, weight_OI, bias_O, "none", [], "")
    return functional.linear(states_NI, weight_OI, bias_O)
