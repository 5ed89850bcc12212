"""Sampling ahead of the learner, by one law: what a step is trained on is fixed before anything is sampled.

Step n is trained on the groups with the serials n·B to (n + 1)·B - 1, as without running ahead, and they begin once the
weights of version n - K are published (K: `batch.ahead`). So no token is older than K updates, none is dropped for its
age, which answers end first decides nothing, and after the end of any process the step at which a run goes on says what
is still to be trained. What is sampled depends on the recipe's seed, the serial and the weights, not on ranks.

Over servers a collector of each rank samples in a thread of its own while the learner computes. Engines in the
learner's process obey the same law in its pauses: before update n, all groups up to step n + K are sampled.
"""

import asyncio
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

from rlcore import credit
from rlcore.data import rank_slice
from rlcore.errors import UserError
from rlcore.files import WAITING, write_whole
from rlcore.ranks import Ranks
from rlcore.recipe import Recipe
from rlcore.recipe.schema import StageConfig
from rlcore.rollout import Rollout
from rlcore.rollout.loop_thread import LoopThread
from rlcore.rollout.streaming import event_loop, finished
from rlcore.train.base_attempts import BaseAttempts
from rlcore.train.collect import Collected, Collector
from rlcore.train.ledger import Ledger
from rlcore.types import Groups, Problem
from rlcore.watchdog import enter_phase

TICK = 1.0
"""Seconds between looks at whether the collector lives."""
LONG = 5.0
"""Seconds without news after which a file in the run's folder says what is waited for."""
ROOM = 3
"""How many times as many conversations as the servers decode at once may be asked of them, so that none runs dry."""
NAMED = 6
"""Serials that a line about late ones names."""


@dataclass(frozen=True, slots=True)
class Place:
    """One group of a step to be sampled: its serial, and its problem before those that stand in while it is dead."""

    serial: int
    step: int
    problems: list[Problem]


