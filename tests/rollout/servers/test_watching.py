"""How the fleet watches its servers and brings them back, in one event loop without any server."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import pytest

from rlcore.rollout.servers.fleet import Fleet
from rlcore.rollout.servers.keeper import Keeper
from rlcore.rollout.servers.server import Server, ServerFault
from tests.rollout.servers.running import section

URL = "http://nowhere:1"


class Probed:
    """As much of a server as its watch looks at; a probe ends when `answer` has its outcome."""

    def __init__(self) -> None:
        self.up, self.label, self.doubted, self.failures, self.trouble = True, "run:1", asyncio.Event(), 0, 0
        self.url, self.reason, self.requests = URL, "", set()
        self.probed, self.answer = asyncio.Event(), asyncio.get_running_loop().create_future()

    async def weight_version(self) -> str:
        self.probed.set()
        return await self.answer


@pytest.mark.parametrize("published", [True, False])
@pytest.mark.parametrize("outcome", ["run:1", "run:0", ServerFault("probe: no answer")])
def test_a_publication_waits_for_no_probe_and_is_no_fault_of_the_server_that_was_probed(published, outcome):
    async def story() -> bool:
        fleet, server = Fleet(section([URL]).vllm, [URL], [1]), Probed()
        watch = asyncio.create_task(fleet._while_up(server))
        await asyncio.sleep(0)
        server.doubted.set()  # it is probed at once
        await server.probed.wait()
        if published:
            async with asyncio.timeout(60), fleet.steady:
                server.label = "run:2"
        if isinstance(outcome, Exception):
            server.answer.set_exception(outcome)
        else:
            server.answer.set_result(outcome)
        for _ in range(5):
            await asyncio.sleep(0)
        watch.cancel()
        return server.up

    assert asyncio.run(story()) == (published or outcome == "run:1")


def test_a_watch_that_fails_ends_the_run():
    async def story() -> None:
        fleet, server = Fleet(section([URL]).vllm, [URL], [1]), Probed()

        async def bring_back(server: Probed) -> None:
            server.doubted = Mistaken()

        await asyncio.wait([asyncio.create_task(fleet._watch(server, bring_back))], timeout=60)
        fleet.check()

    class Mistaken(asyncio.Event):
        def clear(self) -> None:
            raise KeyError("a mistake")

    with pytest.raises(KeyError, match="a mistake"):
        asyncio.run(story())


def test_a_server_may_fail_many_repairs_and_returns_without_its_failed_requests(monkeypatch):
    """More repairs than powers of two that a float can hold."""
    repairs, sleep = 0, asyncio.sleep

    async def bring_back(server: Server) -> None:
        nonlocal repairs
        repairs += 1
        if repairs < 1100:
            raise ServerFault("start: it ended")
        server.failures = 2  # of requests that failed while it was out

    async def story() -> Server:
        fleet = Fleet(section([URL]).vllm, [URL, f"{URL}0"], [1])
        fleet.servers = [Server(URL, None, 1.0) for _ in fleet.urls]
        watch = asyncio.create_task(fleet._watch(fleet.servers[0], bring_back))
        while not (fleet.servers[0].up or watch.done()):
            await sleep(0)
        watch.cancel()
        with suppress(asyncio.CancelledError):
            await watch
        return fleet.servers[0]

    monkeypatch.setattr("rlcore.rollout.servers.fleet.asyncio.sleep", lambda seconds: sleep(0))
    server = asyncio.run(story())
    assert (server.up, server.failures) == (True, 0)


class Repaired(Server):
    """Answers every call; the first calls whose phases are in `fails` do not succeed."""

    fails: tuple[str, ...] = ()

    async def weight_version(self) -> str:
        return str(await self._call("probe"))

    async def look(self) -> None:
        await self._call("look")

    async def _call(self, phase: str, *rest: object) -> dict:
        await asyncio.sleep(0)
        if phase in self.fails:
            at = self.fails.index(phase)
            self.fails = self.fails[:at] + self.fails[at + 1 :]
            raise ServerFault(f"{phase}: no answer")
        return {}


@pytest.mark.parametrize(
    ("transfer", "before", "after"),
    [("nccl", (), ("probe",)), ("nccl", ("look", "look"), ("probe",)), ("files", (), ("pause",))],
)
def test_the_time_a_server_waits_for_the_learner_is_not_that_of_its_repair(monkeypatch, transfer, before, after):
    """It fails after that time, or before and after it as often as it may in a row, and is tried again."""

    async def story() -> None:
        loop, ahead = asyncio.get_running_loop(), 0.0
        time = loop.time
        monkeypatch.setattr(loop, "time", lambda: time() + ahead)
        fleet = Fleet(section([URL], transfer=transfer, deadline=600).vllm, [URL], [1])
        server, keeper = Repaired(URL, None, 1.0), Keeper(fleet, {})
        fleet.servers, server.fails = [server], before
        watch = asyncio.create_task(fleet._watch(server, keeper.bring_back))

        async def until(true: Callable[[], object]) -> None:
            while not true():
                await asyncio.sleep(0)
                fleet.check()

        async with asyncio.timeout(60):
            await until(lambda: fleet._news._waiters)
        ahead, server.fails, keeper._weights = 1000.0, after, Written()
        fleet.tell()
        async with asyncio.timeout(60):
            await until(lambda: not server.fails and (server in keeper._waiting or server.up))
        watch.cancel()

    class Written:
        async def parts(self):
            yield {}

    asyncio.run(story())


def test_a_server_that_is_slow_to_resume_keeps_no_other_paused():
    class Resuming(Server):
        async def resume(self) -> None:
            if self.url.endswith("1"):
                await second.wait()
            else:
                second.set()

    second, urls = asyncio.Event(), [f"{URL}1", f"{URL}2"]

    async def story() -> list[str]:
        fleet = Fleet(section(urls).vllm, urls, [1])
        fleet.servers = [Resuming(url, None, 1.0) for url in urls]
        await asyncio.wait_for(Keeper(fleet, {}).resume_all(urls, "run:1"), 30)
        return [server.label for server in fleet.servers]

    assert asyncio.run(story()) == ["run:1", "run:1"]
