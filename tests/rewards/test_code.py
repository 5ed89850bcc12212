"""Programs in attempts, tests in the forms of the usual data sets, and the whole of HumanEval and MBPP."""

import ast
import base64
import pickle
import zlib
from pathlib import Path
from typing import Any

import pytest

from rewards import RewardPool, score
from rewards.assertions import program_names
from rewards.code import code_reward
from rewards.program import find_program
from rewards.suites import read_suite
from rlcore.data import load_problems
from rlcore.recipe.schema import DataConfig
from tests.rewards.data import columns

SQUARE = "def f(x):\n    return x * x\n"


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("```python\nx = 1\n```", "x = 1"),
        ("first\n```python\nx = 1\n```\nbetter:\n```py\nx = 2\n```\ndone", "x = 2"),
        ("```\nx = 1\n```", "x = 1"),
        ("```python\nx = 1", "x = 1"),
        ("[BEGIN]\nx = 1\n[DONE]", "\nx = 1\n"),
        ("x = 1", "x = 1"),
        ("<think>```python\nx = 1\n```</think>```python\nx = 2\n```", "x = 2"),
    ],
)
def test_which_part_of_an_attempt_is_the_program(text, program):
    assert find_program(text) == program


MBPP = {"test_list": ["assert f(2) == 4", "assert f(3) == 9"]}


def test_mbpp(judge):
    assert judge.judge(SQUARE, MBPP).score == 1.0
    assert judge.judge("def f(x): return 4", MBPP).score == 0.0
    assert judge.judge("def f(x): return 4", MBPP, partial=True).score == 0.5
    assert judge.judge("def g(x): return 4", MBPP).detail.endswith("NameError: name 'f' is not defined")
    assert judge.judge("def f(x) return", MBPP).status == "wrong"
    assert judge.judge("```python\n```", MBPP).status == "no_answer"


HUMANEVAL = {
    "prompt": 'def f(x):\n    """The square."""\n',
    "entry_point": "f",
    "test": "def check(candidate):\n    assert candidate(3) == 9",
}
FUNCTION = {"input_output": '{"fn_name": "f", "inputs": [[3]], "outputs": [9]}'}
KODCODE = {"test": "from solution import f\n\ndef test_f():\n    assert f(3) == 9\n"}


@pytest.mark.parametrize("row", [MBPP, HUMANEVAL, FUNCTION, KODCODE], ids=["mbpp", "humaneval", "function", "kodcode"])
@pytest.mark.parametrize(
    "more", ["assert f(2) == 5", "assert square(2) == 4", "print(f(int(input())))", "import sys\nsys.exit(1)", "1 / 0"]
)
def test_what_a_program_does_after_it_has_what_is_asked_decides_nothing(judge, row, more):
    assert judge.judge(f"{SQUARE}\n{more}\n", row).score == 1.0
    assert judge.judge(f"{SQUARE.replace('*', '+')}\n{more}\n", row).score == 0.0


def test_what_a_program_fails_at_before_it_has_what_is_asked_is_told(judge):
    for row in (MBPP, HUMANEVAL, FUNCTION, KODCODE):
        assert judge.judge(f"raise ValueError('too early')\n{SQUARE}", row).score == 0.0
    assert judge.judge(f"raise ValueError('too early')\n{SQUARE}", MBPP).detail.endswith("ValueError: too early")


def test_mbpp_setup_imports_and_challenge(judge):
    setup = {"test_list": ["assert f(node) == 4"], "test_setup_code": "node = Node(2)"}
    assert judge.judge("class Node:\n    def __init__(self, x): self.x = x\ndef f(n): return n.x**2", setup).score == 1
    imports = {"test_list": ["assert math.isclose(f(math.pi), math.pi ** 2)"], "test_imports": ["import math"]}
    assert judge.judge(SQUARE, imports).score == 1.0
    both = {**MBPP, "challenge_test_list": ["assert f(-1) == 1"]}
    only_positive = "def f(x): return x * x if x > 0 else 0"
    assert judge.judge(only_positive, both).score == 1.0
    assert judge.judge(only_positive, both, challenge=True).score == 0.0


