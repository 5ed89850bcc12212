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
from rlcore.rollout.streaming import finished, iterated
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


def at_once(engine, talk) -> None:
    sample_groups(engine, talk, [problem()], 1, Sampling(8), deadline=30)


def streamed(engine, talk) -> None:
    def start():
        return engine.sample((), Sampling(8), key=0, last=True)

    list(iterated(finished([start], window=1, deadline=30)))


@pytest.mark.parametrize("sample", [at_once, streamed])
def test_interrupted_sampling_leaves_no_traceback_behind(caplog, sample):
    class Asked(ScriptedEngine):
        async def sample(self, *args, **named):
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(60)

    talk = conversation()
    interrupt = Interrupt(Ranks(0, 1, torch.device("cpu")))
    with interrupt, pytest.raises(Stopped), interrupt.nothing_to_save():
        sample(Asked(talk.tokenizer, lambda *_: ""), talk)
    gc.collect()  # asyncio says of futures what nobody asked when they go
    assert not caplog.records
