"""The system calls that sandboxed code may make; any other answers EPERM.

No new process (a thread is allowed), no program started, no socket to anywhere, no signal to anyone, no mount,
namespace, tracing, key or kernel interface that Python can do without.

The list is installed once, in the zygote, with the few calls that the zygote needs besides; every process forked from
it inherits that filter, and one that is to run a program adds a short second one, which takes those calls away. The
kernel obeys the stricter of the two. Installing the long one costs more than a fork.
"""

from __future__ import annotations

import ctypes
import struct
from errno import ENOSYS, EPERM
from functools import cache
from typing import Any

from rewards.sandbox.kernel import ARCHITECTURE, libc, words

# name, number on x86_64, number on aarch64 ("-" where it has none)
_ALLOWED = """
read 0 63, write 1 64, open 2 -, openat 257 56, close 3 57, close_range 436 436, fstat 5 80, newfstatat 262 79,
stat 4 -, lstat 6 -, statx 332 291, lseek 8 62, mmap 9 222, mprotect 10 226, munmap 11 215, mremap 25 216,
madvise 28 233, brk 12 214, rt_sigaction 13 134, rt_sigprocmask 14 135, rt_sigreturn 15 139, rt_sigpending 127 136,
rt_sigtimedwait 128 137, sigaltstack 131 132, ioctl 16 29, pread64 17 67, pwrite64 18 68, readv 19 65, writev 20 66,
access 21 -, faccessat 269 48, faccessat2 439 439, pipe 22 -, pipe2 293 59, select 23 -, pselect6 270 72, poll 7 -,
ppoll 271 73, epoll_create 213 -, epoll_create1 291 20, epoll_ctl 233 21, epoll_wait 232 -, epoll_pwait 281 22,
eventfd2 290 19, dup 32 23, dup2 33 -, dup3 292 24, nanosleep 35 101, clock_nanosleep 230 115, alarm 37 -,
setitimer 38 103, getitimer 36 102, pause 34 -, getpid 39 172, getppid 110 173, gettid 186 178, getpgid 121 155,
getpgrp 111 -, getsid 124 156, getuid 102 174, geteuid 107 175, getgid 104 176, getegid 108 177, getgroups 115 158,
getresuid 118 148, getresgid 120 150, exit 60 93, exit_group 231 94, futex 202 98, set_robust_list 273 99,
set_tid_address 218 96, rseq 334 293, arch_prctl 158 -, membarrier 324 283, uname 63 160, fcntl 72 25, flock 73 32,
getcwd 79 17, chdir 80 49, fchdir 81 50, rename 82 -, renameat 264 38, renameat2 316 276, mkdir 83 -, mkdirat 258 34,
rmdir 84 -, unlink 87 -, unlinkat 263 35, link 86 -, linkat 265 37, symlink 88 -, symlinkat 266 36, readlink 89 -,
readlinkat 267 78, chmod 90 -, fchmod 91 52, fchmodat 268 53, utimensat 280 88, umask 95 166, ftruncate 77 46,
truncate 76 45, fsync 74 82, fdatasync 75 83, fallocate 285 47, statfs 137 43, fstatfs 138 44, getdents64 217 61,
sysinfo 99 179, times 100 153, getrusage 98 165, gettimeofday 96 169, clock_gettime 228 113, clock_getres 229 114,
time 201 -, getrandom 318 278, sched_yield 24 124, sched_getaffinity 204 123, getrlimit 97 163, getcpu 309 168,
wait4 61 260, waitid 247 95, socketpair 53 199, sendto 44 206, recvfrom 45 207, sendmsg 46 211, recvmsg 47 212,
shutdown 48 210, getsockopt 55 209, setsockopt 54 208, getsockname 51 204, getpeername 52 205,
restart_syscall 219 128, copy_file_range 326 285, sendfile 40 71
"""
# What the zygote does besides: fork, kill, give a scratch folder anew, confine what it forked.
_ZYGOTE = """
prctl 157 167, capset 126 91, setresuid 117 147, setresgid 119 149, setpgid 109 154, mount 165 40, umount2 166 39,
memfd_create 319 279, kill 62 129
"""
_COLUMN = {"x86_64": 1, "aarch64": 2}
_AUDIT_ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_CLONE, _CLONE3 = {"x86_64": 56, "aarch64": 220}, 435
_PRLIMIT = {"x86_64": 302, "aarch64": 261}
_CLONE_THREAD = 0x00010000

