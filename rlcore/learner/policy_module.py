"""A causal language model as the learner sees it: token ids in, scores of the loss tokens out."""

import copy

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlcore.learner.packing import MicroBatch
from rlcore.learner.token_head import Scores, score_hidden, score_logits


class PolicyModule(nn.Module):
    """Wraps `model`; its forward pass gives log-probability, entropy and KL of every loss token of a micro-batch.

    The output head is applied only where a loss token is predicted, in chunks. A model that does more to its logits
    than one matrix product (soft-capping, scaling, a bias) is found out by a probe, and its own full logits are used.
    """

    def __init__(self, model: PreTrainedModel, temperature: float) -> None:
        super().__init__()
        self.model = model
        self.temperature = temperature
        self.separable = _head_is_one_product(model)

    def forward(self, micro: MicroBatch, reference: "Reference | None" = None) -> Scores:
        """`(logprob_n, entropy_n, kl_n)` under the temperature; `reference` asks for the exact KL against it."""
        states_nX = self.states(micro)
        if self.separable:
            reference_pair = (reference.states(micro), reference.head) if reference else None
            return score_hidden(states_nX, self.head, micro.target_n, self.temperature, reference_pair)
        reference_nV = reference.states(micro) if reference else None
        return score_logits(states_nX, micro.target_n, self.temperature, reference_nV)

    def states(self, micro: MicroBatch) -> Tensor:
        """What each loss token is predicted from: `[n, H]` last hidden states, or `[n, V]` logits if not separable."""
        run = self.model.base_model if self.separable else self.model
        return run(input_ids=micro.ids_RT, use_cache=False)[0].flatten(0, 1)[micro.source_n]

    @property
    def head(self) -> Tensor:
        """The output matrix, `[V, H]`."""
        return self.model.get_output_embeddings().weight


class Reference:
    """The policy as it was at the start, frozen, outside the engine: neither trained, sharded nor saved."""

    def __init__(self, policy: PolicyModule) -> None:
        self._policy = copy.deepcopy(policy).eval().requires_grad_(False)

    @property
    def head(self) -> Tensor:
        """The output matrix, `[V, H]`."""
        return self._policy.head

    def states(self, micro: MicroBatch) -> Tensor:
        """`PolicyModule.states` of the frozen copy."""
        with torch.no_grad():
            return self._policy.states(micro)

    def logprobs(self, micro: MicroBatch) -> Tensor:
        """Log-probabilities of the loss tokens, `[n]`."""
        with torch.no_grad():
            return self._policy(micro)[0]


@torch.no_grad()
def _head_is_one_product(model: PreTrainedModel) -> bool:
    """Whether the last hidden states times the output matrix are the model's logits, tried on eight tokens."""
    head = model.get_output_embeddings()
    if getattr(head, "weight", None) is None:
        return False
    ids_RT = torch.arange(8, device=model.device)[None] % model.config.get_text_config().vocab_size
    logits = model(input_ids=ids_RT, use_cache=False)[0]
    product = model.base_model(input_ids=ids_RT, use_cache=False)[0] @ head.weight.T
    tolerance = 1e-4 if logits.dtype == torch.float32 else 2e-2
    return torch.allclose(product, logits, rtol=tolerance, atol=tolerance)
