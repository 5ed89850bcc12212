"""What a run that samples ahead has sampled and not learned for good: it survives the end of any process at any time.

Each rank of each launch writes one SQLite file: a row for each serial, in one transaction that is on the disk when it
returns (`synchronous` FULL, with a rollback journal, which unlike a write-ahead log works on network file systems).
Files of earlier launches are read as they stand when the next one begins: what a process of theirs that is still alive
writes later is of no effect.
"""

import hashlib
import json
import sqlite3
import threading
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter

from rewards import Verdict
from rlcore.errors import UserError
from rlcore.ranks import Ranks, all_gather
from rlcore.recipe import Recipe
from rlcore.session.inputs import Inputs
from rlcore.types import Groups, Problem, Trajectory, Turn

Answer = TypeVar("Answer")
_ROW: TypeAdapter[Any] = TypeAdapter(list[list[tuple[tuple[Turn, ...], tuple[Verdict, ...]]]])
"""The groups of one place of a step in the order in which they were sampled, without their problems."""


class Ledger:
    """Groups by serial. All ranks make it together; after that each reads and writes on its own, from any thread."""

    def __init__(self, folder: Path, ranks: Ranks, identity: str):
        """`identity`: of all that the groups depend on; rows of another are passed over.

        Raises UserError on all ranks where the folder cannot be written.
        """
        self._first, self._folder = ranks.first, folder
        found = _earlier(folder, identity) if ranks.first else None
        self._earlier, launch, refused = all_gather(found, ranks)[0] or ({}, 0, "")
        if refused:
            raise UserError(refused)
        self._path = folder / f"{launch:06d}-{ranks.rank:05d}.sqlite"
        self._lock = threading.Lock()
        self._kept = 0
        self._file = self._told(lambda: _open(self._path, identity))

    def write(self, serial: int, groups: Groups) -> None:
        """Keeps the groups; returns once they are on the disk. Raises UserError where they cannot be."""
        row = zlib.compress(_ROW.dump_json([[(t.turns, t.verdicts) for t in group] for group in groups]), 1)
        self._told(lambda: self._file.execute("INSERT OR REPLACE INTO done VALUES (?, ?)", (serial, row)))

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


def sampled_from(recipe: Recipe, inputs: Inputs) -> str:
    """A digest of all that a run's groups depend on beside its weights."""
    parts = {"seed", "model", "data", "conversation", "rewards", "batch", "credit", "stages"}
    sampling = {"temperature", "top_p", "top_k", "min_p", "stop"}
    told = recipe.model_dump(mode="json", include={**dict.fromkeys(parts, True), "rollout": sampling})
    return hashlib.blake2b(json.dumps([told, inputs], sort_keys=True).encode(), digest_size=16).hexdigest()


def _earlier(folder: Path, identity: str) -> tuple[dict[int, str], int, str]:
    """The file of each serial that earlier launches kept, the number of this launch, and why there can be none."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        found: dict[int, str] = {}
        launch = 0
        for path in sorted(folder.glob("*.sqlite")):
            launch = int(path.name.partition("-")[0]) + 1
            try:
                file = _connect(path)
                if file.execute("SELECT identity FROM made_of").fetchone() == (identity,):
                    found |= {serial: path.name for (serial,) in file.execute("SELECT serial FROM done")}
                file.close()
            except sqlite3.DatabaseError:  # its launch ended before the first row, or its disk lost it
                continue
    except OSError as error:
        return {}, 0, f"the ledger {folder} cannot be written: {error.strerror}"
    return found, launch, ""


def _open(path: Path, identity: str) -> sqlite3.Connection:
    file = _connect(path)
    file.execute("CREATE TABLE made_of (identity TEXT NOT NULL)")
    file.execute("CREATE TABLE done (serial INTEGER PRIMARY KEY, row BLOB NOT NULL)")
    file.execute("INSERT INTO made_of VALUES (?)", (identity,))
    return file


def _connect(path: Path) -> sqlite3.Connection:
    """Every statement is a transaction, and is on the disk when it returns."""
    file = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
    file.execute("PRAGMA journal_mode = DELETE")
    file.execute("PRAGMA synchronous = FULL")
    return file


def _row(file: sqlite3.Connection, serial: int) -> bytes | None:
    found = file.execute("SELECT row FROM done WHERE serial = ?", (serial,)).fetchone()
    return found[0] if found else None
