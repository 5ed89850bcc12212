"""The namespaces and the file system that sandboxed code lives in: what it may read, devices, a scratch folder."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence

from rewards.sandbox import kernel

SCRATCH = "/tmp"
SCRATCH_MB = 64
NOBODY = 65534
DEVICES = ("null", "zero", "full", "random", "urandom")
_STDIN = f"{SCRATCH}/.stdin"


def readable_paths() -> list[str]:
    """What sandboxed code may read: the interpreter, its library and the shared libraries of the system."""
    library = os.path.join(sys.base_prefix, "lib")
    candidates = [library, "/usr/lib", "/usr/lib64", "/lib", "/lib64", "/usr/share/zoneinfo"]
    return [path for path in dict.fromkeys(candidates) if os.path.isdir(path)]


def enter_namespaces(visible: Sequence[str]) -> None:
    """Go on as the first process of new namespaces; the process that was waits for it, and it ends with that one."""
    user, group = os.geteuid(), os.getegid()
    inside, outside = socket.socketpair()
    helper = os.fork()  # a second user can only be mapped from outside
    if helper == 0:
        status = 1
        try:
            outside.recv(1)
            extra = f"\n{NOBODY} {NOBODY} 1" if user == 0 else ""
            _write(f"/proc/{os.getppid()}/setgroups", "deny")
            _write(f"/proc/{os.getppid()}/uid_map", f"0 {user} 1{extra}")
            _write(f"/proc/{os.getppid()}/gid_map", f"0 {group} 1{extra}")
            status = 0
        finally:
            os._exit(status)
    try:
        kernel.unshare(kernel.NAMESPACES)
    finally:
        inside.send(b"x")
        _, status = os.waitpid(helper, 0)
    inside.close()
    outside.close()
    if status:
        raise OSError("the user namespace could not be mapped")
    first = os.fork()
    if first:
        os.waitpid(first, 0)
        os._exit(0)
    kernel.die_with_parent()
    kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    _build_root("/proc", visible)  # a folder that is sure to exist, and had better not be seen afterwards
    empty_scratch()


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def _build_root(root: str, visible: Sequence[str]) -> None:
    """A tmpfs with what is visible bound read-only, a few devices and an empty scratch folder; then live in it.

    Raises OSError where the scratch folder would hide what is to be visible.
    """
    if hidden := next((path for path in visible if path.startswith(f"{SCRATCH}/")), None):
        raise OSError(f"the sandbox's own {SCRATCH} hides {hidden}")
    kernel.mount("tmpfs", root, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "size=1m,mode=755")
    for path in visible:
        target = root + path
        os.makedirs(target if os.path.isdir(path) else os.path.dirname(target), exist_ok=True)
        if not os.path.exists(target):
            _write(target, "")
        kernel.mount(path, target, None, kernel.MS_BIND | kernel.MS_REC)
        kernel.make_read_only(target)
    os.makedirs(root + "/dev")
    for device in DEVICES:
        _write(f"{root}/dev/{device}", "")
        kernel.mount(f"/dev/{device}", f"{root}/dev/{device}", None, kernel.MS_BIND)
    os.symlink(_STDIN, f"{root}/dev/stdin")
    os.makedirs(root + SCRATCH)
    kernel.change_root(root)
    kernel.mount("none", "/", None, kernel.MS_REMOUNT | kernel.MS_RDONLY | kernel.MS_NOSUID | kernel.MS_NODEV)


def empty_scratch() -> None:
    """Have an empty scratch folder and be in it, whatever a job has made of it and wherever it was killed."""
    try:  # noqa: SIM105  (contextlib.suppress would write to more pages of memory)
        os.unlink(_STDIN)
    except OSError:
        pass
    if os.listdir(SCRATCH):
        kernel.unmount(SCRATCH)
    if os.stat(SCRATCH).st_dev == os.stat("/").st_dev:  # nothing is mounted there
        data = f"size={SCRATCH_MB}m,nr_inodes=2048,mode=777"
        kernel.mount("tmpfs", SCRATCH, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, data)
    os.chdir(SCRATCH)  # which may be another folder than the one of that name that this process was in


def new_case() -> int:
    """Give a case a scratch folder of its own. Returns an empty file there for its standard input."""
    empty_scratch()
    return os.open(_STDIN, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
