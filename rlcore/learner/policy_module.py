"""A causal language model as the learner sees it: token ids in, scores of the loss tokens out."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from rlcore.learner.batch.packing import MicroBatch, Nodes
from rlcore.learner.cpu_decoder import last_states
from rlcore.learner.layers import kept_on_host
from rlcore.learner.sequence_parallel import SequenceParallel
from rlcore.learner.token_head import Scores, score_hidden, score_logits
from rlcore.policy.truncation import KEEP_ALL, Truncation

Compared = tuple[Tensor, Tensor]
"""The reference's `PolicyModule.states` of the same loss tokens, and its output matrix."""


class PolicyModule(nn.Module):
    """Wraps `model`; its forward pass gives log-probability, entropy and KL of every loss token of a micro-batch.

    The output head is applied only where a loss token is predicted, in chunks. A model that does more to its logits
    than one matrix product (soft-capping, scaling, a bias) is found out by a probe, and its own full logits are used.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        temperature: float,
        *,
        truncation: Truncation = KEEP_ALL,
        offload_activations: bool = False,
        sequence_parallel: int = 1,
    ) -> None:
        super().__init__()
        self.model = model
        self.offload_activations = offload_activations
        self.temperature = temperature
        self.truncation = truncation
        self.separable = head_is_one_product(model)
        self.sequence = SequenceParallel.of(model, sequence_parallel)
        self.shares_prompts = self.sequence is None and _goes_on_from_cache(model)
        # Other kernels keep packed trajectories apart by a mask that grows with the square of the row.
        self.packs = "flash" in str(model.config._attn_implementation) and keeps_apart(model)

    def forward(
        self, micro: MicroBatch, reference: Compared | None = None, *, states_only: bool = False
    ) -> Scores | Tensor:
        """`(logprob_n, entropy_n, kl_n)` under the temperature; `reference` asks for the exact KL against it.

        Log-probabilities are those of the truncated distribution that is sampled, entropy and KL those of the whole.
        With `states_only` it returns `states`; under sequence parallelism those of this rank's stretches.
        """
        if self.sequence is None:
            return self._scores(micro, reference, states_only, {})
        part, mine_m, rows = self.sequence.stretch(micro)
        scores = self._scores(part, reference, states_only, {"whole_rows": rows})
        return scores if isinstance(scores, Tensor) else self.sequence.joined(scores, mine_m, len(micro.index_n))

    def _scores(
        self, micro: MicroBatch, reference: Compared | None, states_only: bool, named: dict[str, Any]
    ) -> Scores | Tensor:
        states_uX = self.states(micro, **named)
        if states_only:
            return states_uX
        shape = (self.temperature, self.truncation)
        if self.separable:
            scores = score_hidden(states_uX, self.head, micro.target_u, *shape, reference)
        else:
            scores = score_logits(states_uX, micro.target_u, *shape, reference[0] if reference else None)
        if micro.prediction_n is None:
            return scores
        logprob_n, entropy_n, kl_n = (each.index_select(0, micro.prediction_n) for each in scores)
        return logprob_n, entropy_n, kl_n

    def states(self, micro: MicroBatch, **named: Any) -> Tensor:
        """Last hidden states `[u, H]` that tokens are predicted from, or logits `[u, V]` if not separable.

        `named` goes to every layer's attention.
        """
        rows, run = micro.inputs, self.model.base_model if self.separable else self.model
        with kept_on_host(self.offload_activations, micro.source_u.device):
            if isinstance(rows, Nodes):
                return last_states(self.model, rows, micro.source_u)
            if rows.prompts is None:
                states_RTX = run(input_ids=rows.ids_RT, position_ids=rows.positions_RT, use_cache=False, **named)[0]
            else:
                begun = self.model.base_model(input_ids=rows.prompts.ids_PS, use_cache=True)
                begun.past_key_values.batch_select_indices(rows.prompts.owner_R)
                states_RTX = run(input_ids=rows.ids_RT, past_key_values=begun.past_key_values)[0]
                # ZeRO-2 adds up gradients over ranks in the order in which a backward pass gives them: so that it is
                # the same with and without shared prompts, that of the last layer's prompt tokens is computed, as 0.
                states_RTX = states_RTX + begun[0][:, :0].sum()
        return states_RTX.flatten(0, 1)[micro.source_u]

    @property
    def head(self) -> Tensor:
        """The output matrix, `[V, H]`."""
        return self.model.get_output_embeddings().weight


@torch.no_grad()
def head_is_one_product(model: PreTrainedModel) -> bool:
    """Whether the last hidden states times the output matrix are the model's logits, tried on eight tokens."""
    head = model.get_output_embeddings()
    if getattr(head, "weight", None) is None:
        return False
    ids_RT = torch.arange(8, device=model.device)[None] % model.config.get_text_config().vocab_size
    logits = model(input_ids=ids_RT, use_cache=False)[0]
    product = model.base_model(input_ids=ids_RT, use_cache=False)[0] @ head.weight.T
    return _equal(product, logits)


@torch.no_grad()
def keeps_apart(model: PreTrainedModel) -> bool:
    """Whether two sequences in one row, told apart by their positions, get the hidden states they get alone."""
    ids_RT = torch.arange(8, device=model.device).view(2, 4) % model.config.get_text_config().vocab_size
    positions_RT = torch.arange(4, device=model.device).repeat(2)[None]
    run = model.base_model
    packed = run(input_ids=ids_RT.view(1, 8), position_ids=positions_RT, use_cache=False)[0]
    return _equal(packed.view(2, 4, -1), run(input_ids=ids_RT, use_cache=False)[0])


@torch.no_grad()
def _goes_on_from_cache(model: PreTrainedModel) -> bool:
    """Whether tokens after a cached prompt get the hidden states they get in one piece, tried on two rows of four."""
    ids_RT = torch.arange(8, device=model.device).view(2, 4) % model.config.get_text_config().vocab_size
    run = model.base_model
    cache = getattr(run(input_ids=ids_RT[:1], use_cache=True), "past_key_values", None)
    # Caches of plain keys and values let the gradient through to the prompt; recurrent states may not.
    plain = (DynamicLayer, DynamicSlidingWindowLayer)
    if not isinstance(cache, DynamicCache) or not all(type(layer) in plain for layer in cache.layers):
        return False
    cache.batch_select_indices(torch.zeros(2, dtype=torch.int64, device=model.device))
    whole = run(input_ids=torch.cat([ids_RT[:1].expand(2, -1), ids_RT], dim=1), use_cache=False)[0][:, 4:]
    return _equal(run(input_ids=ids_RT, past_key_values=cache)[0], whole)


def _equal(first: Tensor, second: Tensor) -> bool:
    tolerance = 1e-4 if first.dtype == torch.float32 else 2e-2
    return torch.allclose(first, second, rtol=tolerance, atol=tolerance)
