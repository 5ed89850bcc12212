"""Tensor parallelism in the trainer's processes: consecutive ranks share one vLLM engine, a part of every layer each.

vLLM runs a scheduler on each of these ranks, and all of them must decide alike (its `external_launcher`). So the ranks
exchange their new requests before every step, and each adds all of them in the order of ranks. Seeds travel with the
requests and all ranks see the same logits, so each draws the tokens of all requests, and answers its own.
"""

import asyncio
import signal
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import distributed

from rlcore.rollout.vllm.in_process import InProcessEngine

_Request = tuple[str, list[int], dict[str, Any]]
"""Its name, the ids to continue, and vLLM's settings for it."""


@dataclass(frozen=True, slots=True)
class _Word:
    """A rank's message to the others of its engine before a step."""

    drawn: int
    """A checksum of all answers so far, those of other ranks' requests included."""
    requests: list[_Request] = field(default_factory=list)
    done: bool = False
    left: str | None = None
    """Why the rank has left; None if it has not."""
    stopped: bool = False
    """Whether it left because it was asked to stop."""


class TensorParallelEngine(InProcessEngine):
    """This rank's part of an engine that consecutive ranks share. They sample only within `together`."""

    def __init__(self, *settings: Any, **named: Any):
        super().__init__(*settings, **named)
        from vllm.distributed.parallel_state import get_tp_group

        group = get_tp_group()
        self._group, self._ranks, self._place = group.cpu_group, group.ranks, group.rank_in_group
        self._new: list[_Request] = []
        self._drawn = 0
        self._within_turn = False

    @contextmanager
    def together(self) -> Iterator[None]:
        """Wraps the requests of each rank; it ends when those of all ranks are answered.

        If an exception ends it on one rank it ends on the others too: by the same request to stop, or by a RuntimeError
        with the reason.
        """
        try:
            yield
            asyncio.run(self._serve())
        except BaseException as error:
            # Within a turn, the others are not where they would hear it: they end when this process does.
            if not self._within_turn:
                reason = f"{type(error).__name__}: {error}"
                with suppress(RuntimeError):  # the others may be gone
                    self._exchange(_Word(self._drawn, left=reason, stopped=isinstance(error, KeyboardInterrupt)))
            raise

    def _submit(self, name: str, ids: Sequence[int], settings: dict[str, Any]) -> None:
        self._new.append((name, list(ids), settings))

    async def _drive(self) -> None:
        """Takes part while any rank has requests; a failure is raised to all who wait on this rank."""
        try:
            with self._uncompiled():
                while self._new or self._engine.has_unfinished_requests():
                    self._turn()
                    await asyncio.sleep(0)
        except Exception as error:
            for answer in self._answers.values():
                if not answer.done():
                    answer.set_exception(error)

    async def _serve(self) -> None:
        """Takes part until all ranks are done. A request to stop can end it between turns."""
        with self._uncompiled():
            while not self._turn(done=True):
                await asyncio.sleep(0)

    def _turn(self, *, done: bool = False) -> bool:
        """One step of all requests, including those new on any rank. Returns whether all ranks are done."""
        self._within_turn = True
        new, self._new = self._new, []
        words = self._exchange(_Word(self._drawn, new, done))
        self._check(words)
        for word in words:
            for request in word.requests:
                self._take(*request)
        if self._engine.has_unfinished_requests():
            self.steps += 1
            for output in self._engine.step():
                self._finish(output)
        self._within_turn = False
        return all(word.done for word in words)

    def _exchange(self, mine: _Word) -> list[_Word]:
        """The words of all ranks. Most steps bring no new requests: then only a few numbers are sent."""
        numbers = torch.tensor([not mine.requests and mine.left is None, mine.done, mine.drawn])
        everyones = [torch.empty_like(numbers) for _ in self._ranks]
        distributed.all_gather(everyones, numbers, group=self._group)
        rows = [row.tolist() for row in everyones]
        if all(silent for silent, _, _ in rows):
            return [_Word(drawn, done=bool(done)) for _, done, drawn in rows]
        words = [mine] * len(rows)
        distributed.all_gather_object(words, mine, group=self._group)
        return words

    def _check(self, words: list[_Word]) -> None:
        """Raises RuntimeError if a rank has left, or has drawn other tokens than this one."""
        mine = self._ranks[self._place]
        for rank, word in zip(self._ranks, words, strict=True):
            if word.stopped:
                signal.raise_signal(signal.SIGTERM)  # this rank is asked to stop as well
            if word.left is not None:
                raise RuntimeError(f"rank {rank}, with which rank {mine} shares a vLLM engine, ended: {word.left}")
            if word.drawn != self._drawn:
                raise RuntimeError(f"rank {mine} and rank {rank} share a vLLM engine, but drew different tokens")

    def _take(self, name: str, ids: Sequence[int], settings: dict[str, Any]) -> None:
        try:
            super()._submit(name, ids, settings)
        except Exception as error:  # on all ranks alike: whose request it is, ends
            answer = self._answers.pop(name, None)
            if answer and not answer.done():
                answer.set_exception(error)

    def _finish(self, output: Any) -> None:
        (completion,) = output.outputs
        self._drawn = zlib.crc32(repr((output.request_id, tuple(completion.token_ids))).encode(), self._drawn)
        if output.request_id in self._answers:
            super()._finish(output)
