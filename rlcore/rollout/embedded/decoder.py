"""The forward pass of the common decoders, for sampling: transformers' arithmetic, with few operations.

Decoding a step of few rows of a small model is bound by the number of operations, not by their size. So the weights of
the layers are copied into another form before sampling: projections of one input become one product, which includes the
weight of the norm before them and the adapters; and numbers that a rotation turns into each other lie side by side, as
the parts of a complex number. Of a large model only the projections of attention's input are copied.

Shapes: R rows of Q tokens, N = R · Q, of the model's width D, which see W columns of the cache; H heads of queries and
G of keys, each of size d.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from rlcore.policy.common_decoder import in_pairs, rotations
from rlcore.rollout.embedded.bands import Part
from rlcore.rollout.embedded.products import MergedProduct, Norm, OwnProduct, are_large, product
from rlcore.rollout.embedded.slots import FEW_QUERIES, SlotCache, SlotLayer, lie_by_token, unseen


class FewOperations:
    """A common decoder (`policy/common_decoder.py`) with the weights that it has when this is made."""

    @torch.no_grad()
    def __init__(self, model: PreTrainedModel):
        self._model: Any = model
        large = are_large(self._model.model.layers)
        self._layers = [_Layer(layer, large) for layer in self._model.model.layers]
        self._norm = Norm(self._model.model.norm)
        self._head = OwnProduct(self._model.lm_head) if large else self._model.lm_head
        self._rotations_CX = torch.empty(0)

    def last_logits(self, ids_RQ: Tensor, positions_RQ: Tensor, cache: SlotCache) -> Tensor:
        """Logits `[R, V]` after the last token of each row, which `cache` has been aimed at."""
        decoder, shape = self._model.model, ids_RQ.shape
        if len(self._rotations_CX) < cache.capacity:
            self._rotations_CX = rotations(decoder, torch.arange(cache.capacity, device=ids_RQ.device))
        hidden_ND = decoder.embed_tokens(ids_RQ.flatten())
        rotations_N1X = self._rotations_CX[positions_RQ.flatten()].unsqueeze(1)
        masks = self._layers[0].masks(positions_RQ, cache.parts, hidden_ND.dtype)
        for layer, slots in zip(self._layers, cache.slot_layers, strict=True):
            queries_RQHd, keys_RQGd, values_RQGd = layer.projected(hidden_ND, rotations_N1X, shape)
            slots.write(keys_RQGd, values_RQGd)
            if layer is self._layers[-1] and shape[1] > 1:
                queries_RQHd, hidden_ND = queries_RQHd[:, -1:], hidden_ND.view(*shape, -1)[:, -1]
                masks = layer.masks(positions_RQ[:, -1:], cache.parts, hidden_ND.dtype)
            hidden_ND = layer.mixed(hidden_ND, layer.attended(queries_RQHd, slots, cache.parts, masks))
        return self._head(self._norm(hidden_ND).mul_(self._norm.weight))


class _Layer:
    """The weights of one layer, and what is computed with them."""

    def __init__(self, layer: Any, large: bool):
        attention, mlp = layer.self_attn, layer.mlp
        size = attention.head_dim
        self._size, self._scaling = size, attention.scaling
        self._groups = attention.k_proj.out_features // size
        self._shared = attention.q_proj.out_features // size // self._groups
        self._input_norm, self._output_norm = Norm(layer.input_layernorm), Norm(layer.post_attention_layernorm)
        projections = attention.q_proj, attention.k_proj, attention.v_proj
        self._in = MergedProduct(*projections, norm=self._input_norm, paired=(size, size, 0))
        self._out = product(attention.o_proj, large=large)
        self._gate_and_up = product(mlp.gate_proj, mlp.up_proj, norm=self._output_norm, large=large)
        self._down = product(mlp.down_proj, large=large)
        self._head_norm = None
        if hasattr(attention, "q_norm"):
            query, key = (Norm(norm) for norm in (attention.q_norm, attention.k_norm))
            heads = [query.weight.expand(self._groups * self._shared, -1), key.weight.expand(self._groups, -1)]
            self._head_norm, self._head_weight_Hd = query, in_pairs(torch.cat(heads).T, size).T

    def projected(self, hidden_ND: Tensor, rotations_N1X: Tensor, shape: torch.Size) -> tuple[Tensor, Tensor, Tensor]:
        """Queries `[R, Q, H, d]`, keys and values `[R, Q, G, d]`: the first two turned by their positions."""
        tokens, heads = len(hidden_ND), self._groups * self._shared
        projected = self._in(self._input_norm(hidden_ND)).view(tokens, -1, self._size)
        turning = projected.narrow(1, 0, heads + self._groups)
        if self._head_norm:
            turning = self._head_norm(turning).mul_(self._head_weight_Hd)
        # Rotary position embedding (arXiv 2104.09864, equation 12).
        pairs = turning.float().view(tokens, heads + self._groups, -1, 2)
        turned = torch.view_as_real(torch.view_as_complex(pairs) * rotations_N1X).view(*shape, -1, self._size)
        values = projected.narrow(1, heads + self._groups, self._groups).view(*shape, -1, self._size)
        turned = turned.to(values.dtype)
        return turned.narrow(2, 0, heads), turned.narrow(2, heads, self._groups), values

    def masks(self, positions_RQ: Tensor, parts: list[Part], dtype: torch.dtype) -> list[Tensor]:
        """The mask to add to the scores of each part, in the shape in which `attended` computes them."""
        return [self._mask(positions_RQ[part.of_batch], part.width, dtype) for part in parts]

    def _mask(self, positions_RQ: Tensor, width: int, dtype: torch.dtype) -> Tensor:
        if positions_RQ.shape[1] > FEW_QUERIES:
            return unseen(positions_RQ[:, None], width, dtype)
        places = positions_RQ[:, None, :, None].expand(-1, self._groups, -1, self._shared)
        return unseen(places.reshape(len(positions_RQ) * self._groups, -1), width, dtype)

    def attended(self, queries_RQHd: Tensor, slots: SlotLayer, parts: list[Part], masks: list[Tensor]) -> Tensor:
        """The output of attention for each token, `[N, H · d]`, computed part by part."""
        if len(parts) == 1:
            return self._attended(queries_RQHd, *slots.read(parts[0]), masks[0])
        mixed_RX = torch.empty_like(queries_RQHd).flatten(1)
        for part, mask in zip(parts, masks, strict=True):
            mixed = self._attended(queries_RQHd[part.of_batch], *slots.read(part), mask)
            mixed_RX[part.of_batch] = mixed.view(-1, mixed_RX.shape[1])
        return mixed_RX.view(queries_RQHd.shape[:2].numel(), -1)

    def _attended(self, queries_RQHd: Tensor, keys_RGdW: Tensor, values_RGWd: Tensor, mask: Tensor) -> Tensor:
        rows, queries, _, size = queries_RQHd.shape
        if queries > FEW_QUERIES:
            query, key = queries_RQHd.transpose(1, 2), keys_RGdW.transpose(2, 3).contiguous()
            mixed = functional.scaled_dot_product_attention(
                query, key, values_RGWd, attn_mask=mask, scale=self._scaling, enable_gqa=True
            )
            return mixed.transpose(1, 2).reshape(rows * queries, -1)
        # The queries of a group of heads together, so that keys and values are read where they lie.
        grouped = queries_RQHd.view(rows, queries, self._groups, -1, size).transpose(1, 2)
        query = grouped.reshape(rows * self._groups, -1, size)
        if lie_by_token(keys_RGdW):
            query, key = query.view(rows, self._groups, -1, size), keys_RGdW.transpose(2, 3)
            mask = mask.view(*query.shape[:3], -1)
            mixed = functional.scaled_dot_product_attention(
                query, key, values_RGWd, attn_mask=mask, scale=self._scaling
            )
            return mixed.view(grouped.shape).transpose(1, 2).reshape(rows * queries, -1)
        scores = torch.baddbmm(mask, query, keys_RGdW.flatten(0, 1), alpha=self._scaling)
        mixed = torch.bmm(scores.softmax(-1), values_RGWd.flatten(0, 1))
        return mixed.view(grouped.shape).transpose(1, 2).reshape(rows * queries, -1)

    def mixed(self, hidden_ND: Tensor, attended_NX: Tensor) -> Tensor:
        """The hidden states after this layer, from those before it and attention's output."""
        hidden_ND = self._out.added(hidden_ND, attended_NX)
        gate, up = self._gate_and_up.parts(self._output_norm(hidden_ND))
        return self._down.added(hidden_ND, functional.silu(gate, inplace=True).mul_(up))
