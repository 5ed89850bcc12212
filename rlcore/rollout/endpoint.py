"""Conversations by text with a model behind an OpenAI-compatible server: for evaluations, as training needs tokens."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, Literal

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
"""Most conversations at once; fewer if `rollout.slots` is."""
TRIES = 5
PASSING = (408, 425, 429, 500, 502, 503, 504)
"""Statuses after which a request is tried again."""
CONNECT_DEADLINE = 30.0
"""Seconds to reach the server."""
KEY = "OPENAI_API_KEY"


class Endpoint:
    """A model at `url`, which ends in /v1. Each request is one reply within `deadline` seconds."""

    def __init__(self, url: str, model: str | None, deadline: float):
        """Takes the served model called `model`, else the first. Raises UserError if the server does not answer."""
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
        """The first choice of a chat completion, with `text` and `usage`.

        Raises UserError if the server refuses, or gives none after some tries.
        """
        trouble = ""
        for attempt in range(TRIES):
            if attempt:
                await asyncio.sleep(0.5 * 2**attempt)
            try:
                request = {"model": self.model, **body}
                async with session.post(f"{self.url}/chat/completions", json=request) as answer:
                    if answer.status == 200:
                        told = await answer.json(content_type=None)
                        choice, usage = told["choices"][0], told.get("usage") or {}
                        return {**choice, "text": str(choice["message"].get("content") or ""), "usage": usage}
                    trouble = one_line(f"status {answer.status}: {await answer.text()}")[:220]
                    if answer.status not in PASSING:
                        break
            except (aiohttp.ClientError, TimeoutError) as error:
                trouble = one_line(error)
            except (ValueError, KeyError, IndexError, TypeError, AttributeError):
                trouble = "the reply has no choice with a message"
        raise UserError(f"evaluate.endpoint {self.url} gives no reply: {trouble}")

    async def _served(self) -> list[str]:
        try:
            async with self.session() as session, session.get(f"{self.url}/models") as answer:
                answer.raise_for_status()
                told = await answer.json(content_type=None)
                return [told["data"][0]["id"], *(entry["id"] for entry in told["data"][1:])]
        except (aiohttp.ClientError, TimeoutError, ValueError, KeyError, IndexError, TypeError) as error:
            raise UserError(f"evaluate.endpoint {self.url} does not say what it serves: {one_line(error)}") from None


class EndpointRollout:
    """The `stream` of a `Rollout`, with messages instead of token ids."""

    def __init__(self, recipe: Recipe, section: ConversationConfig, endpoint: Endpoint, scorer: Scorer):
        self._settings, self._seed = recipe.rollout, recipe.seed
        self._section, self._script, self._run = section, read_script(section), KINDS[section.kind].run
        self._endpoint, self._scorer = endpoint, scorer

    def together(self) -> AbstractContextManager[None]:
        return nullcontext()

    def stream(
        self, requests: Sequence[Request], *, temperature: float, draw: tuple[str | int, ...]
    ) -> Iterator[tuple[int, Trajectory]]:
        """Scored conversations as they end, each with the place of its request.

        The seed of each depends only on the recipe's seed, `draw`, its problem and its number.
        """

        held: list[Future[Verdict]] = []  # so that equal attempts are judged once while this is read
        window = min(AT_ONCE, self._settings.slots)

        async def conversations() -> AsyncIterator[tuple[int, Trajectory]]:
            async with self._endpoint.session() as session:
                seeds = (mixed_seed(self._seed, *draw, problem.id, number) for problem, number in requests)
                starts = (
                    partial(self._episode, session, problem, temperature, seed, held)
                    for (problem, _), seed in zip(requests, seeds, strict=True)
                )
                async for ended in finished(starts, window=window, deadline=self._settings.deadline):
                    yield ended

        yield from iterated(conversations())

    async def _episode(
        self,
        session: aiohttp.ClientSession,
        problem: Problem,
        temperature: float,
        seed: int,
        held: list[Future[Verdict]],
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
            body = self._body(messages, temperature, mixed_seed(seed, len(turns)) >> 32)
            choice = await self._endpoint.reply(session, body)
            text = choice["text"]
            messages.append({"role": "assistant", "content": text})
            said = role(text) if callable(role) else role
            judged = claim(text) if claim else None
            finish: Literal["stop", "length"] = "length" if choice.get("finish_reason") == "length" else "stop"
            tokens = int(choice["usage"].get("completion_tokens") or 0)
            turn = Turn((), (), (), finish, text, (), said, judged, tokens_served=tokens)
            turns.append(turn)
            if turn.role == "attempt":
                coming.append(self._scorer.start(problem, turn))
                held.append(coming[-1])
            return turn

        await self._run(problem, ask, self._script)
        return Trajectory(problem, tuple(turns), await verdicts(coming))

    def _body(self, messages: list[Message], temperature: float, seed: int) -> dict[str, Any]:
        limit = self._section.max_attempt_tokens
        # Of the rest only what the recipe changes: not every server knows top_k and min_p.
        names = {"stop", "top_p", "top_k", "min_p"} if temperature else {"stop"}
        changed = self._settings.model_dump(include=names, exclude_defaults=True)
        return {"messages": messages, "max_tokens": limit, "temperature": temperature, "seed": seed, **changed}
