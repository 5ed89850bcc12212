"""Scoring that overlaps with sampling: attempts go to the reward workers as they end."""

import asyncio
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any
from weakref import WeakValueDictionary

from rewards import RewardError, RewardPool, Verdict
from rlcore.errors import UserError
from rlcore.recipe import schema
from rlcore.types import Problem, Turn

CHUNK = 256
"""Attempts sent to the workers together: enough that messages cost nothing, few enough to overlap with sampling."""
FLUSH = 0.01
"""Seconds that an attempt waits for others to be sent with."""

Key = tuple[int, tuple[int, ...], str]
"""A problem's identity, and the tokens (none if a server returned text alone) and the text of an attempt at it."""


class _Coming(Future[Verdict]):
    """The verdict on an attempt at `problem`, which lives as long: nothing else has its identity meanwhile."""

    def __init__(self, problem: Problem):
        super().__init__()
        self.problem = problem


class Scorer:
    """The rewards of a recipe in their worker processes, for conversations in any thread's event loop."""

    def __init__(self, section: schema.RewardsConfig):
        """Raises UserError for a reward that does not exist or cannot be loaded."""
        specs = [function.model_dump() for function in section.functions]
        try:
            self._pool = RewardPool(specs, workers=section.workers, deadline=section.deadline)
        except RewardError as error:
            raise _refused(error) from None
        self._counted: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._waiting: list[tuple[Turn, _Coming]] = []
        self._known: WeakValueDictionary[Key, _Coming] = WeakValueDictionary()

    def start(self, problem: Problem, attempt: Turn) -> Future[Verdict]:
        """Begins to score an attempt that just ended. Must be called in an event loop.

        Equal attempts at a problem share one verdict for as long as somebody holds it; problems of two data sets may
        have one id, but not one gold answer. It is a UserError if the rewards refuse the attempt or have died.
        """
        key = id(problem), attempt.response_ids, attempt.text
        with self._lock:
            verdict = self._known.get(key)
            if verdict is not None:
                return verdict
            verdict = self._known[key] = _Coming(problem)
            self._waiting.append((attempt, verdict))
            full = len(self._waiting) >= CHUNK
        if full:
            self._send()
        else:
            asyncio.get_running_loop().call_later(FLUSH, self._send)
        return verdict

    def counts(self) -> Counter[str]:
        """The rewards' counters since the last call, by REWARD/COUNTER; most rewards have none."""
        counted = Counter({f"{reward}/{name}": n for reward, c in self._pool.counters.items() for name, n in c.items()})
        new, self._counted = counted - self._counted, counted
        return new

    def close(self) -> None:
        self._pool.close()

    def _send(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        attempts = [(verdict.problem, turn.response_ids, turn.text) for turn, verdict in waiting]

        def tell(judged: Future[list[Verdict]]) -> None:
            failure = judged.exception()
            for at, (_, verdict) in enumerate(waiting):
                if failure:
                    verdict.set_exception(_refused(failure))
                else:
                    verdict.set_result(judged.result()[at])

        try:
            self._pool.submit(*for_rewards(attempts)).add_done_callback(tell)
        except RewardError as error:
            for _, verdict in waiting:
                verdict.set_exception(_refused(error))


def for_rewards(attempts: Sequence[tuple[Problem, Sequence[int], str]]) -> tuple[list[Any], dict[str, list[Any]]]:
    """Completions and columns in TRL's form, which rewards take, from `(problem, ids, text)` of each attempt.

    Prompts and completions are messages if the data hold messages, else texts.
    """
    problems = [problem for problem, _, _ in attempts]
    names = sorted({name for problem in problems for name in problem.columns})
    columns: dict[str, list[Any]] = {name: [problem.columns.get(name) for problem in problems] for name in names}
    columns["prompts"] = [list(p.messages) if p.conversational else p.messages[-1]["content"] for p in problems]
    columns["completion_ids"] = [list(ids) for _, ids, _ in attempts]
    completions = [
        [{"role": "assistant", "content": text}] if problem.conversational else text for problem, _, text in attempts
    ]
    return completions, columns


def _refused(error: BaseException) -> BaseException:
    """What rewards refuse, and rewards that have died, as a UserError."""
    return UserError(f"rewards: {error}") if isinstance(error, RewardError) else error
