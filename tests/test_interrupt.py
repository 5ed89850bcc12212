"""A request to stop reaches the run wherever it finds it."""

import asyncio
import contextlib
import gc
import os
import signal

import pytest
import torch

from rlcore.ranks import Ranks
from rlcore.rollout import Sampling
from rlcore.rollout.episodes import sample_groups
from rlcore.session.interrupt import Interrupt, Stopped
from tests.rollout.scripted import ScriptedEngine, conversation, problem


def test_a_request_that_comes_inside_what_catches_all_is_not_lost():
    """As asyncio's transports do while they write."""

    async def work() -> None:
        with contextlib.suppress(BaseException):
            os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(60)

    interrupt = Interrupt(Ranks(0, 1, torch.device("cpu")))
    with interrupt, pytest.raises(Stopped), interrupt.nothing_to_save():
        asyncio.run(asyncio.wait_for(work(), 30))


def test_interrupted_sampling_leaves_no_traceback_behind(caplog):
    class Asked(ScriptedEngine):
        async def sample(self, *args, **named):
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(60)

    talk = conversation()
    interrupt = Interrupt(Ranks(0, 1, torch.device("cpu")))
    with interrupt, pytest.raises(Stopped), interrupt.nothing_to_save():
        sample_groups(Asked(talk.tokenizer, lambda *_: ""), talk, [problem()], 1, Sampling(8), deadline=30)
    gc.collect()  # asyncio says of futures what nobody asked when they go
    assert not caplog.records
