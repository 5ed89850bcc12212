"""Products with a layer's weights, for sampling: of small ones from a merged copy, of large ones from themselves."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from rlcore.policy.common_decoder import in_pairs
from rlcore.policy.lora import present_weight

MOST_MERGED = 256 << 20
"""Bytes of the layers' weights up to which a merged copy of them pays: larger products are few enough as they are."""
MOST_TURNED, FEW_TURNED, TALL = 256, 8, 4096
"""Rows up to which a product is of the weight and the turned states: the second if it has more outputs than `TALL`."""


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


class SmallProduct:
    """x · W + b for layers of one input side by side."""

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None, outputs: list[int]):
        # With the outputs last, a small product is faster.
        self._weight_IO, self._bias_O, self._outputs = weight_OI.T.contiguous(), bias_O, outputs

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


class LargeProduct:
    """The same with large weights, one after the other; what it returns may have its rows side by side."""

    def __init__(self, weights: list[tuple[Tensor, Tensor | None]], norm: Norm | None = None):
        self._weights, self._norm = weights, norm

    def __call__(self, states_NI: Tensor) -> Tensor:
        (states_NO,) = self.parts(states_NI)
        return states_NO

    def parts(self, states_NI: Tensor) -> Sequence[Tensor]:
        """The output of each layer."""
        if self._norm:
            states_NI = states_NI * self._norm.weight
        return [_large(states_NI, weight_OI, bias_O) for weight_OI, bias_O in self._weights]

    def added(self, to_NO: Tensor, states_NI: Tensor) -> Tensor:
        """The sum with `to_NO`."""
        return self(states_NI).add_(to_NO)


def product(
    *layers: Any, norm: Norm | None = None, paired: tuple[int, ...] = (), large: bool
) -> SmallProduct | LargeProduct:
    """The product with layers of one input, which was normed by `norm` without its weight.

    `paired` are the sizes of heads whose numbers are put in pairs. Weights that are large and not paired, adapted or
    quantised are not copied.
    """
    if large and not paired:
        return LargeProduct([(present_weight(layer), layer.bias) for layer in layers], norm)
    parts = list(zip(layers, paired or (0,) * len(layers), strict=True))
    weight_OI = torch.cat([in_pairs(present_weight(layer), size) for layer, size in parts])
    if norm:
        weight_OI = weight_OI * norm.weight
    bias_O = torch.cat([in_pairs(layer.bias, size) for layer, size in parts]) if layers[0].bias is not None else None
    if large:
        return LargeProduct([(weight_OI, bias_O)])
    return SmallProduct(weight_OI, bias_O, [layer.out_features for layer in layers])


def _large(states_NI: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
    if weight_OI.dtype != torch.float32 or weight_OI.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return functional.linear(states_NI, weight_OI, bias_O)
    # Both are faster than functional.linear (tests/bench/README.md): MKL's product of the weight with the turned
    # states, up to twice for few rows, and oneDNN's for the others.
    rows, outputs = len(states_NI), len(weight_OI)
    if not 1 < rows <= (MOST_TURNED if outputs <= TALL else FEW_TURNED):
        return torch.ops.mkldnn._linear_pointwise(states_NI, weight_OI, bias_O, "none", [], "")
    if rows <= FEW_TURNED:
        states_NI = states_NI.contiguous()
    if bias_O is None:
        return torch.mm(weight_OI, states_NI.T).T
    return torch.addmm(bias_O[:, None], weight_OI, states_NI.T).T
