"""Small rewards for the form of a completion, to be added to a reward for its content."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any

from rewards.answers import FINDERS, find_answer
from rewards.reward import Completion, scored, text_of
from rewards.verdict import RewardError, Verdict

_BY_THEIR_OWN_NAME = ("latin", "greek", "cyrillic", "hebrew", "arabic", "devanagari", "thai", "hangul")
_SCRIPTS = {
    **{name: (name.upper(),) for name in _BY_THEIR_OWN_NAME}, "kana": ("HIRAGANA", "KATAKANA"), "han": ("CJK",),
}  # fmt: skip
"""How Unicode begins the names of a script's letters."""


@scored
def format_reward(
    completions: Sequence[Completion], *, policy: Sequence[str] = ("boxed",), **columns: Any
) -> list[Verdict]:
    """1 where the completion has an answer in one of the forms of `policy` (boxed, final_answer, hashes), else 0.

    Its verdicts have the answers that were found: votes can count them without labels.
    """
    if not policy or not set(policy) <= set(FINDERS):
        raise RewardError(f"policy {list(policy)} is not made of: {', '.join(FINDERS)}")
    answers = [find_answer(text_of(completion), policy) for completion in completions]
    return [
        Verdict(0.0, "no_answer") if answer is None else Verdict(1.0, "correct", answer="".join(answer.split()))
        for answer in answers
    ]


def length_reward(
    completions: Sequence[Completion], completion_ids: Sequence[Sequence[int]], *, max_length: int, **columns: Any
) -> list[float]:
    """Minus the share of `max_length` tokens that the completion takes, at most -1: short answers are worth more.

    Its weight beside a reward for content is what a whole `max_length` of thinking may cost; keep it well below 1.
    """
    if max_length < 1:
        raise RewardError(f"max_length is {max_length}: it takes at least 1")
    return [-min(len(ids) / max_length, 1.0) for ids in completion_ids]


def overlong_reward(
    completions: Sequence[Completion],
    completion_ids: Sequence[Sequence[int]],
    *,
    max_length: int,
    buffer: int,
    **columns: Any,
) -> list[float]:
    """0 up to `max_length` - `buffer` tokens, then linearly down to -1 at `max_length` and beyond (DAPO, eq. 13)."""
    if not 0 < buffer <= max_length:
        raise RewardError(f"buffer is {buffer}: it takes 1 to max_length = {max_length}")
    return [-min(max(len(ids) - (max_length - buffer), 0) / buffer, 1.0) for ids in completion_ids]


def repetition_reward(
    completions: Sequence[Completion], *, ngram: int = 4, penalty: float = 1.0, **columns: Any
) -> list[float]:
    """Minus `penalty` times the share of word n-grams that occurred before in the same completion."""
    if ngram < 1:
        raise RewardError(f"ngram is {ngram}: it takes at least 1")
    return [-penalty * _repeated_share(text_of(completion).split(), ngram) for completion in completions]


def _repeated_share(words: Sequence[str], ngram: int) -> float:
    ngrams = [tuple(words[start : start + ngram]) for start in range(len(words) - ngram + 1)]
    return 1 - len(set(ngrams)) / len(ngrams) if ngrams else 0.0


def language_reward(completions: Sequence[Completion], *, script: str = "latin", **columns: Any) -> list[float]:
    """Share of the completion's letters that belong to a script; 1 for a completion without letters."""
    if script not in _SCRIPTS:
        raise RewardError(f"no script '{script}'; known: {', '.join(_SCRIPTS)}")
    return [_share_in_script(text_of(completion), script) for completion in completions]


def _share_in_script(text: str, script: str) -> float:
    letters = [unicodedata.name(character, "") for character in text if character.isalpha()]
    return sum(name.startswith(_SCRIPTS[script]) for name in letters) / len(letters) if letters else 1.0


for _shaping in (format_reward, length_reward, overlong_reward, repetition_reward, language_reward):
    _shaping.judges = False  # type: ignore[union-attr]
