r"""How people write answers, brought to one notation: separators, currency, units, percent, bases, lists, text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from rewards.exact import rational

_UNICODE = str.maketrans({"−": "-", "–": "-", "×": "\\times ", "·": "\\cdot ", "÷": "\\div ", "∞": "\\infty ",
                          "∅": "\\emptyset ", "°": "^\\circ ", "π": "\\pi ", "√": "\\sqrt ", "€": "$", "£": "$",
                          "\u00a0": " ", "\u202f": " ", "²": "^2", "³": "^3", "½": "\\frac{1}{2}",
                          "¼": "\\frac{1}{4}", "¾": "\\frac{3}{4}", "⅓": "\\frac{1}{3}", "⅔": "\\frac{2}{3}",
                          **{chr(0xFEE0 + code): chr(code) for code in range(0x21, 0x7F)}})  # fmt: skip
_REWRITES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in [
        (r"\*\*", ""),
        (r"\\(?:boxed|fbox)\s*(?=\{)", ""),
        (r"(?<!\\)\\[\[\]()]|(?<!\\)\$", " "),
        (r"\\\$", ""),
        (r"\\(?:left|right|bigl|bigr|Bigl|Bigr|big|Big|displaystyle|limits)(?![a-zA-Z])\.?", ""),
        (r"\\[dtc]frac", r"\\frac"),
        (r"\\varnothing", r"\\emptyset"),
        (r"\\(?:mathrm|textbf|textit|mbox|mathbf|operatorname|textnormal)\s*\{", r"\\text{"),
        (r"\{,\}", ","),
        (r"(?<=\d),?\\[!,](?=\d{3}(?!\d))", ""),
        (r"(?<!\\)\\[!,;:> ]|~|\\q?quad(?![a-zA-Z])|\\(?:thin|med|thick)space", " "),
        (r"\\%", "%"),
        (r"\\(?:degree|deg)(?![a-zA-Z])", r"^\\circ"),
        (r"\^\{\s*\\circ\s*\}", r"^\\circ"),
        (r"\\infin(?![a-zA-Z])|\\inf(?![a-zA-Z])", r"\\infty"),
        (r"\\lvert|\\rvert|\\vert", "|"),
        (r"\s+", " "),
    ]
]
_THOUSANDS = re.compile(r"(?<![\d.])([1-9]\d{0,2})((?:,\d{3})+)(?![\d])")
_SPACED_THOUSANDS = re.compile(r"-?[1-9]\d{0,2}(?: \d{3})+(?:\.\d+)?")
_ASSIGNMENT = re.compile(r"([a-zA-Z](?:_\{?\w+\}?)?(?:\([a-z]\))?|\\[a-z]+)\s*(?:=|\\approx)\s*(?=[^=])")
_BASE = re.compile(r"([0-9A-Fa-f]+(?:\.[0-9A-Fa-f]+)?)_\{?(\d+|\\text\{[a-z ]+\})\}?")
_TEXT_GROUP = re.compile(r"\\text\s*\{([^{}]*)\}")
_WORDS = re.compile(r"[A-Za-z][A-Za-z .'-]*")
_CHOICE = re.compile(r"\(?\s*([A-Z])\s*\)?")
_CLOCK = re.compile(r"\d{1,2}:\d\d\s*[ap]\.?\s?m\.?", re.IGNORECASE)
_UNIT = re.compile(
    r"(?P<body>.*[\d.)}!]|.*\\[a-zA-Z]+|)\s*"
    r"(?P<unit>\^\\circ\s*(?:\\text\{\s*[CF]\s*\}|[CF])?"
    r"|\\text\{(?P<text>[^{}]*)\}(?P<text_power>\^\{?[23]\}?)?"
    r"|(?<=[\d.)}!]) (?P<letter>[mgsLlhN])(?P<letter_power>\^\{?[23]\}?)?"
    r"|(?<![\\A-Za-z])(?P<plain>[A-Za-z]{2,}(?:[ /][A-Za-z]+){0,3})(?P<plain_power>\^\{?[23]\}?)?)\.?",
    re.DOTALL,
)
_NOT_UNITS = re.compile(
    r"\b(?:or|and|to|is|not|no|pi|sqrt|approx|about|if|plus|minus|over|times|mod|base|squared|cubed|factorial|inf|"
    r"infinity|sin|cos|tan|log|ln|exp|than|half|between|from|by|of|at|[ap]\.?m|th|st|nd|rd)\b",
    re.IGNORECASE,
)
_SCALES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_SAME_UNITS = {
    "m": "meter metre", "cm": "centimeter centimetre", "mm": "millimeter millimetre", "km": "kilometer kilometre",
    "g": "gram gm", "kg": "kilogram", "mg": "milligram", "l": "liter litre", "ml": "milliliter millilitre",
    "s": "second sec", "min": "minute", "h": "hour hr", "in": "inch inche", "ft": "foot feet", "yd": "yard",
    "mi": "mile", "lb": "pound", "oz": "ounce", "mph": "mile per hour", "deg": "degree", "dollar": "buck usd",
    "cent": "penny pennie", "percent": "%",
}  # fmt: skip
_UNIT_NAMES = {name: unit for unit, names in _SAME_UNITS.items() for name in names.split()}
_OPENING = ("(", "[", "{", "\\{")
_CLOSING = (")", "]", "}", "\\}")
_SHORT_WORDS = {"no", "yes", "odd", "all", "one", "two", "six", "ten"}
_BRACKET = re.compile(r"\\[{}]|\\.|[()\[\]{},;:=]", re.DOTALL)


def clean(text: str) -> str:
    """The text in one notation: no typographic spacing, one name for each symbol, no dollars or final full stop."""
    text = text.translate(_UNICODE)
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    return text.strip().rstrip(".").strip()


@dataclass(frozen=True)
class Answer:
    """An answer taken apart.

    `text` is the whole in one notation, `variable` what it is assigned to, `body` the rest without unit, percent sign
    and separators. `value` is the exact number, if it is one; `items` and `brackets` are set for a list ("" for one
    without brackets, "{}" for a set), `sides` for a chain of equations, `ratio` for `a:b`, `base` for `204_5`.
    `words` is the text of an answer in words.
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
    sides: tuple[str, ...] = ()
    ratio: tuple[str, ...] = ()
    base: tuple[str, str] | None = None
    words: str = ""


