"""One sampler of a simulation: rows that advance together, one token a decoding step.

Its time goes from one end of a reply to the next: a row that ends begins its next reply at once, or leaves its slot to
a conversation that waits.
"""

import heapq
import math
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from itertools import count

from rlcore.plan.lengths import INSTRUCTION_TOKENS
from rlcore.plan.rates import Rates

Conversation = tuple[int, Sequence[int]]
"""The step that it is of, and the tokens of each of its replies."""


class Sampler:
    """Conversations are added while it runs; weights may be published meanwhile."""

    def __init__(self, prompt: int, group: int, slots: int, rates: Rates, *, barrier: bool = False):
        """`barrier`: no second reply starts before all first ones have ended."""
        self._rates, self._slots, self._barrier = rates, slots, barrier
        self._read = prompt / group  # the prompt of a group is computed once
        self.seconds = self.busy = 0.0
        self.left: Counter[int] = Counter()
        """Conversations that have not ended, by step."""
        self.tokens = self.lag = 0.0
        """Tokens sampled, and the sum of their ages in versions when they are learned."""
        self._version, self._clock = 0, 0.0
        self._waiting: deque[tuple[Conversation, int]] = deque()
        self._held: deque[tuple[Conversation, int]] = deque()
        self._running: list[tuple[float, int, Conversation, int]] = []
        self._steps, self._order = 0, count()
        """The sum of the steps of the running rows."""

    def add(self, step: int, lengths_CR: Iterable[Sequence[int]]) -> None:
        """Conversations of a step, now."""
        self._waiting.extend(((step, lengths_R), 0) for lengths_R in lengths_CR)
        self.left[step] = sum(conversation[0] == step for conversation, _ in self._waiting)

    def finish(self, step: int) -> float:
        """Runs until the conversations of a step have ended; the time then."""
        while self.left[step]:
            self._advance(math.inf)
        return self.seconds

    def publish(self, at: float, seconds: float) -> None:
        """Runs until then, and takes new weights for so long; rows that run go on with them."""
        while self.seconds < at and (self._running or self._waiting or self._held):
            self._advance(at)
        self.seconds = max(self.seconds, at) + seconds
        self._version += 1

    def _advance(self, until: float) -> None:
        """To the next end of a reply, or to a time before it."""
        self._admit()
        cost = self._rates.decode_step + len(self._running) * self._rates.decode_row
        clock = min(self._running[0][0], self._clock + max(0.0, until - self.seconds) / cost)
        passed = clock - self._clock
        self.seconds += passed * cost
        self.busy += passed * cost
        self.tokens += passed * len(self._running)
        self.lag += passed * (self._steps - self._version * len(self._running))
        self._clock = clock
        while self._running and self._running[0][0] <= self._clock:
            _, _, conversation, reply = heapq.heappop(self._running)
            step, lengths_R = conversation
            self._steps -= step
            if reply + 1 == len(lengths_R):
                self.left[step] -= 1
            elif self._barrier:
                self._held.append((conversation, reply + 1))
            else:  # its keys and values are still in its slot: before conversations that have not begun
                self._waiting.appendleft((conversation, reply + 1))

    def _admit(self) -> None:
        if not self._running and not self._waiting:
            self._waiting, self._held = self._held, deque()
        while self._waiting and len(self._running) < self._slots:
            conversation, reply = self._waiting.popleft()
            step, lengths_R = conversation
            seconds = (INSTRUCTION_TOKENS if reply else self._read) * self._rates.prompt_token
            self.seconds += seconds
            self.busy += seconds
            self._steps += step
            heapq.heappush(
                self._running, (self._clock + float(lengths_R[reply]), next(self._order), conversation, reply)
            )
