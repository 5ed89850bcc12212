"""Ctrl-C, SIGTERM and SIGHUP stop a run at a point where it can be saved; a second Ctrl-C stops it at once."""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from rlcore.ranks import Ranks, all_gather

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that request a stop."""


class Stopped(KeyboardInterrupt):  # what asyncio lets through
    """A stop was requested and the run can be saved as it is. All ranks raise it together while anything is unsaved."""


class _Asked(KeyboardInterrupt):
    """Leaves a block that may be left at any moment."""


class Interrupt:
    """Records requests to stop while it is open. All ranks agree on whether there was one."""

    def __init__(self, ranks: Ranks):
        self._ranks = ranks
        self._asked = False
        self._leave: type[BaseException] | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> "Interrupt":
        self._before = {number: signal.signal(number, self._ask) for number in STOPPING}
        return self

    def __exit__(self, *raised: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def requested(self) -> bool:
        """Whether any rank was asked to stop. Collective."""
        return any(all_gather(self._asked, self._ranks))

    @contextmanager
    def stoppable(self) -> Iterator[None]:
        """Around code without collectives that changes nothing saved: a request leaves it at once.

        Raises Stopped on all ranks if any was asked.
        """
        try:
            with self._leaving_by(_Asked):
                yield
        except _Asked:
            pass
        if self.requested():
            raise Stopped

    @contextmanager
    def nothing_to_save(self) -> Iterator[None]:
        """Before the first step, or after the last is saved: a request raises Stopped at once, on the rank asked."""
        with self._leaving_by(Stopped):
            yield

    @contextmanager
    def _leaving_by(self, error: type[BaseException]) -> Iterator[None]:
        try:
            self._leave = error
            if self._asked:
                raise error
            yield
        finally:
            self._leave = None

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self._asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._asked = True
        error, self._leave = self._leave, None
        if error:
            _raise_soon(error)


def _raise_soon(error: type[BaseException]) -> None:
    """Raises `error`; in an event loop between callbacks, which would otherwise take it for a failure of their own."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        raise error from None
    loop.call_soon_threadsafe(_raise, error)


def _raise(error: type[BaseException]) -> None:
    raise error
