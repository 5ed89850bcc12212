"""Cases: standard input and output of scripts, and functions by arguments and what they return."""

import base64
import json
import pickle
import zlib

import pytest

SQUARE = "def f(x):\n    return x * x\n"
DOUBLE = "a, b = map(int, input().split())\nprint('debug' if a > 99 else a + b)\n"
CASES = [{"input": "1 2\n", "output": "3\n"}, {"input": "10 20", "output": "30"}]


def packed(value: object) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(value)))).decode()


@pytest.mark.parametrize(
    "row",
    [
        {"public_test_cases": json.dumps([{**CASES[0], "testtype": "stdin"}]), "private_test_cases": packed(CASES)},
        {"tests": json.dumps([{**case, "type": "stdin_stdout"} for case in CASES])},
        {"tests": {"inputs": ["1 2", "10 20"], "outputs": ["3", "30"]}},
        {"input_output": json.dumps({"inputs": ["1 2\n", "10 20\n"], "outputs": ["3\n", "30.0\n"]})},
    ],
    ids=["LiveCodeBench", "DeepCoder", "TACO", "APPS"],
)
def test_standard_input_and_output(judge, row):
    assert judge.judge(DOUBLE, row).score == 1.0
    assert judge.judge("import sys, os\nprint(sum(map(int, open(0).read().split()))); os._exit(0)", row).score == 0.0
    assert judge.judge("import os\nos.write(1, b'%d' % sum(map(int, input().split())))\nos._exit(0)", row).score == 1.0
    assert judge.judge("print(3)", row).score == 0.0
    assert judge.judge("print(3)\nprint(30)", row).score == 0.0
    assert judge.judge("while True: print('3' * 9999)", row, timeout=2.0).score == 0.0
    assert 0 < judge.judge("print(3)", row, partial=True).score < 1


@pytest.mark.parametrize(
    "row",
    [
        {
            "public_test_cases": json.dumps([{"input": "[1, 2]\n3", "output": "6", "testtype": "functional"}]),
            "metadata": json.dumps({"func_name": "total"}),
        },
        {"input_output": json.dumps({"fn_name": "total", "inputs": [[[1, 2], 3]], "outputs": [6]})},
    ],
    ids=["LiveCodeBench", "TACO"],
)
def test_functions_by_arguments(judge, row):
    assert judge.judge("class Solution:\n    def total(self, xs, y): return sum(xs) + y", row).score == 1.0
    assert judge.judge("def total(xs, y): return sum(xs) + y", row).score == 1.0
    assert judge.judge("def total(xs, y): return sum(xs)", row).score == 0.0


@pytest.mark.parametrize(
    ("program", "expected", "score"),
    [
        ("print(6)", "6", 1.0),
        ("print(6)\nimport sys\nsys.exit()", "6", 1.0),
        ("print(6)\nexit(0)", "6", 1.0),
        ("print(6)\nraise ValueError", "6", 0.0),
        ("print(6, flush=True)\nimport os\nos.abort()", "6", 0.0),
        ("print(6)\nraise MemoryError", "6", 0.0),
        ("print(6)\nimport sys\nsys.exit(3)", "6", 0.0),
        ("print(6)\nx = [0] * 10**10", "6", 0.0),
        ("print(6", "", 0.0),
        ("pass", "", 1.0),
        ("print('0101')", "101", 0.0),
        ("print('1_000')", "1000", 0.0),
        ("print('007')", "7", 0.0),
        ("print('1.50')", "1.5", 1.0),
        ("print('1e3')", "1000", 1.0),
        ("print('-0.0')", "0", 1.0),
    ],
)
def test_a_script_must_end_well_and_print_what_is_expected(judge, program, expected, score):
    assert judge.judge(program, {"tests": [{"input": "", "output": expected}]}).score == score


@pytest.mark.parametrize(
    ("value", "expected", "score"),
    [
        ("5", "[5]", 0.0),
        ("[1, 2]", "[[1, 2]]", 0.0),
        ("[0]", "[false]", 0.0),
        ("1", "true", 0.0),
        ("{'a': 1}", '{"a": true}', 0.0),
        ("[(1, 2)]", "[[1, 2]]", 1.0),
        ("{1: [2.0]}", '{"1": [2]}', 1.0),
        ("None", "null", 1.0),
        ("True", "true", 1.0),
    ],
)
def test_what_a_function_returns_is_what_json_says(judge, value, expected, score):
    row = {"tests": [{"input": "1", "output": expected, "metadata": {"func_name": "f"}}]}
    assert judge.judge(f"def f(x): return {value}", row).score == score


def test_apps_may_wrap_every_output_in_a_list(judge):
    row = {"input_output": {"fn_name": "f", "inputs": [[1], [2]], "outputs": [[1], [4]]}}
    assert judge.judge(SQUARE, row).score == 1.0
    row["input_output"]["outputs"] = [[1], 4]
    assert judge.judge(SQUARE, row).score == 0.0
