r"""Units of an answer: `10 cm`, `60 miles per hour`, `5\text{ apples}`, `\$5`.

A product of variables looks like a bare unit (`7cd`), so that bare letters are units only by the list below. Free text
is a unit inside `\text{}`, or as a word of four letters and more after a space; what the unit is of is left out.
"""

from __future__ import annotations

import re
from fractions import Fraction

_NAMES = {
    "m": "meter metre", "cm": "centimeter centimetre", "mm": "millimeter millimetre", "km": "kilometer kilometre",
    "g": "gram gm", "kg": "kilogram", "mg": "milligram", "l": "liter litre", "ml": "milliliter millilitre",
    "s": "second sec", "min": "minute", "h": "hour hr", "in": "inch inche", "ft": "foot feet", "yd": "yard",
    "mi": "mile", "lb": "pound £", "oz": "ounce", "deg": "degree", "dollar": "buck usd \\$", "cent": "penny pennie ¢",
    "n": "newton", "day": "", "wk": "week", "yr": "year", "unit": "", "rad": "radian", "hz": "hertz", "pt": "pint",
    "euro": "eur €", "yen": "¥", "qt": "quart", "gal": "gallon", "ton": "", "kwh": "", "km/h": "kmh kph", "mi/h": "mph",
    "mi/gal": "mpg",
}  # fmt: skip
_UNITS = {name: unit for unit, names in _NAMES.items() for name in [unit, *names.split()]}
SCALES: dict[str, Fraction] = {
    "dozen": Fraction(12), "hundred": Fraction(10**2), "thousand": Fraction(10**3), "million": Fraction(10**6),
    "billion": Fraction(10**9), "trillion": Fraction(10**12), "half": Fraction(1, 2), "third": Fraction(1, 3),
    "quarter": Fraction(1, 4), "fourth": Fraction(1, 4), "fifth": Fraction(1, 5), "sixth": Fraction(1, 6),
    "seventh": Fraction(1, 7), "eighth": Fraction(1, 8), "ninth": Fraction(1, 9), "tenth": Fraction(1, 10),
    "hundredth": Fraction(1, 100), "thousandth": Fraction(1, 1000), "halve": Fraction(1, 2),
}  # fmt: skip
_CURRENCIES = {"dollar", "cent", "euro", "yen"}
_PREFIXES = {"square": "2", "sq": "2", "cubic": "3", "cu": "3"}
_UNIT = re.compile(
    r"(?P<body>.*(?:[\d)}!%]|\d\.)|.*\\[a-zA-Z]+|)(?P<space>\s*)"
    r"(?P<unit>\^\\circ\s*(?:\\text\{\s*[CF]\s*\}|[CF])?|(?P<sign>\\\$|[€£¥¢])"
    r"|\\text\{(?P<text>[^{}]*)\}(?P<text_power>\^\{?[23]\}?)?"
    r"|(?<![\\A-Za-z])(?P<plain>[A-Za-z]+\.?(?:[ /][A-Za-z]+\.?){0,4})(?P<plain_power>\^\{?[23]\}?)?)\.?",
    re.DOTALL,
)
_MONEY = re.compile(r"(?P<minus>-?)\s*(?P<sign>\\\$|[€£¥])\s*(?P<amount>(?!-?\s*(?:\\\$|[€£¥]))\S.*)", re.DOTALL)
_A_UNIT = re.compile(r"\s*/\s*(?=[A-Za-z]+$)")
IN_DEGREES = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-zA-Z])")
_OPERATOR = re.compile(r"\\(?:cdot|times|div|pm|mp)\s*$")
_RATE = re.compile(r"^(?:per|an?(?= [a-z]{3}))\s+")
_PER = re.compile(r"\s*\bper\s+")
_WORD = re.compile(r"(?=...).*[aeiou]")  # letters without a vowel are a product
_NOT_UNITS = re.compile(
    r"\b(?:or|and|is|not|no|pi|sqrt|approx\w*|about|roughly|maybe|perhaps|possibly|probably|if|unless|wrong|negative|"
    r"plus|minus|mod|base|point|remainder|squared|cubed|doubled|tripled|halved|factorial|inf|infinity|sin|cos|tan|log|ln|"
    r"exp|than|between|least|most|[ap]\.?m|th|st|nd|rd|zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|"
    r"twelve|(?:thir|four|fif|six|seven|eigh|nine)teen|(?:twen|thir|for|fif|six|seven|eigh|nine)ty)\b",
    re.IGNORECASE,
)
_OF_WHAT = re.compile(r"(?:^|\s+)(?:of|at|to|from|by|over|on|in|for|with)\b.*")  # cups of flour are cups


