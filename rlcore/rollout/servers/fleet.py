"""All rollout servers as one learner rank sees them: requests go where there is room, and failures are handled.

A server is *up* while it can be reached and holds weights of this run. A server that dies, hangs, fails requests or
loses its weights is taken out: its requests are sampled again elsewhere, and it returns once it holds current weights.

The first rank, the keeper, watches the servers and brings them back: it restarts its own and gives them the weights.
The others read the servers' state from a board. Everything here runs in one event loop.
"""

import asyncio
import contextlib
import logging
import os
import resource
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import aiohttp

from rlcore.errors import UserError
from rlcore.recipe import schema
from rlcore.rollout.engine import Sample, Sampling
from rlcore.rollout.servers.board import Board
from rlcore.rollout.servers.server import Aborted, Replica, Server, ServerFault
from rlcore.rollout.vllm.arguments import request_settings

LOOK_EVERY = 0.5
"""Seconds between looks at the board, and until a request that failed on every server tries them again."""
SHUN = 30.0
"""Seconds for which a rank that only reads the board avoids a server that failed its requests but is up there."""
PROBE_EVERY = 2.0
"""Seconds between probes of a server that is up; a failed request causes one at once."""
FAILURES = 3
"""Failed requests in a row after which a server is taken out, and failed repairs in a row before it is given up."""
TRIES = 8
"""Times a request is sent before the run ends: a request that crashes every server must not go round for ever."""

log = logging.getLogger("rlcore.rollout")


BringBack = Callable[[Server], Awaitable[None]]
"""Gives a server the current weights. Raises ServerFault, or UserError if it never will hold them."""


