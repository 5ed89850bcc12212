"""Episodes: one coroutine per trajectory, so that a turn starts the moment the one before it ends."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Literal

from rewards import Verdict
from rlcore.rollout.conversation import Conversation
from rlcore.rollout.engine import RolloutEngine, Sampling
from rlcore.rollout.streaming import event_loop, finished
from rlcore.types import Groups, Problem, Role, Trajectory, Turn

Judge = Callable[[Problem, Turn], Future[Verdict]]
"""Called with the problem and an attempt at it as soon as it ends; the verdict comes later."""


def sample_groups(
    engine: RolloutEngine,
    conversation: Conversation,
    problems: Sequence[Problem],
    group: int,
    sampling: Sampling,
    *,
    deadline: float,
    branches: int = 1,
    firsts: Sequence[Sequence[Turn]] = (),
    judge: Judge | None = None,
) -> Groups:
    """`group` trajectories of each problem, with verdicts if there is a `judge`.

    `branches`, and `firsts` of each problem, are as for `group_episodes`. Raises UserError if for `deadline` seconds
    none of the trajectories ends and the engine takes no step.
    """

    async def run() -> Groups:
        episodes: list[Episode] = []
        for at, problem in enumerate(problems):
            keys, given = range(at * group, (at + 1) * group), firsts[at] if firsts else ()
            episodes += group_episodes(
                engine, conversation, problem, sampling, keys, branches=branches, firsts=given, judge=judge
            )
        window = len(episodes)
        starts = [episode.run for episode in episodes]
        stream = finished(starts, window=window, deadline=deadline, steps=lambda: engine.steps)
        ended = dict([item async for item in stream])
        flat = [ended[place] for place in range(window)]
        return [flat[start : start + group] for start in range(0, len(flat), group)]

    with event_loop() as runner:
        return runner.run(run())


def group_episodes(
    engine: RolloutEngine,
    conversation: Conversation,
    problem: Problem,
    sampling: Sampling,
    keys: Sequence[int],
    *,
    branches: int,
    firsts: Sequence[Turn],
    judge: Judge | None,
) -> list["Episode"]:
    """The conversations of one group, one for each key, to be run in the event loop in which they are made.

    Every `branches` consecutive conversations continue one first attempt, which is sampled and trained in the first of
    them. The first attempts `firsts` come first; they are context, and not trained.
    """
    prompt, episodes = conversation.open(problem), list[Episode]()
    for place, key in enumerate(keys):
        branch, twig = divmod(place, branches)
        first = episodes[-twig].first if twig else None
        if not twig and branch < len(firsts):
            first = asyncio.get_running_loop().create_future()
            first.set_result(firsts[branch])
        episodes.append(Episode(engine, conversation, problem, prompt, sampling, key, judge, shared=first))
    return episodes


class Episode:
    """A running conversation: its kind calls `ask` for every turn."""

    def __init__(
        self,
        engine: RolloutEngine,
        conversation: Conversation,
        problem: Problem,
        prompt: tuple[int, ...],
        sampling: Sampling,
        key: int,
        judge: Judge | None,
        shared: "asyncio.Future[Turn] | None" = None,
    ):
        """Must be made in an event loop. `shared`: the first reply, if another episode samples it."""
        self._engine, self._conversation, self._problem = engine, conversation, problem
        self._prompt, self._sampling, self._key, self._judge = prompt, sampling, key, judge
        self._ids: list[int] = []
        self._turns: list[Turn] = []
        self._verdicts: list[Future[Verdict]] = []
        self._released = False
        self._shared = shared
        self.first: asyncio.Future[Turn] = shared or asyncio.get_running_loop().create_future()

    async def run(self) -> Trajectory:
        """The trajectory, once all of its attempts have their verdicts."""
        await self._conversation.kind.run(self._problem, self.ask, self._conversation.script)
        if not self._released:
            self._engine.release(self._key)
        return Trajectory(self._problem, tuple(self._turns), await verdicts(self._verdicts))

    async def ask(
        self,
        message: str | None,
        role: Role | Callable[[str], Role] = "attempt",
        *,
        claim: Callable[[str], bool | None] | None = None,
        last: bool = False,
    ) -> Turn:
        if self._shared and not self._turns:
            turn = replace(await self._shared, trained=False)
        else:
            prompt = self._prompt if message is None else self._conversation.follow(self._ended(), message)
            sample = await self._engine.sample([*self._ids, *prompt], self._sampling, key=self._key, last=last)
            self._released, stop = last, self._sampling.stop
            if stop and (end := stop.end(sample.ids)):
                sample = sample.stopped_after(end)
            text = self._conversation.text(sample.ids, stop)
            said = role(text) if callable(role) else role
            judged = claim(text) if claim else None
            turn = Turn(prompt, sample.ids, sample.logprobs, sample.finish, text, sample.versions, said, judged)
        self._ids += turn.prompt_ids + turn.response_ids
        self._turns.append(turn)
        if not self.first.done():
            self.first.set_result(turn)
        if self._judge and turn.role == "attempt":
            self._verdicts.append(self._judge(self._problem, turn))
        return turn

    def _ended(self) -> Literal["stop", "length"]:
        """How the last reply ended. One that a text ended counts as cut: it lacks the token that ends a turn."""
        turn = self._turns[-1]
        return turn.finish if self._conversation.stop_ids.intersection(turn.response_ids[-1:]) else "length"


async def verdicts(coming: Sequence[Future[Verdict]]) -> tuple[Verdict, ...]:
    """Waits for verdicts. Cancelling the wait does not cancel a verdict: other conversations may wait for it too."""
    return tuple(await asyncio.shield(asyncio.gather(*map(asyncio.wrap_future, coming)))) if coming else ()
