"""Any table with its text in the column `prompt`, or in another that the recipe maps to it."""

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
    """Raises UserError if a subset of a file is requested."""
    if split not in ("train", "all"):  # train is what split says when it is left out
        raise UserError(
            f"data.split {split}: {path} is one file, which has no splits; data.split=all reads the whole file"
        )


JSONL = Source(text="prompt", read=_jsonl)
PARQUET = Source(text="prompt", read=_parquet)
HUB = Source(text="prompt", read=lambda path, subset, split, bad: read_hub(path, subset, split))
