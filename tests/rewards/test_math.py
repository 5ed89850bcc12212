r"""What `math_reward` takes for equal, what it does not, and what it survives."""

import threading
from itertools import pairwise
from pathlib import Path

import pytest

from rewards import RewardError, RewardPool, score
from rewards.math import math_reward, math_verdicts
from tests.rewards.data import columns, rows

EQUAL = [
    # numbers
    ("42", "42."), ("1,234", "1234"), (r"1\,000", "1000"), (r"1,\!000,\!000", "1000000"), ("1 000", "1000"),
    ("8{,}880", "8880"), ("1e5", "100000"), ("1/2", "0.5"), (r"\frac{3}{4}", r"\frac{6}{8}"), (r"\frac12", "1/2"),
    (r"1\frac{4}{5}", "9/5"), ("-1 1/2", "-1.5"), ("7", "7.0"), ("2^{10}", "1024"), ("120", "5!"), ("73", "**73**"),
    (r"1.5\times10^{3}", "1500"), (r"\dfrac{1}{2}", r"\tfrac12"), ("-3", "−3"), ("5000000", "5 million"),
    (r"\frac{1}{2004!}", r"1/2004!"), ("1/3", r"0.\overline{3}"), (r"0.1\bar6", "1/6"), ("1", r"0.\overline{9}"),
    ("-5", "－５"), ("2.5", "2½"), ("x^2", "x²"), (r"\infty", r"+\infty"),
    # currency, percent, units
    ("5", "5 dollars"), (r"\$7.50", "7.5"), ("18", "$18.00"), ("50%", "0.5"), (r"7\%", "7%"), ("7", r"7\%"),
    ("10 cm", r"10\text{ cm}"), ("10 centimeters", "10 cm"), ("10", "10 cm"), (r"60^\circ", "60"),
    (r"90\text{ square units}", "90"), (r"10\pi\text{ cm}", r"10\pi"), (r"5\text{ m}^2", "5 square meters"),
    # algebra
    ("-1", "i^2"), (r"\frac{\sqrt{2}}{2}", r"\frac{1}{\sqrt{2}}"), ("x^2+2x+1", "(x+1)^2"), ("6-5i", "-5i+6"),
    (r"\frac{\pi}{3}", r"\pi/3"), (r"11x+6y+5z+86=0", "-11x-6y-5z-86=0"), (r"\sqrt{2}", "2^{1/2}"),
    (r"2\sqrt2", r"\sqrt8 = 2\sqrt2"), ("y=2x+3", "2x+3"), ("p - q", "p-q"), ("x=5", "5"), ("5", "x=5"),
    # lists, intervals, matrices
    ("(1,2)", "( 1, 2 )"), ("1, -2", "-2,1"), ("1,2,3", "1, 2, and 3"), ("1,2", "1 or 2"), (r"\{1,2\}", "2,1"),
    ("[0,1)", r"\left[0, 1.0\right)"), (r"(-\infty,1)\cup(2,\infty)", r"(-\infty, 1) \cup (2, \infty)"),
    (r"3\pm 2\sqrt2", r"3+2\sqrt{2}, 3-2\sqrt2"), (r"x \in [1,2]", "[1,2]"), (r"\varnothing", r"\emptyset"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{bmatrix}1\\ 2\end{bmatrix}"), ("1<x<2", "(1,2)"),
    # words, bases, clocks
    (r"\text{Evelyn}", "Evelyn"), ("C", r"\text{(C)}"), (r"\text{even}", "Even"), ("204_5", "204_{5}"),
    ("4:30 p.m.", r"\text{4:30 p.m.}"), ("3:4", "3 : 4"),
]  # fmt: skip

DIFFERENT = [
    # small differences
    ("2^{-99}", "2^{-98}"), ("2^-99", "2^-98"), (r"\frac{1}{2004!}", r"\frac{1}{2006!}"), ("1/2004!", "1/2006!"),
    (r"0.\overline{3}", "0.333"), (r"0.\overline{12}", r"0.1\overline{2}"), (r"\infty", r"-\infty"), (r"\infty", "5"),
    ("1e-7", "2e-7"), ("10^{20}", "10^{20}+1"), (r"\sqrt2\cdot2^{-99}", r"\sqrt2\cdot2^{-98}"), ("1/3", "0.33"),
    (r"\frac{\pi}{3}", r"\frac{\pi}{3}+10^{-20}"), (r"\pi", "3.14"), (r"\sqrt{2}", "1.4142"), ("5", "5!"), ("5", "-5"),
    # units, percent, bases, ratios
    ("10 cm", "10 m"), (r"10\text{ cm}", r"10\text{ m}"), (r"10\text{ cm}^2", r"10\text{ cm}"), ("10", "10 m"),
    ("50%", "5"), ("5", "5 million"), (r"30^\circ", r"30\%"), ("10%", "10 cm"),
    ("204_5", "204_6"), ("204_5", "204"), ("204", "204_5"), ("12", "12_3"),
    ("3:4", "3:5"), ("3:4", "3"), ("4:30 p.m.", "4:30 a.m."),
    # structure
    ("3", "5=4=3"), ("5", "x=5=6"), ("5", "x+5=10"), ("x=5", "y=5"), ("5", "5x"), ("5", "5 or 6"), ("3", r"\{3,5\}"),
    ("(1,2)", "(2,1)"), ("(1,2)", "1"), ("(1,2,3)", "(1,2)"), ("1,2", "1,2,3"), ("[0,1)", "(0,1)"), ("12", "1 2"),
    ("6-5i", "6+5i"), ("x", "y"), (r"\frac{1}{2}", "12"), ("x^2", "x^{2.0000001}"),
    # words
    (r"\text{Evelyn}", r"\text{Evylen}"), ("no", "on"), ("A", "B"),
]  # fmt: skip


PATIENT = 30.0  # seconds: these tests are about what is equal, on a machine that may be busy


def judge(gold: str, found: str) -> float | None:
    return math_reward([rf"so it is \boxed{{{found}}}."], answer=[gold], deadline=PATIENT)[0]


@pytest.mark.parametrize(("gold", "found"), EQUAL)
def test_equal(gold, found):
    assert judge(gold, found) == 1.0


@pytest.mark.parametrize(("gold", "found"), DIFFERENT)
def test_different(gold, found):
    assert judge(gold, found) == 0.0


@pytest.mark.parametrize(
    ("attempt", "expected"),
    [
        (r"\boxed{5} no, \boxed{3}", 1.0),
        (r"\boxed{3} no, \boxed{5}", 0.0),
        (r"\boxed{3} and \boxed{5", 1.0),
        (r"\boxed{5} then \boxed{ \boxed{3} }", 1.0),
        (r"\boxed{\text{the set } \{3\}", 0.0),
        (r"<think>\boxed{5}</think> \boxed{3}", 1.0),
        (r"<think>\boxed{3}</think> I give up", 0.0),
        (r"<think>\boxed{3}", 0.0),
        (r"Final Answer: The final answer is $3$. I hope it is correct.", 1.0),
        ("it was 4\n#### 3", 1.0),
        ("#### 3\nor rather\n#### 4", 0.0),
        ("the answer is 3", 0.0),
        ("", 0.0),
        (r"\fbox{3}", 1.0),
    ],
)
def test_which_part_of_an_attempt_is_its_answer(attempt, expected):
    assert math_reward([attempt], answer=["3"]) == [expected]


def test_policy_of_where_the_answer_is():
    attempt = "\\boxed{4}\n#### 3"
    assert math_reward([attempt], answer=["3"]) == [0.0]
    assert math_reward([attempt], answer=["3"], policy=["hashes"]) == [1.0]
    assert math_reward(["no hashes, \\boxed{3}"], answer=["3"], policy=["hashes"]) == [0.0]
    with pytest.raises(RewardError, match="no answer policy 'hash'; known: boxed, final_answer, hashes"):
        math_reward([attempt], answer=["3"], policy=["hash"])


def test_gold_forms_and_statuses():
    attempts = [r"\boxed{3}"] * 4 + ["nothing"]
    golds = ["We get $1+2=3$.\n#### 3", r"so $\boxed{3}$ it is", 3, "", "3"]
    verdicts = score("math", attempts, answer=golds)
    assert [v.status for v in verdicts] == ["correct", "correct", "correct", "unscorable", "no_answer"]
    assert [v.score for v in verdicts] == [1.0, 1.0, 1.0, None, 0.0]
    assert score("math", [r"\boxed{n \ge 2}"], answer=[r"n \ge i"])[0].status == "unscorable"
    assert math_reward([r"\boxed{3}"], solution=[r"\boxed{3}"]) == [1.0]
    with pytest.raises(RewardError, match="column 'answer' or 'solution'"):
        math_reward([r"\boxed{3}"])


def test_message_lists():
    conversation = [{"role": "user", "content": "again"}, {"role": "assistant", "content": r"\boxed{3}"}]
    assert math_reward([conversation], answer=["3"]) == [1.0]


ENDLESS = [
    "99999999!", "10^{10^{10}}", r"\binom{10^9}{5\cdot10^8}", "5^{5^{5^{5}}}", "(" * 900 + "x" + ")" * 900,
    "x^" * 700 + "x", "(x+y+z+w+1)^{100}", r"\int_0^1 e^{x^{x^x}} dx", "+".join(f"x_{{{n}}}" for n in range(250)),
    r"\$-" * 600 + "6",
]  # fmt: skip
HUGE = ["1" * 100_000, "(" * 50_000 + "5" + ")" * 50_000, r"\boxed{" * 10_000, "{" * 100_000]


def test_hostile_answers_end_and_never_pay_on_a_thread_that_is_not_the_main_one():
    results: list[float | None] = []

    def use() -> None:
        attempts = [rf"\boxed{{{found}}}" for found in ENDLESS + HUGE]
        results.extend(math_reward(attempts, answer=["5"] * len(attempts), deadline=1.0))

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert len(results) == len(ENDLESS + HUGE)
    assert 1.0 not in results
    assert results[len(ENDLESS) :] == [0.0] * len(HUGE)


def test_a_hang_is_a_timeout_and_its_neighbours_are_judged():
    with RewardPool(["math"], deadline=4.0) as pool:
        verdicts = pool.score([r"\boxed{99999999!}", r"\boxed{5}", r"\boxed{\sqrt{25}}"], {"answer": ["5"] * 3})
    assert [(v.score, v.status) for v in verdicts] == [(None, "timeout"), (1.0, "correct"), (1.0, "correct")]


def test_no_answer_is_ever_run(tmp_path: Path):
    mark = tmp_path / "run"
    payloads = [
        f"open('{mark}','w')",
        f"__import__('os').system('touch {mark}')",
        rf"\text{{__import__('os').system('touch {mark}')}}",
        f"(lambda: open('{mark}', 'w'))()",
        f"[x for x in [open('{mark}','w')]]",
    ]
    attempts = [rf"\boxed{{{payload}}}" for payload in payloads]
    assert math_reward(attempts, answer=["5"] * len(payloads), deadline=PATIENT) == [0.0] * len(payloads)
    assert not mark.exists()


@pytest.fixture(scope="module")
def pool():
    """Workers that know computer algebra, which takes seconds to load."""
    with RewardPool(["math"], deadline=PATIENT) as pool:
        yield pool


def test_gold_of_every_gsm8k_row(benchmark_data, pool):
    table = rows(benchmark_data / "gsm8k_train.jsonl") + rows(benchmark_data / "gsm8k_test.jsonl")
    assert len(table) == 8792
    verdicts = pool.score([row["answer"] for row in table], {"answer": [row["answer"] for row in table]})
    assert [row["answer"] for row, verdict in zip(table, verdicts, strict=True) if verdict.score != 1.0] == []


def test_gold_of_every_math_row_as_it_is_and_beside_an_answer_column(benchmark_data, pool):
    table = rows(benchmark_data / "math_test5000.jsonl")
    assert len(table) == 5000
    verdicts = pool.score([row["solution"] for row in table], columns(table))
    short = rows(benchmark_data / "math500.jsonl")
    against_answers = pool.score([row["solution"] for row in short], columns(short))
    assert [row["idx"] for row, verdict in zip(table, verdicts, strict=True) if verdict.score != 1.0] == []
    assert [row["unique_id"] for row, v in zip(short, against_answers, strict=True) if v.score != 1.0] == []


def test_gold_of_a_math_row_is_no_other_rows_answer(benchmark_data, pool):
    from rewards.answers import find_gold

    golds = [find_gold(row["solution"]) for row in rows(benchmark_data / "math_test5000.jsonl")]
    pairs = [(a, b) for a, b in pairwise(golds[::5]) if a != b]
    verdicts = pool.score([rf"\boxed{{{b}}}" for _, b in pairs], {"answer": [a for a, _ in pairs]})
    paid = [pair for pair, verdict in zip(pairs, verdicts, strict=True) if verdict.score == 1.0]
    assert all(judge(b, a) == 1.0 for a, b in paid)
    assert len(paid) < 10


def test_equal_answers_are_read_as_one_answer_and_different_ones_are_not():
    halves = [r"\boxed{\frac{1}{2}}", r"\boxed{0.5}", r"\boxed{50\%}", "#### .5"]
    texts = [*halves, r"\boxed{x+1}", r"\boxed{x + 1}", r"\boxed{2}", "?"]
    answers = [verdict.answer for verdict in math_verdicts(texts, ["0.5"] * len(texts))]
    assert answers == ["1/2"] * 4 + ["x+1"] * 2 + ["2", None]
