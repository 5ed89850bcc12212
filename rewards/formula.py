r"""Formulas evaluated: rational numbers exactly, others to a hundred digits, letters at a few points.

Two formulas that agree at every point are the same, and two that differ where all letters are positive are not. What
cannot be decided so, and what could be read in two ways, is left to computer algebra.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from math import comb, factorial
from zlib import crc32

from rewards.number import CONTEXT, FUNCTIONS, Undecided, Value, bounded, function, over, plus, raised, times, wide
from rewards.units import IN_DEGREES

_TOKEN = re.compile(
    r"\s*(\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?|\\[a-zA-Z]+"
    r"|[a-zA-Z](?:_(?:[a-zA-Z0-9]|\{[a-zA-Z0-9]+\}))?|[-+*/^_!(){}\[\]])"
)
_REPEATING = re.compile(r"(\d*)\.(\d*)\\(?:overline|bar|dot)\s*\{?(\d+)\}?")
_DECIMAL = re.compile(r"[-+]?0*(\d*)\.(0*)(\d*)")
_INTEGER = re.compile(r"-?[0-9]+")
_INFINITE = re.compile(r"([-+]?)\s*\\infty")
_TIMES = {"*", "\\cdot", "\\times", "\\ast"}
_OVER = {"/", "\\div"}
_GREEK_LETTERS = """alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau phi varphi
                    chi psi omega Gamma Delta Theta Lambda Sigma Phi Psi Omega"""
_GREEK = {f"\\{name}" for name in _GREEK_LETTERS.split()}
_FUNCTIONS = {f"\\{name}" for name in FUNCTIONS} | {"\\log"}
_NAMES_OF_FUNCTIONS = {"f", "g", "h", "F", "G", "H", "P", "Q"}  # before a bracket, where they may be no factors
_BEGINNINGS = {"(", "{", "\\frac", "\\binom", "\\sqrt", "\\pi"} | _GREEK | _FUNCTIONS
_AFTER_FRACTIONS = {"\\pi", "i"}  # 2/3i is a multiple of i
_MINUS = Fraction(-1)
_POINTS = 3  # where letters are positive, negative, complex
_MAX_FACTORIAL = 3000
_MAX_DEPTH = 40
_MAX_LENGTH = 500


def rational(text: str) -> Fraction | None:
    """The exact value of a text, None if it is anything but a rational number of reasonable size."""
    value = _value(text, 0)
    return value if isinstance(value, Fraction) else None


def same(gold: str, found: str) -> bool | None:
    """Whether two formulas are equal; None where that takes computer algebra."""
    for point in range(_POINTS):
        left, right = _value(gold, point), _value(found, point)
        if left is None or right is None:
            return None
        if CONTEXT.inf in (left, right) or -CONTEXT.inf in (left, right):
            return bool(left == right)
        try:
            difference = plus(left, times(right, _MINUS))
        except Undecided:
            return None
        if difference == 0:
            continue
        if stands_for(gold, right) or stands_for(found, left):
            return True
        rounded = "." in gold + found and abs(difference) < 1e-5 * abs(wide(left))
        exact = isinstance(left, Fraction) and isinstance(right, Fraction)
        return False if exact or not (point or rounded) else None
    return True


def proportional(gold: Sequence[str], found: Sequence[str]) -> bool | None:
    """Whether two equations say the same because one is a multiple of the other; None where it takes more to tell."""
    factor = None
    for point in range(_POINTS):
        values = [_value(side, point) for side in (*gold, *found)]
        if None in values:
            return None
        try:
            left, right = (plus(one, times(other, _MINUS)) for one, other in (values[:2], values[2:]))
            factor = over(left, right) if factor is None else factor
            if factor == 0 or plus(left, times(right, times(factor, _MINUS))) != 0:
                return None
        except (Undecided, ArithmeticError):
            return None
    return True


def stands_for(decimal: str, value: Value) -> bool:
    """Whether a number without a finite decimal was rounded or cut off to this one, of six digits and decimals or more.

    So 0.333333 stands for a third as 4.123106 does for the root of 17; half of a tenth is written out or wrong.
    """
    digits = _DECIMAL.fullmatch(decimal)
    if digits is None or len(digits[3]) + len(digits[2]) < 6 or len(digits[1]) + len(digits[3]) < 6:
        return False
    if isinstance(value, Fraction) and 10 ** value.denominator.bit_length() % value.denominator == 0:
        return False
    exact = Fraction(decimal) if isinstance(value, Fraction) else CONTEXT.mpf(decimal)
    if value.imag != 0 or value * exact < 0:
        return False
    rest = (abs(value) - abs(exact)) * 10 ** len(digits[2] + digits[3])
    return bool(-1 <= 2 * rest < 2)


@lru_cache(maxsize=1 << 14)
def _value(text: str, point: int) -> Value | None:
    if len(text) > _MAX_LENGTH:
        return None
    if _INTEGER.fullmatch(text):
        return Fraction(int(text))
    if infinite := _INFINITE.fullmatch(text):
        return -CONTEXT.inf if infinite[1] == "-" else CONTEXT.inf
    try:
        return _Reader(_REPEATING.sub(_as_fraction, text), point).whole()
    except (Undecided, ArithmeticError):
        return None


def _as_fraction(decimal: re.Match[str]) -> str:
    r"""`0.1\overline{6}` is 1/10 + 6/90."""
    whole, first, repeated = decimal.groups()
    numerator = int(f"{whole}{first}{repeated}") - int(f"0{whole}{first}")
    return f"({numerator}/{(10 ** len(repeated) - 1) * 10 ** len(first)})"


class _Reader:
    """Recursive descent over formulas of LaTeX."""

    def __init__(self, text: str, point: int) -> None:
        self.tokens: list[str] = []
        self.point = point
        self.degree = CONTEXT.pi / 180 if IN_DEGREES.search(text) else CONTEXT.mpf(1)  # a number of them is no number
        position, text = 0, text.rstrip()
        while position < len(text):
            match = _TOKEN.match(text, position)
            if match is None:
                raise Undecided
            self.tokens.append(match[1])
            position = match.end()
        self.at = self.depth = 0

    def whole(self) -> Value:
        value = self.sum()
        if self.peek():
            raise Undecided
        return value

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self, expected: str = "") -> str:
        token = self.peek()
        if not token or (expected and token != expected):
            raise Undecided
        self.at += 1
        return token

    def sum(self) -> Value:
        value = self.product()
        while self.peek() in ("+", "-"):
            minus = self.take() == "-"
            term = self.product()
            value = plus(value, times(term, _MINUS) if minus else term)
        return value

    def product(self) -> Value:
        value = self.signed()
        while True:
            token = self.peek()
            if token in _OVER:
                self.take()
                value = over(value, self.signed())
                if self.begins_factor() and self.peek() not in _AFTER_FRACTIONS:  # 1/2x
                    raise Undecided
            elif token in _TIMES:
                self.take()
                value = times(value, self.signed())
            elif self.begins_factor():
                value = times(value, self.power())
            else:
                return value

    def begins_factor(self) -> bool:
        token = self.peek()
        if token == "(" and self.at and self.tokens[self.at - 1] in _NAMES_OF_FUNCTIONS:
            raise Undecided
        return token[:1].isalpha() or token in _BEGINNINGS

    def signed(self) -> Value:
        minus = False
        while self.peek() in ("+", "-"):
            minus ^= self.take() == "-"
        return times(_MINUS, self.power()) if minus else self.power()

    def power(self) -> Value:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise Undecided
        value = self.atom()
        while self.peek() == "!":
            self.take()
            if not isinstance(value, Fraction) or value.denominator != 1 or not 0 <= value <= _MAX_FACTORIAL:
                raise Undecided
            value = Fraction(factorial(value.numerator))
        if self.peek() == "^":
            self.take()
            if self.peek() == "\\circ":
                self.take()
                self.depth -= 1
                return times(value, self.degree)
            # LaTeX prints x^12 as x^1 2, who writes 2^10 means it
            if len(self.peek()) > 1 and self.peek().isdigit() and not isinstance(value, Fraction):
                raise Undecided
            value = raised(value, self.group("{", "}") if self.peek() == "{" else self.signed())
        self.depth -= 1
        return value

    def atom(self) -> Value:
        token = self.peek()
        if token in ("(", "{"):
            return self.group(token, ")" if token == "(" else "}")
        self.take()
        if token[:1].isdigit() or token[:1] == ".":
            return self.number(token)
        if token == "\\frac":
            return over(self.argument(), self.argument())
        if token == "\\binom":
            whole = [self.argument(), self.argument()]
            if not all(isinstance(n, Fraction) and n.denominator == 1 and 0 <= n <= _MAX_FACTORIAL for n in whole):
                raise Undecided
            return Fraction(comb(*(n.numerator for n in whole)))
        if token == "\\sqrt":
            degree = self.group("[", "]") if self.peek() == "[" else Fraction(2)
            return raised(self.argument(), 1 / degree)
        if token in _FUNCTIONS:
            return self.function(token[1:])
        return self.letter(token)

    def number(self, token: str) -> Value:
        exponent = re.search(r"[eE]([+-]?\d+)", token)
        if exponent and len(exponent[1]) > 5:
            raise Undecided
        value = bounded(Fraction(token.replace(".e", "e").replace(".E", "E").rstrip(".")))
        if self.peek() != "\\frac" or value.denominator != 1:
            return value
        self.take()
        top, bottom = self.argument(), self.argument()
        if not isinstance(top, Fraction) or not isinstance(bottom, Fraction):
            return times(value, over(top, bottom))
        if self.begins_factor():  # 1\frac{1}{2}x
            raise Undecided
        return plus(value, over(top, bottom))  # the mixed number 1\frac{4}{5} is one and four fifths

    def function(self, name: str) -> Value:
        base = exponent = None
        if name == "log":
            self.take("_")
            base = function("ln", self.argument())
        if self.peek() == "^":
            self.take()
            exponent = self.argument()
            if not isinstance(exponent, Fraction) or exponent < 2:
                raise Undecided
        value = function("ln" if base else name, self.function_argument())
        if base is not None:
            value = over(value, base)
        return value if exponent is None else raised(value, exponent)

    def function_argument(self) -> Value:
        """A group, or the factors up to the next sign or function: `\\sin 2x`."""
        opening = self.peek()
        if opening in ("(", "{"):
            value = self.group(opening, ")" if opening == "(" else "}")
            ambiguous = self.peek() in ("^", "!") or (opening == "{" and self.begins_factor())
        else:
            value = self.power()
            while self.begins_factor() and self.peek() not in _FUNCTIONS | {"(", "{"}:
                value = times(value, self.power())
            ambiguous = self.peek() in _OVER | _TIMES | {"(", "{"}
        if ambiguous:
            raise Undecided
        return value

    def argument(self) -> Value:
        """A group in braces, a digit or a letter."""
        token = self.peek()
        if token == "{":
            return self.group("{", "}")
        if len(token) != 1 or not token.isalnum():
            raise Undecided
        return self.atom()

    def group(self, opening: str, closing: str) -> Value:
        self.take(opening)
        value = self.sum()
        self.take(closing)
        return value

    def letter(self, token: str) -> Value:
        constants = {"\\pi": CONTEXT.pi, "e": CONTEXT.e, "i": CONTEXT.j}
        if token in constants:
            return +constants[token]
        if not token[0].isalpha() and token not in _GREEK:
            raise Undecided
        name = re.sub(r"[{}]", "", token)
        size, angle = (CONTEXT.mpf(crc32(f"{seed}{name}".encode()) % 99991) / 60000 for seed in (self.point, "angle"))
        return (size + 0.5) * (1, -1, CONTEXT.expj(3 * angle + 0.1))[self.point]
