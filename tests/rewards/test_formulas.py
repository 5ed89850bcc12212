r"""Formulas compared by their values and part by part: against computer algebra, and open where in doubt."""

import random
from concurrent.futures import ThreadPoolExecutor

import pytest
import sympy

from rewards.compare import Open, compare
from rewards.notation import read

EQUAL = [
    ("x^2+2x+1", "(x+1)^2"), (r"\frac{\sqrt{2}}{2}", r"\frac{1}{\sqrt{2}}"), ("6-5i", "-5i+6"), ("x^2+1", "(x-i)(x+i)"),
    (r"\sqrt{18}", r"3\sqrt{2}"), (r"\sqrt{-12}", r"2i\sqrt{3}"), (r"\sqrt[3]{16}", r"2\sqrt[3]{2}"),
    (r"\sqrt{2}", "2^{1/2}"), (r"\frac{1}{1+\sqrt{2}}", r"\sqrt{2}-1"), (r"\frac{x^2-1}{x-1}", "x+1"),
    (r"\frac{\pi}{6}", r"\pi/6"), (r"e^{1/2}", r"\sqrt{e}"), ("x_1+x_{2}", "x_2+x_{1}"), ("2^x+1", "1+2^{x}"),
    (r"0.5\pi", r"\frac{\pi}{2}"), (r"\sqrt{3+2\sqrt{2}}", r"1+\sqrt{2}"), (r"\sqrt{x+1}\sqrt{x+1}", "1+x"),
    (r"\sin^2 x+\cos^2 x", "1"), (r"\sin 2x", r"2\sin x\cos x"), (r"\log_2 8", "3"), (r"\ln 8", r"3\ln 2"),
    (r"\sin 30^\circ", r"\frac{1}{2}"), (r"90^\circ-x", "90-x"), (r"\binom{5}{2}", "10"), (r"e^{i\pi}", "-1"),
    (r"\sqrt{2}-\sqrt{2}", "0"), ("y=2x+3", "y=3+2x"), ("2y=4x+6", "y=2x+3"),
    (r"\begin{pmatrix}\sqrt{4}\\x+1\end{pmatrix}", r"\begin{bmatrix}2\\1+x\end{bmatrix}"),
    (r"(-\infty,\sqrt{8}]\cup(3,4)", r"(-\infty,2\sqrt{2}]\cup(3,4)"), (r"(1,2)\cup(3,4)", r"(3,4)\cup(1,2)"),
    (r"1\pm\sqrt{2}", r"1-\sqrt{2},1+\sqrt{2}"), (r"\sqrt{2},\sqrt{3},\pi", r"\pi,\sqrt{2},\sqrt{3}"),
    ("(x+1,2)", "(1+x,2)"),
    # matrices, in whatever brackets and environment
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\left[\begin{array}{cc}1&2\\3&4\end{array}\right]"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\left( \begin{array}{r|r} 1 & 2 \cr 3 & 4 \cr \end{array} \right)"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\left[ \begin{matrix}1&2\\3&4\end{matrix} \right]"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\bigl(\begin{smallmatrix}1&2\\3&4\end{smallmatrix}\bigr)"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{psmallmatrix}1&2\\3&4\end{psmallmatrix}"),
    (r"\begin{vmatrix}1&2\\3&4\end{vmatrix}", r"\left|\begin{array}{cc}1&2\\3&4\end{array}\right|"),
    (
        r"\begin{pmatrix}-1/3\\2/3\\5/3\end{pmatrix}",
        r"\left(\begin{array}{c}-\frac{1}{3}\\\frac{2}{3}\\\frac{5}{3}\end{array}\right)",
    ),
]  # fmt: skip
DIFFERENT = [
    ("x", "y"), ("x^2", "x^3"), (r"\sqrt{2}", r"\sqrt{3}"), ("6-5i", "6+5i"), (r"\sin x", r"\cos x"), ("5!", "x"),
    (r"\frac{\pi}{3}", r"\frac{\pi}{3}+10^{-20}"), (r"\sqrt{2}-1", "0"), ("i", "-i"), (r"\sqrt{-4}", "2"),
    ("x^2", "x^{2.01}"), (r"\sqrt{2}\cdot2^{-99}", r"\sqrt{2}\cdot2^{-98}"), (r"\pi", "3.14"), (r"\sqrt{x^2+1}", "x+1"),
    ("(1,x)", "(2,x)"), ("3", r"\begin{pmatrix}3\\3\end{pmatrix}"), (r"(1,2)\cup(3,4)", "x+1"), ("y=2x+3", "y=2x+4"),
    ("(x+y+z+1)^2", "(x+y+z)^2"), (r"10^{30}\sqrt{2}", r"10^{30}\sqrt{2}+\sqrt{3}"), ("(1,4)", "(1,4)+8"),
    (r"1\pm\sqrt{2}", r"1+\sqrt{2}"), (r"\sqrt{2},\sqrt{3}", r"\sqrt{2},\sqrt{5}"), (r"(0,\infty)", "(0,5)"),
    (r"\begin{pmatrix}1&2\end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\left[\begin{array}{cc}1&2\\3&5\end{array}\right]"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\left[\begin{array}{cccc}1&2&3&4\end{array}\right]"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\left|\begin{array}{cc}1&2\\3&4\end{array}\right|"),
]  # fmt: skip
OPEN = [
    # written in a way that can be read in two, or with what has no value
    ("1/2x", r"\frac{1}{2x}"), ("1/2x", r"\frac{x}{2}"), (r"1\frac{1}{2}x", r"\frac{3}{2}x"), ("f(x+1)", "fx+f"),
    ("|x|", "x"), (r"\sin x/2", r"\sin\frac{x}{2}"), (r"\log x", r"\ln x"), (r"\sqrt[3]{-8}", "-2"), ("n!", "n"),
    # equal where letters are positive, and not everywhere
    (r"\sqrt{x^2}", "x"), (r"\sqrt{xy}", r"\sqrt{x}\sqrt{y}"), (r"\ln x^2", r"2\ln x"),
    # too near to tell, or near to a decimal within a formula
    (r"\sqrt{2}", r"\sqrt{2}+10^{-60}"), (r"2\cdot1.5707963", r"\pi"),
    # what would take too long
    ("(x+y+z+w+1)^{100000}", "x"), ("5^{5^{5^{5}}}x", "x"), ("(" * 100 + "x" + ")" * 100, "x"), ("2^" * 99 + "x", "x"),
    (r"\sin" * 99 + " x", "x"), ("e^{e^{e^{e^e}}}", "x"), (r"\sin10^{90}", "x"),
    # sets that may overlap
    (r"(1,3)\cup(2,5)", r"(1,4)\cup(3,5)"),
]  # fmt: skip


