"""Any table: the text stands in `prompt`, unless the recipe's column map says otherwise."""

from rlcore.data.sources.source import Source

GENERIC = Source(text="prompt")
