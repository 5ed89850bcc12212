"""The one interface of everything that samples attempts."""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, Protocol

import torch

from rlcore.policy.truncation import KEEP_ALL, Truncation
from rlcore.rollout.stopping import StopTexts


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn. Temperature 0 is greedy."""

    max_tokens: int
    temperature: float = 1.0
    truncation: Truncation = KEEP_ALL
    stop: StopTexts | None = None
    """What an engine samples after them, if it does not look for them as it samples, is cut off afterwards."""
    seed: int = 0
    """Of the random numbers."""
    apart: bool = False
    """Whether a conversation's random numbers depend on `seed` and its key alone, whatever else is sampled. Engines of
    which that is always true need not look."""
    least_version: int | None = None
    """Of the weights that may sample a token; None: those published last. Only an engine that holds others looks."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One continuation: its ids, the stop token included; of each, its log-probability and the weights' version."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish: Literal["stop", "length"]
    versions: tuple[int, ...]

    def stopped_after(self, count: int) -> "Sample":
        """The first `count` tokens."""
        return Sample(self.ids[:count], self.logprobs[:count], "stop", self.versions[:count])


class RolloutEngine(Protocol):
    """Samples continuations of token ids. Requests run together; each is answered the moment it ends."""

    async def sample(self, ids: Sequence[int], sampling: Sampling, *, key: int, last: bool) -> Sample:
        """Continues `ids`. A conversation's requests share a `key`, which no other has that goes on meanwhile.

        By it the conversation's KV cache is found; `last` frees it.
        """

    def release(self, key: int) -> None:
        """Frees what is kept of a conversation that ended without a `last` request."""

    def waits_for(self) -> str:
        """Where the requests are that are not answered yet, for a line about who is late."""

    def publish(self, weights: Iterable[tuple[str, torch.Tensor]], version: int) -> None:
        """Loads all weights, or the adapters alone; what is sampled from here on carries `version`."""

    def sleep(self) -> None:
        """Gives up memory, where the engine holds any of its own, until the next `publish`."""

    def together(self) -> AbstractContextManager[None]:
        """Around all requests of a phase, before ranks meet elsewhere: those that share an engine leave it together."""

    def metrics(self) -> dict[str, float]:
        """Figures to log since the last `publish`, and of it."""

    def close(self) -> None:
        """Ends whatever the engine runs."""


def publication_metrics(size: int, seconds: float) -> dict[str, float]:
    """What is logged of a publication of `size` bytes."""
    return {"publish/bytes": float(size), "publish/seconds": seconds, "publish/gb_per_s": size / seconds / 1e9}
