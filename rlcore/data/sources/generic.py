"""Any table: the text stands in `prompt`, unless the recipe's column map says otherwise."""

from typing import Any

from rlcore.data.table import Table, read_hub, read_jsonl, read_parquet
from rlcore.entries import Source
from rlcore.errors import UserError


def _jsonl(path: str, subset: str | None, split: str, bad: Any) -> Table:
    _check_whole(path, split)
    return read_jsonl(path, bad)


def _parquet(path: str, subset: str | None, split: str, bad: Any) -> Table:
    _check_whole(path, split)
    return read_parquet(path)


def _check_whole(path: str, split: str) -> None:
    """UserError where part of a file is asked for."""
    if split not in ("train", "all"):  # train is what split says when it is left out
        raise UserError(f"data.split {split}: {path} is one file, which has no splits; put the split in its own file")


JSONL = Source(text="prompt", read=_jsonl)
PARQUET = Source(text="prompt", read=_parquet)
HUB = Source(text="prompt", read=lambda path, subset, split, bad: read_hub(path, subset, split))