class Fleet:
    """`label` names the weights published last, `RUN:VERSION`; it is None until there are any.

    During a publication some servers still hold earlier weights; a request says which are too old for it.
    """

    def __init__(
        self, section: schema.VllmConfig, urls: Sequence[str], stop_ids: Sequence[int], adapters: str | None = None
    ):
        """`adapters`: the servers' name for the adapters to sample with, if any."""
        self.section = section
        self.adapters = adapters
        self.urls = list(urls)
        self.stop_ids = sorted(stop_ids)
        self.servers: list[Server] = []
        self.label: str | None = None
        self.counts: Counter[str] = Counter()
        self.steady = asyncio.Lock()
        """Held while weights are published, as the servers' weights then change."""
        self.router = Router()
        self._news = asyncio.Event()
        self._fatal: Exception | None = None
        self.lost: dict[Server, str] = {}
        """Servers that did not return in time, and the reason."""
        self._watches: list[asyncio.Task[None]] = []
        self._board: Board | None = None

    async def open(self, bring_back: BringBack | None, board: Board | None) -> None:
        """Starts to watch the servers, with the keeper's `bring_back`, or else to follow the board.

        The servers' key is that of vLLM's own variable VLLM_API_KEY, if it is set.
        """
        # Every request that runs has a connection: many more than the usual soft limit of open files.
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        key = os.environ.get("VLLM_API_KEY")
        # Idle connections are dropped before the server drops them, else a request may meet a closed one.
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=3)
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=None),
            headers={"Authorization": f"Bearer {key}"} if key else None,
        )
        self.servers = [Server(url, self._session, self.section.deadline) for url in self.urls]
        if bring_back:
            self._board = board
            self._watches = [asyncio.create_task(self._watch(server, bring_back)) for server in self.servers]
        elif board:
            self._watches = [asyncio.create_task(self._follow(board))]

    async def close(self) -> None:
        for watch in self._watches:
            watch.cancel()
        await asyncio.gather(*self._watches, return_exceptions=True)
        await self._session.close()

    # Sampling.

    async def sample(self, ids: Sequence[int], sampling: Sampling, *, seed: int, key: int, last: bool) -> Sample:
        """Continues `ids` on some server. Raises UserError if none is left, or if the request keeps failing."""
        failed: set[Server] = set()
        for _ in range(TRIES):
            replica = self.router.place(key, ids, await self._others(failed, sampling.least_version))
            try:
                sample = await self._ask(replica, ids, sampling, seed)
            except ServerFault as fault:
                last_fault = fault
                failed.add(replica.server)
                self.router.forget(key)
                self.counts["sampled_again"] += 1
                if not isinstance(fault, Aborted):
                    self._doubt(replica.server, str(fault))
                continue
            if last:
                self.router.forget(key)
            return sample
        raise UserError(f"a request of {len(ids)} tokens failed {TRIES} times, the last time so: {last_fault}")

    async def replicas(self, least: int | None = None) -> list[Replica]:
        """The replicas of servers that are up and hold version `least` (None: the last one) or a later one.

        Waits until there are some. Raises UserError if no server is left.
        """
        while True:
            self.check()
            able = [s for s in self.servers if s.up and self._version(s.label) >= self._least(least)]
            found = [replica for server in able for replica in server.replicas]
            if found:
                return found
            await self.news()

    async def _others(self, failed: set[Server], least: int | None) -> list[Replica]:
        """The replicas of servers other than `failed`. If there are none, empties `failed` and waits for a moment."""
        if found := [replica for replica in await self.replicas(least) if replica.server not in failed]:
            return found
        failed.clear()
        await asyncio.sleep(LOOK_EVERY)
        return await self.replicas(least)

    def check(self) -> None:
        """Raises UserError if no server is left."""
        if self._fatal is not None:
            raise self._fatal

    async def _ask(self, replica: Replica, ids: Sequence[int], sampling: Sampling, seed: int) -> Sample:
        server, least = replica.server, self._least(sampling.least_version)
        request = asyncio.create_task(
            server.generate(
                ids,
                request_settings(sampling, self.stop_ids, seed),
                adapters=self.adapters,
                salt=server.label,
                replica=replica.rank,
            )
        )
        server.requests.add(request)
        replica.load += 1
        try:
            sample = self._read(await request, server, least)
        except asyncio.CancelledError:
            if asyncio.current_task().cancelling():  # type: ignore[union-attr]
                raise
            raise Aborted(server.reason) from None
        finally:
            replica.load -= 1
            server.requests.discard(request)
        server.failures = server.trouble = 0
        return sample

    def _least(self, asked: int | None) -> int:
        """The oldest version of the weights that may answer a request."""
        return self._version(self.label or "") if asked is None else asked

    def _version(self, label: str) -> int:
        """The number in a label; -1 for a label of another run."""
        run, _, number = label.rpartition(":")
        return int(number) if run and run == (self.label or label).rpartition(":")[0] else -1

    def _read(self, choice: dict[str, Any], server: Server, least: int) -> Sample:
        """Reads an answer. Raises ServerFault if it is incomplete, or sampled by weights older than asked for."""
        try:
            ids = tuple(choice["token_ids"])
            logprobs = tuple(float(token["logprob"]) for token in choice["logprobs"]["content"])
            spans = [(span["version"], span["end"] - span["start"]) for span in choice["weight_versions"]]
            versions = tuple(version for held, length in spans for version in [self._version(held)] * length)
        except (KeyError, TypeError, ValueError):
            lacking = "the answer lacks ids, log-probabilities or versions"
            raise ServerFault(f"sampling on {server.url}: {lacking}") from None
        if not ids or not len(ids) == len(logprobs) == len(versions):
            counts = f"{len(logprobs)} log-probabilities and {len(versions)} versions"
            raise ServerFault(f"sampling on {server.url}: {len(ids)} ids came with {counts}")
        if min(versions) < least:
            raise ServerFault(f"sampling on {server.url}: it answered with the weights {spans[0][0]}, not {least}")
        return Sample(ids, logprobs, choice["finish_reason"], versions)

    # Watching.

    async def news(self) -> None:
        """Waits until a server comes or goes."""
        await self._news.wait()

    def tell(self) -> None:
        """Wakes those who wait for news, on all ranks."""
        self._news.set()
        self._news = asyncio.Event()
        if self._board:
            servers = [[server.up, server.label, len(server.replicas), server.reason] for server in self.servers]
            self._board.write({"servers": servers, "fatal": str(self._fatal) if self._fatal else None})

    def take_out(self, server: Server, reason: str) -> None:
        """Sends a server no request until it is brought back; those that run there are sampled again elsewhere."""
        if not server.up:
            return
        log.warning("rollout server %s is taken out: %s", server.url, reason)
        server.up, server.reason = False, reason
        server.trouble += 1
        self.counts["taken_out"] += 1
        for request in list(server.requests):
            request.cancel()
        self.tell()

    async def look(self, board: Board) -> None:
        """Reads the servers' state from the board."""
        note = await asyncio.to_thread(board.read)
        now = asyncio.get_running_loop().time()
        before = [(server.up, server.label) for server in self.servers]
        for server, (up, label, replicas, reason) in zip(self.servers, note["servers"], strict=True):
            server.label = label
            server.has_replicas(replicas)
            if server.up and not up:
                self.take_out(server, reason)
            if not server.up:
                server.failures = 0
            if not up:
                server.shunned_until = 0.0  # it is mended before it comes back
            server.up = up and now >= server.shunned_until
        self._fatal = UserError(note["fatal"]) if note["fatal"] else None
        if self._fatal or before != [(server.up, server.label) for server in self.servers]:
            self.router.clear()
            self.tell()

    async def _follow(self, board: Board) -> None:
        while True:
            with contextlib.suppress(RuntimeError):  # the rank that keeps the store is gone: the run is about to end
                await self.look(board)
            await asyncio.sleep(LOOK_EVERY)

    async def _watch(self, server: Server, bring_back: BringBack) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            server.repair_began = clock()
            try:
                await bring_back(server)
                self._welcome(server)
                await self._while_up(server)
            except ServerFault as fault:
                if server.reason != str(fault):
                    log.warning("rollout server %s cannot be used yet: %s", server.url, fault)
                server.reason = str(fault)
                server.failed_repairs += 1
                if server.failed_repairs == FAILURES or clock() > server.repair_began + self.section.deadline:
                    self._give_up(server)
                await asyncio.sleep(min(0.1 * 2 ** min(server.failed_repairs, 6), 5.0))
            except Exception as error:  # a mistake of the user's or ours: no server will get further
                self._fatal = error
                return self.tell()

    def _welcome(self, server: Server) -> None:
        """Sends requests to a server that was brought back."""
        self.lost.pop(server, None)
        server.up, server.failures, server.failed_repairs = True, 0, 0
        self.router.clear()
        log.info("rollout server %s is up", server.url)
        self.tell()

    async def _while_up(self, server: Server) -> None:
        """Probes a server until it is taken out, by a failed probe or otherwise."""
        while server.up:
            server.doubted.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(server.doubted.wait(), PROBE_EVERY)
            async with self.steady:
                label = server.label
            if not server.up:
                return
            # Probed outside the lock: with many servers, or one that hangs, publications would wait for the probes.
            try:
                held = await server.weight_version()
                fault = "" if held == label else f"it holds the weights {held}, not {label}"
            except ServerFault as error:
                fault = str(error)
            if fault and server.label == label and not self.steady.locked():  # else weights changed meanwhile
                self.take_out(server, fault)

    def _doubt(self, server: Server, reason: str) -> None:
        """Counts a failed request: the server is probed at once, or taken out if it has failed too many."""
        server.failures += 1
        if server.failures >= FAILURES:
            if server.up:  # else it is out already, and may be mended before the time is over
                server.shunned_until = asyncio.get_running_loop().time() + SHUN
            self.take_out(server, reason)
        server.doubted.set()

    def _give_up(self, server: Server) -> None:
        """Counts a server as lost, though it is still tried; the run ends when all servers are."""
        self.lost[server] = server.reason
        if len(self.lost) == len(self.servers):
            self._fatal = UserError(f"no rollout server is left: {'; '.join(self.lost.values())}")
            self.tell()


FOLLOW = 16
"""A replica that has seen a prompt gets its requests unless it has so many more than the least busy one."""


class Router:
    """Remembers where each conversation and each prompt went."""

    def __init__(self) -> None:
        self._homes: dict[int, Replica] = {}
        self._prompts: dict[int, Replica] = {}

    def place(self, key: int, ids: Sequence[int], replicas: Sequence[Replica]) -> Replica:
        """One of `replicas` (not empty): the conversation's own, else one with the same prompt, else the least busy."""
        home = self._homes.get(key)
        if home is not None and home in replicas:
            return home
        prompt = hash(tuple(ids))
        least = min(replicas, key=lambda replica: replica.load)
        chosen = self._prompts.get(prompt, least)
        if chosen not in replicas or chosen.load >= least.load + FOLLOW:
            chosen = least
        self._homes[key] = self._prompts[prompt] = chosen
        return chosen

    def forget(self, key: int) -> None:
        """Forgets a conversation that has ended or must move."""
        self._homes.pop(key, None)

    def clear(self) -> None:
        """Forgets everything: weights or servers have changed, so no KV cache is of use."""
        self._homes.clear()
        self._prompts.clear()
