"""How many tokens texts have, counted once: counts of many texts are kept in the user's cache folder."""

import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from rlcore.errors import UserError
from rlcore.files import write_whole

WORTH_KEEPING = 1000
"""Fewest texts whose counts are kept."""


def token_counts(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[int]:
    """Tokens of each text without those that a tokenizer adds, as it counted them or counted them before.

    What is kept is found by a digest of the tokenizer and of all texts, so it is never of others.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or len(texts) < WORTH_KEEPING:
        return _count(tokenizer, texts)
    digest = hashlib.sha256(backend.to_str().encode())
    for text in texts:
        encoded = text.encode(errors="surrogatepass")
        digest.update(b"%d:" % len(encoded) + encoded)
    kept = _cache_folder() / f"{digest.hexdigest()}.i4"
    with suppress(OSError, ValueError):
        counts_P = np.frombuffer(kept.read_bytes(), np.int32)
        if len(counts_P) == len(texts):
            return list(map(int, counts_P))
    counts = _count(tokenizer, texts)
    with suppress(UserError):  # what cannot be kept is counted again
        write_whole(kept, np.array(counts, np.int32).tobytes())
    return counts


def _count(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[int]:
    return list(map(len, tokenizer(list(texts), add_special_tokens=False)["input_ids"]))


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "rlcore" / "token_counts"
