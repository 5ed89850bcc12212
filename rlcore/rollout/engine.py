"""The interface of everything that samples attempts."""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
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
    """Texts that end a reply. An engine may ignore them: the reply is cut after the first of them in any case."""
    seed: int = 0
    """With a conversation's key it says what its random numbers are, whatever else is sampled."""
    least_version: int | None = None
    """The oldest weights that may sample a token; None: those published last. Servers may hold several versions."""
    adapter: int = 0
    """The problem whose adapters it goes through, of an engine that is given several (`TorchEngine.adapters`)."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One continuation: its ids, the stop token included, and the log-probability and weight version of each."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish: Literal["stop", "length"]
    versions: tuple[int, ...]

    def stopped_after(self, count: int) -> "Sample":
        """The first `count` tokens."""
        return Sample(self.ids[:count], self.logprobs[:count], "stop", self.versions[:count])


class RolloutEngine(Protocol):
    """Samples continuations of token ids. Requests run concurrently; each is answered the moment it ends.

    The defaults are those of an engine that lives in the learner's process and shares its memory.
    """

    steps: int = 0
    """Forward passes so far, of an engine in this process: while they rise it works, however long a reply takes."""

    async def sample(self, ids: Sequence[int], sampling: Sampling, *, key: int, last: bool) -> Sample:
        """Continues `ids`. `key` identifies the conversation and its KV cache among those running; `last` frees it."""

    def publish(self, weights: Iterable[tuple[str, torch.Tensor]], version: int) -> None:
        """Loads all weights, or the adapters alone. Tokens sampled from here on carry `version`."""

    def release(self, key: int) -> None:
        """Frees what is kept of a conversation that ended without a `last` request."""
        return

    def waits_for(self) -> str:
        """Where unanswered requests are, for the line that reports a delay."""
        return "this process"

    def sleep(self) -> None:
        """Gives up the engine's own memory until the next `publish`."""
        return

    def together(self) -> AbstractContextManager[None]:
        """Wraps all requests of a phase. Ranks that share an engine leave it together; others wait for nobody."""
        return nullcontext()

    def metrics(self) -> dict[str, float]:
        """Figures to log of the last `publish` and of what has happened since."""
        return {}

    def close(self) -> None:
        """Ends whatever the engine runs."""
        return


def publication_metrics(size: int, seconds: float) -> dict[str, float]:
    """The figures of a publication of `size` bytes."""
    return {"publish/bytes": float(size), "publish/seconds": seconds, "publish/gb_per_s": size / seconds / 1e9}
