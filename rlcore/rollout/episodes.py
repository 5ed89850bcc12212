"""Episodes: one coroutine a trajectory, so that attempt 2 starts the moment its own attempt 1 ends."""

import asyncio
from collections.abc import Callable, Sequence

from rlcore.rollout.conversation import Conversation
from rlcore.rollout.engine import RolloutEngine, Sampling
from rlcore.types import Groups, Problem, Trajectory, Turn

OnAttempt = Callable[[Problem, str], object]
"""Called with the problem and the text of an attempt as soon as it ends."""


def sample_groups(
    engine: RolloutEngine,
    conversation: Conversation,
    problems: Sequence[Problem],
    group: int,
    sampling: Sampling,
    *,
    deadline: float,
    on_attempt: OnAttempt | None = None,
) -> Groups:
    """`group` trajectories of each problem. Raises TimeoutError, naming sampling, after `deadline` seconds."""

    async def run() -> Groups:
        episodes = [
            _episode(engine, conversation, problem, prompt, sampling, at * group + g, on_attempt)
            for at, (problem, prompt) in enumerate(zip(problems, prompts, strict=True))
            for g in range(group)
        ]
        try:
            flat = await asyncio.wait_for(asyncio.gather(*episodes), deadline)
        except TimeoutError:
            raise TimeoutError(f"sampling {len(episodes)} trajectories took longer than {deadline:g} s") from None
        return [flat[start : start + group] for start in range(0, len(flat), group)]

    prompts = [conversation.open(problem) for problem in problems]
    return asyncio.run(run())


async def _episode(
    engine: RolloutEngine,
    conversation: Conversation,
    problem: Problem,
    prompt: tuple[int, ...],
    sampling: Sampling,
    key: int,
    on_attempt: OnAttempt | None,
) -> Trajectory:
    turns: list[Turn] = []
    ids = list(prompt)
    for attempt in range(conversation.attempts):
        if turns:
            prompt = conversation.follow(turns[-1].finish)
            ids += prompt
        sample = await engine.sample(ids, sampling, key=key, last=attempt + 1 == conversation.attempts)
        ids += sample.ids
        text = conversation.text(sample.ids)
        turns.append(Turn(prompt, sample.ids, sample.logprobs, sample.finish, text, sample.version))
        if on_attempt:
            on_attempt(problem, text)
    return Trajectory(problem, tuple(turns))
