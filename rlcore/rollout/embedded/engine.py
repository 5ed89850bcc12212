"""The embedded rollout engine: continuous batching over a Hugging Face model in this process.

Requests wait in a queue; free slots take them, what prompts have in common at their beginning is computed once, and
every decoding step advances all active rows by one token. A row whose attempt ends is answered at once and leaves the
batch; its KV cache stays in its slot until the conversation's next request continues it, or is freed when there is
none.

When the KV cache fills its memory, new requests wait. If rows outgrow it all the same, some leave it and are computed
again when there is room: first those of conversations between two requests, then those of the latest conversations. The
earliest conversation always stays, so every conversation ends.
"""

import asyncio
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Literal

import numpy as np
import torch
from transformers import PreTrainedModel

from rlcore.errors import UserError
from rlcore.machine import free_bytes
from rlcore.policy.common_decoder import is_common_decoder, seen_back
from rlcore.policy.many_adapters import ManyAdapters
from rlcore.rollout.embedded.bands import bands_of
from rlcore.rollout.embedded.decoder import FewOperations
from rlcore.rollout.embedded.rows import Request, Rows
from rlcore.rollout.embedded.slots import PADDING, SlotCache, unseen, use_decode_attention
from rlcore.rollout.engine import RolloutEngine, Sample, Sampling
from rlcore.rollout.sampling import draw, mixed_seed, uniform

ADMIT_SHARE = 0.25
"""A forward pass over new prompt tokens runs once they wait for this share of the rows that are decoding."""
PASS_TOKENS = {"cpu": 1024, "cuda": 16384}
"""Padded prompt tokens in one forward pass: activations fit into the CPU's caches, or into the GPU's memory."""
GROWTH = 0.25
"""A row is admitted if the cache has room for this share of the tokens it may still sample."""
FREE_SHARE = 0.5
"""The share of free memory that the KV cache may take unless the recipe sets a limit."""


