"""Commands and ranks in processes of their own, forked from one that has imported what takes seconds.

What depends on a fresh interpreter (signals, exit codes of `torchrun`, an environment that libraries read when they are
imported) is tested with one.
"""

import atexit
import gc
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from torch.distributed.launcher.api import LaunchConfig, elastic_launch

TIMEOUT = 900
"""Seconds."""
FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(
    ["rlcore.experiment", "rlcore.train.loop", "torch._inductor.compile_fx", "tests.processes"]
)


def rlcore(*arguments: object, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """`rlcore ARGUMENTS...`."""
    return python("-m", "rlcore", *arguments, env=env)


def python(*words: object, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """`python WORDS...`: a script or `-m` and a module, then its arguments."""
    return _finished(_program, [*map(str, words)], env)


def torchrun(processes: int, *words: object, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """`torchrun --standalone --nproc-per-node PROCESSES WORDS...`, words as for `python`."""
    return _finished(_agent, [str(processes), *map(str, words)], env)


def _finished(
    target: Callable[..., None], words: list[str], env: Mapping[str, str] | None
) -> subprocess.CompletedProcess[str]:
    with tempfile.TemporaryDirectory() as folder:
        said = [Path(folder) / name for name in ("stdout", "stderr")]
        where = {**os.environ, **(env or {})}
        process = FORKED.Process(target=_begin, args=(target, words, os.getcwd(), where, said))
        process.start()
        process.join(TIMEOUT)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(words, TIMEOUT, *(path.read_bytes() for path in said))
        return subprocess.CompletedProcess(words, process.exitcode, *(path.read_text() for path in said))


def _begin(target: Callable[..., None], words: list[str], cwd: str, env: dict[str, str], said: list[Path]) -> None:
    gc.freeze()  # what was imported before need not be looked through for garbage
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    for stream, path in enumerate(said, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), stream)
    target(*words)


def _program(*words: str) -> None:
    """Runs a module or script to its end, handlers of `atexit` included."""
    atexit._clear()
    try:
        if words[0] == "-m":
            sys.argv = list(words[1:])
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
