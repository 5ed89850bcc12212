"""Whose fault it is: what the program does to its judge scores 0, tests that cannot be run score nothing."""

import pytest

from rewards.sandbox.peer import RAISED, VALUE

SQUARE = "def f(x): return x * x"
ROW = {"test_list": ["assert f(2) == 4", "assert f(3) == 9"]}


def forged(reply: bytes) -> str:
    return (
        f"import os\ndef f(x):\n    reply = {reply!r}\n"
        "    os.write(3, len(reply).to_bytes(8, 'big') + reply)\n    return x * x\n"
    )


@pytest.mark.parametrize(
    "reply",
    [
        VALUE + b'{"c": [1%s, 0]}' % (b"0" * 400),
        VALUE + b'{"i": "0x%s"}' % (b"f" * 10_000),
        VALUE + b"[" * 50_000,
        VALUE + b'{"m": ["Fraction", 1, 0]}',
        VALUE + b'{"m": ["deque", 5, 5]}',
        VALUE + b'{"o": ["object", 7, 5, null]}',
        VALUE + b'{"x": 1}',
        VALUE + b"\xff",
        VALUE,
        b"",
        RAISED + b"5",
        RAISED + b'{"m": ["KeyboardInterrupt"]}',
        RAISED + b'{"m": ["GeneratorExit"]}',
    ],
    ids=lambda reply: repr(reply[:24]),
)
def test_a_forged_reply_is_a_wrong_answer(judge, reply):
    verdict = judge.judge(forged(reply), ROW, timeout=60.0)
    assert (verdict.score, verdict.status) == (0.0, "wrong"), verdict
    assert judge.judge(SQUARE, ROW, timeout=60.0).score == 1.0


@pytest.mark.parametrize(
    ("returned", "test"),
    [
        ("[k * (2**61 - 1) for k in range(99_000)]", "assert set(f(1)) == {1}"),
        ("{k * (2**61 - 1) for k in range(99_000)}", "assert f(1) == {1}"),
        ("{k * (2**61 - 1): 0 for k in range(99_000)}", "assert f(1) == {1: 0}"),
        ("4 * 10**9", "assert f(1) * 'a' == 'a'"),
        ("4 * 10**9", "assert [0] * f(1) == [0]"),
        ("'%4000000000d'", "assert f(1) % 5 == '5'"),
        ("1 << 10**7", "assert f(1) // f(1) % f(1) ** 100 == 1"),
    ],
)
def test_work_that_a_value_makes_is_bounded_and_the_program_s_fault(judge, returned, test):
    verdict = judge.judge(f"def f(x): return {returned}", {"test_list": [test]}, timeout=2.0)
    assert verdict.score == 0.0
    assert verdict.status in ("wrong", "timeout")
    assert judge.judge(SQUARE, ROW, timeout=60.0).score == 1.0


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"test_list": ["assert f(2) == 4"], "test_imports": ["import numpy as np"]}, "No module named 'numpy'"),
        ({"test": "import pandas\nfrom solution import f\ndef test(): assert f(2) == 4"}, "No module named 'pandas'"),
        ({"test": "from solution import f\ndef test():\n    import scipy\n    assert f(2) == 4"}, "'scipy'"),
        ({"test": "def check(candidate):\n    assert near(candidate(2), 4)", "entry_point": "f"}, "name 'near'"),
        ({"test": "from solution import f\ndef test(absent): assert f(2) == 4"}, "no fixture 'absent'"),
    ],
)
def test_what_the_program_does_not_owe_is_no_fault_of_its(judge, row, told):
    for program in (SQUARE, "def f(x): return None"):
        verdict = judge.judge(program, row, timeout=60.0)
        assert (verdict.score, verdict.status) == (None, "error"), verdict
        assert told in verdict.detail


def test_what_the_program_owes_is(judge):
    for program in ("def g(x): return x * x", "import numpy\ndef f(x): return x * x", "def f(x): return undefined"):
        verdict = judge.judge(program, ROW, timeout=60.0)
        assert (verdict.score, verdict.status) == (0.0, "wrong"), verdict


@pytest.mark.parametrize(
    ("body", "score"),
    [
        ("return json.loads(text)", 1.0),
        ("raise ValueError('Expecting')", 0.0),
        ("import unittest\n    raise unittest.SkipTest('Expecting')", 0.0),
        ("raise type('Skipped', (Exception,), {'__module__': '_pytest.outcomes'})('Expecting')", 0.0),
        ("raise type('JSONDecodeError', (Exception,), {'__module__': ['json']})('Expecting')", 0.0),
    ],
)
def test_an_exception_of_the_library_is_the_tests_own(judge, body, score):
    test = (
        "import json\nimport pytest\nfrom solution import f\n\ndef test_f():\n"
        "    with pytest.raises(json.JSONDecodeError) as raised:\n        f('{')\n"
        "    assert raised.value.msg.startswith('Expecting')\n"
    )
    verdict = judge.judge(f"import json\ndef f(text):\n    {body}", {"test": test}, timeout=60.0)
    assert (verdict.score, verdict.status) == (score, "correct" if score else "wrong"), verdict
