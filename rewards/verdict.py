"""The answer of a reward: a score, and why."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

STATUSES = ("correct", "wrong", "no_answer", "timeout", "error", "unscorable")


class RewardError(ValueError):
    """A mistake in how a reward is named, configured or fed; the message is one line."""


@dataclass(frozen=True)
class Verdict:
    """What a reward says of one completion.

    `score` is None where the completion was not scored: such an attempt is left out of means and losses.

    | status | meaning |
    | --- | --- |
    | correct | judged, full marks (a graded score of at least 1) |
    | wrong | judged, less than full marks (a graded score below 1 keeps its value) |
    | no_answer | the completion holds no answer to judge; scores 0 |
    | timeout | the deadline passed: no score if the judging was late, 0 if the attempt's own program was |
    | error | the reward function failed, `detail` says how; no score |
    | unscorable | the reward does not apply to this row, or its gold answer cannot be read; no score |
    """

    score: float | None
    status: str
    detail: str = ""
    seconds: float = 0.0
    parts: Mapping[str, Verdict] = field(default_factory=dict)
    answer: str | None = None
    """The answer that was judged, in one notation so that equal answers are equal; None where there is none to tell."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "detail", printable(self.detail))

    @classmethod
    def graded(cls, value: Any, source: str) -> Verdict:
        """Read one value that a reward function returned; what is not a number becomes an error naming `source`."""
        if isinstance(value, Verdict):
            return value
        if value is None:
            return cls(None, "unscorable", f"{source} returned None")
        if isinstance(value, (str, bytes)) or not hasattr(value, "__float__"):
            return cls(None, "error", f"{source} returned a {type(value).__name__}, not a number")
        score = float(value)
        if not math.isfinite(score):
            return cls(None, "error", f"{source} returned {score}")
        return cls(score, "correct" if score >= 1 else "wrong")


class Findings:
    """What tests have found: how many passed of all, why the first failed, and why they could not be run at all."""

    def __init__(self, total: int, partial: bool) -> None:
        self.total, self.partial = total, partial
        self.passed = 0
        self.first = self.error = ""

    def add(self, failure: str | None) -> bool:
        """Count one test. Returns whether it is worth going on."""
        self.passed += failure is None
        self.first = self.first or failure or ""
        return self.partial or failure is None

    def told(self) -> bytes:
        """For the judge, who hears them."""
        return json.dumps([self.passed, self.total, self.first, self.error]).encode()

    def hear(self, told: bytes) -> None:
        """Take over what another process has found."""
        self.passed, self.total, self.first, self.error = json.loads(told)


def one_line(error: BaseException) -> str:
    """Type and message of an exception on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")[:300]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'X'?` for the known name that is spelt most like this one, or nothing if none is."""
    near = difflib.get_close_matches(name, known, 1)  # type: ignore[type-var]
    return f"; did you mean '{near[0]}'?" if near else ""


def printable(text: str) -> str:
    """The text on one line, control characters and lone surrogates escaped: it may be an attempt's own words."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c.isspace() else ascii(c)[1:-1] for c in text)


def combine(parts: Mapping[str, Verdict], weights: Mapping[str, float], judging: Collection[str]) -> Verdict:
    """Weighted sum of several rewards' verdicts on one completion. Those named in `judging` say whether it is right.

    A part that does not apply (unscorable) is left out of the sum; one that failed (timeout or error without a
    score) leaves the whole unscored. The first judging part that was scored gives the status; where none was, nobody
    has judged. Without judging parts the first that was scored gives it.
    """
    seconds = sum(part.seconds for part in parts.values())
    scored = {name: part for name, part in parts.items() if part.score is not None}
    judges = {name: part for name, part in parts.items() if name in judging} or parts
    judged = [part for part in judges.values() if part.score is not None]
    failed = [(name, part) for name, part in parts.items() if part.score is None and part.status != "unscorable"]
    if failed or not judged:
        name, part = failed[0] if failed else next(iter(judges.items()))
        return Verdict(None, part.status, f"{name}: {part.detail}", seconds, parts)
    total = sum(weights[name] * part.score for name, part in scored.items() if part.score is not None)
    return Verdict(total, judged[0].status, judged[0].detail, seconds, parts, judged[0].answer)
