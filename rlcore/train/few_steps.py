"""A few supervised steps of temporary low-rank adapters, in a model whose own weights never change."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch.nn.utils import clip_grad_norm_
from transformers import PreTrainedModel

from rlcore.policy.lora import add_lora, drop_lora, lora_dropout
from rlcore.recipe.schema import LoraConfig

IGNORED = -100
"""transformers' label of a token that is not learned."""
MAX_GRAD_NORM = 1.0


@dataclass(frozen=True, slots=True)
class Row:
    """The token ids of one conversation; those after the prompt are learned."""

    prompt_ids: tuple[int, ...]
    learned_ids: tuple[int, ...]

    @property
    def tokens(self) -> int:
        return len(self.prompt_ids) + len(self.learned_ids)


@contextmanager
def adapters(model: PreTrainedModel, section: LoraConfig, seed: int) -> Iterator[None]:
    """Puts fresh float32 adapters into the model. Afterwards the model is what it was, bit for bit."""
    trained = [parameter.requires_grad for parameter in model.parameters()]
    add_lora(model, section, seed)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    try:
        yield
    finally:
        drop_lora(model)
        for parameter, was_trained in zip(model.parameters(), trained, strict=True):
            parameter.requires_grad = was_trained


def learn(
    model: PreTrainedModel, rows: Sequence[Row], *, batch: int, lr: float, micro_batch_tokens: int, seed: int
) -> float:
    """Trains the model's trainable parameters by one pass of AdamW over the rows, `batch` of them in each step.

    Returns the loss of the last step, the mean over its learned tokens. A forward pass takes at most
    `micro_batch_tokens` padded tokens, or one row. `seed` is that of the adapters' dropout.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.0)
    loss = math.nan
    model.eval()  # the model's own dropout stays off
    with torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []), lora_dropout(model):
        torch.manual_seed(seed)
        for start in range(0, len(rows), batch):
            loss = _backward(model, rows[start : start + batch], micro_batch_tokens)
            clip_grad_norm_(parameters, MAX_GRAD_NORM)
            optimizer.step()
            optimizer.zero_grad()
    return loss


def _backward(model: PreTrainedModel, rows: Sequence[Row], micro_batch_tokens: int) -> float:
    """Accumulates the gradient of the mean loss over the learned tokens; returns that loss."""
    learned, total = sum(len(row.learned_ids) for row in rows), 0.0
    at_once = max(1, micro_batch_tokens // max(row.tokens for row in rows))
    for start in range(0, len(rows), at_once):
        inputs = _padded(rows[start : start + at_once], model.device)
        loss = model(**inputs, num_items_in_batch=learned, use_cache=False).loss
        loss.backward()
        total += loss.item()
    return total


def _padded(rows: Sequence[Row], device: torch.device) -> dict[str, torch.Tensor]:
    """`input_ids`, `labels` and `attention_mask` `[R, T]`, padded on the right."""
    longest = max(row.tokens for row in rows)
    ids_RT = torch.zeros(len(rows), longest, dtype=torch.int64)
    labels_RT, mask_RT = torch.full_like(ids_RT, IGNORED), torch.zeros_like(ids_RT)
    for r, row in enumerate(rows):
        ids_RT[r, : row.tokens] = torch.tensor([*row.prompt_ids, *row.learned_ids])
        labels_RT[r, len(row.prompt_ids) : row.tokens] = torch.tensor(row.learned_ids)
        mask_RT[r, : row.tokens] = 1
    named = {"input_ids": ids_RT, "labels": labels_RT, "attention_mask": mask_RT}
    return {name: tensor.to(device) for name, tensor in named.items()}
