"""Sources: what is particular to each known data set. One file a source; `SOURCES` names them as recipes do."""

from rlcore.data.sources.arithmetic import ARITHMETIC
from rlcore.data.sources.generic import GENERIC
from rlcore.data.sources.gsm8k import GSM8K
from rlcore.data.sources.humaneval import HUMANEVAL
from rlcore.data.sources.math import MATH
from rlcore.data.sources.mbpp import MBPP
from rlcore.data.sources.source import Source

SOURCES: dict[str, Source] = {
    "arithmetic": ARITHMETIC,
    "gsm8k": GSM8K,
    "math": MATH,
    "mbpp": MBPP,
    "humaneval": HUMANEVAL,
    "jsonl": GENERIC,
    "parquet": GENERIC,
    "hub": GENERIC,
}

__all__ = ["SOURCES", "Source"]
