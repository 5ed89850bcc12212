"""Equality of two formulas by math-verify, and what it takes to trust its yes.

Nothing here has a deadline: a formula can keep computer algebra busy for hours, so this runs in a worker process.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from rewards.verdict import Verdict

_WARM_UP = [
    (r"x^2+\frac{\sqrt{2}}{3}", r"\frac{\sqrt{2}}{3}+x^{2}"),
    (r"(-\infty,1]\cup[2,3)", r"(-\infty, 1] \cup [2, 4)"),
    (r"\begin{pmatrix}1\\i\end{pmatrix}", r"\begin{pmatrix}1\\-i\end{pmatrix}"),
    (r"y=2\sin x+\pi", r"y=\pi+2\cos x"),
]
_DIGITS = 40  # working precision of the second look at numbers
_TOLERANCE = "1e-30"  # relative difference of two exact numbers that are the same
_FLOAT_TOLERANCE = "1e-6"  # where one of them was written as a decimal


def prepare() -> None:
    """Import computer algebra and use it once; a pool's server calls this before it forks its workers.

    The parser builds its tables as it meets each construct, which would count against the first pairs' deadline.
    """
    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns of the timeouts that the worker replaces
    for pair in _WARM_UP:
        equal(*pair)
    equal.cache_clear()


def symbolic_reward(completions: Sequence[str], gold: Sequence[str]) -> list[Verdict]:
    """Compare LaTeX formulas pair by pair: `completions` holds the predictions."""
    return [equal(reference, formula) for reference, formula in zip(gold, completions, strict=True)]


symbolic_reward.prepare = prepare  # type: ignore[attr-defined]


@lru_cache(maxsize=8192)
def equal(gold: str, prediction: str) -> Verdict:
    """Whether a predicted formula is the gold one, both in LaTeX without dollars."""
    from math_verify import verify

    reference = _parse(gold)
    if not reference:
        return Verdict(None, "unscorable", "the gold answer cannot be read")
    formula = _parse(prediction)
    if not formula:
        return Verdict(0.0, "wrong", "the answer cannot be read")
    try:
        same = verify(reference[0], formula[0], timeout_seconds=None) and _same_numbers(reference[0], formula[0])
    except MemoryError:  # that is no verdict
        raise
    except Exception as error:  # computer algebra fails in many ways on what nobody would write: that pays nothing
        return Verdict(0.0, "wrong", f"the answer cannot be compared: {type(error).__name__}")
    return Verdict(1.0, "correct") if same else Verdict(0.0, "wrong")


@lru_cache(maxsize=8192)
def _parse(formula: str) -> tuple[Any, ...]:
    """The formula as computer algebra reads it, alone in a tuple; nothing if it cannot be read."""
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import LatexExtractionConfig, parse

    normal = NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none", equations=False
    )
    config = LatexExtractionConfig(normalization_config=normal, boxed_match_priority=-1)
    try:
        found = parse(f"$${formula}$$", [config], fallback_mode="no_fallback", parsing_timeout=None)
        return tuple(_imaginary(value) for value in found[:1])
    except MemoryError:
        raise
    except Exception:  # such as the order of complex numbers
        return ()


def _imaginary(value: Any) -> Any:
    """Read the letter i as the imaginary unit."""
    import sympy

    units = [symbol for symbol in getattr(value, "free_symbols", ()) if symbol.name == "i"]
    return value.xreplace(dict.fromkeys(units, sympy.I)) if units else value


def _same_numbers(gold: Any, prediction: Any) -> bool:
    """A second look where both are numbers: math-verify compares absolute differences, which hides small numbers."""
    import sympy

    if gold == prediction or not all(isinstance(side, sympy.Expr) and side.is_number for side in (gold, prediction)):
        return True
    tolerance = sympy.Float(_FLOAT_TOLERANCE if gold.has(sympy.Float) or prediction.has(sympy.Float) else _TOLERANCE)
    left, right = sympy.N(gold, _DIGITS), sympy.N(prediction, _DIGITS)
    return bool(abs(left - right) <= tolerance * max(abs(left), abs(right)))
