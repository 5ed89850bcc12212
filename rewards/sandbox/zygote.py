"""The process that sandboxes are forked from. Trusted, single-threaded, and never told what a job is about.

It is a fresh interpreter in isolated mode with an empty environment, and pid 1 of its own pid namespace where the tier
has one. For each job it forks a process, which waits for the socket that the job will talk on, and it kills everything
when the job ends; only then is the process of the next job forked. What a job has no need of is given up here, once,
and inherited. The program, its arguments and the tests never pass through the zygote.
"""

from __future__ import annotations

import gc
import json
import marshal
import os
import resource
import select
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from functools import partial

from rewards.sandbox import guest, kernel, root, seccomp
from rewards.wire import send_frame

NAMESPACES, BUBBLEWRAP, LANDLOCK, UNSAFE = TIERS = ("namespaces", "bubblewrap", "landlock", "unsafe")
_OWN_PIDS = (NAMESPACES, BUBBLEWRAP)  # tiers whose processes all end with the first of their pid namespace
_OPEN_FILES = 64
_LEAST_MB = 32  # that a job has for itself
_TASKS = 64
_MESSAGE_LIMIT = 1024
READY = b"ready"
_ROOM = socket.CMSG_LEN(2 * 4)  # for two descriptors
_KILL = int(signal.SIGKILL)
_COLLECT_AFTER = 10_000  # objects made: a collection of the usual 700 writes to all of them


def serve(
    jobs: socket.socket,
    control: socket.socket,
    tier: str,
    memory_mb: int,
    modules: Sequence[str],
    files: Sequence[str],
) -> None:
    """Set up the tier, answer READY or the reason why not, then see one job after another to its end.

    Jobs may import `modules`, and read `files` besides Python's own.

    On `jobs` the parent sends jobs, read by the processes that run them; on `control` it says when one is over.
    """
    try:
        if tier == NAMESPACES:
            root.enter_namespaces([*root.readable_paths(), *files])
        kernel.bound_capabilities()
        null = os.open(os.devnull, os.O_RDWR)
        _settle(tier, files)
        guest.load(modules)
        _limit_memory(memory_mb)
        _probe(tier)
    except OSError as error:
        control.send(str(error).encode())
        return
    gc.set_threshold(_COLLECT_AFTER)
    gc.freeze()  # a fork that collects garbage would copy every page it looks at
    control.send(READY)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    os.close(null)
    untaken = select.poll()
    untaken.register(jobs, select.POLLIN)
    work = _job_of(tier, jobs, control)
    while True:
        leader = kernel.fork()
        if leader == 0:
            work()
        if not control.recv(16):
            return  # the parent is gone
        _end(tier, leader)
        if untaken.poll(0):  # a job that its process did not live to take
            jobs.recv(1)
        control.send(b"ended")


def _settle(tier: str, files: Sequence[str]) -> None:
    """Give up here, once, what neither this process nor any program needs: what is forked inherits that."""
    if tier != NAMESPACES:
        os.chdir("/")
    for limit, value in (
        (resource.RLIMIT_FSIZE, root.SCRATCH_MB << 20),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (value, value))
    if tier == UNSAFE:
        return
    kernel.no_new_privileges()  # without it an ordinary user may install neither Landlock rules nor filters
    if tier == LANDLOCK:
        if kernel.landlock_abi() == 0:
            raise OSError("the kernel has no Landlock")
        kernel.landlock_read_only([*root.readable_paths(), *files, *(f"/dev/{device}" for device in root.DEVICES)])
    seccomp.guard()


def _limit_memory(memory_mb: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (memory_mb << 20, memory_mb << 20))
    try:
        bytearray(_LEAST_MB << 20)
    except MemoryError:
        raise OSError(f"its modules leave nothing of {memory_mb} MiB; memory_mb sets the limit") from None


