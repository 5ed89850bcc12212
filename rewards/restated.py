r"""Answers that only repeat what the prompt asks to work out: `\cos 225^\circ` where that is the question."""

from __future__ import annotations

import re
from functools import lru_cache

from rewards.notation import Answer, split_top
from rewards.typeset import clean, tight

_FORMULA = re.compile(r"(?<!\\)\$\$?((?:\\.|[^$\\])+)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
# an operation or a function; a sign, a fraction of numbers and a multiple of pi are how values are written
_WORK = re.compile(
    r"[+*!=]|\^(?!\\circ)|[^\s(\[{,;:]\s*-"
    r"|\\(?!(?:frac|pi|infty|cup|circ|text|mathbb|emptyset|begin|end|overline)(?![a-zA-Z]))[a-zA-Z]"
)
_ONE_IN_BRACES = re.compile(r"\{(\w)\}")
_MARKS = re.compile(r"\\(?:text|times|cdot|neq?)(?![a-zA-Z])|[\s{}()*+]")


def restates(gold: Answer, found: Answer, prompt: str) -> bool:
    """Whether an equal answer is a formula of the prompt with something left to work out, and not what the gold is.

    An answer of the gold's own characters, in any order, is none, as where the prompt asks which of several it is; what
    stands for a product and the signs of a sum do not count.
    """
    if not _WORK.search(found.body) or not {_form(found.text), _form(found.body)} & _formulas(prompt):
        return False
    return _characters(gold.text) != _characters(found.text) and _characters(gold.body) != _characters(found.body)


@lru_cache(maxsize=1024)
def _formulas(prompt: str) -> frozenset[str]:
    """The formulas of a text, and the sides of its equations, in one notation."""
    texts = [clean(next(filter(None, groups)).rstrip("?.,; \n")) for groups in _FORMULA.findall(prompt)]
    return frozenset(_form(part) for text in texts for part in (text, *split_top(text, "=")))


def _form(text: str) -> str:
    return _ONE_IN_BRACES.sub(r"\1", tight(text))


def _characters(text: str) -> list[str]:
    return sorted(_MARKS.sub("", text))
