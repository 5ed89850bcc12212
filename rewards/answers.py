r"""Finding the answer in a text: the last `\boxed{...}`, "The final answer is $...$", or `#### ...`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from rewards.verdict import RewardError

_THOUGHT = re.compile(r"<(/?)(?:think|thinking|thought|reasoning)>", re.IGNORECASE)
_BRACES = re.compile(r"(?P<box>\\{1,2}(?:boxed|fbox)\s*\{)|\\.|[{}]", re.DOTALL)
_FINAL = re.compile(r"final answer is\s*:?\s*\$\$?((?:\\.|[^$\\])+)\$", re.IGNORECASE | re.DOTALL)
_SOLID = re.compile(r"\S")
_SENTENCE = re.compile(
    r"answer\s*(?:is|:)\s*:?[ \t]*((?:(?!answer\s*(?:is|:))[^\n])+?)(?:\.?[ \t]*(?:\n|$)|\.\s)", re.IGNORECASE
)
_BARE_BOX = re.compile(r"\\boxed\s*(-?\d+(?:[.,/]\d+)*|[a-zA-Z](?![a-zA-Z]))")
_HASHES = re.compile(r"####[ \t]*(?:answer)?[ \t]*[:=]?[ \t]*([^\n]+)", re.IGNORECASE)


def without_thoughts(text: str, ignored: Callable[[str, re.Match[str]], bool] | None = None) -> str:
    """The text after the last thinking block; a block that never ends leaves what stands before it.

    A tag that is `ignored` opens and closes nothing.
    """
    if "<" not in text:
        return text
    tags = [tag for tag in _THOUGHT.finditer(text) if not (ignored and ignored(text, tag))]
    start = max((tag.end() for tag in tags if tag[1]), default=0)
    return text[start : next((tag.start() for tag in tags if tag.start() >= start), None)]


def boxed(text: str) -> str | None:
    r"""Content of the last `\boxed{...}` that has one and whose braces match; the outer one of nested boxes."""
    found = _boxes(text) if "box" in text else []
    return text[slice(*found[-1])] if found else None


def boxes(text: str) -> str | None:
    r"""All outermost boxes as one list."""
    outer: list[str] = []
    first = len(text)
    for start, end in reversed(_boxes(text)):
        if end <= first:  # else it stands inside the one before
            outer.insert(0, text[start:end])
            first = start
    return ", ".join(outer) or None


def _boxes(text: str) -> list[tuple[int, int]]:
    open_braces: list[int | None] = []  # content start of a box, None for any other brace
    found = []
    for match in _BRACES.finditer(text):
        token = match.group()
        if match["box"]:
            open_braces.append(match.end())
        elif token == "{":
            open_braces.append(None)
        elif token == "}" and open_braces:
            start, end = open_braces.pop(), match.start()
            if start is not None and _SOLID.search(text, start, end):
                found.append((start, end))
    return found


def final_answer(text: str) -> str | None:
    """The formula in dollars after the last "final answer is"."""
    found = _FINAL.findall(text)
    return found[-1].strip() if found else None


def hashes(text: str) -> str | None:
    """What follows the last `####` on its line."""
    found = _HASHES.findall(text)
    return found[-1].strip() if found else None


def plain(text: str) -> str | None:
    r"""What follows the last "answer is" up to the end of its sentence, in any delimiters; a box without braces."""
    found = _BARE_BOX.findall(text) or _SENTENCE.findall(text)
    answer = found[-1].rpartition(" is ")[2].strip() if found else ""  # "Answer: the largest n is 34"
    return answer.removeprefix("\\(").removesuffix("\\)").strip() or None


# `boxes` and `plain` are for those who ask for them
FINDERS: dict[str, Callable[[str], str | None]] = {
    "boxed": boxed,
    "final_answer": final_answer,
    "hashes": hashes,
    "boxes": boxes,
    "plain": plain,
}


def find_answer(text: str, policy: Sequence[str]) -> str | None:
    """The answer of an attempt by the first finder of `policy` that finds one; None if none does."""
    visible = without_thoughts(text)
    for name in policy:
        if name not in FINDERS:
            raise RewardError(f"no answer policy '{name}'; known: {', '.join(FINDERS)}")
        answer = FINDERS[name](visible)
        if answer is not None and answer.strip():
            return answer
    return None


def find_gold(value: object) -> str:
    """The gold answer in a column's value: the box of a MATH solution, the `####` of GSM8K, or the value itself."""
    text = "" if value is None else str(value)
    for finder in (boxed, hashes):
        answer = finder(text)
        if answer is not None:
            return answer.strip()
    return text.strip()
