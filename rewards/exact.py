r"""Rational numbers written in LaTeX or plainly, evaluated exactly: `\frac{1}{2004!}`, `2^{-99}`, `1.5\times10^3`."""

from __future__ import annotations

import re
from fractions import Fraction
from math import factorial

_TOKEN = re.compile(r"\s*(\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?|\\[a-zA-Z]+|[-+*/^!(){}])")
_REPEATING = re.compile(r"(\d*)\.(\d*)\\(?:overline|bar|dot)\s*\{?(\d+)\}?")
_TIMES = {"*", "\\cdot", "\\times", "\\ast"}
_OVER = {"/", "\\div"}
_MAX_BITS = 1 << 16
_MAX_FACTORIAL = 3000
_MAX_DEPTH = 40
_MAX_LENGTH = 500


class _NotExact(Exception):
    """The text is not a rational number, or one too large to write out."""


def rational(text: str) -> Fraction | None:
    """The exact value of a text, None if it is anything but a rational number of reasonable size."""
    if len(text) > _MAX_LENGTH:
        return None
    try:
        return _Reader(_REPEATING.sub(_as_fraction, text)).whole()
    except (_NotExact, ZeroDivisionError):
        return None


def _as_fraction(decimal: re.Match[str]) -> str:
    r"""`0.1\overline{6}` is 1/10 + 6/90."""
    whole, first, repeated = decimal.groups()
    numerator = int(f"{whole}{first}{repeated}") - int(f"0{whole}{first}")
    return f"({numerator}/{(10 ** len(repeated) - 1) * 10 ** len(first)})"


def _bounded(value: Fraction) -> Fraction:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > _MAX_BITS:
        raise _NotExact
    return value


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1:
        raise _NotExact
    bits = max(base.numerator.bit_length(), base.denominator.bit_length())
    if bits * abs(exponent.numerator) > _MAX_BITS:
        raise _NotExact
    return Fraction(base**exponent.numerator)


def _literal(token: str) -> Fraction:
    exponent = re.search(r"[eE]([+-]?\d+)", token)
    if exponent and len(exponent[1]) > 5:
        raise _NotExact
    return _bounded(Fraction(token.rstrip(".") if not exponent else token.replace(".e", "e").replace(".E", "E")))


class _Reader:
    """Recursive descent over sums, products, powers, factorials and fractions."""

    def __init__(self, text: str) -> None:
        self.tokens: list[str] = []
        position = 0
        text = text.rstrip()
        while position < len(text):
            match = _TOKEN.match(text, position)
            if match is None:
                raise _NotExact
            self.tokens.append(match[1])
            position = match.end()
        self.at = 0
        self.depth = 0

    def whole(self) -> Fraction:
        value = self.sum()
        if self.at != len(self.tokens):
            raise _NotExact
        return value

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self, expected: str = "") -> str:
        token = self.peek()
        if not token or (expected and token != expected):
            raise _NotExact
        self.at += 1
        return token

    def sum(self) -> Fraction:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise _NotExact
        value = self.product()
        while self.peek() in ("+", "-"):
            value = value + self.product() if self.take() == "+" else value - self.product()
        self.depth -= 1
        return _bounded(value)

    def product(self) -> Fraction:
        value = self.signed()
        while True:
            token = self.peek()
            if token in _TIMES:
                self.take()
                value *= self.signed()
            elif token in _OVER:
                self.take()
                value /= self.signed()
            elif token == "(":
                value *= self.signed()
            else:
                return _bounded(value)
            _bounded(value)

    def signed(self) -> Fraction:
        sign = 1
        while self.peek() in ("+", "-"):
            sign = -sign if self.take() == "-" else sign
        return sign * self.power()

    def power(self) -> Fraction:
        value = self.atom()
        while self.peek() == "!":
            self.take()
            if value.denominator != 1 or not 0 <= value <= _MAX_FACTORIAL:
                raise _NotExact
            value = Fraction(factorial(value.numerator))
        if self.peek() == "^":
            self.take()
            value = _power(value, self.exponent())
        return value

    def exponent(self) -> Fraction:
        if self.peek() == "{":
            return self.group("{", "}")
        return self.signed()

    def atom(self) -> Fraction:
        token = self.peek()
        if token == "(":
            return self.group("(", ")")
        if token == "{":
            return self.group("{", "}")
        if token == "\\frac":
            return self.fraction()
        if token[:1].isdigit() or token[:1] == ".":
            value = _literal(self.take())
            # "1\frac{4}{5}" is the mixed number one and four fifths
            if self.peek() == "\\frac" and value.denominator == 1:
                return value + self.fraction()
            return value
        raise _NotExact

    def fraction(self) -> Fraction:
        self.take("\\frac")
        return _bounded(self.argument() / self.argument())

    def argument(self) -> Fraction:
        r"""A braced group, or one digit: `\frac12` is a half, and `\frac123` is not one."""
        if self.peek() == "{":
            return self.group("{", "}")
        token = self.take()
        if not token.isdigit():
            raise _NotExact
        if len(token) > 1:
            self.at -= 1
            self.tokens[self.at] = token[1:]
        return Fraction(int(token[0]))

    def group(self, opening: str, closing: str) -> Fraction:
        self.take(opening)
        value = self.sum()
        self.take(closing)
        return value
