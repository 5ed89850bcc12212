"""Rows in the form of every public data set, each with a right and a wrong program: judged, or refused."""

import base64
import json
import pickle
import zlib

import pytest

from rewards.code import Judge

SQUARE = "def f(x):\n    return x * x\n"
DOUBLE = "def f(x):\n    return 2 * x\n"
ADD, SUBTRACT = (f"a, b = map(int, input().split())\nprint(a {sign} b)\n" for sign in "+-")
IN_OUT = [{"input": "1 2\n", "output": "3\n"}, {"input": "10 20\n", "output": "30\n"}]
COLUMNAR = {name: [case[name] for case in IN_OUT] for name in ("input", "output")}
PLUS = """
import numpy as np
from math import inf

def is_floats(x) -> bool:
    if isinstance(x, float):
        return True
    if isinstance(x, (list, tuple)):
        return all(isinstance(i, float) for i in x)
    if isinstance(x, np.ndarray):
        return x.dtype == np.float64 or x.dtype == np.float32
    return False

def assertion(out, exp, atol):
    if atol == 0 and is_floats(exp):
        atol = 1e-6
    if out != exp and atol != 0:
        assert np.allclose(out, exp, rtol=1e-07, atol=atol)
    else:
        assert out == exp, f"out: {out}, exp: {exp}"
"""
PLUS_LOOP = """
inputs = [[2], [3], [0.5]]
results = [4, 9, 0.25]
for i, (inp, exp) in enumerate(zip(inputs, results)):
    assertion(%s(*inp), exp, 0)
"""
PROMPT = "from typing import List\n\n\ndef f(x: float) -> float:\n    '''Square of x.\n    >>> f(2)\n    4\n    '''\n"
CHECK = """
METADATA = {}


def check(candidate):
    assert candidate(2) == 4
    assert abs(candidate(0.5) - 0.25) < 1e-6
"""
BIGCODEBENCH = {
    "task_id": "BigCodeBench/0",
    "complete_prompt": "import statistics\n\ndef task_func(numbers):\n    '''Mean of the squares.'''\n",
    "code_prompt": "import statistics\ndef task_func(numbers):\n",
    "entry_point": "task_func",
    "libs": "['statistics']",
    "test": """
import unittest
from unittest.mock import patch

class TestCases(unittest.TestCase):
    def setUp(self):
        self.numbers = [1, 2, 3]

    def test_mean(self):
        self.assertAlmostEqual(task_func(self.numbers), 14 / 3, places=6)

    def test_empty(self):
        with self.assertRaises(statistics.StatisticsError):
            task_func([])
""",
}
MEAN = """```python
import statistics
def task_func(numbers):
    return statistics.mean(n * n for n in numbers)
```"""
LEETCODE = {
    "prompt": "import random\nfrom typing import *\nfrom collections import *\n\ninf = float('inf')\n",
    "entry_point": "Solution().total",
    "test": "def check(candidate):\n    assert candidate(xs = [1, 2]) == 3\n    assert candidate(xs = []) == 0\n",
}
KODCODE = {
    "style": "instruct",
    "prompt": "Write f. For example:\n```python\ny = f(2)\n```",
    "test": (
        "from solution import f\n\ndef test_small():\n    assert f(2) == 4\n\n"
        "def test_negative():\n    assert f(-3) == 9\n"
    ),
    "test_info": [{"function_name": "f", "parameter_list": "(x)"}],
}
METHOD = "class Solution:\n    def total(self, xs: List[int], start: int = 0) -> int:\n        return sum(xs) + start\n"
HIDDEN = base64.b64encode(zlib.compress(pickle.dumps(json.dumps([{**IN_OUT[1], "testtype": "stdin"}])))).decode()


def info(cases: list, language: str = "python") -> dict:
    return {"language": language, "test_cases": cases}


