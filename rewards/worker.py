"""The processes behind a RewardPool: a server that loads the rewards once, and the workers that it forks.

The server is a fresh interpreter with one thread, so its forks are safe whatever threads or devices the trainer has.
It outlives no one: it ends when its parent does, and takes every worker, with that worker's process group, along.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import pickle
import resource
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from math import ceil
from typing import Any

from rewards.registry import Spec, load_reward
from rewards.reward import Reward
from rewards.verdict import RewardError, Verdict, one_line
from rewards.wire import Frames, send_frame

_PR_SET_PDEATHSIG = 1
CONTROL_LIMIT = 1 << 17


@dataclass(frozen=True)
class Setup:
    """What the server is told first. `path` is the parent's sys.path, `memory_mb` the limit of one worker."""

    path: list[str]
    specs: list[Spec]
    memory_mb: int


@dataclass(frozen=True)
class LoadedReward:
    """What the parent needs to know of a reward that the server has loaded."""

    name: str
    weight: float
    needed_columns: list[str]
    own_limit: float | None
    at_once: int
    late: float | None
    judges: bool


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the thread that started it ends."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def serve(control: socket.socket, parent: int) -> None:
    """Load the rewards, then fork a worker or end one for each message of the parent, until it hangs up.

    A message is the number of a worker, with the worker's end of their socket if it is to be forked.
    """
    die_with_parent(parent)
    setup: Setup = pickle.loads(control.recv(CONTROL_LIMIT))
    sys.path[:] = setup.path
    try:
        rewards = [load_reward(spec) for spec in setup.specs]
        loaded = [
            asdict(LoadedReward(r.name, r.weight, r.needed_columns, r.own_limit, r.at_once, r.late, r.judges))
            for r in rewards
        ]
    except Exception as error:  # a user's file may raise anything; it is told in the parent
        reason = str(error) if isinstance(error, RewardError) else f"cannot load a reward: {one_line(error)}"
        control.send(json.dumps({"error": reason}).encode())
        return
    control.send(json.dumps({"rewards": loaded}).encode())
    for reward in rewards:
        getattr(reward.function, "prepare", lambda: None)()
    gc.freeze()  # what was loaded is shared with the workers and not scanned in each
    workers: dict[bytes, int] = {}
    while True:
        try:
            number, descriptors, _, _ = socket.recv_fds(control, CONTROL_LIMIT, 1)
        except ConnectionResetError:  # it hung up without having read all that was sent
            break
        if not number:
            break
        if descriptors:
            workers[number] = _fork_worker(rewards, setup.memory_mb, control, descriptors[0])
            os.close(descriptors[0])
        else:
            # What the worker itself started goes too, while its process group cannot yet be another's.
            _kill_group(workers[number])
            os.waitpid(workers.pop(number), 0)
    for pid in workers.values():
        _kill_group(pid)


def _kill_group(leader: int) -> None:
    with suppress(ProcessLookupError):  # it may be ending, or about to form its group
        os.killpg(leader, signal.SIGKILL)
    with suppress(ProcessLookupError):
        os.kill(leader, signal.SIGKILL)


def _fork_worker(rewards: Sequence[Reward], memory_mb: int, control: socket.socket, descriptor: int) -> int:
    server = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            os.setpgid(0, 0)
            die_with_parent(server)
            control.close()
            _work(rewards, memory_mb, descriptor)
        except EOFError:
            pass
        finally:
            os._exit(0)
    return pid


def _work(rewards: Sequence[Reward], memory_mb: int, jobs: int) -> None:
    # RLIMIT_DATA counts what a process can fill; RLIMIT_AS would also count a library's unused reservations.
    limit = memory_mb << 20
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for reward in rewards:
        reward.start()
    send_frame(jobs, b"up")
    frames = Frames(partial(os.read, jobs))
    while True:
        send_frame(jobs, json.dumps(_reply(rewards, frames.receive())).encode())


def _reply(rewards: Sequence[Reward], frame: bytes) -> dict[str, Any]:
    try:
        index, cpu_seconds, completions, columns = pickle.loads(frame)
        _limit_cpu(cpu_seconds)
        before = rewards[index].counters()
        verdicts = rewards[index].verdicts(completions, columns)
        counted = {name: count - before.get(name, 0) for name, count in rewards[index].counters().items()}
    except Exception as error:  # the design: a failing reward is a verdict
        return {"failed": one_line(error)}
    return {"verdicts": [*map(pack, verdicts)], "counted": counted}


def _limit_cpu(seconds: float) -> None:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (ceil(usage.ru_utime + usage.ru_stime + seconds), hard))


def pack(v: Verdict) -> list[Any]:
    """A verdict as JSON can say it."""
    return [v.score, v.status, v.detail, v.seconds, v.answer, {name: pack(part) for name, part in v.parts.items()}]


def unpack(rows: Sequence[Sequence[Any]]) -> list[Verdict]:
    """Verdicts that were packed. Rows that say the same share one object."""

    @cache
    def plain(score: float | None, status: str, detail: str, seconds: float, answer: str | None) -> Verdict:
        return Verdict(score, status, detail, seconds, answer=answer)

    return [
        replace(plain(*told), parts=dict(zip(parts, unpack([*parts.values()]), strict=True))) if parts else plain(*told)
        for *told, parts in rows
    ]


def main() -> None:
    """Entry of the server process: the number of its control socket and the pid of its parent are its arguments."""
    with suppress(EOFError, ConnectionError):  # the parent ended before it was answered
        serve(socket.socket(fileno=int(sys.argv[1])), parent=int(sys.argv[2]))
