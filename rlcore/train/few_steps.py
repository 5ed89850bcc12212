"""A few supervised steps of the adapters of several problems, in a model whose own weights never change."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from rlcore.learner.policy_module import head_is_one_product
from rlcore.learner.token_head import score_hidden, score_logits
from rlcore.policy.many_adapters import ManyAdapters
from rlcore.rollout import Conversation
from rlcore.types import Problem

IGNORED = -100
"""Stands where nothing is learned."""
MAX_GRAD_NORM = 1.0


@dataclass(frozen=True, slots=True)
class Row:
    """The token ids of one conversation; those after the prompt are learned, and those at some places in it."""

    prompt_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]
    places: Sequence[int] = ()

    @property
    def tokens(self) -> int:
        return len(self.prompt_ids) + len(self.answer_ids)

    @property
    def learned(self) -> int:
        """The number of tokens that are learned."""
        return len(self.places) + len(self.answer_ids)


def demonstration(conversation: Conversation, problem: Problem, column: str, loss: str) -> Row:
    """The problem answered by the text of its `column`; loss `outputs` also learns what its prompt shows."""
    tokenizer: Any = conversation.tokenizer
    answer = tokenizer(problem.columns[column], add_special_tokens=False)["input_ids"]
    places = conversation.shown_outputs(problem) if loss == "outputs" else ()
    return Row(conversation.open(problem), (*answer, tokenizer.eos_token_id), places)


def learn(
    model: PreTrainedModel,
    adapters: ManyAdapters,
    rows_PN: Sequence[Sequence[Row]],
    *,
    batch: int,
    lr: float,
    micro_batch_tokens: int,
    seed: int,
    on_step: Callable[[int], object] = lambda steps: None,
) -> list[float]:
    """Trains each problem's adapters by one pass of AdamW over its rows, `batch` of them in each step.

    All problems have equally many rows. Returns the loss of each in the last step, the mean over its learned tokens. A
    forward pass takes at most `micro_batch_tokens` padded tokens, or one row. `seed` is that of the dropout, and
    `on_step` is called with 1 after each step.
    """
    optimizer = torch.optim.AdamW(adapters.parameters, lr=lr, weight_decay=0.0)
    losses = [math.nan] * len(rows_PN)
    model.eval()  # the model's own dropout stays off
    adapters.aim(torch.zeros(1, dtype=torch.int64, device=model.device))  # the one row that the head is tried on
    separable = head_is_one_product(model)
    with torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []):
        torch.manual_seed(seed)
        for start in range(0, len(rows_PN[0]), batch):
            rows_Pn = [rows[start : start + batch] for rows in rows_PN]
            losses = _backward(model, adapters, rows_Pn, micro_batch_tokens, separable=separable)
            adapters.clip(MAX_GRAD_NORM)
            optimizer.step()
            optimizer.zero_grad()
            on_step(1)
    return losses


def _backward(
    model: PreTrainedModel,
    adapters: ManyAdapters,
    rows_PN: Sequence[Sequence[Row]],
    micro_batch_tokens: int,
    *,
    separable: bool,
) -> list[float]:
    """Accumulates the gradient of each problem's mean loss over its learned tokens; returns these losses."""
    owned = [(problem, row) for problem, rows in enumerate(rows_PN) for row in rows]
    learned_P = torch.tensor([sum(row.learned for row in rows) for rows in rows_PN], device=model.device)
    loss_P = torch.zeros(len(rows_PN), device=model.device)
    at_once = max(1, micro_batch_tokens // max(row.tokens for _, row in owned))
    for start in range(0, len(owned), at_once):
        part = owned[start : start + at_once]
        ids_RT, next_RT = _padded([row for _, row in part], model.device)
        owner_R = torch.tensor([problem for problem, _ in part], device=model.device)
        adapters.aim(owner_R, dropout=True)
        owner_N = owner_R[:, None].expand_as(next_RT)[next_RT != IGNORED]
        loss_N = -_learned_logprobs(model, ids_RT, next_RT, separable=separable) / learned_P[owner_N]
        loss_N.sum().backward()
        loss_P.index_add_(0, owner_N, loss_N.detach())
    return loss_P.tolist()


def _learned_logprobs(model: PreTrainedModel, ids_RT: Tensor, next_RT: Tensor, *, separable: bool) -> Tensor:
    """Log-probabilities of the N learned tokens, at which alone a `separable` head is applied."""
    learned_RT = next_RT != IGNORED
    run = model.base_model if separable else model
    states_NX, target_N = run(input_ids=ids_RT, use_cache=False)[0][learned_RT], next_RT[learned_RT]
    if separable:
        return score_hidden(states_NX, model.get_output_embeddings().weight, target_N, temperature=1.0)[0]
    return score_logits(states_NX, target_N, temperature=1.0)[0]


def _padded(rows: Sequence[Row], device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids, and what is learned after each token, `[R, T]` each.

    Padding is on the right, so that causal attention needs no mask: no real token sees a padded one.
    """
    longest = max(row.tokens for row in rows)
    ids_RT = torch.zeros(len(rows), longest, dtype=torch.int64)
    next_RT = torch.full_like(ids_RT, IGNORED)
    for r, row in enumerate(rows):
        ids_RT[r, : row.tokens] = torch.tensor([*row.prompt_ids, *row.answer_ids])
        learned = torch.tensor([*row.places, *range(len(row.prompt_ids), row.tokens)])
        next_RT[r, learned - 1] = ids_RT[r, learned]
    return ids_RT.to(device), next_RT.to(device)
