"""Which server answers which request: where its KV cache is, else where there is room."""

from collections.abc import Sequence

from rlcore.rollout.vllm.server import Replica

FOLLOW = 16
"""Requests by which a replica may be busier than the least busy one and still get another of a prompt it has seen."""


class Router:
    """Remembers where each conversation and each prompt went."""

    def __init__(self) -> None:
        self._homes: dict[int, Replica] = {}
        self._prompts: dict[int, Replica] = {}

    def place(self, key: int, ids: Sequence[int], replicas: Sequence[Replica]) -> Replica:
        """One of `replicas` (not empty): the conversation's own; else one that computes the same prompt; else the least
        busy one."""
        home = self._homes.get(key)
        if home is not None and home in replicas:
            return home
        prompt = hash(tuple(ids))
        least = min(replicas, key=lambda replica: replica.load)
        chosen = self._prompts.get(prompt, least)
        if chosen not in replicas or chosen.load >= least.load + FOLLOW:
            chosen = least
        self._homes[key] = self._prompts[prompt] = chosen
        return chosen

    def forget(self, key: int) -> None:
        """The conversation has ended, or has to go elsewhere."""
        self._homes.pop(key, None)

    def clear(self) -> None:
        """New conversations begin: nothing of the ones before is of use."""
        self._homes.clear()
        self._prompts.clear()
