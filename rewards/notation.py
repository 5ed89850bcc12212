r"""An answer taken apart: assignments, units, percent, bases, lists, intervals, words."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache

from rewards.formula import rational
from rewards.typeset import clean, tight
from rewards.units import SCALES, singular, split_unit

# all numbers between the commas have to fit: "27,54,108" is a list
_THOUSANDS = re.compile(r"(?<![\d.,])([1-9]\d{0,2})((?:,\d{3})+)(?!,?\d)")
MANY_DIGITS = re.compile(r"-?[1-9]\d{0,2}(?:,\d{3})+")  # a number, or a list of numbers of three digits
_SPACED_THOUSANDS = re.compile(r"-?[1-9]\d{0,2}(?: \d{3})+(?:\.\d+)?")
_NAME = (
    r"(?:\\(?:text|overline)\s*\{[^{}]*\}|m?\\angle\s*[A-Z]{1,3}|\|[A-Z]{2}\||\\[a-z]+|[a-zA-Z]{1,3})"
    r"(?:_\{?\w+\}?)?'*(?:\([^()=]*\))?"
)
_KIND = r"(?!(?i:not?|never|except|unless|without|and|or)\b)[A-Za-z]{3,}(?: [a-z]{2,})?"  # of what is named after it
_ASSIGNMENT = re.compile(
    rf"(?:(?:\\text\s*\{{\s*{_KIND}\s*\}}\s*|(?=[A-Za-z]{{4}}){_KIND}\s+)(?=[a-zA-Z]))?"
    rf"({_NAME}|\(\s*{_NAME}(?:\s*,\s*{_NAME})+\s*\)|{_NAME}(?:\s*:\s*{_NAME})+)\s*(?:=|\\approx|\\in(?![a-z]))\s*(?=[^=])"
    r"|(\\text\s*\{[^{}]*(?:\bis|:)\s*\})\s*(?=\S)"
)
_AT_ANY = re.compile(r"(.+\()([ktnxyz])\)")  # f(x) has no value of its own: where that is constant, f(n) is the same
_BASE = re.compile(
    r"[({]?\s*(?:\\text\{\s*)?([0-9A-Fa-f]+(?:\.[0-9A-Fa-f]+)?)\s*[)}]{0,2}\s*"
    r"(?:_\s*[({]*\s*(?:\\text\{)?|(?:\\text\{)?(?=[\s(]*(?:in )?base))[\s(]*(?:(?:in )?base)?\s*\}?\s*"
    r"(\d+|(?<=\{)[a-z]{3,})[)}\s]*"
)
_QUOTED = re.compile(r"(?:[\"'`]|``)([^\"'`]+)(?:[\"']|'')")
_TEXT_GROUP = re.compile(r"\\text\s*\{([^{}]*)\}")
_WORDS = re.compile(r"(?![A-Z]+ (?:and|or) [A-Z]+$)[A-Za-z][A-Za-z .'-]*")
_CHOICE = re.compile(r"(?:(?i:option|choice|answer)\s+)?\(?\s*([A-Z])\s*[).]?")
_ARTICLE = re.compile(r"(?:an?|the) (?=\w{2})")
_CLOCK = re.compile(r"\d{1,2}(?::\d\d)?\s*[ap]\.?\s?m\.?", re.IGNORECASE)
_WHOLE_TEXT = re.compile(r"\\text\s*\{\s*((?:\\\$|[€£¥])?\s*\d[^{}]*|[^{}]*,[^{}]*|[A-Z]+ and [A-Z]+)\}")
_LABEL = re.compile(r"(?:\\text\s*\{\s*\(?([A-Z])[).:]\s*\}|(?:\(([A-Z])\)|([A-Z])[).]) )\s*(?=[^\s,;+*/=^<>])")
_POINT = re.compile(
    r"\s*(?i:(?:the )?(?:ordered )?(?:point|pair|triple|vertex|cent(?:er|re)|focus|midpoint|coordinates)s?"
    r"(?: is| at| are)?)?\s*([A-Z](?:_\{?\w+\}?)?'*)?\s*:?\s*"
)
_SUCH_THAT = re.compile(r"\\\{\s*([a-zA-Z])(?:\s*\\in\s*\\mathbb\{R\})?\s*[|:](.*)\\\}")
_ORDER = re.compile(r"\s*(<|>|\\le(?![a-zA-Z])|\\ge(?![a-zA-Z]))\s*")
_JOINED = re.compile(
    r"\s*,?\s*\\text\s*\{\s*,?\s*(?:and|or)\s*\}|\s*,\s*(?:and|or)\s+|(?<=[\dA-Z}) ])\s+(?:and|or)\s+"
    r"|(?<=\))or(?=\()|\s*\\lor(?![a-zA-Z])"
)
_EITHER = re.compile(r"(?<=[)\]])\s*,?\s*(?:or|\\text\s*\{\s*,?\s*or\s*\})\s*(?=[(\[])")
_TURNED = {"<": ">", ">": "<", "\\le": "\\ge", "\\ge": "\\le"}
_OPENING = ("(", "[", "{", "\\{")
_CLOSING = (")", "]", "}", "\\}")
_PERCENT = re.compile(r"(.*\S)\s*(?:%|\\text\{\s*percent\s*\}|percent(?:age)?|pct)", re.DOTALL)
_MEANINGS = {  # of words, each in the singular
    **dict.fromkeys(["no solution", "empty set"], "\\emptyset"),
    **dict.fromkeys(["all real number", "all real"], "(-\\infty,\\infty)"),
}
_SHORT_WORDS = {"no", "yes", "odd", "all"}
_MATRIX = re.compile(r"\\begin\{([pbBvV]?matrix)\}((?:(?!\\begin|\\end).)*)\\end\{\1\}", re.DOTALL)
_BRACKET = re.compile(r"\\[{}]|\\.|[()\[\]{},;:=]", re.DOTALL)


@dataclass(frozen=True)
class Answer:
    """An answer taken apart.

    `text` is the whole in one notation, `variable` what it is assigned to, `body` the rest without unit, percent sign
    and separators. `value` is the exact number, if it is one; `items` and `brackets` are set for a list ("" for one
    without brackets, "{}" for a set), a union of sets ("∪") and a matrix, `inequality` for an interval that is written
    as one, `sides` for a chain of equations, `ratio` for `a:b`, `base` for `204_5`. `words` is the text of an answer
    in words, `label` the letter of the choice that stands before it. A `plain` one is an integer and nothing else.
    """

    text: str
    variable: str = ""
    body: str = ""
    value: Fraction | None = None
    percent: bool = False
    unit: str = ""
    sure_unit: bool = True
    items: tuple[str, ...] = ()
    brackets: str = ""
    inequality: bool = False
    sides: tuple[str, ...] = ()
    ratio: tuple[str, ...] = ()
    base: tuple[str, str] | None = None
    words: str = ""
    label: str = ""
    plain: bool = False


@lru_cache(maxsize=8192)
def read(raw: str) -> Answer:
    """Take an answer apart."""
    text = clean(raw)
    if whole := _WHOLE_TEXT.fullmatch(text):
        text = clean(whole[1])
    number = rational(text)
    if number is not None:
        return Answer(text, body=text, value=number, plain=number.denominator == 1)
    if label := _LABEL.match(text):
        return replace(_structured(text[label.end() :]), text=text, label=label[1] or label[2] or label[3])
    return _structured(text)


def _structured(text: str) -> Answer:
    if text.startswith("{") and text.endswith("}") and _encloses(text):  # a set without backslashes, or nothing
        text = f"\\{{{text[1:-1]}\\}}" if len(split_top(text[1:-1], ",;")) > 1 else text[1:-1].strip()
    if such_that := _SUCH_THAT.fullmatch(text):
        text = such_that[2].strip()
    if "\\infty" in text:  # which no point has
        text = _EITHER.sub(r"\\cup ", text)
    if words := _in_words(text):
        return _worded(text, "", text, words)
    if (intervals := _intervals(text)) != text:
        return replace(_structured(intervals), inequality=True)
    text = _ascending(text)
    if several := _separated(text, "", text):
        return several
    if point := _named_point(text):
        return point
    assignment = _ASSIGNMENT.match(text)
    # a name in words says what the value is of; it does not have to be the gold answer's
    variable = "" if assignment is None or "\\text" in (assignment[1] or "\\text") else tight(assignment[1])
    rest = text[assignment.end() :] if assignment else text
    rest = rest.split("\\approx")[0].strip()
    if (constant := _AT_ANY.fullmatch(variable)) and constant[2] not in rest:
        variable = constant[1]
    sides = split_top(rest, "=")
    if len(sides) > 1 and all(sides):
        return Answer(text, variable, rest, sides=sides)
    if base := _BASE.fullmatch(rest):
        return Answer(text, variable, rest, base=(base[1].upper(), base[2]))
    if words := _in_words(rest):
        return _worded(text, variable, rest, words)
    ratio = split_top(rest, ":")
    if len(ratio) > 1:
        return Answer(text, variable, rest, ratio=ratio)
    return _bracketed(text, variable, rest) or _separated(text, variable, rest) or _measured(text, variable, rest)


def _intervals(text: str) -> str:
    r"""Inequalities that say where one letter lies, as intervals: `3\le t<8` is `t\in [3,8)`."""
    parts = [part for part in _JOINED.sub("\\\\cup ", _without_thousands(text)).split("\\cup ") if part.strip()]
    read_parts = [_interval(part.strip()) for part in parts]
    names = {part[0] for part in read_parts if part}
    if None in read_parts or len(names) != 1:
        return text
    return f"{names.pop()}\\in " + "\\cup ".join(part[1] for part in read_parts if part)


def _interval(text: str) -> tuple[str, str] | None:
    parts = _ORDER.split(text)
    if len(parts) == 3:
        left, sign, right = parts
        if re.fullmatch("-[a-zA-Z]", left):
            left, sign, right = left[1:], _TURNED[sign], f"-({right})"
        if not re.fullmatch("[a-zA-Z]", left):
            left, sign, right = right, _TURNED[sign], left
        parts = (
            ["-\\infty", "<", left, sign, right]
            if sign in ("<", "\\le")
            else [right, _TURNED[sign], left, "<", "\\infty"]
        )
    if len(parts) != 5:
        return None
    low, first, letter, second, high = parts
    if first in (">", "\\ge"):
        low, first, second, high = high, _TURNED[second], _TURNED[first], low
    ends = re.sub(r"\\[a-zA-Z]+", "", low + high)
    ascending = {first, second} <= {"<", "\\le"}
    if not ascending or not low or not high or not re.fullmatch("[a-zA-Z]", letter) or re.search("[a-zA-Z,=]", ends):
        return None
    return letter, f"{'(' if first == '<' else '['}{low},{high}{')' if second == '<' else ']'}"


def _ascending(text: str) -> str:
    """A chain of inequalities from its least side on: `c>b>a` is `a<b<c`."""
    parts = _ORDER.split(text)
    if len(parts) < 5 or not {*parts[1::2]} <= {">", "\\ge"} or not re.fullmatch(r"[\w\s^+*/.\-\\{}<>]+", text):
        return text
    return " ".join(_TURNED.get(part, part) for part in reversed(parts))


def split_top(text: str, separators: str) -> tuple[str, ...]:
    """Split where a separator stands outside every bracket."""
    parts, depth, start = [], 0, 0
    for match in _BRACKET.finditer(text):
        token = match.group()
        if token in _OPENING:
            depth += 1
        elif token in _CLOSING:
            depth -= 1
        elif depth == 0 and token in separators and text[match.start() - 1 : match.start()] not in ("<", ">", "!"):
            parts.append(text[start : match.start()].strip())
            start = match.end()
    return (*parts, text[start:].strip())


def _encloses(text: str) -> bool:
    """Whether the bracket that opens the text is the one that its last character closes."""
    depth = 0
    for match in _BRACKET.finditer(text):
        depth += (match.group() in _OPENING) - (match.group() in _CLOSING)
        if depth == 0:
            return match.end() == len(text)
    return False


def _in_words(text: str) -> str:
    r"""The words of an answer such as `\text{Evelyn}`, `(C)` or `no solution`, without case; "" if it is none.

    A letter of a multiple choice and the time on a clock are words too.
    """
    plain = _TEXT_GROUP.sub(lambda group: group[1], text).strip()
    if quoted := _QUOTED.fullmatch(plain):
        plain = quoted[1].strip()
    if choice := _CHOICE.fullmatch(plain):
        return choice[1]
    if _CLOCK.fullmatch(plain):
        return re.sub(r"[ .]", "", plain.casefold())
    short = len(plain) < 4 and plain.casefold() not in _SHORT_WORDS
    formula = short or " - " in plain or not re.search("[A-Za-z]{2}", plain)
    if ("\\text" not in text and formula) or not _WORDS.fullmatch(plain):
        return ""
    return " ".join(map(singular, _ARTICLE.sub("", plain.casefold().rstrip(" ."), count=1).split()))


def _worded(text: str, variable: str, rest: str, words: str) -> Answer:
    """An answer in words, or what they mean as a formula."""
    if words in _MEANINGS:
        return replace(_structured(_MEANINGS[words]), variable=variable)
    return Answer(text, variable, rest, words=words)


def _named_point(text: str) -> Answer | None:
    r"""`P(2,3)`, `\text{point }(2,3)`; a function would have a small letter."""
    name, bracket, rest = text.partition("(")
    point = _POINT.fullmatch(_TEXT_GROUP.sub(r"\1", name)) if name and bracket else None
    return _bracketed(text, point[1] or "", bracket + rest) if point else None


def _bracketed(text: str, variable: str, rest: str) -> Answer | None:
    union = tuple(part.strip() for part in rest.split("\\cup"))
    if len(union) > 1:
        return Answer(text, variable, rest, items=union, brackets="∪")
    if matrix := _MATRIX.fullmatch(rest):
        kind = "determinant" if matrix[1][0] in "vV" else "matrix"
        rows = [row.split("&") for row in re.sub(r"\\\\\s*$", "", matrix[2]).split("\\\\")]
        cells = tuple(cell.strip() for row in rows for cell in row)
        return Answer(text, variable, rest, items=cells, brackets=f"{kind} of {[len(row) for row in rows]}")
    for opening in ("\\{", "(", "["):
        if rest.startswith(opening) and rest.endswith((")", "]", "\\}")):
            closing = "\\}" if rest.endswith("\\}") else rest[-1]
            items = split_top(_JOINED.sub(",", rest[len(opening) : -len(closing)]), ",;")
            if opening == "\\{":
                items = tuple(signed for item in items for signed in _both_signs(item))
            if _encloses(rest) and (len(items) > 1 or opening == "\\{") and all(items):
                return Answer(text, variable, rest, items=items, brackets=(opening + closing).replace("\\", ""))
    return None


def _separated(text: str, variable: str, rest: str) -> Answer | None:
    joined = _JOINED.sub(",", _without_thousands(rest))
    parts = split_top(joined, ";")
    if len(parts) == 1:
        parts = split_top(joined, ",")
    items = tuple(signed for part in parts for signed in _both_signs(part))
    if len(items) > 1 and all(items):
        return Answer(text, variable, joined, items=items)
    return None


def _both_signs(item: str) -> tuple[str, ...]:
    r"""`1\pm\sqrt2` is two numbers; a set with it is one set."""
    if item.count("\\pm") != 1 or "\\mp" in item or "\\{" in item:
        return (item,)
    return tuple(item.replace("\\pm", sign).strip() for sign in "+-")


def _without_thousands(text: str) -> str:
    """No commas in numbers, outside brackets, where a comma separates two ends or coordinates."""

    def joined(match: re.Match[str]) -> str:
        before = text[: match.start()]
        inside = len(re.findall(r"[(\[]|\\\{", before)) > len(re.findall(r"[)\]]|\\\}", before))
        return match[0] if inside else match[0].replace(",", "")

    return _THOUSANDS.sub(joined, text)


def _measured(text: str, variable: str, rest: str) -> Answer:
    body, percent, unit, sure = rest, False, "", True
    if match := _PERCENT.fullmatch(rest):
        body, percent = match[1], True
    else:
        body, unit, sure = split_unit(rest)
        if match := _PERCENT.fullmatch(body):  # the words say of what
            body, unit, percent = match[1], "", True
    body = _without_thousands(body)
    if _SPACED_THOUSANDS.fullmatch(body):
        body = body.replace(" ", "")
    value = rational(body)
    scale, _, counted = unit.partition(" ")
    if value is not None and scale in SCALES:
        value, unit, body = value * SCALES[scale], counted, f"{body}\\cdot{SCALES[scale]}"
    return Answer(text, variable, body, value, percent, unit, sure)
