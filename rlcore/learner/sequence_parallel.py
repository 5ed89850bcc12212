"""Sequence parallelism: N ranks compute each trajectory together (DeepSpeed-Ulysses, Jacobs et al., arXiv 2309.14509).

Each rank computes one of N equal stretches of every row. Around attention, all-to-all exchanges turn stretches with all
heads into whole rows with a share of the heads, and back; nothing else in a model looks at more than one token.

DeepSpeed's own integration for transformers takes batches of one size alone and acts on every pass through a model;
here micro-batches vary, and the embedded engine samples from the same model.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import AttentionInterface, PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from rlcore.errors import UserError
from rlcore.learner.batch.packing import MicroBatch, Rows, micro_batches
from rlcore.learner.batch.planning import Planned
from rlcore.learner.token_head import Scores
from rlcore.policy.common_decoder import partial_layers
from rlcore.types import TokenBatch


@dataclass(frozen=True, slots=True)
class WholeRows:
    """The ranks that have the other stretches, and the positions of whole rows: what attention needs in such a pass."""

    group: torch.distributed.ProcessGroup
    positions_RT: Tensor


@dataclass(frozen=True, slots=True)
class SequenceParallel:
    """This rank's part: the stretch at `place` of `size`. Consecutive ranks share their trajectories."""

    size: int
    place: int

    @classmethod
    def of(cls, model: PreTrainedModel, size: int) -> "SequenceParallel | None":
        """None for a `size` of 1. All ranks call it together. Raises UserError where model or ranks do not allow it."""
        if size == 1:
            return None
        world, config = torch.distributed.get_world_size(), model.config.get_text_config()
        setting, heads = f"learner.sequence_parallel {size}", config.num_attention_heads
        attention = model.config._attn_implementation
        keys = getattr(config, "num_key_value_heads", None) or heads
        if heads % size or (keys % size and size % keys):
            raise UserError(f"{setting} does not divide the {heads} heads of attention ({keys} of keys) of the model")
        if getattr(config, "sliding_window", None) or partial_layers(config):
            raise UserError(f"{setting}: {type(model).__name__} has layers without full attention")
        if attention not in ALL_ATTENTION_FUNCTIONS:
            raise UserError(f"{setting} does not go with model.attention {attention}")
        if world % size:
            raise UserError(f"{setting} does not divide {world} rank{'s' * (world > 1)}")
        _share_heads(attention)
        _group(size)
        return cls(size, torch.distributed.get_rank() % size)

    def stretch(self, micro: MicroBatch) -> tuple[MicroBatch, Tensor, WholeRows]:
        """This rank's columns of a micro-batch, padded so that they divide, and which of its loss tokens are there."""
        assert isinstance(micro.inputs, Rows)  # trees are for ranks that compute alone
        tokens = micro.inputs.ids_RT.shape[1]
        length = -(-tokens // self.size)
        columns = slice(self.place * length, (self.place + 1) * length)
        positions_RT = _positions(micro.inputs, length * self.size)
        ids_RT = functional.pad(micro.inputs.ids_RT, (0, length * self.size - tokens))
        row_n, column_n = micro.source_u // tokens, micro.source_u % tokens - columns.start
        (mine_m,) = ((column_n >= 0) & (column_n < length)).nonzero(as_tuple=True)
        part = replace(
            micro,
            inputs=Rows(ids_RT[:, columns], positions_RT=positions_RT[:, columns]),
            source_u=(row_n * length + column_n)[mine_m],
            target_u=micro.target_u[mine_m],
        )
        return part, mine_m, WholeRows(_group(self.size), positions_RT)

    def joined(self, scores: Scores, mine_m: Tensor, count: int) -> Scores:
        """The scores of all `count` loss tokens, from every rank's own; a gradient goes back to this rank's alone.

        Every rank then computes the same loss, and the sum of their gradients is that of this loss, once.
        """
        whole_3n = scores[0].new_zeros(len(scores), count)
        whole_3n[:, mine_m] = torch.stack(scores).detach()
        torch.distributed.all_reduce(whole_3n, group=_group(self.size))
        logprob_n, entropy_n, kl_n = (
            whole_n.index_copy(0, mine_m, own) for whole_n, own in zip(whole_3n, scores, strict=True)
        )
        return logprob_n, entropy_n, kl_n


@torch.no_grad()
def check_stretches(policy: Any, device: torch.device) -> None:
    """Raises UserError where `policy`, a PolicyModule, gives other log-probabilities in stretches than in one piece."""
    sequence, model = policy.sequence, policy.model
    length = 3 * sequence.size + 1
    ids_N = np.arange(2 * length) % model.config.get_text_config().vocab_size
    nothing_N, mask_N = np.zeros(2 * length, dtype=np.float32), np.tile(np.arange(length) > 0, 2)
    turn_N = np.ones(2 * length, dtype=np.int8)
    batch = TokenBatch(np.arange(3) * length, ids_N, turn_N, mask_N, nothing_N, nothing_N, nothing_N)
    (micro,) = micro_batches(batch, [Planned(np.arange(2), 0, 2 * length)], 1, device)
    parts = policy(micro)[0]
    policy.sequence = None
    whole = policy(micro)[0]
    policy.sequence = sequence
    tolerance = 1e-4 if model.dtype == torch.float32 else 2e-2
    if not torch.allclose(parts, whole, rtol=tolerance, atol=tolerance):
        raise UserError(f"learner.sequence_parallel: {type(model).__name__} computes other values in parts")


@cache
def _group(size: int) -> torch.distributed.ProcessGroup:
    """The `size` consecutive ranks that this one is among."""
    return torch.distributed.new_subgroups(size)[0]


def _positions(rows: Rows, tokens: int) -> Tensor:
    """The place of each of `tokens` columns in its trajectory; padding after packed ones begins another."""
    columns_RT = torch.arange(tokens, device=rows.ids_RT.device).expand(len(rows.ids_RT), -1)
    if rows.positions_RT is None:
        return columns_RT
    return torch.cat([rows.positions_RT, columns_RT[:, : tokens - rows.positions_RT.shape[1]]], dim=1)


@cache
def _share_heads(name: str) -> None:
    """From here on transformers' attention function `name` computes whole rows in passes given `whole_rows`."""
    AttentionInterface.register(name, _sharing_heads(ALL_ATTENTION_FUNCTIONS[name]))


def _sharing_heads(inner: Callable[..., Any]) -> Callable[..., Any]:
    def attend(
        module: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        whole_rows: WholeRows | None = None,
        **named: Any,
    ) -> Any:
        if whole_rows is None:
            return inner(module, query, key, value, attention_mask, **named)
        from deepspeed.sequence.layer import DistributedAttention  # takes seconds

        # The mask is that of a stretch. Whole rows need none: they are causal, and padded on the right.
        named["position_ids"] = whole_rows.positions_RT

        def attend_whole(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            return inner(module, *(states.transpose(1, 2) for states in (query, key, value)), None, **named)[0]

        # Every rank needs a head of keys: fewer are repeated, so that each is beside its heads of queries.
        repeats = max(1, whole_rows.group.size() // key.shape[1])
        states = (query, key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1))
        exchange = DistributedAttention(attend_whole, whole_rows.group, scatter_idx=2, gather_idx=1)
        return exchange(*(each.transpose(1, 2) for each in states), 0), None

    return attend
