"""The common decoders in few operations, for training on a CPU: transformers' arithmetic, with closed-form gradients.

On a CPU a small model is bound by how often activations are read and written, not by its matrix products. Here prompts
and rows are one list of N tokens for all but attention; projections of the same input are one product, with the weight
of the norm before them; a norm and a gate are one autograd node each, which keeps only what its backward pass reads; a
rotation is one complex product; and the last layer goes on only where a loss token is predicted.

Shapes: N tokens of the model's width D, or of heads x d in attention; P prompts of S tokens; R rows of T tokens, which
see W = S + T; n loss tokens.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from rlcore.learner.packing import MicroBatch
from rlcore.policy.family import in_pairs, is_common_decoder, turns


def has_few_operations(model: PreTrainedModel) -> bool:
    """Whether `last_states` computes this model: in float32, on a CPU, and without adapters."""
    if not is_common_decoder(model) or model.device.type != "cpu" or model.dtype != torch.float32:
        return False
    projections = [module for name, module in model.named_modules() if name.endswith("_proj")]
    return all(type(module) is nn.Linear for module in projections)


def last_states(model: PreTrainedModel, micro: MicroBatch) -> Tensor:
    """The last hidden states that the loss tokens are predicted from, `[n, D]`."""
    decoder: Any = model.model
    rows = _Rows.of(micro)
    hidden = decoder.embed_tokens(rows.ids_N)
    turns_N1X = turns(decoder, rows.positions_N).unsqueeze(1)
    for layer in decoder.layers:
        mixed_ND = _attended(layer.self_attn, layer.input_layernorm, hidden, turns_N1X, rows)
        if layer is decoder.layers[-1]:
            mixed_ND, hidden = mixed_ND[rows.source_n], hidden[rows.source_n]
        hidden = hidden + layer.self_attn.o_proj(mixed_ND)
        gate_and_up = _product(hidden, layer.post_attention_layernorm, layer.mlp.gate_proj, layer.mlp.up_proj)
        hidden = hidden + layer.mlp.down_proj(_Gated.apply(gate_and_up))
    return _Norm.apply(hidden, decoder.norm.variance_epsilon) * decoder.norm.weight


@dataclass(frozen=True, slots=True)
class _Rows:
    """The tokens of a micro-batch as one list, prompts first, and how attention sees them."""

    ids_N: Tensor
    positions_N: Tensor
    source_n: Tensor
    prompts: tuple[int, int]
    """P and S."""
    rows: tuple[int, int]
    """R and T."""
    owner_R: Tensor | None

    @classmethod
    def of(cls, micro: MicroBatch) -> "_Rows":
        rows, length = micro.ids_RT.shape
        if micro.prompts is None:
            positions_N = torch.arange(length).repeat(rows)
            return cls(micro.ids_RT.flatten(), positions_N, micro.source_n, (0, 0), (rows, length), None)
        prompts, start = micro.prompts.ids_PS.shape
        return cls(
            torch.cat([micro.prompts.ids_PS.flatten(), micro.ids_RT.flatten()]),
            torch.cat([torch.arange(start).repeat(prompts), torch.arange(start, start + length).repeat(rows)]),
            micro.source_n + prompts * start,
            (prompts, start),
            (rows, length),
            micro.prompts.owner_R,
        )


def _attended(attention: Any, norm: Any, states_ND: Tensor, turns_N1X: Tensor, rows: _Rows) -> Tensor:
    """What attention mixes for each token, `[N, heads * d]`, before the output projection."""
    size, layers = attention.head_dim, (attention.q_proj, attention.k_proj, attention.v_proj)
    widths = [layer.out_features for layer in layers]
    projected = _product(states_ND, norm, *layers, paired=(size, size, 0))
    parts = [part.unflatten(1, (-1, size)) for part in projected.split(widths, dim=1)]
    for at, name in enumerate(("q_norm", "k_norm")):
        if hasattr(attention, name):
            norm = getattr(attention, name)
            parts[at] = _Norm.apply(parts[at], norm.variance_epsilon) * in_pairs(norm.weight, size)
        parts[at] = _turned(parts[at], turns_N1X)
    prompts = rows.prompts[0] * rows.prompts[1]
    if rows.owner_R is None:
        query, key, value = (part.unflatten(0, rows.rows) for part in parts)
        return _attend(query, key, value, attention.scaling).flatten(0, 1)
    first, rest = zip(*(part.split([prompts, len(part) - prompts]) for part in parts), strict=True)
    query, key, value = (part.unflatten(0, rows.prompts) for part in first)
    mixed_PS = _attend(query, key, value, attention.scaling)
    seen = (part.index_select(0, rows.owner_R) for part in (key, value))
    query, key, value = (part.unflatten(0, rows.rows) for part in rest)
    key, value = (torch.cat(both, dim=1) for both in zip(seen, (key, value), strict=True))
    mixed_RT = _attend(query, key, value, attention.scaling)
    return torch.cat([mixed_PS.flatten(0, 1), mixed_RT.flatten(0, 1)])


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


def _turned(states_Nhd: Tensor, turns_N1X: Tensor) -> Tensor:
    """Rotary position embedding: numbers times e^(i · angle) (Su et al. 2021, arXiv 2104.09864, equation 12)."""
    return torch.view_as_real(torch.view_as_complex(states_Nhd.unflatten(-1, (-1, 2))) * turns_N1X).flatten(-2)


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


class _Gated(torch.autograd.Function):
    """silu(gate) · up, of the two side by side; silu(z) = z · s with s = sigmoid(z)."""

    @staticmethod
    def forward(ctx: Any, gate_and_up: Tensor) -> Tensor:
        gate, up = gate_and_up.chunk(2, dim=-1)
        sigmoid = gate.sigmoid()
        ctx.save_for_backward(gate_and_up, sigmoid)
        return (gate * sigmoid).mul_(up)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """∂/∂gate = g · up · (s + silu · (1 - s)), ∂/∂up = g · silu."""
        (grad,) = gradients
        gate_and_up, sigmoid = ctx.saved_tensors
        gate, up = gate_and_up.chunk(2, dim=-1)
        both = torch.empty_like(gate_and_up)
        grad_gate, silu = both.chunk(2, dim=-1)
        torch.mul(gate, sigmoid, out=silu)
        torch.addcmul(silu, 1 - silu, sigmoid, out=grad_gate).mul_(up).mul_(grad)
        silu.mul_(grad)
        return both


def _attend(query_RQhd: Tensor, key_RKgd: Tensor, value_RKgd: Tensor, scaling: float) -> Tensor:
    """Causal attention of the last Q of K tokens of each row, in grouped heads: `[R, Q, heads * d]`."""
    queries, seen = query_RQhd.shape[1], key_RKgd.shape[1]
    mask = None if queries == seen else torch.ones(queries, seen, dtype=torch.bool).tril_(seen - queries)
    query, key, value = (part.transpose(1, 2) for part in (query_RQhd, key_RKgd, value_RKgd))
    mixed = functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=True
    )
    return mixed.transpose(1, 2).flatten(2)
