"""A file of JSON records that survives crashes and continues where a checkpoint left off."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlcore.evaluate.records import Record, read_records, to_json
from rlcore.types import UserError


def cut_records(path: Path, after_step: int | None) -> list[Record]:
    """Take out the records after a step and a torn last line; returns those that stay.

    With None the file starts empty, and what it held is kept beside it as `NAME.previous.jsonl`. Raises UserError
    where the file cannot be read or written.
    """
    kept = []
    if after_step is not None and path.exists():
        kept = [record for record in read_records(path) if record["step"] <= after_step]
    part = path.with_name(path.name + ".part")
    try:
        if after_step is None and path.exists() and path.stat().st_size:
            os.replace(path, path.with_name(f"{path.stem}.previous{path.suffix}"))
        part.write_bytes(b"".join(to_json(record) + b"\n" for record in kept))
        os.replace(part, path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None
    return kept


class JsonlFile:
    """Appends records, one a line, each handed to the system at once; values that are not finite become null.

    Raises UserError where the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise self._unwritable(error) from None

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one record."""
        line = memoryview(to_json(record) + b"\n")
        try:
            while line:
                line = line[self._file.write(line) :]
        except OSError as error:
            raise self._unwritable(error) from None

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _unwritable(self, error: OSError) -> UserError:
        return UserError(f"cannot write {self._path}: {error.strerror}")
