r"""Kinds of answers once judged wrongly: paid without being right, or right and refused."""

import pytest

from rewards.math import _cache, math_reward

PAID_WRONGLY = [
    # letters are no units, and units differ
    ("7cd", "7"),
    (r"\frac12 vt", r"\frac12"),
    ("8", "8pq"),
    (r"2\pi rh", r"2\pi"),
    ("5ab^2", "5"),
    ("6", "6 xy"),
    ("7 hours", "7 miles"),
    ("60 mph", "60 hours"),
    ("60 mph", "60 miles"),
    ("3 km", "3 km/h"),
    ("7 m", "7 m/s"),
    # two stars are a power
    ("52", "5**2"),
    ("210", "2**10"),
    ("33", "3**3"),
    # the root sign
    ("6", "√16"),
    ("0", "√10"),
    ("5", "√25x"),
    # counting words
    ("2", "2 dozen"),
    ("5", "5 halves"),
    ("3", "3 thirds"),
    ("4", r"4\text{ dozen}"),
    # a decimal that goes on
    ("0.333", "0.333..."),
    ("3.14", "3.14..."),
    ("0.33", r"0.33\ldots"),
    # arguments without braces
    ("1/25", r"\frac125"),
    ("1/34", r"\frac134"),
    # names and order
    ("a=4,b=7", "a=7,b=4"),
    ("x=5", "2x=10"),
    ("[3,8)", r"3\le t\le 8"),
    ("(3,8)", "3,8"),
    ("27,54,108", "27,54108"),
    ("9", "KL=8"),
    ("9", r"\text{Volume}=8"),
    ("2:5", "A:B=5:2"),
    ("y=4x-1", "4x-y=2"),
    (r"\text{(A) }5", "B"),
    ("A", r"\text{(B) }5"),
    (r"\{x|x>1\}", r"\{x\mid x > 2\}"),
    ("(4,7)", "(a,b)=(7,4)"),
    ("(2,3)", "x=3, y=2"),
    ("(2,3)", "x=2, x=3"),
    ("5", "a+5=5+a"),
]
REFUSED_WRONGLY = [
    ("7 c d", "7cd"),
    ("6xy", "6yx"),
    ("7cd", "7dc"),
    (r"2\pi rh", r"2\pi hr"),
    ("7 hours", "7 h"),
    ("5 miles", "5 mi"),
    ("60 mph", "60 miles per hour"),
    (r"18\text{ hours}", "18"),
    (r"18\text{ hours}", "18 h"),
    (r"18\text{ hours}", "18 hours"),
    ("60 mph", "60 mi/h"),
    ("9 km/h", "9 kilometers per hour"),
    ("5 m/s", r"5\text{ meters per second}"),
    ("18", "18 eggs"),
    ("18", "18 dollars per day"),
    ("25", "5**2"),
    ("x^2", "x**2"),
    ("4", "√16"),
    ("1024", "2**10"),
    ("x^{12}", "x**12"),
    ("5", "√25"),
    ("2x", "√4 x"),
    ("24", "2 dozen"),
    ("5/2", "5 halves"),
    ("1/3", "0.333..."),
    ("5/2", r"\frac125"),
    ("27,54,108", "27, 54, 108"),
    (r"(0,1)\cup(3,400)", r"(0, 1)\cup(3, 400)"),
    (r"(2,12)\cup(12,102)", r"(2, 12) \cup (12, 102)"),
    ("36,36,108", "36, 36, 108"),
    ("32349", r"32,\! 349"),
    ("1234567", r"1,\! 234,\! 567"),
    (r"1,234\pi", r"1234\pi"),
    ("u+2i", "u+2 i"),
    ("x^2+1", "(x-i)(x+i)"),
    ("3+4i", "3 + 4 i"),
    ("7,8,9", r"7, 8, \text{and } 9"),
    ("1,2", r"1 \text{ and } 2"),
    ("(4,7)", "(a,b)=(4,7)"),
    ("9", "KL=9"),
    ("9", "f(4)=9"),
    (r"9\pi", r"\text{Volume}=9\pi"),
    ("2:5", "A:B=2:5"),
    ("(a,b)=(4,7)", "(4,7)"),
    ("KL=9", "9"),
    ("f(4)=9", "9"),
    (r"\text{Volume}=9\pi", r"9\pi"),
    ("A:B=2:5", "2:5"),
    (r"AB=3\sqrt2", r"\sqrt{18}"),
    ("(2,3)", "x=2, y=3"),
    ("(2,3)", "y=3, x=2"),
    ("x=2,y=3", "(2,3)"),
    ("3", "|AB|=3"),
    ("30", r"m\angle A=30^\circ"),
    ("12", "12 sq. units"),
    ("4,7", "a=4 or a=7"),
    ("a=4,b=7", "b=7,a=4"),
    ("a=4 or a=7", "7,4"),
    (r"\sqrt2,-\sqrt2", r"x=\sqrt2 \text{ or } x=-\sqrt2"),
    (r"a=\sqrt2,b=7", r"b=7,a=\sqrt{2}"),
    ("y=4x-1", "4x-y=1"),
    ("4x-y=1", "y=4x-1"),
    ("y=4x-1", "4x-1"),
    ("y = 4x - 1", "-4x+y+1=0"),
    ("[3,8)", r"3\le t<8"),
    (r"x\in[-2,7]", r"[-2,7]"),
    ("[-2,7]", r"x\in[-2,7]"),
    ("[-2,7]", r"-2 \leq x \leq 7"),
    (r"(1,\infty)", "x>1"),
    (r"(-\infty,1)\cup(2,\infty)", r"x<1 \text{ or } x>2"),
    ("[3,8)", r"8 > t \geq 3"),
    (r"\{x|x>1\}", r"\{x\mid x > 1\}"),
    (r"\{x\mid x>1\}", r"(1,\infty)"),
    (r"\{x|x>1\}", r"\{x : x > 1\}"),
    (r"\frac{\pi}{6}", "pi/6"),
    ("e^3", "exp(3)"),
    ("e^2", r"\mathrm{e}^2"),
    (r"\arctan 2", r"\operatorname{arctan}2"),
    (r"\sqrt{2}", "sqrt(2)"),
    (r"2\pi", "2pi"),
    (r"\arctan 2", "arctan(2)"),
    (r"e^{1/2}", "exp(1/2)"),
    ("3", r"3^{\text{rd}}"),
    (r"3^{\text{rd}}", "3"),
    ("3rd", r"3^{\text{rd}}"),
    ("A,B", r"\text{A, B}"),
    (r"\text{A, B}", "B, A"),
    ("5", r"\text{(A) }5"),
    ("A", r"\text{(A) }5"),
    (r"\text{(A) }5", "5"),
    (r"\text{(A) }5", "A"),
    (r"\text{(A) }5", "(A)"),
    (r"\text{(A)} 5", "(A) 5"),
    (r"(1,2)", r"\langle 1, 2 \rangle"),
    (r"\langle 1,2\rangle", r"\left\langle 1,2\right\rangle"),
    (r"\{1,2\}", r"\lbrace 1,2\rbrace"),
    (r"\{1,2\}", "{1,2}"),
    (r"\mathbb{R}", r"\mathbb R"),
    (r"\mathbb{R}", "ℝ"),
    ("5", "5,"),
    ("3", r"\text{3 apples}"),
    (r"\text{3 apples}", "3"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}1\\[2pt]2\end{pmatrix}"),
    ("(1,2),(3,4)", "(1,2),(3,4),(1,2)"),
    ("(1,2),(3,4)", "(3,4),(1,2)"),
]


