"""Running untrusted Python where it can see nothing, reach no one and leave nothing behind.

A `Sandbox` is the judging side: it starts jobs one after another and speaks with them over a socket. What it reads
there was written by the untrusted side and is treated so. Linux only.
"""

from __future__ import annotations

import json
import logging
import marshal
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from rewards.sandbox.guest import OUTPUT_LIMIT
from rewards.sandbox.modules import files_of
from rewards.sandbox.root import readable_paths
from rewards.sandbox.zygote import BUBBLEWRAP, READY, TIERS, UNSAFE
from rewards.verdict import RewardError
from rewards.wire import Frames, framed

log = logging.getLogger(__name__)

_START_LIMIT = 30.0
_END_LIMIT = 10.0
_ROOT = Path(__file__).resolve().parents[2]
_ENVIRONMENT = {
    "LD_BIND_NOW": "1",  # a name that is bound late is bound again in every fork
    "MALLOC_ARENA_MAX": "1",  # else each thread reserves 64 MiB of the address space
    **{f"{library}_NUM_THREADS": "1" for library in ("OPENBLAS", "OMP", "MKL")},  # a zygote has no thread to fork
}
# The package itself is not imported: a zygote knows the sandbox and nothing else of the rewards.
_BOOT = (
    "import sys, types; package = types.ModuleType('rewards'); package.__path__ = [{folder!r}]; "
    "sandbox = types.ModuleType('rewards.sandbox'); sandbox.__path__ = [{folder!r} + '/sandbox']; "
    "sys.modules.update({{'rewards': package, 'rewards.sandbox': sandbox}}); "
    "from rewards.sandbox.zygote import main; main()"
).format(folder=str(_ROOT / "rewards"))


class JobOver(Exception):
    """The job cannot answer any more: it ended, was cut off, or broke the protocol."""


class Job:
    """One running job. Every wait ends at the deadline given at its start."""

    def __init__(self, sandbox: Sandbox, channel: socket.socket, deadline: float) -> None:
        self._sandbox, self.channel, self._deadline = sandbox, channel, deadline
        self._frames = Frames(self._read)

    def send(self, payload: bytes) -> None:
        """Send one frame. Raises TimeoutError at the deadline, JobOver when the job is gone."""
        self._wait()
        try:
            self.channel.sendall(framed(payload))
        except TimeoutError:
            raise
        except OSError as error:
            raise JobOver("the program ended") from error

    def receive(self, limit: int = OUTPUT_LIMIT) -> bytes:
        """Receive one frame. Raises TimeoutError at the deadline, JobOver when the job is gone or floods."""
        try:
            return self._frames.receive(limit)
        except TimeoutError:
            raise
        except (EOFError, OSError) as error:
            raise JobOver("the program ended") from error
        except ValueError as error:
            raise JobOver("the program's answer is too large") from error

    def __enter__(self) -> Job:
        return self

    def __exit__(self, *raised: object) -> None:
        self.channel.close()
        self._sandbox.end_job()

    def _read(self, size: int) -> bytes:
        self._wait()
        return self.channel.recv(size)

    def _wait(self) -> None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.channel.settimeout(left)