@pytest.mark.parametrize(
    ("test", "program", "right"),
    [
        ("assert f(1)", "def f(x): return True", True),
        ("assert not f(1)", "def f(x): return []", True),
        ("assert f(1) is None", "def f(x): return None", True),
        ("assert 3 == f(1)", "def f(x): return 3", True),
        ("assert abs(f(1) - 0.5) < 1e-6", "def f(x): return 0.5000001", True),
        ("assert set(f(1)) == {1, 2}", "def f(x): return (i for i in (2, 1, 2))", True),
        ("assert list(f(1)) == [1]", "def f(x): return map(int, '1')", True),
        ("assert f(1) == [1]", "def f(x): return map(int, '1')", False),
        ("assert f(1) == (1, 2)", "def f(x): return [1, 2]", False),
        ("assert f([1, 2])[0] == 2", "def f(x): return x[::-1]", True),
        ("assert len(f(3)) == 2", "def f(x): return 3", False),
        ("assert f(1) == f(2)", "def f(x): return x", False),
        ("assert sum(1, 2) == 3", "def sum(a, b): return a + b", True),
        ("assert f(2) == 4 and f(3) == 9", SQUARE, True),
    ],
)
def test_assertions_taken_apart(judge, test, program, right):
    assert judge.judge(program, {"test_list": [test]}).score == float(right)


@pytest.mark.parametrize(
    ("test", "helper", "setup"),
    [
        ("assert f(2) == pow(2, 2)", "pow", ""),
        ("assert f(2) == divmod(9, 2)[0]", "divmod", ""),
        ("assert bin(f(2)) == '0b100'", "bin", ""),
        ("assert repr(f(2)) == '4'", "repr", ""),
        ("assert type(f(2)) == type(4)", "type", ""),
        ("assert all(a == b for a, b in zip([f(2)], [4]))", "zip", ""),
        ("assert [i * f(2) for i, _ in enumerate('ab')] == [0, 4]", "enumerate", ""),
        ("assert Counter([f(2)]) == Counter([4])", "Counter", ""),
        ("assert int(Decimal(f(2))) == int(Decimal('4'))", "Decimal", ""),
        ("assert f(2) == reference(2)", "reference", "def reference(x): return x * x"),
    ],
)
def test_names_that_are_not_the_program_s_are_the_judge_s(judge, test, helper, setup):
    row = {"test_list": [test], "test_setup_code": setup}
    assert judge.judge(SQUARE, row).score == 1.0
    assert judge.judge(f"{helper} = lambda *a: '7'\ndef f(x): return '7'", row).score == 0.0


@pytest.mark.parametrize("test", ["assert sum(range(f(1))) == 3", "assert math.factorial(f(1)) == 6"])
def test_what_a_returned_number_could_keep_busy_for_hours_runs_in_a_sandbox(judge, test):
    assert judge.judge("def f(x): return 3", {"test_list": [test]}).score == 1.0
    assert judge.judge("def f(x): return 10**10", {"test_list": [test]}, timeout=1.0).score == 0.0


def test_a_program_cannot_end_the_loop_that_tests_it(judge):
    row = {"entry_point": "f", "test": "def check(candidate):\n    assert all(map(candidate, [1, 2]))\n"}
    assert judge.judge("def f(x): return True", row).score == 1.0
    assert judge.judge("def f(x): raise StopIteration", row).score == 0.0


def test_humaneval_with_a_loop_uses_a_second_sandbox(judge):
    row = {
        "prompt": "def helper(x):\n    return x * x\n\ndef f(x):\n    '''Square.'''\n",
        "entry_point": "f",
        "test": "def check(candidate):\n    for n in range(20):\n        assert candidate(n) == helper(n)\n",
    }
    assert judge.judge("    return x ** 2\n", row).score == 1.0
    assert judge.judge(SQUARE, row).score == 1.0
    assert judge.judge("def helper(x): return 7\ndef f(x): return 7", row).score == 0.0
    assert judge.judge("class A:\n    def __eq__(s, o): return True\ndef f(x): return A()", row).score == 0.0
    assert judge.judge("import os\ndef f(x): os._exit(0)", row).score == 0.0
    assert judge.judge("def f(x):\n    while True: pass", row, timeout=0.5).status == "timeout"


KODCODE = {
    "test": (
        "import pytest\nfrom solution import Stack, total\n\n"
        "def test_total():\n    assert total([1, 2]) == 3\n\n"
        "@pytest.mark.parametrize('n', [1, 2])\ndef test_stack(n):\n    s = Stack()\n    for i in range(n): s.push(i)\n"
        "    assert s.pop() == n - 1\n    assert s.size == n - 1\n\n"
        "def test_empty():\n    with pytest.raises(IndexError):\n        Stack().pop()\n"
    )
}
STACK = (
    "class Stack:\n    def __init__(self): self.items = []\n    def push(self, x): self.items.append(x)\n"
    "    def pop(self): return self.items.pop()\n    @property\n    def size(self): return len(self.items)\n"
    "def total(xs): return sum(xs)\n"
)


