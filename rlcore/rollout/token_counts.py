"""How many tokens texts have, counted once: counts of many texts are kept in the user's cache folder."""

import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from rlcore.errors import UserError
from rlcore.files import write_whole

WORTH_KEEPING = 1000
"""Fewest texts whose counts are kept."""


class TokenCounts:
    """Counts the tokens of texts by a tokenizer that stays as it is meanwhile."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self._tokenizer = tokenizer
        self._backend: Any = getattr(tokenizer, "backend_tokenizer", None)

    def of(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text without those that a tokenizer adds, as it counts them now or counted them before.

        What is kept is found by a digest of the tokenizer and of all texts, so it is never of others.
        """
        if self._backend is None or len(texts) < WORTH_KEEPING:
            return self._count(texts)
        digest = self._digest.copy()
        for text in texts:
            encoded = text.encode(errors="surrogatepass")
            digest.update(b"%d:" % len(encoded) + encoded)
        kept = _cache_folder() / f"{digest.hexdigest()}.i4"
        with suppress(OSError, ValueError):
            counts_P = np.frombuffer(kept.read_bytes(), np.int32)
            if len(counts_P) == len(texts):
                return list(map(int, counts_P))
        counts = self._count(texts)
        with suppress(UserError):  # what cannot be kept is counted again
            write_whole(kept, np.array(counts, np.int32).tobytes())
        return counts

    @cached_property
    def _digest(self) -> "hashlib._Hash":
        """Of the tokenizer, whose files have megabytes."""
        return hashlib.sha256(self._backend.to_str().encode())

    def _count(self, texts: Sequence[str]) -> list[int]:
        return list(map(len, self._tokenizer(list(texts), add_special_tokens=False)["input_ids"]))


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "rlcore" / "token_counts"