class Sandbox:
    """Starts jobs in the strongest isolation that the machine allows, one at a time.

    `memory_mb` limits the address space of a job. With `unsafe` it runs even where no isolation holds. Jobs may import
    the third-party `modules`, with what those require. Raises RewardError where no isolation holds, with the reason of
    each, and for a module that is not installed.
    """

    def __init__(
        self, memory_mb: int = 512, unsafe: bool = False, tier: str | None = None, modules: Sequence[str] = ()
    ) -> None:
        self._memory_mb, self._modules, self._files = memory_mb, modules, files_of(modules)
        self._candidates = [tier] if tier else [name for name in TIERS if unsafe or name != UNSAFE]
        self._ending = False
        self._zygote: subprocess.Popen[bytes] | None = None
        self.tier = self._start()
        log.info("sandbox tier: %s", self.tier)

    def start_job(self, mode: str, seconds: float, payload: bytes, extra: Sequence[socket.socket] = ()) -> Job:
        """Start a job in one of the guest's modes, with `seconds` until every wait on it ends."""
        self._await_end()
        if self._zygote is None:
            self._start()
        mine, theirs = socket.socketpair()
        request = marshal.dumps((mode, int(seconds) + 1))
        descriptors = [theirs.fileno(), *(other.fileno() for other in extra)]
        try:
            socket.send_fds(self._jobs, [request], descriptors)
        except ConnectionError:  # the zygote died, perhaps for want of memory
            self.close()
            self._start()
            socket.send_fds(self._jobs, [request], descriptors)
        theirs.close()
        job = Job(self, mine, time.monotonic() + seconds)
        try:
            job.send(payload)
        except BaseException:
            job.__exit__()
            raise
        return job

    def end_job(self) -> None:
        """Have whatever the current job has left killed; the next job waits until it is."""
        self._ending = True
        with suppress(OSError):
            self._control.send(b"end")

    def _await_end(self) -> None:
        """Wait for the kill. A zygote that cannot do it is itself killed, with all below it, and replaced."""
        if not self._ending:
            return
        self._ending = False
        self._control.settimeout(_END_LIMIT)
        try:
            ended = self._control.recv(16)
        except OSError:
            ended = b""
        if not ended:
            self.close()

    def close(self) -> None:
        """End the zygote, and with it every process that it started."""
        if self._zygote is not None:
            self._jobs.close()
            self._control.close()
            self._zygote.kill()
            self._zygote.wait()
            self._zygote = None

    def _start(self) -> str:
        reasons = []
        for tier in self._candidates:
            reason = self._try(tier)
            if not reason:
                self._candidates = [tier]
                return tier
            reasons.append(f"{tier}: {reason}")
        raise RewardError(f"no sandbox on this machine ({'; '.join(reasons)}); unsafe: true would run code without one")

    def _try(self, tier: str) -> str:
        """Start a zygote of this tier. Returns why it does not hold, or an empty string."""
        if tier == BUBBLEWRAP and shutil.which("bwrap") is None:
            return "bwrap is not installed"
        self._jobs, jobs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control, control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        library_path = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
        remote = [jobs.fileno(), control.fileno()]
        self._zygote = subprocess.Popen(
            _command(tier, remote, self._memory_mb, self._modules, self._files),
            pass_fds=remote,
            env={**_ENVIRONMENT, **library_path},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # what a program's sys.stdin and sys.stdout are is decided here
            stderr=subprocess.PIPE,
        )
        jobs.close()
        control.close()
        self._control.settimeout(_START_LIMIT)
        try:
            answer = self._control.recv(4096)
        except TimeoutError:
            answer = f"no answer within {_START_LIMIT:.0f} s".encode()
        assert self._zygote.stderr is not None
        with self._zygote.stderr as stderr:
            if answer == READY:
                return ""
            self._zygote.kill()
            said = stderr.read().decode(errors="replace").strip().splitlines()
        self.close()
        return answer.decode() or (said[-1] if said else "it ended")


def _command(
    tier: str, descriptors: list[int], memory_mb: int, modules: Sequence[str], files: Sequence[str]
) -> list[str]:
    told = json.dumps([*descriptors, tier, memory_mb, modules, files])
    python = [sys.executable, "-I", "-S", "-X", "utf8", "-c", _BOOT, told]
    if tier != BUBBLEWRAP:
        return python
    python[0] = os.path.realpath(sys.executable)
    visible = [*readable_paths(), *files, os.path.dirname(python[0]), str(_ROOT / "rewards")]
    binds = [part for path in visible for part in ("--ro-bind", path, path)]
    # The root and /dev are memory without a limit, and bubblewrap leaves them writable.
    sealed = ["--dev", "/dev", "--remount-ro", "/dev", "--remount-ro", "/"]
    return ["bwrap", "--unshare-all", "--die-with-parent", *binds, *sealed, "--chdir", "/", "--", *python]