class TorchEngine(RolloutEngine):
    """Samples attempts from `model`. A `live` model is the learner's own: publishing then copies nothing."""

    def __init__(
        self,
        model: PreTrainedModel,
        stop_ids: Sequence[int],
        *,
        slots: int,
        max_tokens: int,
        kv_bytes: int | None = None,
        live: bool = False,
    ):
        """At most `slots` sequences are sampled at once; their KV cache takes at most `kv_bytes`.

        Raises UserError for a model in which a token does not see all of a conversation of `max_tokens`.
        """
        seen = seen_back(model.config.get_text_config())
        if seen is not None and seen < max_tokens:
            told = f"layers of {type(model).__name__} do not see all of a conversation of {max_tokens:,} tokens"
            raise UserError(
                f"rollout.engine torch: {told}; choose rollout.engine=vllm, or lower conversation.max_attempt_tokens"
            )
        self.model, self._kv_bytes, self._live = model, kv_bytes, live
        self.device = next(model.parameters()).device
        self.version, self.slots = 0, slots
        self._tensor = partial(torch.as_tensor, device=self.device)
        self._stop_ids = np.array(stop_ids)
        self._pass_tokens = PASS_TOKENS.get(self.device.type, PASS_TOKENS["cuda"])
        self._cache = SlotCache(model.config, model.dtype, self.device, slots, max_tokens + 1)
        self._driver: asyncio.Task[None] | None = None
        self._common = is_common_decoder(model)
        self.adapters: ManyAdapters | None = None  # in the model; a request's `sampling` says which it goes through
        self._forget()
        use_decode_attention(model)

    def publish(self, weights: Iterable[tuple[str, torch.Tensor]], version: int) -> None:
        if not self._live:
            own = dict(self.model.named_parameters())
            with torch.no_grad():
                for name, tensor in weights:
                    own[name].copy_(tensor)
        self.version = version

    async def sample(self, ids: Sequence[int], sampling: Sampling, *, key: int, last: bool) -> Sample:
        answer: asyncio.Future[Sample] = asyncio.get_running_loop().create_future()
        self._came.setdefault(key, len(self._came))
        self._waiting.append(Request(key, tuple(ids), sampling, last, answer))
        if self._driver is None or self._driver.done():
            self._driver = asyncio.create_task(self._drive())
        return await answer

    def release(self, key: int) -> None:
        slot = self._parked.pop(key, None)
        if slot is not None:
            self._rows.requests[slot] = None

    async def _drive(self) -> None:
        """Advances all requests until none is left; a failure is handed to everyone who waits."""
        try:
            self.model.eval()
            # The weights may have changed since attempts were last sampled.
            self._decoder = FewOperations(self.model) if self._common and not self.adapters else None
            self._cache.begin(self._kv_bytes or int(FREE_SHARE * free_bytes(self.device)))
            with torch.no_grad():
                while len(self._active) or self._waiting:
                    if len(self._waiting) >= ADMIT_SHARE * len(self._active):
                        self._admit()
                    self._decode()
                    await asyncio.sleep(0)
        except BaseException as error:
            for request in [request for request in self._rows.requests if request] + self._waiting:
                if not request.answer.done():
                    request.answer.set_exception(error)
            if not isinstance(error, UserError):
                raise
        finally:
            self._cache.end()
            self._forget()

    def _forget(self) -> None:
        self._rows = Rows(self.slots, self._cache.capacity)
        self._active = np.zeros(0, dtype=np.int64)
        self._parked: dict[int, int] = {}
        self._waiting: list[Request] = []
        self._came: dict[int, int] = {}
        """The order in which conversations began."""
        self._decoder = None

    # Admission: new conversations and next turns enter the batch.

    def _admit(self) -> None:
        """Computes the waiting prompts that fit: next turns in their own slots, new conversations in free ones."""
        longest = max((len(request.ids) + request.sampling.max_tokens for request in self._waiting), default=0)
        if self._cache.reserve(longest):
            self._rows.grow(self._cache.capacity)
        free = iter(self._rows.free(self.slots))
        room, opened, left = self._room(), [], []
        for request in self._waiting:
            slot = self._parked.pop(request.key, None)
            if slot is not None:
                self._rows.open(slot, request, int(self._rows.cached_S[slot]))
                opened.append(request)
                continue
            room -= len(request.ids) + GROWTH * request.sampling.max_tokens
            first = not len(self._active) and not opened
            if (room >= 0 or first) and (slot := next(free, None)) is not None:
                self._rows.open(slot, request, 0)
                self._rows.seed_S[slot] = mixed_seed(request.sampling.seed, request.key)
                opened.append(request)
            else:
                left.append(request)
        self._waiting = left
        self._fit()
        self._compute(opened)

    def _room(self) -> float:
        """Tokens of the cache that are free and will not be needed soon by rows already in it."""
        if self._cache.whole:
            return float("inf")
        live_R, rows = self._rows.live(), self._rows
        soon = GROWTH * (rows.limit_S - rows.length_S)[live_R].sum()
        return float(self._cache.most_tokens - rows.length_S[live_R].sum() - soon)

    def _fit(self) -> None:
        """Makes room for the next token of every row, at the cost of the latest rows if there is too little."""
        if self._cache.whole:
            return
        rows = self._rows

        def lateness(slot: int) -> tuple[bool, int]:
            key = rows.request(slot).key
            return key in self._parked, self._came[key]

        live_R = rows.live()
        while len(live_R) > 1 and rows.length_S[live_R].sum() > self._cache.most_tokens:
            latest = max(live_R.tolist(), key=lateness)
            self._put_off(latest)
            live_R = live_R[live_R != latest]
        if self._cache.holds(live_R, rows.length_S[live_R]):
            return
        live_R = live_R[np.argsort(-rows.length_S[live_R], kind="stable")]
        self._cache.arrange(bands_of(rows.length_S[live_R]), live_R, rows.cached_S[live_R])
        targets_R = np.arange(len(live_R))
        now_S = np.zeros(self.slots, dtype=np.int64)
        now_S[live_R] = targets_R
        rows.move(live_R.tolist(), targets_R.tolist())
        self._active = np.sort(now_S[self._active])
        self._parked = {key: int(now_S[slot]) for key, slot in self._parked.items()}

    def _put_off(self, slot: int) -> None:
        """Takes a row out of the cache; one that was being sampled will continue where it stopped."""
        request = self._rows.request(slot)
        if self._parked.pop(request.key, None) is None:
            request.sampled = self._rows.attempt(slot)
            self._waiting.insert(0, request)
        self._active = self._active[self._active != slot]
        self._rows.requests[slot] = None

    def _compute(self, opened: Sequence[Request]) -> None:
        """Samples the first token of these requests, except those that had to leave again."""
        slot_of = {id(request): slot for slot, request in enumerate(self._rows.requests) if request}
        firsts: dict[tuple[int, tuple[int, ...]], list[int]] = {}
        continued = []
        for request in opened:
            slot = slot_of.get(id(request))
            if slot is None:
                continue
            if self._rows.cached_S[slot]:
                continued.append(slot)
            else:
                firsts.setdefault((request.sampling.adapter, request.tokens), []).append(slot)
        if continued:
            slots_R = np.array(continued)
            self._sample_at(slots_R, self._extend(slots_R))
        if firsts:
            self._prefill(list(firsts.values()))

    def _prefill(self, groups: list[list[int]]) -> None:
        """Computes each distinct prompt once and copies its KV cache to the slots that share it."""
        leaders_P = np.array([group[0] for group in groups])
        logits_PV = self._begin(leaders_P)
        owner_R = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
        slots_R = np.array([slot for group in groups for slot in group])
        copies_R = slots_R != leaders_P[owner_R]
        if copies_R.any():
            sources, targets = leaders_P[owner_R[copies_R]], slots_R[copies_R]
            self._cache.copy(sources, targets, self._rows.cached_S[sources])
            self._rows.cached_S[targets] = self._rows.cached_S[sources]
        self._sample_at(slots_R, logits_PV[self._tensor(owner_R)])

    def _begin(self, slots_P: np.ndarray) -> torch.Tensor:
        """Runs these prompts, copying what they have in common with others; returns the logits after them, `[P, V]`."""
        donors_P = self._rows.donors(slots_P)
        own_P = donors_P == slots_P
        parts = [self._extend(slots_P[own_P])] if own_P.any() else []
        if not own_P.all():
            slots_R, donors_R = slots_P[~own_P], donors_P[~own_P]
            alike_R = self._rows.alike(slots_R, donors_R)
            self._cache.copy(donors_R, slots_R, alike_R)
            self._rows.cached_S[slots_R] = alike_R
            parts.append(self._extend(slots_R))
        return torch.cat(parts)[self._tensor(np.argsort(~own_P, kind="stable").argsort())]

    def _extend(self, slots_R: np.ndarray) -> torch.Tensor:
        """Runs the tokens of these rows that are not cached yet; returns the logits after the last one, `[R, V]`."""
        new_R = self._rows.length_S[slots_R] - self._rows.cached_S[slots_R]
        order_R = np.argsort(-new_R, kind="stable")
        start, parts = 0, []
        while start < len(slots_R):
            part_r = order_R[start : start + max(1, self._pass_tokens // int(new_R[order_R[start]]))]
            parts.append(self._extend_at_once(slots_R[part_r]))
            start += len(part_r)
        return torch.cat(parts)[self._tensor(order_R.argsort())]

    def _extend_at_once(self, slots_R: np.ndarray) -> torch.Tensor:
        """One forward pass; rows with fewer new tokens are padded on the left."""
        length_R1, cached_R1 = self._rows.length_S[slots_R, None], self._rows.cached_S[slots_R, None]
        queries = int((length_R1 - cached_R1).max())
        positions_RQ = length_R1 + np.arange(-queries, 0)
        real_RQ = positions_RQ >= cached_R1
        positions_RQ = np.where(real_RQ, positions_RQ, 0)
        columns_RQ = np.where(real_RQ, positions_RQ, PADDING)
        tokens_RQ = self._rows.ids_SC[slots_R[:, None], positions_RQ]
        self._rows.cached_S[slots_R] = length_R1[:, 0]
        self._cache.aim(slots_R, columns_RQ)
        return self._forward(tokens_RQ, positions_RQ, slots_R)

    # Decoding: every active row advances by one token.

    def _decode(self) -> None:
        if not len(self._active):
            return
        if self._cache.whole:
            self._compact()
        else:
            self._fit()
        slots_R, rows = self._active, self._rows
        span = int(slots_R[-1]) + 1
        tokens_S, positions_S = np.zeros((2, span), dtype=np.int64)
        columns_S = np.full(span, PADDING)
        columns_S[slots_R] = positions_S[slots_R] = rows.cached_S[slots_R]
        tokens_S[slots_R] = rows.ids_SC[slots_R, rows.cached_S[slots_R]]
        rows.cached_S[slots_R] += 1
        self._cache.aim_first(columns_S, positions_S)
        logits_SV = self._forward(tokens_S[:, None], positions_S[:, None], np.arange(span))
        self._active = slots_R[:0]
        self._sample_at(slots_R, logits_SV if len(slots_R) == span else logits_SV[self._tensor(slots_R)])

    def _forward(self, tokens_RQ: np.ndarray, positions_RQ: np.ndarray, slots_R: np.ndarray) -> torch.Tensor:
        """Logits `[R, V]` after the last token of each row, which sees the columns up to its own position."""
        self.steps += 1
        if self.adapters:
            self.adapters.aim(self._tensor(self._rows.adapters(slots_R)))
        ids, positions = self._tensor(tokens_RQ), self._tensor(positions_RQ)
        if self._decoder:
            return self._decoder.last_logits(ids, positions, self._cache)
        return self.model(
            input_ids=ids,
            attention_mask=unseen(positions[:, None], self._cache.width, self.model.dtype),
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]

    def _sample_at(self, slots_R: np.ndarray, logits_RV: torch.Tensor) -> None:
        """Draws one token for each of these rows; rows that end are answered, the others become active."""
        kinds_R = self._rows.kind_S[slots_R]
        for kind in set(kinds_R.tolist()):
            mine = np.flatnonzero(kinds_R == kind)
            logits_rV = logits_RV if len(mine) == len(slots_R) else logits_RV[self._tensor(mine)]
            sampling = self._rows.kinds[kind]
            share_r = uniform(self._rows.seed_S[slots_R[mine]], self._rows.length_S[slots_R[mine]])
            tokens_r, logprobs_r = draw(logits_rV, sampling, self._tensor(share_r)[:, None])
            self._rows.append(slots_R[mine], tokens_r.cpu().numpy(), logprobs_r.cpu().numpy())
        length_R = self._rows.length_S[slots_R]
        stopped_R = (self._rows.ids_SC[slots_R, length_R - 1][:, None] == self._stop_ids).any(1)
        if any(kind.stop for kind in self._rows.kinds):
            stopped_R |= [self._rows.stopped(slot) for slot in slots_R]
        ended_R = stopped_R | (length_R >= self._rows.limit_S[slots_R])
        for at in np.flatnonzero(ended_R).tolist():
            self._answer(int(slots_R[at]), "stop" if stopped_R[at] else "length")
        self._active = np.sort(np.concatenate([self._active, slots_R[~ended_R]]))

    def _answer(self, slot: int, finish: Literal["stop", "length"]) -> None:
        request = self._rows.request(slot)
        if request.last:
            self._rows.requests[slot] = None
        else:
            self._parked[request.key] = slot
        if not request.answer.done():
            ids, logprobs = self._rows.attempt(slot)
            request.answer.set_result(Sample(ids, logprobs, finish, (self.version,) * len(ids)))

    def _compact(self) -> None:
        """Moves the topmost rows into free slots below them once a quarter of the decoded span is free."""
        span = int(self._active[-1]) + 1
        free = self._rows.free(span)
        if len(free) * 4 < span:
            return
        moves = [(s, t) for s, t in zip(self._active[::-1].tolist(), free, strict=False) if s > t]
        sources, targets = [source for source, _ in moves], [target for _, target in moves]
        self._rows.move(sources, targets)
        self._active = np.sort(np.concatenate([self._active[: -len(moves)], targets]))
        self._cache.copy(np.array(sources), np.array(targets), self._rows.cached_S[targets])