def split_unit(text: str) -> tuple[str, str, bool]:
    """Body, unit in one spelling, and whether the unit can be nothing else: `10 m` may be ten times m."""
    if money := _MONEY.fullmatch(text):
        body, unit, _ = split_unit(_A_UNIT.sub(" per ", money["amount"]))
        scale, rate = unit.partition(" ")[0], unit if unit.startswith("/") else ""
        currency = _UNITS[money["sign"]] + rate  # any other word says what the money is for
        return money["minus"] + body, f"{scale} {currency}" if scale in SCALES else currency, True
    match = _UNIT.fullmatch(text)
    if match is None or not match["body"].strip() or _OPERATOR.search(match["body"]):
        return text, "", True
    body = match["body"].strip()
    if match["unit"].startswith("^"):
        if IN_DEGREES.search(body):  # the sine of 30 degrees is a number
            return text, "", True
        return body, "deg" + re.sub(r"\\text|[^CF]", "", match["unit"]), True
    if match["sign"]:
        return body, _UNITS[match["sign"]], True
    bare = match["text"] is None
    name = match["plain"] if bare else match["text"]
    words = name.lower().replace(".", " ").split()
    power = re.sub(r"\D", "", (match["plain_power"] if bare else match["text_power"]) or "")
    letter = bare and len(name) == 1
    if letter and (name not in "mgsLlhN" or not match["space"]):
        return text, "", True
    if bare and len(name) == 2 and name not in ("cm", "mm", "km", "kg") and not body[-1].isdigit():
        return text, "", True  # "2\\pi hr" is the height times the radius
    if known := _known(" ".join(words), power):
        return body, known, not letter
    if not words or _NOT_UNITS.search(" ".join(words)) or re.search(r"[\d=,:<>]", name):
        return text, "", True
    if not _WORD.search(words[0]) or (bare and (not match["space"] or len(words[0]) < 4) and words[0] != "per"):
        return text, "", True
    counted, slash, per = _PER.sub("/", " ".join(map(singular, words))).partition("/")
    counted = _OF_WHAT.sub("", counted)
    if not counted and not slash and not body.endswith("%"):
        return text, "", True
    return body, _UNITS.get(counted, counted) + slash + per + power, True


def agree(unit: str, other: str) -> bool:
    """Whether two units may be one: either may be left out, or the first part of a rate, or what money is per.

    No other rate may: `3 km` is not `3 km/h`.
    """
    if not unit or not other:
        return True
    (counted, _, per), (also, _, other_per) = unit.partition("/"), other.partition("/")
    if counted and also and counted != also:
        return False
    return per == other_per or ((not per or not other_per) and (counted or also) in _CURRENCIES)


def _known(name: str, power: str) -> str:
    """A unit of the list, alone, squared, or by another one, in one spelling, or `per` one; "" if it is none."""
    rate = _RATE.sub("", name)
    spelled = [""] if rate != name else []
    for part in re.split(r"\s*/\s*|\s+per\s+|\s+an?\s+", rate):
        words = part.split()
        exponent = _PREFIXES.get(words[0], "") if len(words) == 2 else ""
        unit = _UNITS.get(singular(words[-1])) or _UNITS.get(words[-1]) if words else None
        if unit is None or (len(words) > 1 and not exponent):
            return ""
        spelled.append(unit + exponent)
    return "/".join(spelled) + power


def singular(word: str) -> str:
    """The word without the s of a plural."""
    return re.sub(r"(?<=\w[^\Ws])s$", "", word)
