"""JSON as runs keep it: strict, so that any reader takes it, and files of records, one a line."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlcore.types import UserError

Record = dict[str, Any]


def read_records(path: Path) -> list[Record]:
    """All records of a JSONL file. A torn last line, which a crash leaves behind, is left out.

    Raises UserError where the file cannot be read or any other line is not a JSON object.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    records = []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            if not isinstance(record, dict):
                raise ValueError("not an object")
        except ValueError:
            if number == len(lines):
                break
            raise UserError(f"{path}:{number} is not a JSON record") from None
        records.append(record)
    return records


def to_json(value: Any) -> bytes:
    """Strict JSON in UTF-8, on one line; NaN and infinities, which JSON lacks, become null."""
    return json.dumps(_plain(value), ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "item"):  # a number of numpy or torch
        return _plain(value.item())
    return None if isinstance(value, float) and not math.isfinite(value) else value
