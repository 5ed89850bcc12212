"""Where the real benchmark files are, and their rows."""

import gzip
import json
import os
from pathlib import Path
from typing import Any


def data_folder() -> Path:
    """The folder that RLCORE_DATA names, else `shared/data` beside the checkout."""
    return Path(os.environ.get("RLCORE_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")


def rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSONL file, gzipped or not."""
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
        return [json.loads(line) for line in file]


def columns(table: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Rows turned into the columns that rewards take."""
    return {name: [row.get(name) for row in table] for name in table[0]}
