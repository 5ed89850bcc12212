"""A request to stop reaches the run wherever it finds it."""

import asyncio
import contextlib
import os
import signal

import pytest
import torch

from rlcore.interrupt import Interrupt, Stopped
from rlcore.learner import Ranks


def test_a_request_that_comes_inside_what_catches_all_is_not_lost():
    """As asyncio's transports do while they write."""

    async def work() -> None:
        with contextlib.suppress(BaseException):
            os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(60)

    interrupt = Interrupt(Ranks(0, 1, torch.device("cpu")))
    with interrupt, pytest.raises(Stopped), interrupt.nothing_to_save():
        asyncio.run(asyncio.wait_for(work(), 30))