@lru_cache(maxsize=8192)
def read(raw: str) -> Answer:
    """Take an answer apart."""
    text = clean(raw)
    number = rational(text)
    if number is not None:
        return Answer(text, body=text, value=number)
    assignment = _ASSIGNMENT.match(text)
    variable = assignment[1] if assignment else ""
    rest = text[assignment.end() :] if assignment else text
    rest = rest.split("\\approx")[0].strip()
    sides = split_top(rest, "=")
    if len(sides) > 1 and all(sides):
        return Answer(text, variable, rest, sides=sides)
    if base := _BASE.fullmatch(rest):
        return Answer(text, variable, rest, base=(base[1].upper(), base[2]))
    words = _in_words(rest)
    if words:
        return Answer(text, variable, rest, words=words)
    ratio = split_top(rest, ":")
    if len(ratio) > 1:
        return Answer(text, variable, rest, ratio=ratio)
    return _listed(text, variable, rest) or _measured(text, variable, rest)


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
    """The words of an answer such as `\text{Evelyn}`, `(C)` or `no solution`, without case; "" if it is none.

    A letter of a multiple choice and the time on a clock are words too.
    """
    plain = _TEXT_GROUP.sub(lambda group: group[1], text).strip()
    if choice := _CHOICE.fullmatch(plain):
        return choice[1]
    if _CLOCK.fullmatch(plain):
        return re.sub(r"[ .]", "", plain.casefold())
    short = len(plain) < 4 and plain.casefold() not in _SHORT_WORDS
    formula = short or " - " in plain or not re.search("[A-Za-z]{2}", plain)
    if ("\\text" not in text and formula) or not _WORDS.fullmatch(plain):
        return ""
    return " ".join(plain.casefold().split())


