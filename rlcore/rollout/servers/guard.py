"""A small process that outlives the trainer by a moment and cleans up after it, however it ended.

It runs as a plain script that imports nothing else of rlcore. The trainer writes lines to its standard input: `watch
PROCESS_GROUP`, `forget PROCESS_GROUP` or `remove FOLDER`. When the pipe ends, because the trainer closed it or was
killed, the watched process groups are killed and the folders removed.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

KILL_SECONDS = 10.0
"""Seconds after which a process that the kernel does not let go is given up."""


class Guard:
    """The trainer's end of the pipe."""

    def __init__(self) -> None:
        # A session of its own: Ctrl-C in the trainer's terminal does not reach it.
        self._process = subprocess.Popen(
            [sys.executable, "-S", __file__], stdin=subprocess.PIPE, start_new_session=True, text=True
        )

    def watch(self, group: int) -> None:
        """Has this process group killed when the trainer is gone."""
        self._write(f"watch {group}")

    def forget(self, group: int) -> None:
        """Unwatches a process group that has ended, as its number may be used again."""
        self._write(f"forget {group}")

    def remove(self, folder: Path) -> None:
        """Has this folder removed when the trainer is gone."""
        self._write(f"remove {folder}")

    def close(self) -> None:
        """Cleans up now; returns when that is done."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()


def kill_group(group: int) -> None:
    """Kills a process group, if it still exists.

    Python's resource trackers are spared: once their users are gone they remove the shared memory left, and end.
    """
    deadline = time.monotonic() + KILL_SECONDS
    while (alive := [pid for pid in _members(group) if not _is_tracker(pid)]) and time.monotonic() < deadline:
        for pid in alive:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)  # the dead leave the list, and what they started meanwhile is seen
    for tracker in _members(group):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(tracker, signal.SIGCONT)  # in case it was stopped with the others


def _members(group: int) -> list[int]:
    """The living processes of a group."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state, _, process_group = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
            if int(process_group) == group and state not in "ZX":
                found.append(int(folder.name))
    return found


def _is_tracker(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return b"multiprocessing.resource_tracker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def keep_watch(lines: Iterable[str]) -> None:
    """Reads orders until the pipe ends, then carries them out."""
    groups: set[int] = set()
    folders: list[str] = []
    for line in lines:
        order, _, rest = line.rstrip("\n").partition(" ")
        if order == "watch":
            groups.add(int(rest))
        elif order == "forget":
            groups.discard(int(rest))
        elif order == "remove":
            folders.append(rest)
    for group in groups:
        kill_group(group)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    keep_watch(sys.stdin)