def _probe(tier: str) -> None:
    """Run an empty job, so that a tier that does not hold here says so before it is relied on."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            _confine(tier, 1)
            status = 0
        except OSError as error:
            print(error, file=sys.stderr)
        finally:
            os._exit(status)
    if os.waitpid(child, 0)[1]:
        raise OSError(f"tier {tier} does not hold here")


def _job_of(tier: str, jobs: socket.socket, control: socket.socket) -> Callable[[], None]:
    """What the process of a job does. It is there, waiting, when the job comes.

    Whatever is made here, before the fork, need not be made in it.
    """
    receive, descriptors, alone = jobs.recvmsg, (jobs.fileno(), control.fileno()), tier not in _OWN_PIDS
    new_case = root.new_case if tier == NAMESPACES else partial(os.memfd_create, "stdin")

    def work() -> None:
        try:
            if alone:
                kernel.die_with_parent()
                os.setpgid(0, 0)
            message, ancillary, _, _ = receive(_MESSAGE_LIMIT, _ROOM)
            for descriptor in descriptors:
                os.close(descriptor)
            if message:
                mode, cpu_seconds = marshal.loads(message)
                channels = memoryview(ancillary[0][2]).cast("i")
                guest.run(mode, channels, partial(_confine, tier, cpu_seconds), new_case)
        finally:
            os._exit(0)

    return work


def _rehearse(times: int = 24) -> None:
    """Run jobs of our own, so that what this warms up in the interpreter is shared by every fork.

    A page of memory that a job is the first to write to costs it a copy.
    """
    program, tests = guest.rehearsals()
    for turn in range(times):
        (ours, theirs), (judge, channel) = socket.socketpair(), socket.socketpair()
        send_frame(theirs.fileno(), program)
        send_frame(judge.fileno(), tests)
        other = os.fork()
        if turn % 2 == bool(other):  # this process has the program and the tests in turn
            theirs.close()
            guest.run(guest.PROGRAM, [ours.fileno()], lambda: None, lambda: 0)
        else:
            ours.close()
            guest.run(guest.TESTS, [channel.fileno(), theirs.fileno()], lambda: None, lambda: 0)
        if other == 0:
            os._exit(0)
        for end in (ours, theirs, judge, channel):
            end.close()
        os.waitpid(other, 0)
    guest.forget()


def _end(tier: str, leader: int) -> None:
    """Kill what the job has left: all others in this pid namespace, or the job's process group where there is none."""
    try:  # noqa: SIM105  (contextlib.suppress would write to more pages of memory)
        os.kill(-1 if tier in _OWN_PIDS else -leader, _KILL)
    except ProcessLookupError:
        pass
    try:
        while os.waitpid(-1, 0):
            pass
    except ChildProcessError:
        pass
    if tier == NAMESPACES:
        root.empty_scratch()


def _confine(tier: str, cpu_seconds: int) -> None:
    """Give up everything that the untrusted code has no need of. Runs in its process, just before it."""
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds))
    if tier == UNSAFE:
        return
    if tier == NAMESPACES:
        resource.setrlimit(resource.RLIMIT_NPROC, (_TASKS, _TASKS))
    if tier != NAMESPACES or not _drop_user():
        kernel.drop_capabilities()
    if tier not in _OWN_PIDS:
        kernel.die_with_parent()
    seccomp.restrict()


def _drop_user() -> bool:
    """Become nobody, and with that lose every capability. False for an ordinary user, who owns nothing in here."""
    try:
        os.setresgid(root.NOBODY, root.NOBODY, root.NOBODY)
        os.setresuid(root.NOBODY, root.NOBODY, root.NOBODY)
    except OSError:
        return False  # no other user is mapped
    return True


def main() -> None:
    """Argument: JSON of the numbers of the two sockets of `serve`, tier, memory limit in MiB, modules, their files."""
    *descriptors, tier, memory_mb, modules, files = json.loads(sys.argv.pop())
    guest.preload(modules, files)
    _rehearse()
    sys.argv[:] = ["solution.py"]
    jobs, control = (socket.socket(fileno=number) for number in descriptors)
    serve(jobs, control, tier, memory_mb, modules, files)
