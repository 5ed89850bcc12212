"""Where requests go when servers, or what lies between, fail for a while: against stand-ins (see stub.py)."""

import asyncio
import os
import resource
from collections.abc import Sequence

import pytest
import torch

from rlcore.errors import UserError
from rlcore.rollout import Sampling
from rlcore.rollout.servers.board import Board
from rlcore.rollout.servers.fleet import Fleet
from rlcore.rollout.servers.processes import free_port
from tests.rollout.servers.running import engine, post, sample_all, section, until, up, weights


def given(stubs, **settings):
    return {"servers": [stub.url for stub in stubs], "deadline": 20.0, **settings}


async def follower(urls: Sequence[str], board: Board) -> Fleet:
    """A rank's fleet that has read on the board that all servers are up. It looks again when told."""
    board.write({"servers": [[True, "run:1", 1, ""]] * len(urls), "fatal": None})
    fleet = Fleet(section(urls).vllm, urls, [1])
    fleet.label = "run:1"
    await fleet.open(None, None)
    await fleet.look(board)
    return fleet


@pytest.fixture
def board() -> Board:
    return Board(torch.distributed.HashStore(), "run")


@pytest.fixture
def labelled(two):
    """Servers that hold weights `run:1`."""
    for stub in two:
        post(stub.url, "/start_weight_update", {})
        post(stub.url, "/finish_weight_update", {"weight_version": "run:1"})
    return two


@pytest.mark.parametrize("fault", ["without", "blank"])
def test_a_server_of_this_run_that_a_proxy_hides_is_taken_out_and_comes_back(two, tmp_path, fault):
    with engine(tmp_path, **given(two)) as rollout:
        until(lambda: up(rollout) == 2)
        post(two[0].url, "/behave", {fault: "/weight_info"})
        until(lambda: up(rollout) == 1, 60)
        rollout.publish(weights(-2), 1)
        post(two[0].url, "/behave", {})
        until(lambda: rollout._fleet.check() or up(rollout) == 2)
        assert {sample.logprobs[0] for samples in sample_all(rollout, 8) for sample in samples} == {-2.0}


@pytest.mark.parametrize("status", [404, 408, 429])
def test_a_refusal_that_passes_sends_a_request_elsewhere(two, tmp_path, status):
    with engine(tmp_path, **given(two)) as rollout:
        until(lambda: up(rollout) == 2)
        sample_all(rollout, 8)
        post(two[0].url, "/behave", {"status": status})
        assert len(sample_all(rollout, 8)) == 8


def test_servers_without_the_route_to_sample_end_the_run_at_once(two, tmp_path):
    with engine(tmp_path, **given(two)) as rollout:
        until(lambda: up(rollout) == 2)
        for server in two:
            post(server.url, "/behave", {"status": 404})
        with pytest.raises(UserError, match="refused with 404"):
            sample_all(rollout, 1)


def test_a_request_tries_every_server_before_it_tries_one_again(labelled, board):
    """Dead servers have no load and would be chosen again and again."""

    async def story() -> int:
        fleet = await follower([*(f"http://127.0.0.1:{free_port()}" for _ in range(3)), labelled[0].url], board)
        try:
            sample = await fleet.sample([1, 2], Sampling(8), seed=1, key=1, last=True)
        finally:
            await fleet.close()
        return len(sample.ids)

    assert asyncio.run(story()) > 0


def test_a_request_that_failed_on_every_server_waits_before_it_tries_them_again(labelled, board, monkeypatch):
    sleep = asyncio.sleep

    async def while_waiting(seconds: float) -> None:
        for stub in labelled:
            await asyncio.to_thread(post, stub.url, "/behave", {})
        await sleep(0)

    async def story() -> int:
        fleet = await follower([stub.url for stub in labelled], board)
        monkeypatch.setattr("rlcore.rollout.servers.fleet.asyncio.sleep", while_waiting)
        try:
            async with asyncio.timeout(60):
                sample = await fleet.sample([1, 2], Sampling(8), seed=1, key=1, last=True)
        finally:
            await fleet.close()
        return len(sample.ids)

    for stub in labelled:
        post(stub.url, "/behave", {"status": 500})
    assert asyncio.run(story()) > 0


