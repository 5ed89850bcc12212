"""Measurements of all ranks together."""

from typing import TypeVar

import numpy as np

from rlcore.learner.distributed import Ranks, share

Item = TypeVar("Item")


def gather_rows(rows: dict[str, np.ndarray], ranks: Ranks) -> dict[str, np.ndarray]:
    """Rows `[N]` of every rank joined in the order of ranks; a rank without rows may give an empty dict."""
    parts = [part for part in share(rows, ranks) if part]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}


def gather_list(items: list[Item], ranks: Ranks) -> list[Item]:
    """The items of every rank joined in the order of ranks."""
    return [item for part in share(items, ranks) for item in part]


def own_first(array: np.ndarray, ranks: Ranks) -> list[np.ndarray]:
    """The arrays of all ranks, this rank's own first."""
    parts = share(array, ranks)
    return [*parts[ranks.rank :], *parts[: ranks.rank]]
