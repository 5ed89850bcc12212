"""Many conversations, a bounded number at once: each is yielded as it ends and makes room for the next."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

from rlcore.errors import UserError
from rlcore.types import Problem, Request

Item = TypeVar("Item")
Start = Callable[[], Coroutine[Any, Any, Item]]
"""Starts a conversation."""


async def finished(
    starts: Iterable[Start[Item]], *, window: int, deadline: float, steps: Callable[[], int] = lambda: 0
) -> AsyncIterator[tuple[int, Item]]:
    """Yields results as they arrive, each with its place in `starts`; at most `window` conversations run at once.

    Raises what a conversation raises, and UserError if for `deadline` seconds none ends and the count of `steps` stays
    what it is; either cancels the others.
    """
    waiting = enumerate(starts)
    places: dict[asyncio.Task[Item], int] = {}
    ended: asyncio.Queue[asyncio.Task[Item]] = asyncio.Queue()
    try:
        while True:
            for place, start in islice(waiting, window - len(places)):
                task = asyncio.create_task(start())
                places[task] = place
                task.add_done_callback(ended.put_nowait)
            if not places:
                return
            tasks = [await _next(ended, len(places), deadline, steps)]
            # Those that ended together make room together: an engine computes their successors' prompts at once.
            tasks += [ended.get_nowait() for _ in range(ended.qsize())]
            results = [(places[task], task.result()) for task in tasks]
            for task in tasks:
                del places[task]
            for result in results:
                yield result
    finally:
        for task in places:
            task.cancel()
        await asyncio.gather(*places, return_exceptions=True)  # nobody else asks how they ended


async def _next(
    ended: asyncio.Queue[asyncio.Task[Item]], running: int, deadline: float, steps: Callable[[], int]
) -> asyncio.Task[Item]:
    while True:
        before = steps()
        try:
            async with asyncio.timeout(deadline):
                return await ended.get()
        except TimeoutError:
            if steps() == before:
                said = f"sampling {running} conversations took longer than {deadline:g} s, and none ended"
                raise UserError(f"rollout.deadline: {said}") from None


def iterated(items: AsyncIterator[Item]) -> Iterator[Item]:
    """The items one by one, from an event loop that runs only while the next one is awaited."""

    async def following() -> list[Item]:
        async for item in items:
            return [item]
        return []

    with event_loop() as runner:
        while found := runner.run(following()):
            yield from found


@contextmanager
def event_loop() -> Iterator[asyncio.Runner]:
    """An event loop that an exception from a signal handler may leave at any moment."""
    with asyncio.Runner() as runner:
        try:
            yield runner
        finally:
            # If it is left in the round in which its task ends, the loop still holds that task's order to stop, which
            # would stop the cancelling of the other tasks. This round carries it out.
            loop = runner.get_loop()
            loop.call_soon(loop.stop)
            loop.run_forever()


def every(problems: Sequence[Problem], samples: int) -> list[Request]:
    """Requests for `samples` conversations on each problem."""
    return [(problem, sample) for problem in problems for sample in range(samples)]


def grouped(
    ended: Iterable[tuple[int, Item]], size: int, on_item: Callable[[int], object]
) -> Iterator[tuple[int, list[Item]]]:
    """Joins the items of every `size` places, in order; yields each group, with its number, as its last item arrives.

    `on_item` is called with 1 at every item.
    """
    begun: dict[int, dict[int, Item]] = {}
    for place, item in ended:
        on_item(1)
        group = place // size
        items = begun.setdefault(group, {})
        items[place] = item
        if len(items) == size:
            del begun[group]
            yield group, [items[place] for place in sorted(items)]
