"""The rollout side of a run: problems in, scored groups of trajectories out."""

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from itertools import groupby
from typing import Literal

import numpy as np

from rewards import Verdict
from rlcore.policy.truncation import Truncation
from rlcore.recipe import Recipe
from rlcore.rollout.conversation import Conversation
from rlcore.rollout.engine import RolloutEngine, Sampling
from rlcore.rollout.episodes import Episode, Judge, group_episodes, sample_groups, verdicts
from rlcore.rollout.sampling import mixed_seed
from rlcore.rollout.scoring import Scorer
from rlcore.rollout.stopping import StopTexts
from rlcore.rollout.streaming import Start, finished, iterated
from rlcore.types import Groups, Problem, Request, Trajectory, Turn


class Rollout:
    """An engine, the conversation it holds and the rewards that judge it."""

    def __init__(self, recipe: Recipe, engine: RolloutEngine, conversation: Conversation, scorer: Scorer):
        self.engine = engine
        self._recipe = recipe
        self._conversation = conversation
        self._scorer = scorer
        texts = recipe.rollout.stop
        self._stop = StopTexts(texts, conversation.said) if texts else None

    def together(self) -> AbstractContextManager[None]:
        """Wraps all attempts of a phase (see `RolloutEngine.together`)."""
        return self.engine.together()

    def groups(
        self,
        problems: Sequence[Problem],
        *,
        group: int,
        temperature: float,
        draw: tuple[str | int, ...],
        branches: int = 1,
        firsts: Sequence[Sequence[Turn]] = (),
    ) -> Groups:
        """`group` scored trajectories of each problem.

        `branches`, and `firsts` of each problem, are as for `group_episodes`. `draw` names the random numbers: those of
        a trajectory depend only on the recipe's seed, `draw` and its place.
        """
        return sample_groups(
            self.engine,
            self._conversation,
            problems,
            group,
            self._sampling(temperature, draw),
            deadline=self._recipe.rollout.deadline,
            branches=branches,
            firsts=firsts,
            judge=self._scorer.start,
        )

    async def group(
        self,
        problem: Problem,
        names: Sequence[str],
        *,
        draw: tuple[str | int, ...],
        branches: int = 1,
        firsts: Sequence[Turn] = (),
        least_version: int | None = None,
    ) -> list[Trajectory]:
        """Scored trajectories of one problem at the training temperature, one for each name; calls may overlap.

        The random numbers of each depend only on the recipe's seed, `draw` and its name. No token is sampled by weights
        older than `least_version`. `branches` and `firsts` are as for `group_episodes`.
        """
        sampling = self._sampling(self._recipe.rollout.temperature, draw)
        sampling = replace(sampling, least_version=least_version)
        keys, talk, judge = [mixed_seed(name) for name in names], self._conversation, self._scorer.start
        episodes = group_episodes(
            self.engine, talk, problem, sampling, keys, branches=branches, firsts=firsts, judge=judge
        )
        return list(await asyncio.gather(*(episode.run() for episode in episodes)))

    async def judged_again(self, group: Sequence[Trajectory]) -> list[Trajectory]:
        """The trajectories of a group; those with an attempt that has no score are judged once more."""

        async def judged(trajectory: Trajectory) -> Trajectory:
            if not np.isnan(trajectory.rewards_A).any():
                return trajectory
            coming = [self._scorer.start(trajectory.problem, attempt) for attempt in trajectory.attempts]
            return replace(trajectory, verdicts=await verdicts(coming))

        return list(await asyncio.gather(*map(judged, group)))

    def steps(self) -> int:
        """The engine's forward passes so far."""
        return self.engine.steps

    def reward_counts(self) -> Counter[str]:
        """The rewards' counters on this rank since the last call, by REWARD/COUNTER."""
        return self._scorer.counts()

    def stream(
        self,
        requests: Sequence[Request],
        *,
        temperature: float,
        draw: tuple[str | int, ...],
        adapters: Mapping[str, int] | None = None,
    ) -> Iterator[tuple[int, Trajectory]]:
        """Scored conversations as they end, each with the place of its request. Read it to its end within `together`.

        At most `rollout.slots` run at once. The random numbers of each depend only on the recipe's seed, `draw`, its
        problem and its number, not on the other requests. `adapters` says whose adapters each problem, by its id, goes
        through.
        """
        held: list[Future[Verdict]] = []  # so that equal attempts are judged once while this is read

        def judge(problem: Problem, attempt: Turn) -> Future[Verdict]:
            held.append(self._scorer.start(problem, attempt))
            return held[-1]

        yield from self._stream(self._conversation, requests, temperature, draw, judge, adapters)

    def first_attempts(self, requests: Sequence[Request], *, draw: tuple[str | int, ...]) -> Iterator[tuple[int, Turn]]:
        """As `stream`, but only the first attempt of each conversation, unscored."""
        section = self._recipe.conversation.model_copy(update={"kind": "correct", "attempts": 1})
        alone = Conversation(self._conversation.tokenizer, section, list(self._conversation.stop_ids))
        for place, trajectory in self._stream(alone, requests, self._recipe.rollout.temperature, draw):
            yield place, trajectory.turns[0]

    def first_turn(
        self, problem: Problem, ids: Sequence[int], logprobs: Sequence[float], finish: Literal["stop", "length"]
    ) -> Turn:
        """A stored first attempt as context, which is not trained."""
        text = self._conversation.text(ids, self._stop)
        prompt = self._conversation.open(problem)
        return Turn(prompt, tuple(ids), tuple(logprobs), finish, text, (0,) * len(ids), trained=False)

    def _stream(
        self,
        conversation: Conversation,
        requests: Sequence[Request],
        temperature: float,
        draw: tuple[str | int, ...],
        judge: Judge | None = None,
        adapters: Mapping[str, int] | None = None,
    ) -> Iterator[tuple[int, Trajectory]]:
        settings, sampling = self._recipe.rollout, self._sampling(temperature, draw)

        async def converse(problem: Problem, prompt: tuple[int, ...], sample: int) -> Trajectory:
            key = mixed_seed(problem.id, sample)
            own = replace(sampling, adapter=adapters[problem.id]) if adapters else sampling
            return await Episode(self.engine, conversation, problem, prompt, own, key, judge).run()

        def starts() -> Iterator[Start[Trajectory]]:
            for problem, same in groupby(requests, lambda request: request[0]):
                prompt = conversation.open(problem)
                yield from (partial(converse, problem, prompt, sample) for _, sample in same)

        ended = finished(starts(), window=settings.slots, deadline=settings.deadline, steps=self.steps)
        return iterated(ended)

    def _sampling(self, temperature: float, draw: tuple[str | int, ...]) -> Sampling:
        truncation, seed = Truncation.of(self._recipe.rollout), mixed_seed(self._recipe.seed, *draw)
        return Sampling(self._conversation.max_attempt_tokens, temperature, truncation, self._stop, seed)
