"""What a run that samples ahead has sampled and not learned for good: it survives the end of any process at any time.

Each rank of each launch writes one SQLite file: a row for each serial, in one transaction that is on the disk when it
returns (`synchronous` FULL, with a rollback journal, which unlike a write-ahead log works on network file systems).
Files of earlier launches are read as they stand when the next one begins: what a process of theirs that is still alive
writes later is of no effect.
"""

import json
import sqlite3
import threading
import zlib
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter

from rewards import Verdict
from rlcore.errors import UserError
from rlcore.ranks import Ranks, all_gather
from rlcore.train.made_of import MadeOf, runs_of, steps_of
from rlcore.types import Groups, Problem, Trajectory, Turn

Answer = TypeVar("Answer")
_ROW: TypeAdapter[Any] = TypeAdapter(list[list[tuple[tuple[Turn, ...], tuple[Verdict, ...]]]])
"""The groups of one place of a step in the order in which they were sampled, without their problems."""
OTHER_SETTINGS = "other settings"
OTHER_WEIGHTS = "weights that settings since changed had made"
"""Why groups are sampled anew."""


class Ledger:
    """Groups by serial. All ranks make it together; after that each reads and writes on its own, from any thread."""

    def __init__(self, folder: Path, ranks: Ranks, made_of: MadeOf, size: int):
        """`size`: the groups of a step. Rows that the run, made of `made_of`, would not have sampled are passed over.

        Raises UserError on all ranks where the folder cannot be written.
        """
        self._first, self._folder, self._size = ranks.first, folder, size
        found = all_gather(_earlier(folder, made_of, size) if ranks.first else None, ranks)[0] or _Earlier()
        if found.refused:
            raise UserError(found.refused)
        self._earlier, self._passed_over = found.files, found.passed_over
        self._path = folder / f"{found.launch:06d}-{ranks.rank:05d}.sqlite"
        self._lock = threading.Lock()
        self._kept = 0
        self._file = self._told(lambda: _open(self._path, made_of))

    def passed_over(self, step: int) -> str:
        """A line about the groups from a step on that earlier launches kept and this one samples anew; "" for none."""
        reasons = [why for serial, why in self._passed_over.items() if serial >= step * self._size]
        counts = " and ".join(f"{reasons.count(why)} by {why}" for why in dict.fromkeys(reasons))
        return (
            f"{len(reasons)} groups that an earlier launch sampled ahead are sampled anew: {counts}" if counts else ""
        )

    def write(self, serial: int, groups: Groups) -> None:
        """Keeps the groups; returns once they are on the disk. Raises UserError where they cannot be."""
        row = zlib.compress(_ROW.dump_json([[(t.turns, t.verdicts) for t in group] for group in groups]), 1)
        turns = [turn for group in groups for trajectory in group for turn in trajectory.turns]
        newest = max((version for turn in turns for version in turn.versions), default=0)
        self._told(lambda: self._file.execute("INSERT OR REPLACE INTO done VALUES (?, ?, ?)", (serial, newest, row)))

    def read(self, serial: int, problems: Sequence[Problem]) -> Groups | None:
        """The groups of a serial, the first on the first of `problems` and so on; None where none are kept."""
        row = self._told(lambda: _row(self._file, serial))
        if row is None and serial in self._earlier:
            earlier = self._folder / self._earlier[serial]
            row = self._told(lambda: _row(_connect(earlier), serial), earlier)
        if row is None:
            return None
        groups = _ROW.validate_json(zlib.decompress(row))
        return [[Trajectory(problems[at], *parts) for parts in group] for at, group in enumerate(groups)]

    def forget(self, before: int) -> None:
        """Deletes what no checkpoint would need again: the rows with serials below `before`, and files without others.

        Raises UserError where that fails.
        """
        if before <= self._kept:
            return
        self._kept = before
        self._told(lambda: self._file.execute("DELETE FROM done WHERE serial < ?", (before,)))
        self._earlier = {serial: name for serial, name in self._earlier.items() if serial >= before}
        if self._first:
            used, launch = set(self._earlier.values()), self._path.name.partition("-")[0]
            for path in self._folder.glob("*.sqlite"):
                if path.name.partition("-")[0] < launch and path.name not in used:
                    path.unlink(missing_ok=True)

    def close(self) -> None:
        self._file.close()

    def _told(self, work: Callable[[], Answer], path: Path | None = None) -> Answer:
        try:
            with self._lock:
                return work()
        except sqlite3.Error as error:
            raise UserError(f"the ledger {path or self._path} cannot be used: {error}") from None


@dataclass(slots=True)
class _Earlier:
    """What earlier launches kept: the file of each serial, why those of others are passed over, and their number."""

    files: dict[int, str] = field(default_factory=dict)
    passed_over: dict[int, str] = field(default_factory=dict)
    launch: int = 0
    refused: str = ""
    """Why there can be no ledger."""


def _earlier(folder: Path, made_of: MadeOf, size: int) -> _Earlier:
    found = _Earlier()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(folder.glob("*.sqlite")):
            found.launch = int(path.name.partition("-")[0]) + 1
            try:
                with closing(_connect(path)) as file:
                    its = _made_of(file)
                    until = made_of.same_until(its)
                    for serial, newest in file.execute("SELECT serial, newest FROM done"):
                        step = slice(serial // size, serial // size + 1)
                        if its.groups[step] != made_of.groups[step]:
                            found.passed_over[serial] = OTHER_SETTINGS
                        elif newest > until:
                            found.passed_over[serial] = OTHER_WEIGHTS
                        else:
                            found.files[serial] = path.name
            except sqlite3.DatabaseError:  # its launch ended before the first row, or its disk lost it
                continue
    except OSError as error:
        found.refused = f"the ledger {folder} cannot be written: {error.strerror}"
    found.passed_over = {serial: why for serial, why in found.passed_over.items() if serial not in found.files}
    return found


def _open(path: Path, made_of: MadeOf) -> sqlite3.Connection:
    file = _connect(path)
    file.execute("CREATE TABLE made_of (digests TEXT NOT NULL)")
    file.execute("CREATE TABLE done (serial INTEGER PRIMARY KEY, newest INTEGER NOT NULL, row BLOB NOT NULL)")
    digests = json.dumps([runs_of(made_of.groups), runs_of(made_of.updates)])
    file.execute("INSERT INTO made_of VALUES (?)", (digests,))
    return file


def _made_of(file: sqlite3.Connection) -> MadeOf:
    """Of the launch that wrote a file; of no step where it ended before it could say."""
    told = file.execute("SELECT digests FROM made_of").fetchone()
    groups, updates = json.loads(told[0]) if told else ((), ())
    return MadeOf(steps_of(groups), steps_of(updates))


def _connect(path: Path) -> sqlite3.Connection:
    """Every statement is a transaction, and is on the disk when it returns."""
    file = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
    file.execute("PRAGMA journal_mode = DELETE")
    file.execute("PRAGMA synchronous = FULL")
    return file


def _row(file: sqlite3.Connection, serial: int) -> bytes | None:
    found = file.execute("SELECT row FROM done WHERE serial = ?", (serial,)).fetchone()
    return found[0] if found else None
