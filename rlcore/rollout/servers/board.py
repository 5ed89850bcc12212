"""The state of the servers, which the rank that watches them leaves for the others in the process group's store."""

import json
from datetime import timedelta
from typing import Any

import torch

from rlcore.ranks import Ranks


class Board:
    """Written by the first rank and read by the others, so that only one rank asks the servers."""

    def __init__(self, store: Any, run: str):
        """`run` distinguishes it from the notes of other engines in the same store."""
        self._store, self._key = store, f"rlcore/servers/{run}"

    @classmethod
    def of(cls, ranks: Ranks, run: str) -> "Board | None":
        """The board of this rank; None for a single rank."""
        if ranks.world == 1:
            return None
        # A connection of its own: the process group's may be held by a collective.
        default: Any = torch.distributed.distributed_c10d._get_default_store()
        store = default.clone()
        store.set_timeout(timedelta(seconds=30))
        return cls(store, run)

    def write(self, note: Any) -> None:
        """Replaces the note by a JSON value."""
        self._store.set(self._key, json.dumps(note))

    def read(self) -> Any:
        """The present note; waits for the first one."""
        return json.loads(self._store.get(self._key))
