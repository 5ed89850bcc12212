"""Commands and ranks in processes of their own, forked from one that has imported what takes seconds.

What depends on a fresh interpreter (what `torchrun` itself says, an environment that libraries read as they are
imported) is tested with one.
"""

import atexit
import gc
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from importlib import import_module
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from rlcore.rollout.vllm.in_process import OWN_ENVIRONMENT

VLLM = (
    "vllm.v1.engine.llm_engine",
    "vllm.v1.worker.cpu_worker",
    "vllm.model_executor.models.qwen2",
    "vllm.model_executor.layers.quantization.online.base",
)
TIMEOUT = 900
"""Seconds."""
FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(
    [
        "rlcore.experiment",
        "rlcore.train.loop",
        "rlcore.sft.fine_tune",
        "rlcore.report.page",
        "torch._inductor.compile_fx",
        "tests.preloaded",
        "tests.processes",
    ]
)


Environment = Mapping[str, str] | None
Done = subprocess.CompletedProcess[str]


def rlcore(*arguments: object, env: Environment = None, vllm: bool = False) -> Done:
    """`rlcore ARGUMENTS...`; with `vllm` forked from a process that has imported vLLM as well."""
    return python("-m", "rlcore", *arguments, env=env, vllm=vllm)


def python(*words: object, env: Environment = None, vllm: bool = False) -> Done:
    """`python WORDS...`: a script or `-m` and a module, then its arguments."""
    return _finished(_program, [*map(str, words)], env, vllm)


def torchrun(processes: int, *words: object, env: Environment = None, vllm: bool = False) -> Done:
    """`torchrun --standalone --nproc-per-node PROCESSES WORDS...`, words as for `python`."""
    return _finished(_agent, [str(processes), *map(str, words)], env, vllm)


class Started:
    """`python WORDS...` that runs meanwhile: as much of `subprocess.Popen` as tests of signals need.

    It leads a process group of its own; what it says on both streams is one text. With `processes` it is `torchrun`.
    """

    def __init__(self, *words: object, env: Environment = None, processes: int | None = None):
        self._folder = tempfile.TemporaryDirectory()
        self._said = Path(self._folder.name) / "said"
        self._said.touch()
        target, first = (_agent, [str(processes)]) if processes else (_program, [])
        job = _job(target, [*first, *map(str, words)], env, [self._said] * 2)
        self._process = FORKED.Process(target=_begin, args=job)
        self._process.start()
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def ranks(self) -> list[int]:
        """The processes that `torchrun` started, in the order of their ranks."""
        return sorted(pid for pid, (_, parent) in _table().items() if parent == self.pid)

    def family(self) -> set[int]:
        """It and all that it has started, at this moment."""
        table, found = _table(), {self.pid}
        while more := {pid for pid, (_, parent) in table.items() if parent in found} - found:
            found |= more
        return found

    @property
    def said(self) -> str:
        """What it has said so far."""
        return self._said.read_text()

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        with suppress(ProcessLookupError):  # it has ended
            self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float = TIMEOUT) -> str:
        """What it said by its end. Raises TimeoutError where it does not end."""
        self._process.join(timeout)
        if self.returncode is None:
            self.kill()
            raise TimeoutError(self.said)
        return self.said


def alive(pids: set[int]) -> set[int]:
    """Those of the processes that have not ended."""
    return {pid for pid, (state, _) in _table().items() if pid in pids and state not in "ZX"}


def _table() -> dict[int, tuple[str, int]]:
    """State and parent of all processes."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            state, parent, *_ = (folder / "stat").read_text().rpartition(")")[2].split()
            found[int(folder.name)] = state, int(parent)
    return found


def _finished(target: Callable[..., None], words: list[str], env: Environment, vllm: bool) -> Done:
    with tempfile.TemporaryDirectory() as folder:
        said = [Path(folder) / name for name in ("stdout", "stderr")]
        job = _job(target, words, env, said)
        code = _nursery().run(job) if vllm else _ended(FORKED.Process(target=_begin, args=job))
        told = [path.read_text() for path in said]
        if code is None:
            raise subprocess.TimeoutExpired(words, TIMEOUT, *told)
        return subprocess.CompletedProcess(words, code, *told)


def _job(target: Callable[..., None], words: list[str], env: Environment, said: list[Path]) -> tuple[Any, ...]:
    return target, words, os.getcwd(), {**os.environ, **(env or {})}, said


def _ended(process: BaseProcess) -> int | None:
    """The exit code of a process that is started here; None where it was killed because it did not end."""
    process.start()
    process.join(TIMEOUT)
    if process.exitcode is None:
        process.kill()
    return process.exitcode


class Nursery:
    """A process that has imported vLLM, which takes longer than most runs, and forks one command at a time."""

    def __init__(self) -> None:
        self._channel, other = FORKED.Pipe()
        FORKED.Process(target=_tend, args=(other,)).start()
        atexit.register(self._channel.close)  # before multiprocessing waits for its children

    def run(self, job: tuple[Any, ...]) -> int | None:
        self._channel.send(job)
        return self._channel.recv()


_nursery = cache(Nursery)


def _tend(channel: Connection) -> None:
    os.environ |= OWN_ENVIRONMENT
    for name in VLLM:
        import_module(name)
    with suppress(EOFError):
        while job := channel.recv():
            channel.send(_ended(multiprocessing.get_context("fork").Process(target=_begin, args=job)))


def _begin(target: Callable[..., None], words: list[str], cwd: str, env: dict[str, str], said: list[Path]) -> None:
    gc.freeze()  # what was imported before need not be looked through for garbage
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    os.setsid()  # a signal to its group is not for the tests
    for stream, path in enumerate(said, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    target(*words)


def _program(*words: str) -> None:
    """Runs a module or script to its end, handlers of `atexit` included."""
    atexit._clear()
    try:
        if words[0] == "-m":
            sys.argv = list(words[1:])
            if not hasattr(sys.modules.get(words[1]), "__path__"):  # a new package would not know what it holds
                sys.modules.pop(words[1], None)
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = list(words)
            sys.path.insert(0, str(Path(words[0]).parent))
            runpy.run_path(words[0], run_name="__main__")
    finally:
        atexit._run_exitfuncs()


def _agent(processes: str, *words: str) -> None:
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=int(processes),
        run_id=str(os.getpid()),
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        start_method="fork",
        max_restarts=0,
    )
    elastic_launch(config, _program)(*words)
