"""How the servers are, from the rank that watches them to all others: a note in the store of their process group."""

import json
from datetime import timedelta
from typing import Any

import torch

from rlcore.ranks import Ranks


class Board:
    """The first rank writes it and the others read it, so that no server is asked by more than one rank."""

    def __init__(self, store: Any, run: str):
        """`run` tells it from the notes of other engines in the same store."""
        self._store, self._key = store, f"rlcore/servers/{run}"

    @classmethod
    def of(cls, ranks: Ranks, run: str) -> "Board | None":
        """None for a rank that is alone: it has nobody to tell."""
        if ranks.world == 1:
            return None
        # A connection of its own: the process group's may be held by a collective.
        default: Any = torch.distributed.distributed_c10d._get_default_store()
        store = default.clone()
        store.set_timeout(timedelta(seconds=30))
        return cls(store, run)

    def write(self, note: Any) -> None:
        """Replaces what stands there by a value that JSON holds."""
        self._store.set(self._key, json.dumps(note))

    def read(self) -> Any:
        """What stands there; waits for the first note."""
        return json.loads(self._store.get(self._key))
