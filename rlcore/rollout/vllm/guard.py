"""A small process that outlives the trainer by a moment: when the trainer is gone, however it went, it cleans up.

It runs as a plain script that imports nothing else of rlcore. The trainer writes lines to its standard input, `watch
PROCESS_GROUP`, `forget PROCESS_GROUP` or `remove FOLDER`; when the pipe ends (the trainer closed it, or was killed) the
watched process groups are killed and the folders removed.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path


class Guard:
    """The trainer's end of it."""

    def __init__(self) -> None:
        # A session of its own: Ctrl-C in the trainer's terminal does not reach it.
        self._process = subprocess.Popen(
            [sys.executable, "-S", __file__], stdin=subprocess.PIPE, start_new_session=True, text=True
        )

    def watch(self, group: int) -> None:
        """Kill this process group when the trainer is gone."""
        self._write(f"watch {group}")

    def forget(self, group: int) -> None:
        """This process group has ended; its number may come to mean another."""
        self._write(f"forget {group}")

    def remove(self, folder: Path) -> None:
        """Remove this folder when the trainer is gone."""
        self._write(f"remove {folder}")

    def close(self) -> None:
        """Clean up now; returns when it is done."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()


def kill_group(group: int) -> None:
    """Kills a process group, if it still exists."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def keep_watch(lines: Iterable[str]) -> None:
    """Reads orders until there are no more, then carries them out."""
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
