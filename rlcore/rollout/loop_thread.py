"""An event loop in a thread of its own, which runs on while the main thread computes or waits."""

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

Answer = TypeVar("Answer")


class LoopThread:
    """Runs coroutines until `close`, or until the process ends."""

    def __init__(self, name: str):
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name=name, daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def begin(self, coroutine: Coroutine[Any, Any, Answer]) -> Future[Answer]:
        """Starts a coroutine in the thread."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def call(self, coroutine: Coroutine[Any, Any, Answer]) -> Answer:
        """Runs a coroutine in the thread and waits for its end."""
        return self.begin(coroutine).result()

    def close(self) -> None:
        """Ends the thread, and cancels all that ran there or was to: the thread may have died before."""
        if self.alive:
            self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.run_until_complete(_cancel_others())
        self.loop.close()


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_default_executor()