PATIENT = 30.0  # seconds, on a machine that may be busy


def judge(gold: str, found: str) -> float | None:
    return math_reward([rf"so it is \boxed{{{found}}}."], answer=[gold], deadline=PATIENT)[0]


@pytest.mark.parametrize(("gold", "found"), PAID_WRONGLY)
def test_different(gold, found):
    assert judge(gold, found) == 0.0


@pytest.mark.parametrize(("gold", "found"), REFUSED_WRONGLY)
def test_equal(gold, found):
    assert judge(gold, found) == 1.0


@pytest.mark.parametrize(
    ("attempt", "expected"),
    [
        (r"\boxed{3} and so \boxed{}", 1.0),
        (r"\boxed{3} or \boxed{5} and so \boxed{ }", 0.0),
        ("#### : 3", 1.0),
        ("####: 3", 1.0),
        ("#### : 5", 0.0),
    ],
)
def test_where_the_answer_is(attempt, expected):
    assert math_reward([attempt], answer=["3"]) == [expected]


@pytest.mark.parametrize(
    ("policy", "attempt", "gold", "expected"),
    [
        ("boxes", r"\boxed{3} or \boxed{5}", "3,5", 1.0),
        ("boxed", r"\boxed{3} or \boxed{5}", "3,5", 0.0),
        ("boxes", r"\boxed{3} or \boxed{5}", "5", 0.0),
        ("boxes", r"\boxed{\boxed{3}}", "3", 1.0),
        ("plain", "The final answer is 18.", "18", 1.0),
        ("plain", r"The answer is \(18\). Done.", "18", 1.0),
        ("plain", "The final answer is $1.5$", "1.5", 1.0),
        ("plain", "The answer is 18, not 17", "17", 0.0),
        ("plain", r"so \boxed 7", "7", 1.0),
        ("final_answer", "The final answer is 18.", "18", 0.0),
    ],
)
def test_policies_to_ask_for(policy, attempt, gold, expected):
    assert math_reward([attempt], answer=[gold], policy=[policy]) == [expected]


def test_a_timeout_is_tried_again():
    attempt, gold = r"\boxed{(x+y+z+w+1)^{100}}", "x+y+1"
    assert math_reward([attempt], answer=[gold], deadline=0.5) == [None]
    assert not [pair for pair in _cache if "^{100}" in pair[1]]
