"""Ctrl-C and SIGTERM end a run after the step in hand; a second Ctrl-C ends it at once."""

import signal
from types import FrameType, TracebackType

import torch

from rlcore.learner import Ranks


class Interrupt:
    """Watches for a request to stop while it is open. All ranks agree on whether there was one."""

    def __init__(self, ranks: Ranks):
        self._ranks = ranks
        self._asked = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> "Interrupt":
        self._before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def requested(self) -> bool:
        """Whether any rank was asked to stop (every rank takes part)."""
        if self._ranks.world == 1:
            return self._asked
        asked = torch.tensor(int(self._asked), device=self._ranks.device)
        torch.distributed.all_reduce(asked, torch.distributed.ReduceOp.MAX)
        return bool(asked.item())

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self._asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._asked = True
