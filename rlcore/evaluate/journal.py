"""What an evaluation has done so far, in a file that outlives it: an interrupted one goes on from there."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from rlcore.errors import UserError
from rlcore.files import Record, read_records, to_json


class Journal:
    """Records of chunks of conversations, found by their stage and the place of the chunk's first problem.

    A JSONL file: a first line that says what is evaluated, then a line for each conversation, as `trajectory_record`
    has it, with its chunk's place and size. A chunk that was not written whole when the process was killed is left out.
    Without a path nothing is kept.

    Raises UserError where the file holds another evaluation, or cannot be read or written.
    """

    def __init__(self, path: Path | None = None, evaluates: str = ""):
        self._path = path
        self._done: dict[tuple[str, int], list[Record]] = {}
        if path is None:
            return
        lines = read_records(path) if path.exists() else []
        if len(lines) > 1 and lines[0].get("evaluates") != evaluates:
            raise UserError(
                f"{path.parent} holds another evaluation (other settings, data, rewards, weights or number of ranks): "
                "give another output, or remove the folder"
            )
        for record in lines[1:]:
            self._done.setdefault((record["stage"], record["chunk"]), []).append(record)
        self._done = {name: records for name, records in self._done.items() if len(records) == records[0]["of"]}
        part = path.with_name(path.name + ".part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)  # another rank may be later than this one
            kept = [record for records in self._done.values() for record in records]
            part.write_bytes(b"".join(to_json(line) + b"\n" for line in ({"evaluates": evaluates}, *kept)))
            os.replace(part, path)
        except OSError as error:
            raise self._unwritable(error) from None

    @property
    def begun(self) -> bool:
        """Whether a part was done before."""
        return bool(self._done)

    def read(self, stage: str, start: int) -> list[Record] | None:
        """The records of a chunk that was done before, or None."""
        return self._done.get((stage, start))

    def write(self, stage: str, start: int, records: Sequence[Record]) -> list[Record]:
        """Keeps a chunk that is done. Returns its records as `read` would, so that going on changes nothing."""
        lines = [to_json({**record, "chunk": start, "of": len(records)}) for record in records]
        try:
            if self._path:
                with self._path.open("ab") as file:
                    file.write(b"".join(line + b"\n" for line in lines))
        except OSError as error:
            raise self._unwritable(error) from None
        return [json.loads(line) for line in lines]

    def _unwritable(self, error: OSError) -> UserError:
        return UserError(f"cannot write {self._path}: {error.strerror}")