SCRIPTS = [{"type": "stdin_stdout", "fn_name": None, **case} for case in IN_OUT]
CALLS = [
    {"type": "function_call", "fn_name": "total", "input": [[1, 2]], "output": [3]},
    {"type": "function_call", "fn_name": "total", "input": [[1, 2], 4], "output": [7]},
]
ARGUMENTS = [{"input": "[1, 2]", "output": "3"}, {"input": "[1, 2]\n4", "output": "7"}]
TOTAL = METHOD.replace("class Solution:\n    def total(self, ", "def total(").replace("        return", "    return")
# form: row, right program, wrong program
FORMS = {
    "MBPP": (
        {"text": "Square.", "test_list": ["assert f(2) == 4", "assert f(3) == 9"], "test_setup_code": "",
         "challenge_test_list": []},
        SQUARE, DOUBLE,
    ),
    "MBPP sanitized": (
        {"prompt": "Square.", "test_list": ["assert math.isclose(f(0.5), 0.25)"], "test_imports": ["import math"]},
        SQUARE, DOUBLE,
    ),
    "MBPP+": (
        {"prompt": "Square.", "test_imports": [], "test_list": ["assert f(2) == 4"], "test": PLUS + PLUS_LOOP % "f"},
        SQUARE, DOUBLE,
    ),
    "HumanEval": ({"prompt": PROMPT, "entry_point": "f", "test": CHECK}, "    return x ** 2\n", DOUBLE),
    "HumanEval+": (
        {"prompt": PROMPT, "entry_point": "f",
         "test": PLUS + "\ndef check(candidate):" + (PLUS_LOOP % "candidate").replace("\n", "\n    ")},
        SQUARE, DOUBLE,
    ),
    "HumanEval, prompt in a fence": (
        {"prompt": f"Complete this function:\n```python\n{PROMPT}```\n", "entry_point": "f", "test": CHECK},
        "    return x ** 2\n", DOUBLE,
    ),
    "HumanEval, prompt in prose": (
        {"prompt": "Write a function f that squares its argument.", "entry_point": "f", "test": CHECK}, SQUARE, DOUBLE,
    ),
    "HumanEval, prompt as messages": (
        {"prompt": [{"role": "user", "content": "Square"}], "entry_point": "f", "test": CHECK}, SQUARE, DOUBLE,
    ),
    "HumanEval, prompt without a body": (
        {"prompt": "import math\ndef f(x):\n    # square of x\n", "entry_point": "f", "test": CHECK},
        "    return math.pow(x, 2)\n", DOUBLE,
    ),
    "HumanEval, prompt in prose with an example": (
        {"prompt": "Write f.\n```python\ny = f(2)\n```\n", "entry_point": "f", "test": CHECK}, SQUARE, DOUBLE,
    ),
    "LeetCodeDataset": (LEETCODE, METHOD, METHOD.replace("sum", "max")),
    "LiveCodeBench, scripts": (
        {"question_content": "Add.", "public_test_cases": json.dumps([{**IN_OUT[0], "testtype": "stdin"}]),
         "private_test_cases": HIDDEN, "metadata": "{}", "starter_code": ""},
        ADD, SUBTRACT,
    ),
    "LiveCodeBench, functions": (
        {"public_test_cases": json.dumps([{**case, "testtype": "functional"} for case in ARGUMENTS]),
         "private_test_cases": "[]", "metadata": json.dumps({"func_name": "total"}), "starter_code": "class Solution:"},
        METHOD, METHOD.replace("sum", "max"),
    ),
    "TACO, scripts": (
        {"input_output": json.dumps({"inputs": COLUMNAR["input"], "outputs": COLUMNAR["output"]})}, ADD, SUBTRACT,
    ),
    "TACO, functions": (
        {"input_output": json.dumps({"fn_name": "total", "inputs": [[[1, 2]], [[1, 2], 4]], "outputs": [3, 7]})},
        METHOD, METHOD.replace("sum", "max"),
    ),
    "APPS, scripts": (
        {"input_output": json.dumps({"inputs": [["1 2"]], "outputs": [["3"]]}), "starter_code": ""}, ADD, SUBTRACT,
    ),
    "APPS, functions": (
        {"input_output": json.dumps({"fn_name": "total", "inputs": [[[1, 2]]], "outputs": [[3]]})},
        TOTAL, TOTAL.replace("sum", "max"),
    ),
    "CodeContests": (
        {"description": "Add.", "public_tests": COLUMNAR, "private_tests": {"input": [], "output": []},
         "generated_tests": {"input": ["0 0\n"], "output": ["0.0000000001\n"]}, "input_file": "", "output_file": ""},
        ADD, SUBTRACT,
    ),
    "DeepCoder of PrimeIntellect": ({"tests": json.dumps(SCRIPTS)}, ADD, SUBTRACT),
    "DeepCoder of PrimeIntellect, functions": ({"tests": json.dumps(CALLS)}, TOTAL, TOTAL.replace("sum", "max")),
    "DeepCoder of TACO": (
        {"tests": json.dumps({"inputs": COLUMNAR["input"], "outputs": COLUMNAR["output"]})}, ADD, SUBTRACT,
    ),
    "DeepCoder of LiveCodeBench": (
        {"tests": json.dumps([{**case, "testtype": "functional", "metadata": {"func_name": "total"}}
                              for case in ARGUMENTS])},
        METHOD, METHOD.replace("sum", "max"),
    ),
    "DeepCoder of LiveCodeBench, name in the row": (
        {"tests": json.dumps([{**case, "testtype": "functional"} for case in ARGUMENTS]),
         "metadata": {"func_name": "total"}},
        METHOD, METHOD.replace("sum", "max"),
    ),
    "PrimeIntellect, scripts": ({"verification_info": json.dumps(info(SCRIPTS))}, ADD, SUBTRACT),
    "PrimeIntellect, functions": ({"verification_info": repr(info(CALLS))}, TOTAL, TOTAL.replace("sum", "max")),
    "open-r1": ({"verification_info": info(SCRIPTS)}, ADD, SUBTRACT),
    "KodCode": (KODCODE, SQUARE, DOUBLE),
    "BigCodeBench": (
        BIGCODEBENCH, "    return statistics.mean(n * n for n in numbers)\n", "    return statistics.mean(numbers)\n",
    ),
    "BigCodeBench, instructed": (BIGCODEBENCH, MEAN, MEAN.replace("n * n", "n")),
}  # fmt: skip
NEED_NUMPY = ("MBPP+", "HumanEval+")