def test_kodcode_pytest(judge):
    verdict = judge.judge(STACK, KODCODE)
    assert (verdict.score, verdict.detail) == (1.0, "4 tests passed")
    assert judge.judge(STACK.replace("pop()\n", "pop(0)\n"), KODCODE, partial=True).score == 0.75
    lying = "class A:\n    def __eq__(s, o): return True\n    def __getattr__(s, n): return lambda *a: A()\n"
    assert judge.judge(lying + "Stack = A\ndef total(xs): return A()", KODCODE).score == 0.0


class Bomb:
    def __reduce__(self):
        return (print, ("unpickled",))


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"test_list": []}, "there are no tests"),
        ({"test_list": ["assert True"]}, "there are no tests"),
        ({"test": "def check(candidate):\n    pass", "entry_point": "f"}, "there are no tests"),
        ({"test": "def test_nothing():\n    pass"}, "the tests assert nothing"),
        ({"tests": "[]"}, "there are no tests"),
        ({"test_list": ["assert f(1) =="]}, "cannot be read: SyntaxError"),
        ({"other": 1}, "no column with tests; known: prompt"),
        (
            {"private_test_cases": base64.b64encode(zlib.compress(pickle.dumps(Bomb()))).decode()},
            "may not contain builtins.print",
        ),
    ],
)
def test_no_tests_is_an_error_and_never_a_pass(judge, row, told, capsys):
    verdict = judge.judge(SQUARE, row)
    assert (verdict.score, verdict.status) == (None, "error")
    assert told in verdict.detail
    assert "unpickled" not in capsys.readouterr().out


def test_reward_function_and_identical_programs():
    attempts = [SQUARE, SQUARE, "def f(x): return 0"]
    tests = {"test_list": [MBPP["test_list"]] * 3}
    assert code_reward(attempts, **tests) == [1.0, 1.0, 0.0]
    assert code_reward(attempts, partial=True, test_list=[["assert f(0) == 0", "assert f(1) == 1"]] * 3) == [1, 1, 0.5]
    assert [v.status for v in score("code", attempts, **tests)] == ["correct", "correct", "wrong"]


ALTERED = """
def _altered(function):
    def wrapper(*args, **kwargs):
        return [function(*args, **kwargs)]
    return wrapper
"""


def altered(program: str, names: set[str]) -> str:
    return program + ALTERED + "".join(f"{name} = _altered({name})\n" for name in names)


@pytest.fixture(scope="module")
def judge_all():
    """Judges a program for each row of a table, in workers that both data sets share."""
    with RewardPool([{"name": "code", "kwargs": {"timeout": 600.0}}]) as pool:

        def judge_all(table, programs):
            verdicts = pool.score(programs, columns(table))
            return [(row["task_id"], verdict) for row, verdict in zip(table, verdicts, strict=True)]

        yield judge_all


def in_training(source: str, path: Path, split: str) -> list[dict[str, Any]]:
    """The rows as rewards get them in a run: with what the source adds."""
    return [problem.columns for problem in load_problems(DataConfig(source=source, path=str(path), split=split))]


def test_every_canonical_solution_of_humaneval(benchmark_data, judge_all):
    table = in_training("humaneval", benchmark_data / "HumanEval.jsonl.gz", "test")
    assert len(table) == 164
    right = judge_all(table, [row["canonical_solution"] for row in table])
    assert [item for item in right if item[1].score != 1.0] == []
    some = table[::4]
    programs = [altered(row["prompt"] + row["canonical_solution"] + "\n", {row["entry_point"]}) for row in some]
    assert [item for item in judge_all(some, programs) if item[1].score != 0.0] == []


def test_every_canonical_solution_of_mbpp(benchmark_data, judge_all):
    table = in_training("mbpp", benchmark_data / "mbpp.jsonl", "train+validation+test+prompt")
    assert len(table) == 974
    right = judge_all(table, [row["code"] for row in table])
    assert [item for item in right if item[1].score != 1.0] == []
    counted = [(row["task_id"], read_suite(row, challenge=False).tests.total) for row in table]
    assert [item for item in counted if item[1] < 1] == []  # no row is passed for want of tests
    some = table[::12]
    programs = []
    for row in some:
        functions = {node.name for node in ast.parse(row["code"]).body if isinstance(node, ast.FunctionDef)}
        programs.append(altered(row["code"] + "\n", functions & program_names(ast.parse("\n".join(row["test_list"])))))
    assert [item for item in judge_all(some, programs) if item[1].score != 0.0] == []


