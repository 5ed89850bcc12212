r"""Kinds of answers once judged wrongly: paid without being right, or right and refused."""

import pytest

from rewards import RewardPool
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
    # free text, ordinals, labels
    ("8", r"8\text{pq}"),
    ("9", r"9\text{xyz}"),
    ("3", r"\text{The answer is not } 3"),
    ("9", r"9^{\text{th}} root"),
    ("2", r"2^{\text{nd}} root of 9"),
    ("5", r"5\text{th root of }32"),
    ("3", r"\text{more than 3}"),
    ("5", "5'"),
    ("A", r"\text{(B) }A"),
    (r"\text{(A)}", r"\text{(A)}, 17"),
    (r"\text{(A)}", r"\text{(A)}+6"),
    # lists, points, intervals
    ("(1,2)", "1<x<2"),
    ("(3,8)", "3<t<8"),
    ("1234", "1, 234"),
    ("(100,200)", "100200"),
    (r"\pm 2", "2"),
    ("(1,2)", r"\{1,2\}"),
    (r"(-\infty,1)\cup(2,\infty)", r"(-\infty,1]\cup[2,\infty)"),
    ("-2,3", "(-2,3)"),
    (r"\{-2,3\}", r"\{2,-3\}"),
    ("a=4,b=7", "7,4"),
    ("x=5, y=6", "(6,5)"),
    ("0", r"1/\infty"),
    # rounded and cut off
    ("1/3", "0.33333"),
    ("1/3", "0.333334"),
    ("1/3", "0.3333333333335"),
    (r"\sqrt{17}", "4.1231"),
    (r"\sqrt{17}", "4.123107"),
    ("1000000", "1000000.0000001"),
    ("1", "0.9999999"),
    # formulas
    (r"\frac{1}{x+1}", "1/x+1"),
    (r"\sin^2 x", r"\sin x^2"),
    (r"\log_2 3", r"\log_3 2"),
    (r"\cos 60^\circ", r"\cos 60"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{vmatrix}1&2\\3&4\end{vmatrix}"),
    ("2^n-1", "2^{n-1}"),
    ("5", "5^0"),
    ("x_1", "x_2"),
    ("x^2+y^2=25", "x^2-y^2=25"),
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
    # names, words, fonts
    ("5", r"\overline{AB} = 5"),
    ("5", r"\text{gcd}(10,15)=5"),
    (r"\frac{1}{3}", r"P(A|B) = \frac13"),
    ("A,B,C", r"\text{A, B, and C}"),
    ("(2,3)", r"\text{The point is } (2,3)"),
    (r"\text{I and III}", "I, III"),
    (r"\text{no solution}", "no solutions"),
    (r"\text{June 20}", "June 20"),
    ("24", "two dozen"),
    ("12", "twelve"),
    ("1011_2", r"1011_{\text{two}}"),
    (r"\frac{1}{2}", r"\mathbf{\frac{1}{2}}"),
    ("42", r"\color{red}{42}"),
    (r"\mathbb{R}", r"\Bbb{R}"),
    ("42", r"42\hspace{1mm}"),
    (r"28\%", "28 pct"),
    # lists, points, intervals
    ("100,200", "100, 200"),
    ("100,200", "100200"),
    ("(11,7)or(7,11)", r"(7,11),\ (11,7)"),
    ("p=5,q=2;p=7,q=2", "(5,2),(7,2)"),
    ("1<x<2", "(1,2)"),
    (r"x\in(1,2)", "1<x<2"),
    ("x<1", "-x>-1"),
    (r"x=\frac{-1\pm\sqrt5}{2}", r"\frac{-1+\sqrt5}{2}, \frac{-1-\sqrt5}{2}"),
    ("-2,3", "x_1=-2, x_2=3"),
    (r"x\ne 2", r"(-\infty,2)\cup(2,\infty)"),
    # rounded and cut off
    ("1/3", "0.333333333333333"),
    (r"\sqrt{17}", "4.12310562561766"),
    ("1/3", "0.333333"),
    (r"\sqrt{17}", "4.123106"),
    ("-2/3", "-0.66666667"),
    # formulas
    (r"\sin 30^\circ", r"\frac12"),
    (r"\sin 2x", r"2\sin x\cos x"),
    (r"3s^2", r"3\cdot s^2"),
    ("111111111", r"111, \! 111, \! 111"),
    (r"9\text{ a.m.}", "9 am"),
    ("1 1/2, 3", r"3, \frac32"),
    (r"\sqrt[3]{54}", r"3\sqrt[3]{2}"),
    (r"2+\sqrt{3}", r"\sqrt{7+4\sqrt3}"),
    (r"\frac{x^2}{4}+\frac{y^2}{9}=1", "9x^2+4y^2=36"),
    (r"\binom{6}{2}", "15"),
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
        ("#### Answer: 3", 1.0),
        ("#### = 3", 1.0),
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
        ("plain", "Final Answer: The final answer is 7.78. I hope it is correct.", "7.78", 1.0),
        ("plain", r"Final Answer: The final answer is \((-6, 10)\).", "(-6,10)", 1.0),
        ("plain", "The answer is 18, not 17", "17", 0.0),
        ("plain", r"so \boxed 7", "7", 1.0),
        ("final_answer", "The final answer is 18.", "18", 0.0),
    ],
)
def test_policies_to_ask_for(policy, attempt, gold, expected):
    assert math_reward([attempt], answer=[gold], policy=[policy]) == [expected]


def test_a_timeout_has_no_score_or_the_one_that_was_asked_for():
    attempt, columns = r"\boxed{99999999!}", {"answer": ["5"]}
    with RewardPool(["math"], deadline=2.0) as pool:
        assert pool.score([attempt], columns)[0].score is None
    with RewardPool([{"name": "math", "kwargs": {"late": 0.0}}], deadline=2.0) as pool:
        verdict = pool.score([attempt], columns)[0]
    assert (verdict.score, verdict.status) == (0.0, "timeout")
    assert math_reward([attempt], answer=["5"], deadline=0.5, late=0.0) == [0.0]


def test_a_timeout_is_tried_again():
    attempt, gold = r"\boxed{(x+y+z+w+1)^{100}}", "x+y+1"
    assert math_reward([attempt], answer=[gold], deadline=0.5) == [None]
    assert not [pair for pair in _cache if "^{100}" in pair[1]]
