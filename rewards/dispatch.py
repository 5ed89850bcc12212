"""The one thread of a RewardPool that owns its processes: it hands out chunks, keeps deadlines, replaces workers."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import os
import pickle
import socket
import subprocess
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rewards.registry import Spec
from rewards.reward import Completion
from rewards.verdict import RewardError, Verdict, combine
from rewards.wire import HEADER_SIZE, framed
from rewards.worker import CONTROL_LIMIT, LoadedReward, Setup, unpack

_SLICE = 0.1  # seconds of work in one chunk: short enough to balance, long enough to make messages free
_GRACE = 1.0  # seconds beyond its own limit that a self-limiting function gets
_SERVER_ENDED = "the reward server ended"
_START_LIMIT = 120.0  # seconds for the server to load and for a worker to come up


@dataclass
class Job:
    """One call of `submit`: the rows, and what has been said of them, `verdicts_RN`: by reward, then row."""

    completions: list[Completion]
    columns: dict[str, list[Any]]
    rewards: Sequence[LoadedReward]
    future: Future[list[Verdict]] = field(default_factory=Future)

    def __post_init__(self) -> None:
        rows = len(self.completions)
        self.verdicts_RN: list[list[Verdict | None]] = [[None] * rows for _ in self.rewards]
        self.left = rows * len(self.rewards)
        self.names = _distinct([reward.name for reward in self.rewards])

    def settle(self, reward: int, start: int, verdicts: Sequence[Verdict]) -> None:
        """Write down the verdicts of consecutive rows; the last ones complete the future."""
        self.verdicts_RN[reward][start : start + len(verdicts)] = verdicts
        self.left -= len(verdicts)
        if self.left == 0:
            self.future.set_result([self._whole(row) for row in range(len(self.completions))])

    def _whole(self, row: int) -> Verdict:
        parts = [verdicts[row] for verdicts in self.verdicts_RN]
        if len(parts) == 1:
            only, weight = parts[0], self.rewards[0].weight
            assert only is not None
            return only if only.score is None or weight == 1 else replace(only, score=weight * only.score)
        weights = {name: reward.weight for name, reward in zip(self.names, self.rewards, strict=True)}
        judging = [name for name, reward in zip(self.names, self.rewards, strict=True) if reward.judges]
        told = {name: part for name, part in zip(self.names, parts, strict=True) if part is not None}
        return combine(told, weights, judging)


def _distinct(names: Sequence[str]) -> list[str]:
    return [name if name not in names[:i] else f"{name}#{names[:i].count(name) + 1}" for i, name in enumerate(names)]


@dataclass
class Task:
    """Rows `start` to `stop` of a job, to be scored by one of its rewards."""

    job: Job
    reward: int
    start: int
    stop: int


class Dispatcher:
    """Runs the server and its workers from a thread of its own, which the kernel ties their lives to."""

    def __init__(self, specs: list[Spec], workers: int, deadline: float, memory_mb: int) -> None:
        self._setup = Setup(sys.path.copy(), specs, memory_mb)
        self._size = workers
        self._deadline = deadline
        self.loaded: Future[list[LoadedReward]] = Future()
        self.counters: dict[str, Counter[str]] = {}
        self._costs: dict[int, float] = {}  # seconds a row, by reward
        self._tasks: deque[Task] = deque()
        self._numbers = itertools.count()  # of workers
        self._more, self._end = asyncio.Event(), asyncio.Event()
        self._why_closed = "this reward pool is closed"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="reward-dispatcher", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether jobs can be added."""
        return self._thread.is_alive() and not self._end.is_set()

    def add(self, job: Job) -> None:
        """Queue a job. Raises RewardError when the pool is closed or its processes are gone."""
        if not job.left:
            job.future.set_result([])
            return
        self._tasks.extend(Task(job, reward, 0, len(job.completions)) for reward in range(len(job.rewards)))
        if not self.alive:
            raise RewardError(self._why_closed)
        self._tell(self._more.set)

    def close(self) -> None:
        """End every process of the pool and wait for them."""
        self._tell(self._end.set)
        self._thread.join()

    def _tell(self, change: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # it has ended, and failed what was queued
            self._loop.call_soon_threadsafe(change)

    def _run(self) -> None:
        control, remote = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        server = self._start_server(remote)
        remote.close()
        try:
            self.loaded.set_result(self._load(control))
            self._loop.run_until_complete(self._serve(control))
        except RewardError as error:
            self._why_closed = str(error)
        except ConnectionError:  # a worker's end was seen before the server's, which was then asked for another
            self._why_closed = _SERVER_ENDED
        finally:
            self._end.set()
            if not self.loaded.done():
                self.loaded.set_exception(RewardError(self._why_closed))
            control.close()
            _end(server)
            self._loop.close()
            while self._tasks:
                job = self._tasks.popleft().job
                if not job.future.done():
                    job.future.set_exception(RewardError(self._why_closed))

    def _start_server(self, remote: socket.socket) -> subprocess.Popen[bytes]:
        root = str(Path(__file__).resolve().parent.parent)
        start = f"import sys; sys.path.insert(0, {root!r}); from rewards.worker import main; main()"
        command = [sys.executable, "-c", start, str(remote.fileno()), str(os.getpid())]
        # A session of its own: Ctrl-C in a terminal reaches the whole group, and the caller still wants its verdicts.
        return subprocess.Popen(command, pass_fds=[remote.fileno()], stdin=subprocess.DEVNULL, start_new_session=True)

    def _load(self, control: socket.socket) -> list[LoadedReward]:
        control.settimeout(_START_LIMIT)
        try:
            control.send(pickle.dumps(self._setup))
            answer = control.recv(CONTROL_LIMIT)
        except TimeoutError as error:
            raise RewardError(f"rewards did not load within {_START_LIMIT:.0f} s") from error
        except ConnectionError:  # it ended before it had read what it was sent
            answer = b""
        if not answer:
            raise RewardError("the reward server ended while it loaded the rewards")
        message = json.loads(answer)
        if "error" in message:
            raise RewardError(message["error"])
        return [LoadedReward(**loaded) for loaded in message["rewards"]]

    async def _serve(self, control: socket.socket) -> None:
        """Keep workers at work until the pool is closed or the server ends."""
        self._loop.add_reader(control, self._server_ended)
        workers = [asyncio.ensure_future(self._keep_worker(control)) for _ in range(self._size)]
        await asyncio.wait([asyncio.ensure_future(self._end.wait()), *workers], return_when=asyncio.FIRST_COMPLETED)
        self._end.set()
        self._loop.remove_reader(control)
        for worker in workers:
            worker.cancel()
        for outcome in await asyncio.gather(*workers, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome

    def _server_ended(self) -> None:
        self._why_closed = _SERVER_ENDED
        self._end.set()

    async def _keep_worker(self, control: socket.socket) -> None:
        """Have a worker score task after task, and another one when it has ended."""
        while True:
            mine, theirs = socket.socketpair()
            number = str(next(self._numbers)).encode()
            socket.send_fds(control, [number], [theirs.fileno()])
            theirs.close()
            reader, writer = await asyncio.open_connection(sock=mine)
            try:
                if await _within(_START_LIMIT, _frame(reader)) is None:
                    raise RewardError(f"a reward worker did not come up within {_START_LIMIT:.0f} s")
                while await self._score(await self._next_task(), reader, writer):
                    pass
            except (EOFError, ConnectionError):
                pass  # it ended before its first task
            finally:
                writer.close()
            control.send(number)

    async def _next_task(self) -> Task:
        while not self._tasks:
            self._more.clear()
            await self._more.wait()
        return self._cut(self._tasks.popleft())

    async def _score(self, task: Task, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Have a worker score a task. Returns whether it can score another."""
        if reader.at_eof():  # it was killed while it waited
            self._tasks.appendleft(task)
            return False
        rows = slice(task.start, task.stop)
        columns = {name: column[rows] for name, column in task.job.columns.items()}
        budget = self._budget(task.reward, task.stop - task.start)
        writer.write(framed(pickle.dumps((task.reward, budget + 1, task.job.completions[rows], columns))))
        try:
            frame = await _within(budget, _frame(reader))
        except (EOFError, ConnectionError):
            self._blame(task, Verdict(None, "error", "the reward's process died (crash, or CPU or memory limit)"))
            return False
        except asyncio.CancelledError:
            self._tasks.append(task)  # to be failed with all others
            raise
        reward = task.job.rewards[task.reward]
        if frame is None:
            detail = f"reward '{reward.name}' passed its deadline"
            self._blame(task, Verdict(reward.late, "timeout", detail, self._deadline))
            return False
        reply = json.loads(frame)
        if "failed" in reply:
            self._blame(task, Verdict(None, "error", f"reward '{reward.name}': {reply['failed']}"))
        else:
            self._settle(task, unpack(reply["verdicts"]), reply["counted"])
        return True

    def _settle(self, task: Task, verdicts: Sequence[Verdict], counted: dict[str, int]) -> None:
        if counted:
            self.counters.setdefault(task.job.names[task.reward], Counter()).update(counted)
        cost = max(sum(verdict.seconds for verdict in verdicts) / len(verdicts), 1e-6)
        self._costs[task.reward] = (self._costs.get(task.reward, cost) + cost) / 2
        task.job.settle(task.reward, task.start, verdicts)

    def _budget(self, reward: int, rows: int) -> float:
        limit = self.loaded.result()[reward].own_limit
        return self._deadline if limit is None else (limit + _GRACE) * rows

    def _cut(self, task: Task) -> Task:
        """The first rows of a task, as many as are due for one chunk; the rest goes back to the queue."""
        cost, rows = self._costs.get(task.reward), task.stop - task.start
        due = 2 if cost is None else int(_SLICE / cost)
        share = math.ceil(rows / (2 * self._size))  # smaller towards the end, so that no worker waits long for the last
        size = max(1, min(share, max(due, task.job.rewards[task.reward].at_once)))
        # One row alone would hide that a function returns too few or too many scores, so no row goes or is left alone;
        # unless two may well pass the deadline: then they would be tried one by one in any case. What a function
        # returns for a lone row, it returns for having seen that row only.
        if cost is None or 2 * cost < self._budget(task.reward, 1):
            size = min(max(size, 2), rows)
            size += rows - size == 1
        if size < rows:
            self._tasks.appendleft(replace(task, start=task.start + size))
        return replace(task, stop=task.start + size)

    def _blame(self, task: Task, verdict: Verdict) -> None:
        """Give the verdict to a lone row; of several rows any may be the culprit, so each is tried alone."""
        if task.stop - task.start == 1:
            task.job.settle(task.reward, task.start, [verdict])
        else:
            rows = range(task.start, task.stop)
            self._tasks.extendleft(Task(task.job, task.reward, row, row + 1) for row in reversed(rows))
            self._more.set()


async def _frame(reader: asyncio.StreamReader) -> bytes:
    """The next frame of a worker. Raises EOFError or ConnectionError when that has ended."""
    return await reader.readexactly(int.from_bytes(await reader.readexactly(HEADER_SIZE), "big"))


async def _within(seconds: float, read: Coroutine[Any, Any, bytes]) -> bytes | None:
    """What is read, if it is there in time: looked at once more at the end, for this thread may have been held up."""
    reading = asyncio.ensure_future(read)
    try:
        await asyncio.wait([reading], timeout=seconds)
        return reading.result() if reading.done() else None
    finally:
        reading.cancel()


def _end(server: subprocess.Popen[bytes]) -> None:
    try:
        server.wait(5)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
