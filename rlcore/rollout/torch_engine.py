"""The embedded rollout engine: continuous batching over a Hugging Face model in this process.

Requests wait in a queue; free slots take them, prompts that several requests share are computed once, and every
decoding step advances all active rows by one token. A row whose attempt ends is answered at once and leaves the batch;
its KV cache stays in its slot until the conversation's next request continues it, or is freed when there is none.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from transformers import PreTrainedModel

from rlcore.rollout.engine import Sample, Sampling
from rlcore.rollout.sampling import draw
from rlcore.rollout.slots import SlotCache, use_decode_attention

ADMIT_SHARE = 0.25
"""A forward pass over new prompt tokens runs once they wait for this share of the rows that are decoding."""


@dataclass(slots=True, eq=False)
class _Row:
    """One slot in use."""

    key: int
    ids: list[int]
    """Prompt and sampled tokens; the KV cache holds `cached` of them."""
    sampling: Sampling
    last: bool
    answer: "asyncio.Future[Sample] | None"
    cached: int = 0
    logprobs: list[float] = field(default_factory=list)


class TorchEngine:
    """Samples attempts from `model`. The model may be the learner's own module: then publishing copies nothing."""

    def __init__(self, model: PreTrainedModel, stop_ids: Sequence[int], *, slots: int, max_tokens: int):
        self.model = model
        self.device = next(model.parameters()).device
        self.stop_ids = frozenset(stop_ids)
        self.version = 0
        self.slots = slots
        self._stop_S = torch.tensor(sorted(self.stop_ids), device=self.device)
        self._generator = torch.Generator(device=self.device)
        self._cache = SlotCache(model.config.num_hidden_layers, slots, max_tokens + 1)
        self._rows: list[_Row | None] = [None] * slots
        self._active: list[int] = []
        self._parked: dict[int, int] = {}
        self._waiting: list[_Row] = []
        self._driver: asyncio.Task[None] | None = None
        use_decode_attention(model)

    def seed(self, seed: int) -> None:
        self._generator.manual_seed(seed)

    def publish(self, weights: Iterable[tuple[str, torch.Tensor]], version: int) -> None:
        """Copies the weights into the model, or nothing where they are the model's own tensors."""
        own = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, tensor in weights:
                if own[name].data_ptr() != tensor.data_ptr():
                    own[name].copy_(tensor)
        self.version = version

    def sleep(self) -> None:
        """The model stays: it may be the learner's."""

    def close(self) -> None:
        """There is nothing to end."""

    async def sample(self, ids: Sequence[int], sampling: Sampling, *, key: int, last: bool) -> Sample:
        answer: asyncio.Future[Sample] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Row(key, list(ids), sampling, last, answer))
        if self._driver is None or self._driver.done():
            self._driver = asyncio.create_task(self._drive())
        return await answer

    def release(self, key: int) -> None:
        """Frees the slot of a conversation that has no more requests."""
        slot = self._parked.pop(key, None)
        if slot is not None:
            self._rows[slot] = None

    async def _drive(self) -> None:
        """Advances all requests until none is left; a failure is handed to everyone who waits."""
        try:
            self.model.eval()
            with torch.no_grad():
                while self._active or self._waiting:
                    if len(self._waiting) >= ADMIT_SHARE * len(self._active):
                        self._admit()
                    self._decode()
                    await asyncio.sleep(0)
        except BaseException as error:
            for row in [row for row in self._rows if row] + self._waiting:
                if row.answer and not row.answer.done():
                    row.answer.set_exception(error)
            raise
        finally:
            self._forget()

    def _forget(self) -> None:
        self._rows = [None] * self.slots
        self._active, self._waiting, self._parked = [], [], {}

    # Admission: new conversations and next turns enter the batch.

    def _admit(self) -> None:
        """Computes the waiting prompts that fit: next turns in their own slots, new conversations in free ones."""
        free = [slot for slot in range(self.slots) if self._rows[slot] is None]
        firsts: dict[tuple[int, ...], list[int]] = {}
        continued, left = [], []
        for row in self._waiting:
            slot = self._parked.pop(row.key, None)
            if slot is not None:
                row.cached = self._rows[slot].cached  # type: ignore[union-attr]
                continued.append(slot)
            elif free:
                slot = free.pop(0)
                firsts.setdefault(tuple(row.ids), []).append(slot)
            else:
                left.append(row)
                continue
            self._rows[slot] = row
        self._waiting = left
        self._cache.reserve(max((len(row.ids) + row.sampling.max_tokens for row in self._rows if row), default=0))
        if continued:
            self._sample_at(continued, self._extend(continued))
        if firsts:
            self._share(list(firsts.values()))

    def _share(self, groups: list[list[int]]) -> None:
        """Computes each distinct prompt once and copies its KV cache to the slots that share it."""
        leaders = [group[0] for group in groups]
        logits_RV = self._extend(leaders)
        sources = [group[0] for group in groups for _ in group[1:]]
        targets = [slot for group in groups for slot in group[1:]]
        if targets:
            width = max(self._row(slot).cached for slot in leaders)
            self._cache.copy(self._tensor(sources), self._tensor(targets), width)
            for source, target in zip(sources, targets, strict=True):
                self._row(target).cached = self._row(source).cached
        owner = self._tensor([at for at, group in enumerate(groups) for _ in group])
        self._sample_at([slot for group in groups for slot in group], logits_RV[owner])

    def _extend(self, slots: list[int]) -> torch.Tensor:
        """Runs the tokens of these rows that are not in the cache yet; logits after the last of them, `[R, V]`."""
        rows = [self._row(slot) for slot in slots]
        queries = max(len(row.ids) - row.cached for row in rows)
        tokens_RQ = np.zeros((len(rows), queries), dtype=np.int64)
        columns_RQ = np.full((len(rows), queries), self._cache.capacity - 1)
        positions_RQ = np.zeros((len(rows), queries), dtype=np.int64)
        for at, row in enumerate(rows):
            new = row.ids[row.cached :]
            tokens_RQ[at, queries - len(new) :] = new
            columns_RQ[at, queries - len(new) :] = positions_RQ[at, queries - len(new) :] = range(
                row.cached, len(row.ids)
            )
            row.cached = len(row.ids)
        width = max(row.cached for row in rows)
        self._cache.aim(self._tensor(slots), self._tensor(columns_RQ), width, None)
        return self._forward(self._tensor(tokens_RQ), self._tensor(positions_RQ), width)

    # Decoding: every active row advances by one token.

    def _decode(self) -> None:
        if not self._active:
            return
        self._compact()
        span = self._active[-1] + 1
        tokens, positions = [0] * span, [0] * span
        columns = [self._cache.capacity - 1] * span
        for slot in self._active:
            row = self._row(slot)
            tokens[slot] = row.ids[-1]
            columns[slot] = positions[slot] = row.cached
            row.cached += 1
        width = max(positions) + 1
        self._cache.aim(torch.arange(span, device=self.device), self._tensor(columns)[:, None], width, span)
        logits_SV = self._forward(self._tensor(tokens)[:, None], self._tensor(positions)[:, None], width)
        slots = self._active
        self._active = []
        self._sample_at(slots, logits_SV if len(slots) == span else logits_SV[self._tensor(slots)])

    def _forward(self, tokens_RQ: torch.Tensor, positions_RQ: torch.Tensor, width: int) -> torch.Tensor:
        """Logits `[R, V]` after the last token of each row, which sees the columns up to its own position."""
        mask_R1QW = (torch.arange(width, device=self.device) <= positions_RQ[:, :, None])[:, None]
        return self.model(
            input_ids=tokens_RQ,
            attention_mask=mask_R1QW,
            position_ids=positions_RQ,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]

    def _sample_at(self, slots: list[int], logits_RV: torch.Tensor) -> None:
        """Draws one token for each of these rows; rows that end are answered, the others become active."""
        rows_of: dict[Sampling, list[int]] = {}
        for at, slot in enumerate(slots):
            rows_of.setdefault(self._row(slot).sampling, []).append(at)
        for sampling, mine in rows_of.items():
            logits = logits_RV if len(rows_of) == 1 else logits_RV[self._tensor(mine)]
            tokens_R, logprobs_R = draw(logits, sampling, self._generator)
            tokens, logprobs = tokens_R.tolist(), logprobs_R.tolist()
            for at, token, logprob in zip(mine, tokens, logprobs, strict=True):
                self._append(slots[at], token, logprob)
        self._active.sort()

    def _append(self, slot: int, token: int, logprob: float) -> None:
        row = self._row(slot)
        row.ids.append(token)
        row.logprobs.append(logprob)
        stopped = token in self.stop_ids
        if not stopped and len(row.logprobs) < row.sampling.max_tokens:
            self._active.append(slot)
            return
        response = tuple(row.ids[-len(row.logprobs) :])
        if row.last:
            self._rows[slot] = None
        else:
            self._parked[row.key] = slot
        if row.answer and not row.answer.done():
            row.answer.set_result(Sample(response, tuple(row.logprobs), "stop" if stopped else "length", self.version))

    def _compact(self) -> None:
        """Moves the topmost rows into free slots below them once a quarter of the decoded span is free."""
        span = self._active[-1] + 1
        free = [slot for slot in range(span) if self._rows[slot] is None]
        if len(free) * 4 < span:
            return
        moves = [(s, t) for s, t in zip(reversed(self._active), free, strict=False) if s > t]
        for source, target in moves:
            self._rows[target], self._rows[source] = self._rows[source], None
        self._active = sorted(self._active[: -len(moves)] + [target for _, target in moves])
        width = max(self._row(target).cached for _, target in moves)
        self._cache.copy(self._tensor([s for s, _ in moves]), self._tensor([t for _, t in moves]), width)

    def _row(self, slot: int) -> _Row:
        row = self._rows[slot]
        assert row is not None
        return row

    def _tensor(self, values: list[int] | np.ndarray) -> torch.Tensor:
        return torch.as_tensor(values, device=self.device)