def decided(gold: str, found: str) -> bool | None:
    outcome = compare(read(gold), read(found))
    return None if isinstance(outcome, Open) else outcome


@pytest.mark.parametrize(("gold", "found"), EQUAL)
def test_equal(gold, found):
    assert decided(gold, found) is True
    assert decided(found, gold) is True


@pytest.mark.parametrize(("gold", "found"), DIFFERENT)
def test_different(gold, found):
    assert decided(gold, found) is False
    assert decided(found, gold) is False


@pytest.mark.parametrize(("gold", "found"), OPEN)
def test_left_to_computer_algebra(gold, found):
    assert decided(gold, found) is None
    assert decided(found, gold) is None


def test_random_formulas_against_computer_algebra():
    rng = random.Random(0)
    x, y = sympy.symbols("x y")

    def formula(depth: int) -> sympy.Expr:
        if depth == 0:
            leaves = [x, y, sympy.pi, sympy.sqrt(rng.randint(2, 12)), sympy.I, sympy.Rational(rng.randint(-5, 5), 3)]
            return rng.choice(leaves)
        left, right = formula(depth - 1), formula(depth - 1)
        return rng.choice([left + right, left * right, left - right, left ** rng.randint(0, 2)])

    pairs = []
    for _ in range(60):
        one = formula(3)
        pairs += [(one, sympy.expand(one)), (one, sympy.expand(one) + sympy.sqrt(2) * x)]
    texts = [[sympy.latex(side).replace(r"\left", "").replace(r"\right", "") for side in pair] for pair in pairs]
    with ThreadPoolExecutor(4) as threads:
        verdicts = list(threads.map(lambda pair: decided(*pair), texts))
    assert verdicts.count(None) < 10
    for (one, other), verdict in zip(pairs, verdicts, strict=True):
        assert verdict in (None, sympy.expand(one - other) == 0), (one, other)
