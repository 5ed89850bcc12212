"""Numbers that know how well they are known: rational ones are exact, others have a hundred digits.

What would lose too many digits, or take too long, raises Undecided.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from mpmath.ctx_mp import MPContext

Value = Any  # a Fraction where it is exact, else a real or complex number of mpmath

CONTEXT = MPContext()
CONTEXT.dps = 100
# a sum smaller than its terms by the first is zero but for rounding; smaller by the second, its digits are too few
_ZERO, _TINY = CONTEXT.mpf("1e-85"), CONTEXT.mpf("1e-35")
_MAX_BITS = 1 << 16  # of an exact number
_MAX_PARTS = 128  # bits of an exact number among others: two of them differ by more than rounding
_MAX_SIZE = 1e90  # of a number that is not exact, and of one by it
_MAX_ARGUMENT = 1e6  # of a function
FUNCTIONS = {
    **{name: getattr(CONTEXT, name) for name in ("sin", "cos", "tan", "sinh", "cosh", "tanh", "ln")},
    **{f"arc{name}": getattr(CONTEXT, f"a{name}") for name in ("sin", "cos", "tan")},
    "cot": lambda x: CONTEXT.cos(x) / CONTEXT.sin(x),
    "sec": lambda x: 1 / CONTEXT.cos(x),
    "csc": lambda x: 1 / CONTEXT.sin(x),
}


class Undecided(Exception):
    """The text is no formula that is read here, or its value is not known well enough."""


def bounded(value: Value) -> Value:
    """The value itself, if it is of a size to work with."""
    if isinstance(value, Fraction):
        if max(value.numerator.bit_length(), value.denominator.bit_length()) > _MAX_BITS:
            raise Undecided
    elif not 1 / _MAX_SIZE < abs(value) < _MAX_SIZE:
        raise Undecided
    return value


def wide(value: Value) -> Value:
    """The value as a number of mpmath."""
    if not isinstance(value, Fraction):
        return value
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > _MAX_PARTS:
        raise Undecided
    return CONTEXT.mpf(value.numerator) / value.denominator


def plus(left: Value, right: Value) -> Value:
    """A sum that is zero, or known to fifty digits."""
    if left == 0 or right == 0:
        return left if right == 0 else right
    if isinstance(left, Fraction) and isinstance(right, Fraction):
        return bounded(left + right)
    left, right = wide(left), wide(right)
    small, large = sorted((abs(left), abs(right)))
    total = left + right
    if abs(total) < _ZERO * large:
        return Fraction(0)
    if abs(total) < _TINY * large or small < _TINY * large:
        raise Undecided
    return total


def times(left: Value, right: Value) -> Value:
    """A product."""
    if left == 0 or right == 0:
        return Fraction(0)
    if isinstance(left, Fraction) and isinstance(right, Fraction):
        return bounded(left * right)
    return bounded(wide(left) * wide(right))


def over(left: Value, right: Value) -> Value:
    """A quotient. Raises ZeroDivisionError."""
    return times(left, 1 / right)


def raised(base: Value, exponent: Value) -> Value:
    """A power; the root of a negative number is imaginary if it is a square root, and undecided else."""
    if exponent == 0:
        return Fraction(1)
    if base == 0:
        return over(Fraction(0), Fraction(CONTEXT.re(exponent) > 0))
    whole = isinstance(exponent, Fraction) and exponent.denominator == 1
    if whole and isinstance(base, Fraction):
        bits = max(base.numerator.bit_length(), base.denominator.bit_length())
        if bits * abs(exponent.numerator) > _MAX_BITS:
            raise Undecided
        return Fraction(base**exponent.numerator)
    base, power = wide(base), wide(exponent)
    if not whole and exponent != Fraction(1, 2) and CONTEXT.im(base) == 0 and CONTEXT.re(base) < 0:
        raise Undecided
    if abs(power) * (abs(CONTEXT.ln(abs(base))) + 4) > 1000:
        raise Undecided
    return bounded(base**exponent.numerator if whole else base**power)


def function(name: str, argument: Value) -> Value:
    """A function by its name, zero where it is but for rounding."""
    argument = wide(argument)
    if abs(argument) > _MAX_ARGUMENT or (name == "ln" and argument == 0):
        raise Undecided
    value = FUNCTIONS[name](argument)
    return Fraction(0) if abs(value) < _ZERO else bounded(value)
