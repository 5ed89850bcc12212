"""The journal of an evaluation: finished conversations in a file, from which an interrupted one resumes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlcore.errors import UserError
from rlcore.evaluate.lines import TrajectoryLine
from rlcore.files import JsonlFile, Record, check_shape, read_records, to_json, write_records
from rlcore.recipe.compare import differences

Name = tuple[str, str, int]
"""The stage of a conversation, its problem's id, and its number among those on the problem."""


class _SampleLine(TrajectoryLine):
    sample: int


class Journal:
    """Records of conversations by stage, problem and number (`sample`) among those on the problem.

    The first line of the JSONL file identifies the evaluation; each later one is the record of a conversation
    (`trajectory_record`) with its number. A line that a killed process left incomplete is left out, and so is a
    conversation with an attempt that has no score: its reward failed, and may not fail again. Without a path nothing is
    stored.

    Raises UserError where the file belongs to another evaluation, or cannot be read or written.
    """

    def __init__(self, path: Path | None = None, evaluates: Mapping[str, Any] | None = None):
        """`evaluates` is everything that the conversations depend on, as JSON."""
        self._done: dict[Name, Record] = {}
        self._file: JsonlFile | None = None
        if path is None:
            return
        lines = read_records(path) if path.exists() else []
        if len(lines) > 1 and (changed := differences(lines[0].get("evaluates"), evaluates)):
            named = ", ".join(list(changed)[:3])
            raise UserError(
                f"{path.parent} holds an evaluation that was begun with other {named or 'settings'}: output=FOLDER "
                f"writes this one elsewhere, or remove {path.parent}"
            )
        for number, record in enumerate(lines[1:], start=2):
            check_shape(record, _SampleLine, f"{path}:{number} is no such record")
        self._done = {(r["stage"], r["problem_id"], r["sample"]): r for r in lines[1:] if _scored(r)}
        write_records(path, [{"evaluates": evaluates}, *self._done.values()])
        self._file = JsonlFile(path)

    @property
    def done(self) -> int:
        """Conversations found in the file."""
        return len(self._done)

    def read(self, stage: str, problem: str, sample: int) -> Record | None:
        """The record of a conversation found in the file, or None."""
        return self._done.get((stage, problem, sample))

    def write(self, record: Record, sample: int) -> Record:
        """Stores the record of a conversation. Returns it as `read` would, so that resuming changes nothing."""
        kept: Record = json.loads(to_json({**record, "sample": sample}))
        if self._file:
            self._file.write(kept)
        return kept

    def close(self) -> None:
        if self._file:
            self._file.close()


def _scored(record: Record) -> bool:
    return all(attempt["score"] is not None for attempt in record["attempts"])
