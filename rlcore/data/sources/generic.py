"""Any table: the text stands in `prompt`, unless the recipe's column map says otherwise."""

from rlcore.data.table import read_hub, read_jsonl, read_parquet
from rlcore.entries import Source

JSONL = Source(text="prompt", read=lambda path, subset, split, bad: read_jsonl(path, bad))
PARQUET = Source(text="prompt", read=lambda path, subset, split, bad: read_parquet(path))
HUB = Source(text="prompt", read=lambda path, subset, split, bad: read_hub(path, subset, split))
