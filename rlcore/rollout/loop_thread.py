"""An event loop in a thread of its own: what goes on in it goes on while the main thread computes or waits."""

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

Answer = TypeVar("Answer")


class LoopThread:
    """It ends with `close`, or with the process."""

    def __init__(self, name: str):
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name=name, daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether anything still goes on in it."""
        return self._thread.is_alive()

    def begin(self, coroutine: Coroutine[Any, Any, Answer]) -> Future[Answer]:
        """Runs it there, whatever else goes on."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def call(self, coroutine: Coroutine[Any, Any, Answer]) -> Answer:
        """Runs it there, and waits for its end."""
        return self.begin(coroutine).result()

    def close(self) -> None:
        """Ends the thread, and cancels all that went on there, or was to: the thread may have died before."""
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