def _listed(text: str, variable: str, rest: str) -> Answer | None:
    joined = re.sub(r"\\text\s*\{\s*,?\s*(?:and|or)\s*\}|(?<=[\d}) ])\s*,?\s+(?:and|or)\s+", ",", rest)
    for opening in ("\\{", "(", "["):
        if joined.startswith(opening) and joined.endswith((")", "]", "\\}")):
            closing = "\\}" if joined.endswith("\\}") else joined[-1]
            items = split_top(joined[len(opening) : -len(closing)], ",;")
            if _encloses(joined) and (len(items) > 1 or opening == "\\{") and all(items):
                return Answer(text, variable, joined, items=items, brackets=(opening + closing).replace("\\", ""))
    items = split_top(_THOUSANDS.sub(lambda m: m[1] + m[2].replace(",", ""), joined), ",;")
    if len(items) > 1 and all(items):
        return Answer(text, variable, joined, items=items)
    return None


def _measured(text: str, variable: str, rest: str) -> Answer:
    body, percent, unit, sure = rest, False, "", True
    if match := re.fullmatch(r"(.*\S)\s*(?:%|\\text\{\s*percent\s*\}|percent)", rest, re.DOTALL):
        body, percent = match[1], True
    else:
        body, unit, sure = _split_unit(rest)
    body = _THOUSANDS.sub(lambda m: m[1] + m[2].replace(",", ""), body)
    if _SPACED_THOUSANDS.fullmatch(body):
        body = body.replace(" ", "")
    value = rational(re.sub(r"^(-?\d+) (\d+/\d+)$", r"\1+\2", body)) if "-" not in body[:1] else _negative(body)
    scale, _, counted = unit.partition(" ")
    if value is not None and scale in _SCALES:
        value, unit, body = value * _SCALES[scale], counted, f"{body}\\cdot{_SCALES[scale]}"
    return Answer(text, variable, body, value, percent, unit, sure)


def _negative(body: str) -> Fraction | None:
    mixed = re.sub(r"^(\d+) (\d+/\d+)$", r"\1+\2", body[1:].strip())
    mixed = f"-({mixed})" if mixed != body[1:].strip() else body
    return rational(mixed)


def _split_unit(text: str) -> tuple[str, str, bool]:
    """Body, unit in one spelling, and whether the unit can be nothing else: `10 m` may be ten times m."""
    match = _UNIT.fullmatch(text)
    if match is None or not match["body"].strip():
        return text, "", True
    if match["unit"].startswith("^"):
        scale = re.sub(r"\\text|[^CF]", "", match["unit"])
        return match["body"].strip(), f"deg{scale}", True
    name = match["text"] if match["text"] is not None else match["letter"] or match["plain"]
    power = match["text_power"] or match["letter_power"] or match["plain_power"] or ""
    name = " ".join(name.lower().replace(".", " ").split())
    if not name or _NOT_UNITS.search(name) or re.search(r"[\d=,:<>]", name):
        return text, "", True
    return match["body"].strip(), _one_spelling(name, re.sub(r"\D", "", power)), match["letter"] is None


def _one_spelling(name: str, power: str) -> str:
    words = name.split()
    for prefix, exponent in (("square", "2"), ("sq", "2"), ("cubic", "3"), ("cu", "3")):
        if words[0] == prefix and len(words) > 1:
            words, power = words[1:], exponent
    joined = " ".join(re.sub(r"(?<=\w[^\Ws])s$", "", word) for word in words)
    return _UNIT_NAMES.get(joined, joined) + power
