"""The common decoders in few operations, for training on a CPU: transformers' arithmetic, with closed-form gradients.

On a CPU a small model is bound by how often activations are read and written, not by its matrix products. Here the
trajectories of a micro-batch are a tree (`tree.py`), whose N nodes are one list without padding for all but attention;
projections of the same input are one product, with the weight of the norm before them; a norm is one autograd node, as
is the way from nodes to paths, with a rotation that is one complex product; and the last layer is computed only where
a loss token is predicted.

Shapes: N nodes of the model's width D, or of heads x d in attention; R rows of T nodes; u predictions.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from rlcore.learner.batch.packing import Nodes, Paths
from rlcore.policy.common_decoder import in_pairs, is_common_decoder, rotations

WIDEST_MERGED = 1024
"""Outputs of a gate up to which one product with its partner saves more than putting their weights together takes."""


def has_few_operations(model: PreTrainedModel) -> bool:
    """Whether `last_states` computes this model: in float32, on a CPU, and without adapters."""
    if not is_common_decoder(model) or model.device.type != "cpu" or model.dtype != torch.float32:
        return False
    projections = [module for name, module in model.named_modules() if name.endswith("_proj")]
    return all(type(module) is nn.Linear for module in projections)


def last_states(model: PreTrainedModel, nodes: Nodes, source_u: Tensor) -> Tensor:
    """The last hidden states of the nodes that tokens are predicted from, `[u, D]`."""
    decoder: Any = model.model
    hidden = decoder.embed_tokens(nodes.ids_N)
    rotations_N1X = rotations(decoder, nodes.positions_N).unsqueeze(1)
    place_N = nodes.place_N
    for layer in decoder.layers:
        mixed = _attended(layer.self_attn, layer.input_layernorm, hidden, rotations_N1X, nodes.paths)
        if layer is decoder.layers[-1]:
            place_N, hidden = place_N[source_u], hidden.index_select(0, source_u)
        hidden = hidden + layer.self_attn.o_proj(mixed.index_select(0, place_N))
        gate, up = _gate_and_up(hidden, layer.post_attention_layernorm, layer.mlp)
        hidden = hidden + layer.mlp.down_proj(functional.silu(gate) * up)
    return _Norm.apply(hidden, decoder.norm.variance_epsilon) * decoder.norm.weight


def _gate_and_up(hidden: Tensor, norm: Any, mlp: Any) -> tuple[Tensor, Tensor]:
    """What the gate and its partner make of the normed states, `[N, F]` each, in one product or in two.

    The model alone decides, so that the gradients of all micro-batches come in one order, as ZeRO's buckets need.
    """
    if mlp.gate_proj.out_features > WIDEST_MERGED:
        normed = _Norm.apply(hidden, norm.variance_epsilon) * norm.weight
        return mlp.gate_proj(normed), mlp.up_proj(normed)
    gate, up = _product(hidden, norm, mlp.gate_proj, mlp.up_proj).chunk(2, dim=-1)
    return gate, up


def _attended(attention: Any, norm: Any, states_ND: Tensor, rotations_N1X: Tensor, paths: list[Paths]) -> Tensor:
    """Attention's output for each asking place of the paths, `[places, heads * d]`, before the output projection."""
    size, layers = attention.head_dim, (attention.q_proj, attention.k_proj, attention.v_proj)
    states_NHd = _product(states_ND, norm, *layers, paired=(size, size, 0)).unflatten(1, (-1, size))
    heads = tuple(layer.out_features // size for layer in layers)
    if hasattr(attention, "q_norm"):
        *parts, value = states_NHd.split(heads, dim=1)
        norms = (attention.q_norm, attention.k_norm)
        normed = [
            _Norm.apply(part, norm.variance_epsilon) * in_pairs(norm.weight, size)
            for part, norm in zip(parts, norms, strict=True)
        ]
        states_NHd = torch.cat([*normed, value], dim=1)
    seen = _Paths.apply(states_NHd, rotations_N1X, heads, paths)
    each = zip(seen[::3], seen[1::3], seen[2::3], (path.unseen_QT for path in paths), strict=True)
    return torch.cat([_attend(*parts, attention.scaling).flatten(0, 1) for parts in each])


def _product(states_ND: Tensor, norm: Any, *layers: nn.Linear, paired: tuple[int, ...] = ()) -> Tensor:
    """The outputs of several layers of the same normed states, side by side.

    Heads of the sizes in `paired` have theirs in pairs.
    """
    sizes = paired or (0,) * len(layers)
    normed_ND = _Norm.apply(states_ND, norm.variance_epsilon)
    weight = torch.cat([in_pairs(layer.weight, size) for layer, size in zip(layers, sizes, strict=True)]) * norm.weight
    if layers[0].bias is None:
        return functional.linear(normed_ND, weight)
    bias = torch.cat([in_pairs(layer.bias, size) for layer, size in zip(layers, sizes, strict=True)])
    return functional.linear(normed_ND, weight, bias)


class _Norm(torch.autograd.Function):
    """x̂ = x / rms(x) over the last dimension (Zhang and Sennrich 2019, arXiv 1910.07467), without its weight."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, epsilon: float) -> Tensor:
        mean_square = torch.linalg.vector_norm(states, dim=-1, keepdim=True).square_().div_(states.shape[-1])
        scale = mean_square.add_(epsilon).rsqrt_()
        normed = states * scale
        ctx.save_for_backward(normed, scale)
        return normed

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """∂/∂x = (g - x̂ · mean(g · x̂)) / rms(x)."""
        (grad,) = gradients
        normed, scale = ctx.saved_tensors
        product = grad * normed
        mean = product.mean(-1, keepdim=True)
        return torch.addcmul(grad, normed, mean, value=-1, out=product).mul_(scale), None


class _Paths(torch.autograd.Function):
    """Queries, keys and values of every path, from those of the nodes: `[R, T, heads, d]` each.

    The first heads are turned by `rotations_N1X`, by their nodes' places; one gradient is added up for the nodes.
    """

    @staticmethod
    def forward(
        ctx: Any, states_NHd: Tensor, rotations_N1X: Tensor, heads: tuple[int, int, int], paths: list[Paths]
    ) -> tuple[Tensor, ...]:
        ctx.save_for_backward(rotations_N1X)
        ctx.heads, ctx.paths, ctx.shape = heads, paths, states_NHd.shape
        turned_NHd = torch.empty_like(states_NHd)
        turned = heads[0] + heads[1]
        torch.mul(_pairs(states_NHd[:, :turned]), rotations_N1X, out=_pairs(turned_NHd[:, :turned]))
        turned_NHd[:, turned:] = states_NHd[:, turned:]
        seen: list[Tensor] = []
        for path in paths:
            rows = turned_NHd.index_select(0, path.node_RT.flatten()).unflatten(0, path.node_RT.shape)
            query, key, value = rows.split(heads, dim=2)
            seen += query[:, path.start :], key, value
        return tuple(seen)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Turned back is multiplied with the conjugate."""
        (rotations_N1X,) = ctx.saved_tensors
        grad_NHd = gradients[0].new_zeros(ctx.shape)
        for at, path in enumerate(ctx.paths):
            query, *rest = gradients[3 * at : 3 * at + 3]
            if path.start:
                query = functional.pad(query, (0, 0, 0, 0, path.start, 0))
            grad_NHd.index_add_(0, path.node_RT.flatten(), torch.cat([query, *rest], dim=2).flatten(0, 1))
        _pairs(grad_NHd[:, : ctx.heads[0] + ctx.heads[1]]).mul_(rotations_N1X.conj())
        return grad_NHd, None, None, None


def _pairs(states_NHd: Tensor) -> Tensor:
    """Numbers side by side as complex ones, in the same memory."""
    return torch.view_as_complex(states_NHd.unflatten(-1, (-1, 2)))


def _attend(
    query_RQhd: Tensor, key_RTgd: Tensor, value_RTgd: Tensor, unseen_QT: Tensor | None, scaling: float
) -> Tensor:
    """Causal attention of the last Q of T tokens of each row, in grouped heads: `[R, Q, heads * d]`."""
    query, key, value = (part.transpose(1, 2) for part in (query_RQhd, key_RTgd, value_RTgd))
    mixed = functional.scaled_dot_product_attention(
        query, key, value, attn_mask=unseen_QT, is_causal=unseen_QT is None, scale=scaling, enable_gqa=True
    )
    return mixed.transpose(1, 2).flatten(2)
