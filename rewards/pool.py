"""Scoring in worker processes that are killed at the deadline and replaced."""

from __future__ import annotations

import atexit
import json
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from rewards.dispatch import Dispatcher, Job
from rewards.registry import Spec, read_spec, spec_of
from rewards.reward import Completion
from rewards.verdict import RewardError, Verdict
from rewards.worker import LoadedReward

DEADLINE = 2.0
_SHARED_POOLS = 4


class RewardPool:
    """Scores completions by one or several rewards, in `workers` processes.

    `deadline` is in seconds for one completion and one reward. A function with an argument `timeout` bounds each
    completion itself, and gets that long instead. A worker that passes the deadline is killed with everything that it
    started and another takes its place; the other rows of its chunk are scored again, one by one.

    A function is called with a chunk of consecutive rows, as many as it scores in a tenth of a second (for an async
    one, or one with an argument `concurrency`, at least as many as it works on at once): one that compares the
    completions of a group with each other sees the chunk that it was given, not the whole batch.

    `memory_mb` limits the data of one worker. Linux only. Raises RewardError when a spec cannot be loaded.
    """

    def __init__(
        self, specs: Sequence[Spec], *, workers: int = 2, deadline: float = DEADLINE, memory_mb: int = 4096
    ) -> None:
        if not specs:
            raise RewardError("a pool needs at least one reward")
        for spec in specs:
            read_spec(spec)
        if workers < 1:
            raise RewardError(f"workers is {workers}: it takes at least 1")
        if not deadline > 0:
            raise RewardError(f"deadline is {deadline}: it takes a positive number of seconds")
        self._dispatcher = Dispatcher(list(specs), workers, deadline, memory_mb)
        self.rewards: list[LoadedReward] = self._dispatcher.loaded.result()

    def score(self, completions: Sequence[Completion], columns: Mapping[str, Sequence[Any]]) -> list[Verdict]:
        """One verdict for each completion, in order. Blocks until all are there."""
        return self.submit(completions, columns).result()

    def submit(self, completions: Sequence[Completion], columns: Mapping[str, Sequence[Any]]) -> Future[list[Verdict]]:
        """Like `score`, but returns at once. Raises RewardError for a missing column or one of another length."""
        for name, column in columns.items():
            if isinstance(column, (str, bytes)) or not hasattr(column, "__len__"):
                raise RewardError(f"column '{name}' is a {type(column).__name__}, not a list with a value for each row")
            if len(column) != len(completions):
                raise RewardError(f"column '{name}' has {len(column)} rows for {len(completions)} completions")
        for reward in self.rewards:
            missing = [name for name in reward.needed_columns if name not in columns]
            if missing:
                has = ", ".join(sorted(columns)) or "none"
                raise RewardError(f"reward '{reward.name}' needs column '{missing[0]}'; the data has: {has}")
        job = Job(list(completions), {name: list(column) for name, column in columns.items()}, self.rewards)
        self._dispatcher.add(job)
        return job.future

    @property
    def counters(self) -> dict[str, dict[str, int]]:
        """What rewards have counted in all workers so far, by reward: the judge its requests and tokens.

        A chunk that was cut off at the deadline is not in it.
        """
        return {name: dict(counter) for name, counter in list(self._dispatcher.counters.items())}

    @property
    def alive(self) -> bool:
        """Whether it can score: its processes may have been killed from outside."""
        return self._dispatcher.alive

    def close(self) -> None:
        """End the workers. What is still being scored fails with RewardError."""
        self._dispatcher.close()

    def __enter__(self) -> RewardPool:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


def score(
    reward: Spec | Callable[..., Any], completions: Sequence[Completion], *, deadline: float = DEADLINE, **columns: Any
) -> list[Verdict]:
    """Score completions by one reward, named by a spec or given as a function of a module; each column is a list.

    The worker processes are kept for the next call with the same reward and deadline, and end with this process.
    """
    spec = reward if isinstance(reward, (str, Mapping)) else spec_of(reward)
    return shared_pool(spec, deadline).score(completions, columns)


_shared: OrderedDict[str, RewardPool] = OrderedDict()
_shared_lock = threading.Lock()


def shared_pool(spec: Spec, deadline: float = DEADLINE) -> RewardPool:
    """The process-wide pool of one reward, a worker for each core. The few used last are kept, while they live."""
    key = json.dumps([spec, deadline], default=repr, sort_keys=True)
    with _shared_lock:
        if key not in _shared or not _shared[key].alive:
            _shared[key] = RewardPool([spec], workers=len(os.sched_getaffinity(0)), deadline=deadline)
        _shared.move_to_end(key)
        evicted = _shared.popitem(last=False)[1] if len(_shared) > _SHARED_POOLS else None
        pool = _shared[key]
    if evicted is not None:
        evicted.close()
    return pool


def _close_shared() -> None:
    while _shared:
        _shared.popitem()[1].close()


def _forget_shared() -> None:
    # A forked child has the pools' sockets but not their threads: they are its parent's.
    global _shared_lock
    _shared_lock = threading.Lock()
    _shared.clear()


atexit.register(_close_shared)
os.register_at_fork(after_in_child=_forget_shared)