@pytest.mark.parametrize(
    "tests",
    [
        ["for n in range(3):\n    assert f(n) == n * n"],
        ["try:\n    f('a')\n    assert False\nexcept TypeError:\n    pass", "assert f(2) == 4"],
        ["if f(2) == 4:\n    pass\nelse:\n    assert False"],
        ["def near(a, b):\n    return abs(a - b) < 1e-6", "assert near(f(2), 4)"],
        ["x = f(2)", "assert x == 4"],
        ["import math", "assert math.sqrt(f(2)) == 2"],
        ["numbers = [2, 3]", "numbers.append(f(4))", "assert numbers[-1] == 16"],
    ],
)
def test_mbpp_statements_of_every_kind_and_shared_variables(judge, tests):
    assert judge.judge(SQUARE, {"test_list": tests}).score == 1.0
    assert judge.judge("def f(x): return 7", {"test_list": tests}).score == 0.0


RETURNS = "def check(candidate):\n    if candidate(3) == 7: return\n    assert candidate(2) == 4\n"
CANNOT_RUN = {
    "a test that yields": ({"test": "def test():\n    yield\n    assert f(2) == 4"}, "'yield' keyword is allowed"),
    "a check that returns": ({"test": RETURNS.replace("if candidate(3) == 7: ", ""), "entry_point": "f"}, "end before"),
    "a check that returns then": ({"test": RETURNS, "entry_point": "f"}, "tests end before they assert anything"),
    "an asynchronous check": ({"test": f"async {RETURNS}", "entry_point": "f"}, "there are no tests"),
    "only skipped tests": (
        {"test": "import pytest\n@pytest.mark.skip\ndef test(): assert f(2) == 4"}, "no test was run",
    ),
    "no module": ({"test": "import foo\ndef test(): assert f(2) == foo.bar"}, "No module named 'foo'"),
    "no module for MBPP": ({"test_list": ["assert f(2) == 4"], "test_imports": ["import foo"]}, "No module named"),
    "no fixture": ({"test": "def test(db): assert f(2) == 4"}, "no fixture 'db'"),
    "files": ({"test": "def test(tmp_path): assert f(2) == 4"}, "cannot read the files"),
    "a subclass": ({"test": "class B(A): pass\ndef test(): assert B().f(2) == 4"}, "B would inherit from a class"),
}  # fmt: skip


@pytest.mark.parametrize("name", CANNOT_RUN)
def test_tests_that_cannot_run_are_an_error_and_no_pass(judge, name):
    row, told = CANNOT_RUN[name]
    verdict = judge.judge("def f(x): return 7\nclass A: pass", row)
    assert (verdict.score, verdict.status) == (None, "error"), verdict
    assert told in verdict.detail


def test_a_prompt_in_prose_beside_a_file_of_tests_and_one_that_ends_before_the_body(judge):
    prose = {**KODCODE, "prompt": "Write a class `Stack` with a method push, and total."}
    assert judge.judge(STACK, prose).score == 1.0
    row = {"prompt": "def f(x):\n", "entry_point": "f", "test": "def check(c):\n    assert c(2) == 4\n"}
    assert judge.judge("    return x * x\n", row).score == 1.0
    assert judge.judge("    return x + 1\n", row).score == 0.0


def test_a_coroutine_test_runs_and_a_check_may_return_at_its_end(judge):
    for row in (
        {"test": "async def test():\n    assert f(2) == 4"},
        {"test": RETURNS, "entry_point": "f"},
        {"test": "def check(candidate):\n    assert candidate(2) == 4\n    return\n", "entry_point": "f"},
    ):
        assert judge.judge(SQUARE, row).score == 1.0
        assert judge.judge("def f(x): return 8", row).score == 0.0


def test_the_detail_of_a_failure_does_not_tell_what_was_expected(judge):
    for row in (
        {"test_list": ["assert f(2) == 41 + 1"]},
        {"test": "def test():\n    assert f(2) == 42, 'not 42'"},
        {"test": "import unittest\nclass T(unittest.TestCase):\n    def test(self): self.assertEqual(f(2), 42)"},
    ):
        verdict = judge.judge(SQUARE, row)
        assert verdict.score == 0.0
        assert "f(2) gave 4" in verdict.detail
        assert "42" not in verdict.detail
