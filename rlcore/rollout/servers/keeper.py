"""The first rank's part in the fleet: it starts servers, gives them weights, and brings back failed ones."""

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Mapping
from itertools import count
from typing import Any

from rlcore.errors import UserError
from rlcore.rollout.servers.fleet import Fleet
from rlcore.rollout.servers.processes import ServerProcess
from rlcore.rollout.servers.server import Server, ServerFault

log = logging.getLogger("rlcore.rollout")


class Weights:
    """Published weights, part by part: servers take the first parts while later ones are still being written."""

    def __init__(self) -> None:
        self._parts: list[dict[str, Any]] = []
        self._news = asyncio.Event()

    def add(self, part: dict[str, Any]) -> None:
        """Adds the next part, as `SharedWeights.write` yields it."""
        self._parts.append(part)
        self._news.set()
        self._news = asyncio.Event()

    async def parts(self) -> AsyncIterator[dict[str, Any]]:
        """All parts in order; waits for those still to come."""
        for number in count():
            while number == len(self._parts):
                await self._news.wait()
            yield self._parts[number]
            if self._parts[number]["last"]:
                return


class Keeper:
    """`processes` holds the servers that rlcore starts itself, by URL."""

    def __init__(self, fleet: Fleet, processes: Mapping[str, ServerProcess]):
        self._fleet = fleet
        self._section = fleet.section
        self._processes = processes
        self._started: set[str] = set()
        self._weights: Weights | None = None
        self._adapters: str | None = None
        self._label = ""
        """The label of the weights to give."""
        self._waiting: set[Server] = set()
        """Servers that need weights but get them only when the learner sends them to all (NCCL, IPC)."""

    async def publish(self, weights: Weights | None, adapters: str | None, label: str) -> None:
        """Gives weights to every server that is up; servers that fail to take them are taken out. The fleet is held.

        A server bears the new label once it holds the weights. Requests that run meanwhile may mix both versions.
        `adapters` is a folder; without `weights` only the adapters are replaced.
        """
        fleet = self._fleet
        self._weights, self._adapters, self._label = weights or self._weights, adapters, label

        async def give(server: Server) -> None:
            try:
                await self._give(server, whole=weights is not None)
            except ServerFault as fault:
                fleet.take_out(server, str(fault))

        await asyncio.gather(*(give(server) for server in fleet.servers if server.up))
        fleet.tell()

    async def bring_back(self, server: Server) -> None:
        process = self._processes.get(server.url)
        if process is None:
            await self._until_it_answers(server, None)
        elif not await self._needs_no_start(server, process):
            again = server.url in self._started
            self._started.add(server.url)
            self._fleet.counts["restarted"] += again
            await asyncio.to_thread(process.start)
            try:
                await self._until_it_answers(server, process)
            except ServerFault as fault:
                if again or any(other.up for other in self._fleet.servers):
                    raise
                raise UserError(str(fault)) from None  # nothing ever ran: a wrong setting, not an accident
        await server.look()
        if self._section.transfer == "files":
            while self._weights is None:
                await self._fleet.news()
            async with self._fleet.steady:
                server.repair_began = asyncio.get_running_loop().time()
                await self._give(server, whole=True)
        else:
            await self._wait_for_weights(server)

    async def pause_all(self) -> list[tuple[str, int]]:
        """Pauses all servers that are up or wait for weights; returns URL and workers of each. The fleet is held.

        The first time it waits for every server, later for at least one. Raises UserError if none can be paused.
        """
        fleet = self._fleet
        while not (found := [server for server in fleet.servers if server.up or server in self._waiting]) or (
            fleet.label is None and len(found) + len(fleet.lost) < len(fleet.servers)
        ):
            fleet.check()
            await fleet.news()

        async def pause(server: Server) -> ServerFault | None:
            try:
                await server.pause()
            except ServerFault as fault:
                fleet.take_out(server, str(fault))
                return fault
            return None

        faults = await asyncio.gather(*(pause(server) for server in found))
        if all(faults):
            raise UserError(f"no rollout server takes part in the publication: {'; '.join(map(str, faults))}")
        return [(server.url, server.workers) for server, fault in zip(found, faults, strict=True) if not fault]

    async def resume_all(self, urls: Collection[str], label: str) -> None:
        """Resumes servers, which now hold the weights `label`."""
        fleet = self._fleet

        async def resume(server: Server) -> None:
            try:
                await server.resume()
            except ServerFault as fault:
                fleet.take_out(server, str(fault))
            else:
                server.label = label
                self._waiting.discard(server)

        await asyncio.gather(*(resume(server) for server in fleet.servers if server.url in urls))
        fleet.tell()

    async def _wait_for_weights(self, server: Server) -> None:
        """Waits until the learner has sent weights to this server among others.

        A server that waits is in order: a later failure begins a new repair.
        """
        self._waiting.add(server)
        server.failed_repairs = 0
        self._fleet.tell()
        try:
            while server in self._waiting:
                await self._fleet.news()
                server.repair_began = asyncio.get_running_loop().time()
                await server.weight_version()
        finally:
            self._waiting.discard(server)

    async def _give(self, server: Server, *, whole: bool) -> None:
        """Publishes to one server. A failure leaves it paused, as its weights may be partly replaced."""
        label = self._label
        await server.pause()
        if whole:
            await self._give_weights(server, label if self._adapters is None else None)
        if self._adapters is not None:
            if whole:
                await server.add_adapters(self._adapters)
            await server.change_adapters(self._adapters, label)
        await server.resume()
        server.label = label

    async def _give_weights(self, server: Server, label: str | None) -> None:
        """Replaces all weights of a paused server. They get no `label` yet if adapters are to follow."""
        assert self._weights is not None
        try:
            await server.start_update()
        except ServerFault:  # an earlier publication was cut off in between
            await server.finish_update(None)
            await server.start_update()
        async for part in self._weights.parts():
            await server.update(part)
        await server.finish_update(label)

    async def _needs_no_start(self, server: Server, process: ServerProcess) -> bool:
        """Whether a server started here needs no restart: it lives, answers, and was not in trouble before."""
        if not process.alive or server.trouble > 1:
            return False
        try:
            await server.weight_version()
        except ServerFault:
            return False
        return True

    async def _until_it_answers(self, server: Server, process: ServerProcess | None) -> None:
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._section.deadline
        while True:
            try:
                await server.weight_version()
                return
            except ServerFault as fault:
                if process is not None and not process.alive:
                    raise ServerFault(f"start of {server.url}: {process.last_words()}") from None
                if clock() > deadline:
                    late = f"start of {server.url}: no answer within {self._section.deadline:g} s: {fault}"
                    raise ServerFault(late) from None
                if process is None and server.reason != str(fault):
                    log.warning("rollout server %s is waited for: %s", server.url, fault)
                    server.reason = str(fault)
            await asyncio.sleep(0.25)