_LOAD, _JUMP_EQUAL, _JUMP_SET, _RETURN = 0x20, 0x15, 0x45, 0x06
_ALLOW, _KILL_PROCESS, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_PR_SET_SECCOMP, _MODE_FILTER = 22, 2
_INSTRUCTION = struct.Struct("=HBBI")
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16


class _Program(ctypes.Structure):
    """struct sock_fprog"""

    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))


def guard() -> None:
    """Allow this process, and all that it will fork, the list and what a zygote does. Needs no_new_privileges first.

    Raises OSError on a machine whose system calls are not known.
    """
    if ARCHITECTURE not in _COLUMN:
        raise OSError(f"no seccomp filter for {ARCHITECTURE}")
    program = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_JUMP_EQUAL, 1, 0, _AUDIT_ARCHITECTURE[ARCHITECTURE]),
        (_RETURN, 0, 0, _KILL_PROCESS),
        (_LOAD, 0, 0, _NUMBER_AT),
        *_answer(_ERRNO | ENOSYS, [_CLONE3]),  # so that libc falls back to clone, whose flags can be read
        *_answer(_ALLOW, [*_numbers(_ALLOWED), *_numbers(_ZYGOTE), _CLONE[ARCHITECTURE]]),
        (_JUMP_EQUAL, 0, 3, _PRLIMIT[ARCHITECTURE]),  # of this process alone, which it may call 0
        (_LOAD, 0, 0, _ARGUMENTS_AT),
        *_answer(_ALLOW, [0]),
    ]
    _obey(_installing([*program, (_RETURN, 0, 0, _ERRNO | EPERM)]))
    _program_filter()


def restrict() -> None:
    """Take from this process, and from every thread that it starts, for good, what only a zygote may do."""
    _obey(_program_filter())


def _numbers(table: str) -> list[int]:
    column = [fields[_COLUMN[ARCHITECTURE]] for fields in map(str.split, table.split(","))]
    return [int(number) for number in column if number != "-"]


def _answer(action: int, values: list[int]) -> list[tuple[int, int, int, int]]:
    """Give this answer if what is loaded is one of the values."""
    return [part for value in values for part in ((_JUMP_EQUAL, 0, 1, value), (_RETURN, 0, 0, action))]


@cache
def _program_filter() -> list[Any]:
    """Made once for all forks."""
    program = [
        (_LOAD, 0, 0, _NUMBER_AT),
        *_answer(_ERRNO | EPERM, _numbers(_ZYGOTE)),
        (_JUMP_EQUAL, 0, 3, _CLONE[ARCHITECTURE]),
        (_LOAD, 0, 0, _ARGUMENTS_AT),
        (_JUMP_SET, 1, 0, _CLONE_THREAD),
        (_RETURN, 0, 0, _ERRNO | EPERM),
        (_RETURN, 0, 0, _ALLOW),
    ]
    return _installing(program)


def _obey(arguments: list[Any]) -> None:
    if libc.prctl(*arguments) < 0:
        raise OSError(ctypes.get_errno(), "seccomp filter refused")


def _installing(program: list[tuple[int, int, int, int]]) -> list[Any]:
    """The arguments of prctl that put the calling process under a filter."""
    code = b"".join(_INSTRUCTION.pack(*instruction) for instruction in program)
    length_and_code = _Program(len(program), code)
    return [_PR_SET_SECCOMP, *words(_MODE_FILTER), ctypes.byref(length_and_code), *words(0, 0)]
