"""Answers that repeat the question beside those that answer it in its own words."""

import pytest

from rewards import score
from rewards.answers import find_gold
from rewards.math import math_reward
from rewards.notation import read
from rewards.restated import restates
from tests.rewards.data import rows


def judge(prompt: str, gold: str, found: str) -> float | None:
    return math_reward([rf"so it is \boxed{{{found}}}."], answer=[gold], prompts=[prompt])[0]


RESTATED = [
    (r"Compute $\cos 225^\circ$.", r"-\frac{\sqrt{2}}{2}", r"\cos 225^\circ"),
    (r"What is $$113 + 276 - 13 - 26?$$", "350", "113+276-13-26"),
    (r"Expand \((q-5)(3r+6)\).", "3qr+6q-15r-30", "(q-5)(3r+6)"),
    (r"Factor $x^2+10x+25$.", "(x+5)^2", r"x^{2} + 10x + 25"),
    (r"Where $4x+3y = -2$ and $x=y$, what is its right side?", "-2", "4x + 3y = -2"),
    (r"Simplify \[\sqrt{50}.\]", r"5\sqrt{2}", r"\sqrt{50}"),
    (r"What is $2^{10}$?", "1024", "x=2^{10}"),
]
ANSWERS = [
    (r"Compute $\cos 225^\circ$.", r"-\frac{\sqrt{2}}{2}", r"\cos 225^\circ = -\frac{\sqrt2}{2}"),
    (r"Which is prime, $x^2+1$ or $x^2-1$?", "x^2+1", "x^2+1"),
    (r"Which is it, $\frac{x+1}{2}$ or $\left(x-1\right)$?", r"\dfrac{x + 1}{2}", r"\frac{x+1}{2}"),
    (r"Which is greater, $(x+1)(x-1)$ or $1+x$?", "x+1", "1+x"),
    (r"Which is greater, $\left(x+1\right)(x-1)$ or $1+x$?", "(x-1)(x+1)", r"\left(x+1\right)(x-1)"),
    (r"A side of $\frac{1}{2}$, a point at $(1,-2)$ and $30^\circ$.", "0.5", r"\frac{1}{2}"),
    (r"A side of $2$, a point at $(\frac{1}{2},-2)$ and $30^\circ$.", "(0.5, -2)", r"(\frac{1}{2},-2)"),
    (r"Expand $(x+1)^2+x$.", "x^2+3x+1", "(x+1)^2+x = x^2+3x+1"),
    (r"What is it, $3\times 10^2$ or $x\neq 2$?", r"3\cdot10^2", r"3\times 10^2"),
    (r"Is it $pq + 1$ or $p*q$?", "pq", "p*q"),
    (r"Is it $2x-1$ or $x$?", "-1+2x", "2x-1"),
    (r"It costs $5. Add $x+1$.", "x+1", "x+1"),
]


@pytest.mark.parametrize(("prompt", "gold", "found"), RESTATED)
def test_the_question_is_no_answer(prompt, gold, found):
    assert judge(prompt, gold, found) == 0.0


@pytest.mark.parametrize(("prompt", "gold", "found"), ANSWERS)
def test_an_answer_may_be_in_the_prompt(prompt, gold, found):
    assert judge(prompt, gold, found) == 1.0


def test_without_prompts_every_equal_answer_is_right():
    assert math_reward([r"\boxed{2^{10}}"], answer=["1024"]) == [1.0]


def test_messages_and_what_is_said_of_it():
    prompts = [[{"role": "system", "content": "Box it."}, {"role": "user", "content": "What is $2^{10}$?"}]]
    completions = [[{"role": "assistant", "content": r"\boxed{2^{10}}"}]]
    verdict = score("math", completions, answer=["1024"], prompts=prompts)[0]
    assert (verdict.score, verdict.status, verdict.answer) == (0.0, "wrong", "1024")
    assert verdict.detail == "answer 2^{10} restates the question"


def test_no_gold_of_math_restates_its_question(benchmark_data):
    table = [(read(find_gold(row["solution"])), row["problem"]) for row in rows(benchmark_data / "math_test5000.jsonl")]
    assert [gold.text for gold, problem in table if restates(gold, gold, problem)] == []
