"""Conversations by text with a model behind an OpenAI-compatible server, to measure it; training needs its tokens."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import aiohttp

from rewards import Verdict
from rlcore.entries import KINDS
from rlcore.errors import UserError, one_line
from rlcore.recipe import Recipe
from rlcore.recipe.schema import ConversationConfig
from rlcore.rollout.conversation import read_script
from rlcore.rollout.episodes import verdicts
from rlcore.rollout.sampling import mixed_seed
from rlcore.rollout.scoring import Scorer
from rlcore.rollout.streaming import finished, iterated
from rlcore.types import Message, Problem, Request, Role, Trajectory, Turn

AT_ONCE = 64
"""Conversations under way together, if `rollout.slots` is not fewer."""
TRIES = 5
PASSING = (408, 425, 429, 500, 502, 503, 504)
"""Statuses that another try may mend."""
CONNECT_DEADLINE = 30.0
"""Seconds to reach the server."""
KEY = "OPENAI_API_KEY"


class Endpoint:
    """`url` as servers give it, ending in /v1. Every request is one reply, under the recipe's sampling deadline."""

    def __init__(self, url: str, model: str | None, deadline: float):
        """Asks what is served: `model` where there is such, else the first. Raises UserError without an answer."""
        if not url.startswith(("http://", "https://")):
            raise UserError(f"evaluate.endpoint {url} is no URL: give it as http://HOST:PORT/v1")
        self.url, self._deadline = url.rstrip("/"), deadline
        served = asyncio.run(self._served())
        self.model = model if model in served else served[0]

    def session(self) -> aiohttp.ClientSession:
        """For the requests of one event loop."""
        headers = {"Authorization": f"Bearer {os.environ[KEY]}"} if os.environ.get(KEY) else {}
        timeout = aiohttp.ClientTimeout(total=self._deadline, sock_connect=CONNECT_DEADLINE)
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=AT_ONCE), headers=headers, timeout=timeout, trust_env=True
        )

    async def reply(self, session: aiohttp.ClientSession, body: dict[str, Any]) -> dict[str, Any]:
        """The first choice of a chat completion, with `usage`. Raises UserError for a refusal, or after some tries."""
        trouble = ""
        for attempt in range(TRIES):
            if attempt:
                await asyncio.sleep(0.5 * 2**attempt)
            try:
                request = {"model": self.model, **body}
                async with session.post(f"{self.url}/chat/completions", json=request) as answer:
                    if answer.status == 200:
                        told = await answer.json(content_type=None)
                        return {**told["choices"][0], "usage": told.get("usage") or {}}
                    trouble = one_line(f"status {answer.status}: {await answer.text()}")[:220]
                    if answer.status not in PASSING:
                        break
            except (aiohttp.ClientError, TimeoutError) as error:
                trouble = one_line(error)
            except (ValueError, KeyError, IndexError, TypeError):
                trouble = "the reply has no choices"
        raise UserError(f"evaluate.endpoint {self.url} gives no reply: {trouble}")

    async def _served(self) -> list[str]:
        try:
            async with self.session() as session, session.get(f"{self.url}/models") as answer:
                answer.raise_for_status()
                told = await answer.json(content_type=None)
                return [told["data"][0]["id"], *(entry["id"] for entry in told["data"][1:])]
        except (aiohttp.ClientError, TimeoutError, ValueError, KeyError, IndexError, TypeError) as error:
            raise UserError(f"evaluate.endpoint {self.url} does not say what it serves: {one_line(error)}") from None


@dataclass(frozen=True, slots=True)
class _Drawing:
    temperature: float
    seed: int


class EndpointRollout:
    """Holds the conversations that a `Rollout` holds, by messages instead of token ids."""

    def __init__(self, recipe: Recipe, section: ConversationConfig, endpoint: Endpoint, scorer: Scorer):
        self._settings, self._seed = recipe.rollout, recipe.seed
        self._section, self._script, self._run = section, read_script(section), KINDS[section.kind].run
        self._endpoint, self._scorer = endpoint, scorer

    def together(self) -> AbstractContextManager[None]:
        """Ranks wait for nobody."""
        return nullcontext()

    def stream(
        self, requests: Sequence[Request], *, temperature: float, draw: tuple[str | int, ...]
    ) -> Iterator[tuple[int, Trajectory]]:
        """Scored conversations in the order in which they come, each with the place of its request.

        What is sent with each, its seed too, depends on `draw`, its problem and its number alone.
        """

        held: list[Future[Verdict]] = []  # as long as this is read, so that equal attempts are judged once

        async def conversations() -> AsyncIterator[tuple[int, Trajectory]]:
            async with self._endpoint.session() as session:
                starts = (
                    partial(
                        self._episode, session, problem, _Drawing(temperature, mixed_seed(*name, problem.id, at)), held
                    )
                    for problem, at in requests
                )
                async for ended in finished(starts, window=window, deadline=self._settings.deadline):
                    yield ended

        name, window = (self._seed, *draw), min(AT_ONCE, self._settings.slots)
        yield from iterated(conversations())

    async def _episode(
        self, session: aiohttp.ClientSession, problem: Problem, drawing: _Drawing, held: list[Future[Verdict]]
    ) -> Trajectory:
        messages: list[Message] = list(problem.messages)
        turns: list[Turn] = []
        coming: list[Future[Verdict]] = []

        async def ask(
            message: str | None,
            role: Role | Callable[[str], Role] = "attempt",
            *,
            claim: Callable[[str], bool | None] | None = None,
            last: bool = False,
        ) -> Turn:
            if message is not None:
                messages.append({"role": "user", "content": message})
            choice = await self._endpoint.reply(session, self._body(messages, drawing, len(turns)))
            text = str(choice["message"].get("content") or "")
            messages.append({"role": "assistant", "content": text})
            turns.append(
                Turn(
                    (),
                    (),
                    (),
                    "length" if choice.get("finish_reason") == "length" else "stop",
                    text,
                    (),
                    role(text) if callable(role) else role,
                    claim(text) if claim else None,
                    tokens_served=int(choice["usage"].get("completion_tokens") or 0),
                )
            )
            if turns[-1].role == "attempt":
                coming.append(self._scorer.start(problem, turns[-1]))
                held.append(coming[-1])
            return turns[-1]

        await self._run(problem, ask, self._script)
        return Trajectory(problem, tuple(turns), await verdicts(coming))

    def _body(self, messages: list[Message], drawing: _Drawing, number: int) -> dict[str, Any]:
        body = {
            "messages": messages,
            "max_tokens": self._section.max_attempt_tokens,
            "temperature": drawing.temperature,
            "seed": mixed_seed(drawing.seed, number) >> 32,
        }
        # Only what the recipe changes: top_k and min_p are not every server's.
        settings = self._settings.model_dump(include={"top_p", "top_k", "min_p"}, exclude_defaults=True)
        stop = {"stop": self._settings.stop} if self._settings.stop else {}
        return {**body, **stop, **(settings if drawing.temperature else {})}
