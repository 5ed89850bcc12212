"""The engine's slots as arrays over all of them, so that a step's bookkeeping costs the same for 1 row and 512."""

import asyncio
from dataclasses import dataclass

import numpy as np

from rlcore.rollout.engine import Sample, Sampling

LEAST_ALIKE = 16
"""Tokens from which on a common beginning of two prompts is worth copying."""


@dataclass(slots=True, eq=False)
class Request:
    """One attempt to sample: the ids that it continues, and the future that waits for it."""

    key: int
    ids: tuple[int, ...]
    sampling: Sampling
    last: bool
    answer: "asyncio.Future[Sample]"
    sampled: tuple[tuple[int, ...], tuple[float, ...]] = ((), ())
    """Ids and log-probabilities that were sampled before the attempt had to leave the batch."""

    @property
    def tokens(self) -> tuple[int, ...]:
        """The ids known when the request enters the batch."""
        return self.ids + self.sampled[0]


class Rows:
    """The tokens of every slot and its progress. All counts are in tokens."""

    def __init__(self, slots: int, capacity: int):
        self.ids_SC = np.zeros((slots, capacity), dtype=np.int64)
        self.logprobs_SC = np.zeros((slots, capacity), dtype=np.float32)
        self.length_S = np.zeros(slots, dtype=np.int64)
        self.cached_S = np.zeros(slots, dtype=np.int64)
        """How many of the tokens are in the KV cache."""
        self.start_S = np.zeros(slots, dtype=np.int64)
        """The position at which the attempt being sampled starts."""
        self.limit_S = np.zeros(slots, dtype=np.int64)
        """The length at which it is cut."""
        self.kinds: list[Sampling] = []
        """The distinct settings of the requests so far."""
        self.kind_S = np.zeros(slots, dtype=np.int64)
        """The index into `kinds` of each slot's request."""
        self.seed_S = np.zeros(slots, dtype=np.uint64)
        """The seed of each slot's conversation."""
        self.requests: list[Request | None] = [None] * slots

    def open(self, slot: int, request: Request, cached: int) -> None:
        """Enters a request into a slot, whose KV cache already holds its first `cached` tokens."""
        start, length = len(request.ids), len(request.tokens)
        self.ids_SC[slot, cached:length] = request.tokens[cached:]
        self.logprobs_SC[slot, start:length] = request.sampled[1]
        self.length_S[slot], self.start_S[slot] = length, start
        self.cached_S[slot] = cached
        self.limit_S[slot] = start + request.sampling.max_tokens
        if request.sampling not in self.kinds:
            self.kinds.append(request.sampling)
        self.kind_S[slot] = self.kinds.index(request.sampling)
        self.requests[slot] = request

    def donors(self, slots_P: np.ndarray) -> np.ndarray:
        """Slots `[P]` to copy from: a row in the cache, or an earlier new one, that begins alike; else its own."""
        whose_S = self.adapters(slice(None))

        def beginning(slot: int) -> tuple[int, bytes]:
            return int(whose_S[slot]), self.ids_SC[slot, :LEAST_ALIKE].tobytes()

        in_cache = [slot for slot in self.live().tolist() if self.cached_S[slot] >= LEAST_ALIKE]
        first = {beginning(slot): slot for slot in reversed(in_cache)}
        return np.array(
            [
                first.setdefault(beginning(slot), slot) if self.length_S[slot] > LEAST_ALIKE else slot
                for slot in slots_P.tolist()
            ]
        )

    def alike(self, slots_R: np.ndarray, others_R: np.ndarray) -> np.ndarray:
        """Tokens `[R]` that rows have in common with the cached beginnings of others, their own last ones left out."""
        differ_RC = self.ids_SC[slots_R] != self.ids_SC[others_R]
        most_R = np.minimum(self.length_S[slots_R] - 1, self.cached_S[others_R])
        return np.where(differ_RC.any(1), np.minimum(differ_RC.argmax(1), most_R), most_R)

    def adapters(self, slots_R: np.ndarray | slice) -> np.ndarray:
        """Whose adapters these rows go through, `[R]`."""
        return np.array([kind.adapter for kind in self.kinds])[self.kind_S[slots_R]]

    def append(self, slots_R: np.ndarray, tokens_R: np.ndarray, logprobs_R: np.ndarray) -> None:
        """Appends one sampled token to each of these rows."""
        at_R = self.length_S[slots_R]
        self.ids_SC[slots_R, at_R] = tokens_R
        self.logprobs_SC[slots_R, at_R] = logprobs_R
        self.length_S[slots_R] = at_R + 1

    def attempt(self, slot: int) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """Ids and log-probabilities sampled since the request entered."""
        span = slice(self.start_S[slot], self.length_S[slot])
        return tuple(self.ids_SC[slot, span].tolist()), tuple(self.logprobs_SC[slot, span].tolist())

    def stopped(self, slot: int) -> bool:
        """Whether a stop text ends the attempt here."""
        stop = self.kinds[self.kind_S[slot]].stop
        return stop is not None and stop.reached(self.ids_SC[slot, self.start_S[slot] : self.length_S[slot]].tolist())

    def request(self, slot: int) -> Request:
        request = self.requests[slot]
        assert request is not None
        return request

    def free(self, span: int) -> list[int]:
        """The slots below `span` that are free."""
        return [slot for slot, request in enumerate(self.requests[:span]) if request is None]

    def live(self) -> np.ndarray:
        """The slots in use."""
        return np.array([slot for slot, request in enumerate(self.requests) if request is not None], dtype=np.int64)

    def move(self, sources: list[int], targets: list[int]) -> None:
        """Moves rows to other slots, which are free or among the `sources`."""
        counts = (self.length_S, self.cached_S, self.start_S, self.limit_S, self.kind_S, self.seed_S)
        for values in (self.ids_SC, self.logprobs_SC, *counts):
            values[targets] = values[sources]
        requests = [self.requests[source] for source in sources]
        for source in sources:
            self.requests[source] = None
        for target, request in zip(targets, requests, strict=True):
            self.requests[target] = request

    def grow(self, capacity: int) -> None:
        """Makes room for longer rows."""
        extra = capacity - self.ids_SC.shape[1]
        self.ids_SC = np.pad(self.ids_SC, ((0, 0), (0, extra)))
        self.logprobs_SC = np.pad(self.logprobs_SC, ((0, 0), (0, extra)))
