"""The words of a text, alone or with the signs of its formulas."""

import re
import unicodedata
from collections.abc import Iterator, Sequence

MERE = re.compile(
    r"""(?<=[^\W\d_]{2})-(?=\w) | (?<=\w)-(?=[^\W\d_]{2})       # hyphens: two-digit, x-axis
    | (?<!\S)[*]+(?=\S) | (?<=\S)[*]+(?![^\s.,;:?!)])           # emphasis: **Note:**
    | ^\s*[-*](?=\s)                                            # bullets
    | (?<![\d)\]}])(?<!\b[^\W\d_])!(?!=) | \\[!,;:]             # exclamations, but n! and 5!; LaTeX's spaces
    | [.](?!\d)                                                # full stops, but 3.5
    """,
    re.VERBOSE | re.MULTILINE,
)
"""Punctuation spelt like the signs of formulas."""
ALIKE = str.maketrans("−–×·⋅∙∗÷∕⁄", "--*****///")
SIGNS = {*"-*/^%!.⌈⌉⌊⌋"}
"""What means something in a formula, besides the mathematical symbols of Unicode (Sm: + < = > | √ ≤ and others)."""


def words_of(text: str) -> list[str]:
    """The words and numbers of a text in lower case."""
    return re.findall(r"\w+", text.casefold())


def signed_words_of(text: str) -> list[str]:
    """As many words as `words_of` finds, each behind the signs before it: `2 + (3 - x)!` is `2`, `+(3`, `-x)!`.

    Texts that differ in spacing, case or mere punctuation have the same; those with other operators, groups or decimal
    points have not.
    """
    tokens = re.findall(r"\w+|[^\w\s]", MERE.sub(" ", text.casefold().translate(ALIKE)))
    words, signs = [], ""
    for token in _formal(tokens):
        signs += token
        if _is_word(token):
            words.append(signs)
            signs = ""
    return [*words[:-1], "".join((*words[-1:], signs))] if signs else words


def _formal(tokens: Sequence[str]) -> Iterator[str]:
    """The tokens that are words, signs, or brackets around part of a formula."""
    grouping = _grouping(tokens)
    for place, token in enumerate(tokens):
        if _is_word(token) or _is_sign(token) or place in grouping:
            yield token


def _grouping(tokens: Sequence[str]) -> set[int]:
    """The places of brackets around a sign, or around several words with a number among them; `x^{2}` is `x^2`."""
    found: set[int] = set()
    opened: list[int] = []
    for place, token in enumerate(tokens):
        if token in "([{":
            opened.append(place)
        elif token in ")]}" and opened:
            start = opened.pop()
            inside = tokens[start + 1 : place]
            words = [each for each in inside if _is_word(each)]
            numbered = len(words) > 1 and any(any(map(str.isdigit, word)) for word in words)
            if numbered or any(map(_is_sign, inside)):
                found |= {start, place}
    return found


def _is_word(token: str) -> bool:
    return token[0].isalnum() or token[0] == "_"


def _is_sign(token: str) -> bool:
    return token in SIGNS or (unicodedata.category(token[0]) == "Sm" and token != "~")
