"""What stops a run with a name: steps that cannot be taken, memory that runs out, a rank that does not answer."""

import dataclasses
import math
import signal
import socket
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import parameters, random_batch, tiny_learner, tiny_model

from rlcore.errors import UserError
from rlcore.types import TokenBatch
from tests.processes import Started, python

HERE = Path(__file__).parent


def poisoned(batch: TokenBatch, **streams: float) -> TokenBatch:
    """The batch with a value at one of its loss tokens."""
    place = np.flatnonzero(batch.loss_mask_N)[3]
    changed = {name: getattr(batch, name).copy() for name in streams}
    for name, value in streams.items():
        changed[name][place] = value
    return dataclasses.replace(batch, **changed)


@pytest.mark.usefixtures("ranks")
def test_a_loss_that_is_not_finite_skips_the_step():
    """A token that the sampler gave probability 0 has an infinite ratio."""
    learner = tiny_learner(kl_used=False)
    before = parameters(learner)
    report = learner.update(poisoned(random_batch(), sampler_logprob_N=-math.inf, advantage_N=-1.0))
    assert report["skipped"] == 1
    assert all(torch.equal(tensor, before[name]) for name, tensor in learner.weights())


@pytest.mark.usefixtures("ranks")
@pytest.mark.parametrize("zero", [1, 2, 3])
def test_after_a_skipped_step_of_an_optimizer_on_the_host_the_next_is_taken(zero):
    learner = tiny_learner(tiny_model().to(torch.bfloat16), kl_used=False, zero=zero, offload=["optimizer"])
    batches = random_batch(), poisoned(random_batch(), advantage_N=math.nan), random_batch(seed=1)
    assert [learner.update(batch)["skipped"] for batch in batches] == [0, 1, 0]
    learner.close()


@pytest.mark.usefixtures("ranks")
def test_too_many_skipped_steps_in_a_row_stop_the_run():
    learner = tiny_learner(kl_used=False, max_skipped=2)
    good, bad = random_batch(), poisoned(random_batch(), advantage_N=math.nan)
    for batch in (bad, good, bad):
        learner.update(batch)
    with pytest.raises(UserError, match="2 optimizer steps in a row were skipped"):
        learner.update(bad)


def test_out_of_memory_names_the_micro_batch_and_the_setting():
    done = python(HERE / "out_of_memory.py")
    assert done.returncode == 0, done.stderr[-3000:]
    tree, padded = done.stdout.splitlines()
    # Of 400 times 1,999 tokens before the last, the first is one of seven.
    assert "a micro-batch of 799,207 tokens, equal beginnings counted once, 798,400 in the loss: lower" in tree
    assert (
        "a micro-batch of 400 trajectories padded to 2000 tokens (800,000 tokens), 798,400 in the loss: lower" in padded
    )
    for line in (tree, padded):
        assert line.startswith("out of memory in")
        assert line.endswith("lower learner.micro_batch_tokens (now 800,000)")


def start_two(deadline: float) -> list[Started]:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    ranks = [common | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in (0, 1)]
    return [Started(HERE / "endless.py", deadline, env=rank) for rank in ranks]


def test_a_rank_that_hangs_ends_the_others_with_the_name_of_the_phase():
    first, second = start_two(deadline=5)
    try:
        while not all("step 3\n" in process.said for process in (first, second)):
            assert first.poll() is None, first.said
            time.sleep(0.01)
        second.send_signal(signal.SIGSTOP)
        said = first.wait()
    finally:
        first.kill()
        second.kill()
    assert first.returncode == 3
    assert "rank 0 has been in learner of step" in said
    assert "for 5 s, its deadline (learner.deadline)" in said
    assert "rank 1 in" in said