@pytest.fixture(scope="module")
def judge_with_numpy():
    pytest.importorskip("numpy")
    judge = Judge(modules=["numpy"])
    yield judge
    judge.close()


@pytest.mark.parametrize("form", FORMS)
def test_every_public_form(judge, request, form):
    row, right, wrong = FORMS[form]
    judge = request.getfixturevalue("judge_with_numpy") if form in NEED_NUMPY else judge
    verdict = judge.judge(right, row, timeout=60.0)
    assert verdict.score == 1.0, verdict
    verdict = judge.judge(wrong, row, timeout=60.0)
    assert (verdict.score, verdict.status) == (0.0, "wrong"), verdict


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (FORMS["MBPP+"][0], "No module named 'numpy'"),
        (FORMS["HumanEval+"][0], "No module named 'numpy'"),
        ({"verification_info": info(SCRIPTS, "javascript")}, "the tests are for programs in javascript; only Python"),
        ({"public_tests": COLUMNAR, "input_file": "input.txt"}, "would have to use the file input.txt"),
        (
            {
                **BIGCODEBENCH,
                "test": "import os, tempfile\n"
                + BIGCODEBENCH["test"].replace(
                    "self.numbers =", "self.folder = tempfile.mkdtemp()\n        self.numbers ="
                ),
            },
            "files that the tests have by",
        ),
        ({"verification_info": info([])}, "there are no tests"),
        ({"public_tests": {"input": [], "output": []}}, "there are no tests"),
        ({"verification_info": "{"}, "the tests cannot be read: SyntaxError"),
    ],
)
def test_what_cannot_be_judged_is_refused_with_the_reason(judge, row, told):
    verdict = judge.judge(SQUARE, row, timeout=60.0)
    assert (verdict.score, verdict.status) == (None, "error"), verdict
    assert told in verdict.detail