def test_requests_of_a_server_that_is_taken_out_do_not_count_against_it(labelled, board):
    async def story() -> None:
        fleet = await follower([stub.url for stub in labelled], board)
        asked = [fleet.sample([at, 2], Sampling(8), seed=at, key=at, last=True) for at in range(16)]
        tasks = [asyncio.create_task(sample) for sample in asked]
        server = fleet.servers[0]
        while len(server.requests) < 8:
            await asyncio.sleep(0.01)
        for state in (False, True):
            board.write({"servers": [[state, "run:1", 1, "a probe"], [True, "run:1", 1, ""]], "fatal": None})
            await fleet.look(board)
            while not state and server.requests:
                await asyncio.sleep(0.01)
        assert (server.up, server.failures) == (True, 0)
        for stub in labelled:
            await asyncio.to_thread(post, stub.url, "/behave", {})
        assert len(await asyncio.gather(*tasks)) == 16
        await fleet.close()

    for stub in labelled:
        post(stub.url, "/behave", {"holds_after": 0})
    asyncio.run(story())


def test_a_server_that_comes_back_starts_without_failures(labelled, board):
    async def story() -> int:
        fleet = await follower([stub.url for stub in labelled], board)
        server = fleet.servers[0]
        fleet.take_out(server, "a probe")
        fleet._doubt(server, "a request that failed at the same time")
        await fleet.look(board)
        await fleet.close()
        assert server.up
        return server.failures

    assert asyncio.run(story()) == 0


def test_a_server_that_failed_the_requests_of_a_rank_is_used_again_once_the_first_rank_has_mended_it(labelled, board):
    async def story() -> list[bool]:
        fleet = await follower([stub.url for stub in labelled], board)
        server, states = fleet.servers[0], []
        for _ in range(3):
            fleet._doubt(server, "a failed request")
        for state in (True, False, True):
            board.write({"servers": [[state, "run:1", 1, "a probe"], [True, "run:1", 1, ""]], "fatal": None})
            await fleet.look(board)
            states.append(server.up)
        await fleet.close()
        return states

    assert asyncio.run(story()) == [False, False, True]


def test_a_server_that_two_ranks_see_taken_out_is_counted_once(two, tmp_path, monkeypatch):
    """Another rank sees the same as this one."""
    monkeypatch.setattr("rlcore.rollout.servers.engine.all_gather", lambda value, ranks: [value, value])
    with engine(tmp_path, **given(two)) as rollout:
        until(lambda: up(rollout) == 2)
        post(two[0].url, "/behave", {"fail": "update"})
        rollout.publish(weights(-2), 1)
        assert rollout.metrics()["servers/taken_out"] == 1


@pytest.fixture
def few_files():
    """Sets the limit of open files to what is open and so many more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    def limit(more: int) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + more, hard))

    yield limit
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_more_requests_than_the_usual_limit_of_open_files(two, tmp_path, few_files):
    few_files(40)
    with engine(tmp_path, **given(two)) as rollout:
        until(lambda: up(rollout) == 2)
        for stub in two:
            post(stub.url, "/behave", {"holds_after": 0})
        answered = sample_all(rollout, 100, then=lambda: [post(stub.url, "/behave", {}) for stub in two])
        assert len(answered) == 100
        assert rollout._fleet.counts["taken_out"] == 0


def test_too_many_open_files_are_no_fault_of_a_server(two, tmp_path, few_files):
    with engine(tmp_path, **given(two)) as rollout:
        until(lambda: up(rollout) == 2)
        for stub in two:
            post(stub.url, "/behave", {"delay": 1.0})
        few_files(40)
        with pytest.raises(UserError, match="too many open files here"):
            sample_all(rollout, 100)
        assert rollout._fleet.counts["taken_out"] == 0


def test_servers_get_the_key_they_were_started_with(two, tmp_path, monkeypatch):
    monkeypatch.setenv("VLLM_API_KEY", "a-key")
    for stub in two:
        post(stub.url, "/behave", {"key": "a-key"})
    with engine(tmp_path, **given(two)) as rollout:
        assert len(sample_all(rollout, 4)) == 4