class Ahead(Collector):
    """Collects the steps of a run up to `batch.ahead` updates before they are trained on."""

    def __init__(
        self,
        recipe: Recipe,
        ranks: Ranks,
        rollout: Rollout,
        problems: Sequence[Problem],
        base: BaseAttempts,
        ledger: Ledger,
        oldest: Callable[[], int],
    ):
        """`oldest`: the first step that some checkpoint could go on at; what is older leaves the ledger."""
        super().__init__(recipe, ranks, rollout, problems, base)
        self._ledger, self._oldest = ledger, oldest
        self._waiting = Path(recipe.output) / WAITING / f"rank-{ranks.rank}.txt"
        if ranks.first:  # what an earlier launch waited for, on other ranks too
            shutil.rmtree(self._waiting.parent, ignore_errors=True)
        self._stages = [stage for stage in recipe.stages for _ in range(stage.steps)]
        self._groups: dict[int, dict[int, Future[Groups]]] = {}
        self._thread = LoopThread("collector") if recipe.rollout.entry.weights == "elsewhere" else None
        self._room: AbstractAsyncContextManager[Any] = nullcontext()
        if self._thread:
            section = recipe.rollout
            servers = (len(section.servers) or section.start_servers) * section.vllm.data_parallel
            room = ROOM * section.slots * servers / (ranks.world * recipe.batch.group)
            self._room = asyncio.Semaphore(max(1, ceil(room)))

    def collect(self, step: int, stage: StageConfig) -> Collected:
        """The groups of a step. First begins those up to `batch.ahead` steps after it.

        Raises UserError for a step of which no group ends within `rollout.deadline`, naming what is late and where.
        """
        self._ledger.forget(self._oldest() * self._recipe.batch.problems)
        until = min(step + self._recipe.batch.ahead + 1, len(self._stages))
        fresh = [place for later in range(step, until) if later not in self._groups for place in self._places(later)]
        self._groups |= {place.step: {} for place in fresh}
        if self._thread is None:
            self._sample_now(fresh)
        else:
            for place in fresh:
                self._groups[place.step][place.serial] = self._thread.begin(self._kept(place))
            self._wait(step)
        ended = [future.result() for _, future in sorted(self._groups.pop(step).items())]
        self._waiting.unlink(missing_ok=True)
        offline = self._recipe.offline_first_attempts(stage) * self._recipe.batch.branches
        return Collected([groups[-1] for groups in ended], [group[offline:] for groups in ended for group in groups])

    def close(self) -> None:
        """Gives up what is being sampled; what has ended stays in the ledger."""
        if self._thread:
            self._thread.close()
        self._ledger.close()

    def _places(self, step: int) -> list[Place]:
        """This rank's part of a step."""
        size, rounds = self._recipe.batch.problems, self._recipe.batch.resample
        orders = [self._order.batch(step, size)]
        orders += [self._spares.batch(step * rounds + number, size) for number in range(rounds)]
        places = [Place(step * size + at, step, list(column)) for at, column in enumerate(zip(*orders, strict=True))]
        return rank_slice(places, self._ranks.rank, self._ranks.world)

    def _sample_now(self, places: list[Place]) -> None:
        async def run() -> None:
            starts = [partial(self._kept, place) for place in places]
            deadline, steps = self._recipe.rollout.deadline, self._rollout.steps
            async for at, groups in finished(starts, window=len(starts), deadline=deadline, steps=steps):
                done = self._groups[places[at].step][places[at].serial] = Future[Groups]()
                done.set_result(groups)

        with self._rollout.together(), event_loop() as runner:
            runner.run(run())

    async def _kept(self, place: Place) -> Groups:
        """The groups of a place, which are in the ledger when it returns, or were so before.

        What the ledger holds without a score is judged again: the rewards may have been down for a while.
        """
        kept = await asyncio.to_thread(self._ledger.read, place.serial, place.problems)
        if kept is None:
            async with self._room:
                groups = await self._sampled(place)
        else:
            groups = [await self._rollout.judged_again(group) for group in kept]
        if groups != kept:
            await asyncio.to_thread(self._ledger.write, place.serial, groups)
        return groups

    async def _sampled(self, place: Place) -> Groups:
        """Dead groups of a place, and the first that is not, or the last."""
        stage, groups = self._stages[place.step], list[list]()
        firsts = self._recipe.offline_first_attempts(stage)
        for number, problem in enumerate(place.problems):
            group = await self._rollout.group(
                problem,
                [f"{place.serial}/{number}/{at}" for at in range(self._recipe.batch.group)],
                draw=("ahead",),
                branches=self._recipe.batch.branches,
                firsts=self._base.of(problem, firsts),
                least_version=max(0, place.step - self._recipe.batch.ahead) if self._thread else None,
            )
            groups.append(group)
            if credit.live_groups([group], stage, self._recipe.credit)[0]:
                break
        return groups

    def _wait(self, step: int) -> None:
        """Until all groups of a step are there; a failure of any group, of a later step too, is raised at once."""
        assert self._thread
        groups, deadline = self._groups[step], self._recipe.rollout.deadline
        late, since = groups, time.monotonic()
        while late:
            wait(late.values(), timeout=TICK, return_when=FIRST_COMPLETED)
            for future in (future for futures in self._groups.values() for future in futures.values()):
                if future.done():
                    future.result()
            if not self._thread.alive:
                raise UserError(f"the collector of rank {self._ranks.rank} has ended; {self._missing(step, late)}")
            if len(left := {serial: future for serial, future in late.items() if not future.done()}) < len(late):
                late, since = left, time.monotonic()
                enter_phase(f"rollout of step {step + 1}, {len(groups) - len(late)} of {len(groups)} groups done")
            elif time.monotonic() - since > LONG:
                write_whole(self._waiting, self._missing(step, late).encode())
            if time.monotonic() - since > deadline:
                raise UserError(f"rollout.deadline: no group ended within {deadline:g} s; {self._missing(step, late)}")

    def _missing(self, step: int, late: dict[int, Future[Groups]]) -> str:
        serials = ", ".join(map(str, sorted(late)[:NAMED])) + (", ..." if len(late) > NAMED else "")
        return f"step {step + 1} waits for the serials {serials}: {self._rollout.engine.waits_for()}"
