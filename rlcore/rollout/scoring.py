"""Scoring that overlaps with sampling: attempts go to the reward workers as they end."""

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from rewards import RewardError, RewardPool, Verdict
from rlcore.errors import UserError
from rlcore.recipe import schema
from rlcore.types import Groups, Message, Problem, Trajectory, Turn

CHUNK = 256
"""Attempts sent to the workers together: large enough that messages cost nothing, small enough to overlap."""

Key = tuple[str, tuple[int, ...], str]
"""A problem's id, and the tokens and the text of an attempt at it (where a server gave text alone, no tokens)."""


class Scorer:
    """The rewards of a recipe in their worker processes. Equal attempts at a problem are judged once."""

    def __init__(self, section: schema.RewardsConfig):
        """Raises UserError for a reward that does not exist or cannot be loaded."""
        specs = [function.model_dump() for function in section.functions]
        with _told():
            self._pool = RewardPool(specs, workers=section.workers, deadline=section.deadline)
        self._counted: Counter[str] = Counter()
        self._waiting: dict[Key, Problem] = {}
        self._sent: dict[Key, tuple[Future[list[Verdict]], int]] = {}

    def start(self, problem: Problem, attempt: Turn) -> None:
        """Begins to score an attempt that just ended."""
        key = _key(problem, attempt)
        if key not in self._sent:
            self._waiting[key] = problem
            if len(self._waiting) >= CHUNK:
                self._send()

    def score(self, groups: Groups) -> Groups:
        """The same trajectories with the verdicts of all their attempts. Raises UserError when the rewards are gone."""
        self._send()
        scored = [[self._judged(trajectory) for trajectory in group] for group in groups]
        self.forget()
        return scored

    async def judged(self, trajectory: Trajectory) -> Trajectory:
        """A trajectory that just ended with the verdicts of all its attempts, as soon as they are there."""
        await asyncio.sleep(0)  # others that ended with it go to the workers in one message
        self._send()
        futures = {self._sent[_key(trajectory.problem, turn)][0] for turn in trajectory.attempts}
        if futures:
            # Shielded: what a stopped conversation waits for, the workers finish.
            with _told():
                await asyncio.shield(asyncio.gather(*map(asyncio.wrap_future, futures)))
        return self._judged(trajectory)

    def forget(self) -> None:
        """Equal attempts are judged anew from here on."""
        self._sent.clear()

    def counts(self) -> Counter[str]:
        """What the rewards have counted since the last call, as REWARD/COUNTER; for most it is nothing."""
        counted = Counter({f"{reward}/{name}": n for reward, c in self._pool.counters.items() for name, n in c.items()})
        new, self._counted = counted - self._counted, counted
        return new

    def close(self) -> None:
        self._pool.close()

    def _judged(self, trajectory: Trajectory) -> Trajectory:
        sent = (self._sent[_key(trajectory.problem, turn)] for turn in trajectory.attempts)
        with _told():
            return replace(trajectory, verdicts=tuple(future.result()[at] for future, at in sent))

    def _send(self) -> None:
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, {}
        attempts = [(problem, ids, text) for (_, ids, text), problem in waiting.items()]
        with _told():
            future = self._pool.submit(*for_rewards(attempts))
        self._sent.update({key: (future, at) for at, key in enumerate(waiting)})


def for_rewards(attempts: Sequence[tuple[Problem, Sequence[int], str]]) -> tuple[list[Any], dict[str, list[Any]]]:
    """Completions and columns as rewards take them, in TRL's form, of `(problem, ids, text)` of each attempt.

    Prompts and completions are messages where the data hold messages, else texts.
    """
    problems = [problem for problem, _, _ in attempts]
    names = sorted({name for problem in problems for name in problem.columns})
    columns: dict[str, list[Any]] = {name: [problem.columns.get(name) for problem in problems] for name in names}
    columns["prompts"] = [_prompt(problem) for problem in problems]
    columns["completion_ids"] = [list(ids) for _, ids, _ in attempts]
    return [_completion(problem, text) for problem, _, text in attempts], columns


@contextmanager
def _told() -> Iterator[None]:
    """UserError for what the rewards refuse, and for rewards that are gone."""
    try:
        yield
    except RewardError as error:
        raise UserError(f"rewards: {error}") from None


def _key(problem: Problem, attempt: Turn) -> Key:
    return problem.id, attempt.response_ids, attempt.text


def _prompt(problem: Problem) -> str | list[Message]:
    return list(problem.messages) if problem.conversational else problem.messages[-1]["content"]


def _completion(problem: Problem, text: str) -> str | list[Message]:
    return [{"role": "assistant", "content": text}] if problem.conversational else text
