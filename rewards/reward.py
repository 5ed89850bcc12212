"""A loaded reward: a function of TRL's, verl's or OpenRLHF's form, told apart by its parameters, called the same way.

verl's `ground_truth` falls back to `reward_model["ground_truth"]`, then to `answer`; OpenRLHF's `labels` to `answer`.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, wraps
from typing import Any, ParamSpec

from rewards.verdict import RewardError, Verdict, did_you_mean

_ASYNC_AT_ONCE = 64
_BY_NAME = inspect.Parameter.KEYWORD_ONLY

Completion = str | list[dict[str, Any]]
_P = ParamSpec("_P")


def scored(judge: Callable[_P, list[Verdict]]) -> Callable[_P, list[float | None]]:
    """The function as a reward, which returns scores and has the function itself as its attribute `verdicts`."""

    @wraps(judge)
    def reward(*arguments: _P.args, **named: _P.kwargs) -> list[float | None]:
        return [verdict.score for verdict in judge(*arguments, **named)]

    reward.verdicts = judge  # type: ignore[attr-defined]
    return reward


def text_of(completion: Completion) -> str:
    """The text of a completion: the string itself, or the content of the last message of a message list."""
    if isinstance(completion, str):
        return completion
    content = completion[-1]["content"]
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content)


@dataclass(frozen=True)
class Reward:
    """A reward function with its name, weight and keyword arguments."""

    name: str
    function: Callable[..., Any]
    weight: float = 1.0
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    built_in: bool = False
    """One of ours: what it takes by name alone is all there is; a user's `**kwargs` may be read for anything."""

    def __post_init__(self) -> None:
        parameters = self._parameters
        known = {name for name in parameters if not self.built_in or parameters[name].kind is _BY_NAME}
        unknown = sorted(set(self.kwargs) - known)
        if unknown and (self.built_in or not self._takes_any):
            hint = did_you_mean(unknown[0], known) or f"; it takes {', '.join(sorted(known)) or 'none'}"
            raise RewardError(f"reward '{self.name}' takes no argument '{unknown[0]}'{hint}")

    def __call__(self, completions: Sequence[Completion], **columns: Any) -> Any:
        """Scores, one for each completion, in this process and by the function's own rules."""
        return self._run(self.function, completions, columns)

    def verdicts(self, completions: Sequence[Completion], columns: Mapping[str, Sequence[Any]]) -> list[Verdict]:
        """Verdicts, one for each completion. Only a killable process should call this: nothing here has a deadline.

        A function that can say more than a number has an attribute `verdicts`: called in its place, with the same
        arguments, it returns a list of Verdict.
        """
        began = time.perf_counter()
        values = self._run(getattr(self.function, "verdicts", self.function), completions, columns)
        if hasattr(values, "tolist"):
            values = values.tolist()
        source, rows = f"reward '{self.name}'", len(completions)
        if not isinstance(values, (list, tuple)):
            return [Verdict(None, "error", f"{source} returned a {type(values).__name__}, not a list")] * rows
        if len(values) != rows:
            return [Verdict(None, "error", f"{source} returned {len(values)} scores for {rows} completions")] * rows
        seconds = (time.perf_counter() - began) / max(rows, 1)
        verdicts = [Verdict.graded(value, source) for value in values]
        return [v if v.seconds else Verdict(v.score, v.status, v.detail, seconds, v.parts, v.answer) for v in verdicts]

    def start(self) -> None:
        """Start what the function keeps running in this process, by its attribute `start`: no row waits for that."""
        with suppress(Exception):  # a user's may raise anything; the first row meets it again, and says so
            getattr(self.function, "start", lambda **_: None)(**self.kwargs)

    def counters(self) -> dict[str, int]:
        """What the function has counted in this process, by its attribute `counters`, if it has one."""
        return dict(getattr(self.function, "counters", dict)())

    @property
    def judges(self) -> bool:
        """Whether its score says that a completion is right; not where the function's attribute `judges` is False."""
        return bool(getattr(self.function, "judges", True))

    @property
    def own_limit(self) -> float | None:
        """Seconds for one completion that the function itself keeps to: its `timeout` argument, if it has one."""
        if "timeout" not in self._parameters:
            return None
        limit = self.kwargs.get("timeout", self._parameters["timeout"].default)
        return float(limit) if isinstance(limit, (int, float)) else None

    @property
    def late(self) -> float | None:
        """Score of a completion whose judging passes the deadline: the function's `late` argument, if it has one."""
        default = self._parameters["late"].default if "late" in self._parameters else None
        return self.kwargs.get("late", default)

    @property
    def at_once(self) -> int:
        """Completions that the function works on together: its `concurrency` argument, or many if it is async."""
        if "concurrency" in self._parameters:
            return int(self.kwargs.get("concurrency", self._parameters["concurrency"].default))
        return _ASYNC_AT_ONCE if inspect.iscoroutinefunction(self.function) else 1

    @property
    def needed_columns(self) -> list[str]:
        """Columns without which the function cannot be called."""
        if self._form != "trl":
            return []
        given = {"completions", *self.kwargs}
        named = [p for p in self._parameters.values() if p.kind in (p.POSITIONAL_OR_KEYWORD, _BY_NAME)]
        return [p.name for p in named if p.default is p.empty and p.name not in given]

    @cached_property
    def _parameters(self) -> Mapping[str, inspect.Parameter]:
        return inspect.signature(self.function).parameters

    @property
    def _takes_any(self) -> bool:
        return any(p.kind is p.VAR_KEYWORD for p in self._parameters.values())

    @property
    def _form(self) -> str:
        names = set(self._parameters)
        if {"solution_str", "ground_truth"} <= names:
            return "verl"
        return "openrlhf" if "queries" in names else "trl"

    def _run(self, function: Callable[..., Any], completions: Sequence[Completion], columns: Mapping[str, Any]) -> Any:
        form = self._form
        if form == "verl":
            return [self._verl_row(function, completions, columns, row) for row in range(len(completions))]
        if form == "openrlhf":
            return self._openrlhf(function, completions, columns)
        return self._call(function, {**columns, "completions": list(completions)})

    def _call(self, function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
        taken = {name: value for name, value in arguments.items() if self._takes_any or name in self._parameters}
        return _wait(function(**{**taken, **self.kwargs}))

    def _verl_row(
        self, function: Callable[..., Any], completions: Sequence[Completion], columns: Mapping[str, Any], row: int
    ) -> Any:
        values = {name: column[row] for name, column in columns.items()}
        truth = values.get("ground_truth", values.get("reward_model", {}).get("ground_truth", values.get("answer")))
        arguments = {
            "data_source": values.get("data_source", ""),
            "solution_str": text_of(completions[row]),
            "ground_truth": truth,
            "extra_info": values.get("extra_info", {}),
        }
        score = self._call(function, arguments)
        return score["score"] if isinstance(score, dict) else score

    def _openrlhf(
        self, function: Callable[..., Any], completions: Sequence[Completion], columns: Mapping[str, Any]
    ) -> Any:
        texts = [text_of(completion) for completion in completions]
        prompts = [text_of(prompt) for prompt in columns.get("prompts", [""] * len(texts))]
        labels = columns.get("labels", columns.get("answer", [None] * len(texts)))
        queries = [prompt + text for prompt, text in zip(prompts, texts, strict=True)]
        result = _wait(function(queries, prompts, labels, **self.kwargs))
        return result["rewards"] if isinstance(result, dict) else result


_loops = threading.local()


def _wait(result: Any) -> Any:
    """What an async function returns. A thread has one event loop for its life: clients outlast a call, and need it."""
    if not inspect.isawaitable(result):
        return result
    runners = _loops.__dict__  # by process: a forked one must leave its parent's loop alone
    return runners.setdefault(str(os.getpid()), asyncio.Runner()).run(_awaited(result))


async def _awaited(result: Any) -> Any:
    return await result
