"""A discrete-event simulation of training steps: long-tailed attempts on every sampler, then the learner, then weights.

All rows of a sampler advance together, one token a decoding step, so time is simulated from one end of an attempt to
the next: a row that ends begins its next attempt at once, or leaves its slot to a conversation that waits.
"""

import heapq
from collections import deque
from dataclasses import dataclass

import numpy as np

from rlcore.plan.lengths import INSTRUCTION_TOKENS, Lengths
from rlcore.plan.rates import Rates
from rlcore.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Simulated:
    """Means over the simulated steps, in seconds; shares are of the samplers' and learners' own phases."""

    sampling: float
    learning: float
    publishing: float
    waiting: float
    """Share of the samplers' time in which they have nothing left and wait for the slowest of them."""
    learner_waiting: float
    """Share of the learners' time in which they wait for the one with the most tokens."""
    trained: float
    """Tokens of a step, prompts included."""
    sampled: float

    @property
    def step(self) -> float:
        """Seconds of a whole step."""
        return self.sampling + self.learning + self.publishing


def simulate(
    recipe: Recipe,
    lengths: Lengths,
    rates: Rates,
    *,
    learners: int,
    samplers: int,
    steps: int = 8,
    seed: int = 0,
    barrier: bool = False,
) -> Simulated:
    """Steps of `recipe` on so many learner ranks and samplers (the same GPUs where sampling is in process).

    `barrier`: no second attempt starts before all first ones of a sampler have ended.
    """
    rng = np.random.default_rng(seed)
    total = recipe.batch.problems * recipe.batch.group
    rows = []
    for _ in range(steps):
        drawn_CR = lengths.draw(total, rng)
        parts = np.array_split(drawn_CR, samplers)
        ends = np.array([
            rollout_seconds(part, lengths.prompt, recipe.batch.group, recipe.rollout.slots, rates, barrier=barrier)
            for part in parts
        ])  # fmt: skip
        tokens_C = drawn_CR.sum(1) + lengths.prompt + (lengths.replies - 1) * INSTRUCTION_TOKENS
        section, sharing = recipe.learner, recipe.learner.sequence_parallel
        parts = np.array_split(tokens_C, max(1, learners // sharing))
        tokens_L = np.array([part.sum() for part in parts]) / sharing
        learning = (
            tokens_L.max() * rates.learner_token * section.epochs + rates.optimizer_step * section.optimizer_steps
        )
        rows.append((
            ends.max(), learning, rates.publish, 1 - ends.mean() / ends.max(), 1 - tokens_L.mean() / tokens_L.max(),
            tokens_C.sum(), drawn_CR.sum(),
        ))  # fmt: skip
    return Simulated(*map(float, np.mean(rows, axis=0)))


def rollout_seconds(
    lengths_CR: np.ndarray, prompt: int, group: int, slots: int, rates: Rates, *, barrier: bool = False
) -> float:
    """Seconds until one sampler has all replies of its conversations, whose tokens are `lengths_CR`."""
    waiting = deque((conversation, 0) for conversation in range(len(lengths_CR)))
    held: deque[tuple[int, int]] = deque()
    running: list[tuple[int, int, int]] = []
    seconds, clock = 0.0, 0
    while waiting or running or held:
        if not running and not waiting:
            waiting, held = held, deque()
        while waiting and len(running) < slots:
            conversation, reply = waiting.popleft()
            # The prompt of a group is computed once.
            read = INSTRUCTION_TOKENS if reply else prompt / group
            seconds += read * rates.prompt_token
            heapq.heappush(running, (clock + int(lengths_CR[conversation, reply]), conversation, reply))
        end = running[0][0]
        seconds += (end - clock) * (rates.decode_step + len(running) * rates.decode_row)
        clock = end
        while running and running[0][0] == clock:
            _, conversation, reply = heapq.heappop(running)
            if reply + 1 < lengths_CR.shape[1]:
                # Its keys and values are still in its slot: the next attempt goes before conversations not yet begun.
                (held.append if barrier else waiting.appendleft)((conversation, reply + 1))
    return seconds
