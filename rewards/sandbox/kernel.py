"""The Linux calls that isolation is made of, by ctypes: no compiler, no root."""

from __future__ import annotations

import ctypes
import os
import platform
import struct

ARCHITECTURE = platform.machine()

NAMESPACES = 0x00020000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
"""Flags of unshare(2): mounts, host name, System V IPC, users, processes, network."""

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 32, 4096, 16384, 1 << 18
_MS_NOATIME, _MS_NODIRATIME, _MS_RELATIME = 1024, 2048, 1 << 21
_MNT_DETACH = 2

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38

_LANDLOCK = 444  # and the two numbers after it, on every architecture
libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def words(*values: int) -> list[ctypes.c_ulong]:
    """Arguments of a system call as wide as a register."""
    return [ctypes.c_ulong(value) for value in values]


def _prctl(option: int, *arguments: int) -> None:
    _check(libc.prctl(option, *words(*(*arguments, 0, 0, 0, 0)[:4])), f"prctl {option}")


def unshare(flags: int) -> None:
    """Move this process into new namespaces."""
    _check(libc.unshare(flags), "unshare")


def fork() -> int:
    """os.fork without Python's hooks around it, in two thirds of the time. The caller must have a single thread."""
    pid: int = libc.fork()
    if pid < 0:
        _check(pid, "fork")
    return pid


def mount(source: str, target: str, kind: str | None, flags: int, data: str = "") -> None:
    """mount(2)."""
    arguments = (source.encode(), target.encode(), kind.encode() if kind else None, ctypes.c_ulong(flags))
    _check(libc.mount(*arguments, data.encode()), f"mount {target}")


def make_read_only(target: str) -> None:
    """Remount a bind mount read-only; what already limits it must be said again, or the kernel refuses."""
    kept = os.statvfs(target).f_flag & (MS_NOSUID | MS_NODEV | MS_NOEXEC | _MS_NOATIME | _MS_NODIRATIME)
    relative = _MS_RELATIME if os.statvfs(target).f_flag & os.ST_RELATIME else 0
    flags = MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV
    mount("none", target, None, flags | kept | relative)


def unmount(target: str) -> None:
    """Take the topmost mount off a folder, now or as soon as nothing uses it."""
    _check(libc.umount2(target.encode(), _MNT_DETACH), f"umount {target}")


def change_root(root: str) -> None:
    """Make `root` the root of this mount namespace and let go of the old one."""
    os.chdir(root)
    _check(libc.pivot_root(b".", b"."), "pivot_root")
    unmount(".")
    os.chdir("/")


# Each job makes one of these calls or both: what they need is made once, in the process that jobs are forked from.
_DEATH = words(_PR_SET_PDEATHSIG, 9, 0, 0, 0)
_NO_CAPABILITIES = (struct.pack("=Ii", 0x20080522, 0), bytes(24))


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends."""
    _check(libc.prctl(*_DEATH), "prctl")


def bound_capabilities() -> None:
    """See to it that nothing started from here can be given a capability."""
    for capability in range(64):
        if libc.prctl(_PR_CAPBSET_DROP, ctypes.c_ulong(capability), 0, 0, 0) < 0:
            break  # past the last one that this kernel knows, or not ours to bound


def drop_capabilities() -> None:
    """Give up every capability that this process has."""
    _check(libc.capset(*_NO_CAPABILITIES), "capset")


def no_new_privileges() -> None:
    """No program started from here gains privileges, and no one may trace or dump this process."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _prctl(_PR_SET_DUMPABLE, 0)


_LANDLOCK_READ = 0b1101  # execute, read file, read directory


def landlock_abi() -> int:
    """Version of Landlock that the kernel offers; 0 for none."""
    return max(libc.syscall(_LANDLOCK, None, ctypes.c_size_t(0), ctypes.c_uint(1)), 0)


def landlock_read_only(paths: list[str]) -> None:
    """Let this process read below `paths` and touch no other file and no TCP port, for good."""
    abi = landlock_abi()
    files = (1 << (13 if abi == 1 else 14 if abi == 2 else 15 if abi < 5 else 16)) - 1
    fields = [files, *([3] if abi >= 4 else []), *([3] if abi >= 6 else [])]
    attributes = struct.pack(f"={len(fields)}Q", *fields)
    size = ctypes.c_size_t(len(attributes))
    ruleset = _check(libc.syscall(_LANDLOCK, attributes, size, ctypes.c_uint(0)), "landlock ruleset")
    for path in paths:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        allowed = _LANDLOCK_READ if os.path.isdir(path) else 0b101
        rule = struct.pack("=Qi", allowed, descriptor)
        _check(libc.syscall(_LANDLOCK + 1, ruleset, 1, rule, 0), f"landlock rule {path}")
        os.close(descriptor)
    _check(libc.syscall(_LANDLOCK + 2, ruleset, 0), "landlock")
    os.close(ruleset)
