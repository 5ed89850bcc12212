"""How the fleet watches its servers, in one event loop without any server."""

import asyncio

import pytest

from rlcore.rollout.servers.fleet import Fleet
from rlcore.rollout.servers.server import ServerFault
from tests.rollout.servers.running import section


class Probed:
    """As much of a server as its watch looks at; a probe ends when `answer` has its outcome."""

    def __init__(self) -> None:
        self.up, self.label, self.doubted, self.failures, self.trouble = True, "run:1", asyncio.Event(), 0, 0
        self.url, self.reason, self.requests = "http://nowhere:1", "", set()
        self.probed, self.answer = asyncio.Event(), asyncio.get_running_loop().create_future()

    async def weight_version(self) -> str:
        self.probed.set()
        return await self.answer


@pytest.mark.parametrize("published", [True, False])
@pytest.mark.parametrize("outcome", ["run:1", "run:0", ServerFault("probe: no answer")])
def test_a_publication_waits_for_no_probe_and_is_no_fault_of_the_server_that_was_probed(published, outcome):
    async def story() -> bool:
        fleet, server = Fleet(section(["http://nowhere:1"]).vllm, ["http://nowhere:1"], [1]), Probed()
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
