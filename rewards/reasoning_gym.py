"""Reasoning Gym's own verifiers (arXiv 2505.24760): needs the package reasoning-gym."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

from rewards.answers import find_answer, without_thoughts
from rewards.reward import Completion, scored, text_of
from rewards.verdict import RewardError, Verdict, did_you_mean

_TAGS = ("<answer>", "</answer>")
_POLICY = ("boxed", "final_answer", "hashes", "plain")


@scored
def reasoning_gym_reward(completions: Sequence[Completion], task: Sequence[str], index: Sequence[int]) -> list[Verdict]:
    """1 where the task's verifier gives full marks, else 0.

    The answer is what stands in the last `<answer>...</answer>`, else in the last box, else what follows `####` or
    "answer is". `task` is the JSON of a task's name, its settings and seed, and `index` the problem's place among those
    that it generates.
    """
    rows = zip(completions, task, index, strict=True)
    return [_judge(text_of(completion), name, number) for completion, name, number in rows]


def _prepare() -> None:
    """Imports the package before a pool forks its workers: seconds, which the first rows' deadline would pay."""
    with suppress(RewardError):  # the first row says it
        _import()


reasoning_gym_reward.prepare = _prepare  # type: ignore[attr-defined]


def _import() -> None:
    try:
        with warnings.catch_warnings(action="ignore", category=SyntaxWarning):  # of cellpylib, which it imports
            import reasoning_gym  # noqa: F401
    except ImportError as error:  # or of a package that it needs
        raise RewardError(f"Reasoning Gym needs a package: pip install 'rlcore[reasoning-gym]' ({error})") from None


def _judge(text: str, task: str, index: int) -> Verdict:
    answer = _tagged(text)
    answer = find_answer(text, _POLICY) if answer is None else answer
    if answer is None:
        return Verdict(0.0, "no_answer", "no <answer>...</answer>")
    right = generator(task).score_answer(answer, generated(task, index)) >= 1
    return Verdict(float(right), "correct" if right else "wrong", answer=answer)


def _tagged(text: str) -> str | None:
    _, opened, rest = without_thoughts(text).rpartition(_TAGS[0])
    answer, closed, _ = rest.partition(_TAGS[1])
    return answer.strip() if opened and closed and answer.strip() else None


@lru_cache(maxsize=16)
def generator(task: str) -> Any:
    """What makes and judges the problems of a task. Raises RewardError, in one line, for what it does not know."""
    _import()
    import reasoning_gym
    from reasoning_gym.composite import DatasetSpec
    from reasoning_gym.factory import DATASETS

    settings = json.loads(task)
    name = settings.pop("name")
    if name not in DATASETS:
        raise RewardError(f"Reasoning Gym has no task '{name}'{did_you_mean(name, DATASETS)}")
    try:
        if name == "composite":  # a mixture of tasks, which it wants as objects of its own
            settings["datasets"] = [DatasetSpec(**{"weight": 1, "config": {}, **task}) for task in settings["datasets"]]
        return reasoning_gym.create_dataset(name, **settings)
    except (KeyError, ValueError, TypeError, AssertionError) as error:
        raise RewardError(f"Reasoning Gym's task {name}: {' '.join(str(error).split())}") from None


@lru_cache(maxsize=1024)
def generated(task: str, index: int) -> dict[str, Any]:
    """Question, answer and metadata of a problem. The attempts of a group share it."""
    entry: dict[str, Any] = generator(task)[index]
    return entry
