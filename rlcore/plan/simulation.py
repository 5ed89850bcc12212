"""A discrete-event simulation of training steps: long-tailed attempts on every sampler, then the learner, then weights.

Where servers sample and `batch.ahead` is K, the conversations of step n begin once version n - K is published, and
servers go on while the learner computes; else samplers and learners take turns.
"""

from dataclasses import dataclass

import numpy as np

from rlcore.plan.lengths import INSTRUCTION_TOKENS, Lengths
from rlcore.plan.rates import Rates
from rlcore.plan.samplers import Sampler
from rlcore.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Simulated:
    """Means over the simulated steps, in seconds."""

    sampling: float
    """The learners' wait for a step's last conversation: all of its sampling, where nothing is sampled ahead."""
    learning: float
    publishing: float
    waiting: float
    """Share of the samplers' time in which they have nothing left of a step and wait for the slowest of them."""
    learner_waiting: float
    """Share of the learners' time in which they wait for the one with the most tokens."""
    trained: float
    """Tokens of a step, prompts included."""
    sampled: float
    samplers_busy: float
    """Share of the samplers' time in which they sample anything."""
    lag: float
    """Mean age of a token in updates when it is learned."""

    @property
    def step(self) -> float:
        """Seconds of a whole step."""
        return self.sampling + self.learning + self.publishing

    @property
    def learners_busy(self) -> float:
        """Share of the learners' time in which they learn."""
        return self.learning / self.step


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
    ahead: int | None = None,
) -> Simulated:
    """Steps of `recipe` on so many learner ranks and samplers (the same GPUs where sampling is in process).

    `barrier`: no second attempt starts before all first ones of a sampler have ended. `ahead` stands in for
    `batch.ahead`. Its first steps, in which samplers get ahead, do not count.
    """
    ahead = recipe.batch.ahead if ahead is None else ahead
    if recipe.rollout.mode != "servers":
        ahead = 0  # nothing overlaps
    rng, batch = np.random.default_rng(seed), recipe.batch
    fleet = [
        Sampler(lengths.prompt, batch.group, recipe.rollout.slots, rates, barrier=barrier) for _ in range(samplers)
    ]
    total, early = batch.problems * batch.group, 2 * ahead
    drawn = [lengths.draw(total, rng) for _ in range(steps + early + ahead)]
    published, begun, rows, counted_from = 0.0, 0, [], (0.0, 0.0)
    for step in range(steps + early):
        if step == early:
            counted_from = published, sum(sampler.busy for sampler in fleet)
        while begun <= step + ahead:
            for sampler, part in zip(fleet, np.array_split(drawn[begun], samplers), strict=True):
                sampler.add(begun, part)
            begun += 1
        ends_S = np.array([sampler.finish(step) for sampler in fleet])
        tokens_C = drawn[step].sum(1) + lengths.prompt + (lengths.replies - 1) * INSTRUCTION_TOKENS
        learning, learner_waiting = _learning(recipe, rates, tokens_C, learners)
        waited = max(0.0, ends_S.max() - published)
        ended = published + waited + learning
        for sampler in fleet:
            sampler.publish(ended, rates.publish)
        waiting = (ends_S.max() - ends_S.mean()) / max(ends_S.max() - published, 1e-9) if waited else 0.0
        rows.append((waited, learning, rates.publish, waiting, learner_waiting, tokens_C.sum(), drawn[step].sum()))
        published = ended + rates.publish
    busy = (sum(sampler.busy for sampler in fleet) - counted_from[1]) / (published - counted_from[0]) / samplers
    lag = sum(sampler.lag for sampler in fleet) / sum(sampler.tokens for sampler in fleet)
    return Simulated(*[*np.mean(rows[early:], axis=0).tolist(), busy, lag])


def _learning(recipe: Recipe, rates: Rates, tokens_C: np.ndarray, learners: int) -> tuple[float, float]:
    """Seconds of an update, and the share of them in which learners wait for the one with the most tokens."""
    section, sharing = recipe.learner, recipe.learner.sequence_parallel
    parts = np.array_split(tokens_C, max(1, learners // sharing))
    tokens_L = np.array([part.sum() for part in parts]) / sharing
    seconds = tokens_L.max() * rates.learner_token * section.epochs + rates.optimizer_step * section.optimizer_steps
    return seconds, 1 - tokens_L.mean() / tokens_L.max()
