"""Programs that read standard input and print, in every way that Python offers; and what graders import for them."""

import pytest

from rewards import RewardError
from rewards.code import Judge
from rewards.sandbox.zygote import BUBBLEWRAP, LANDLOCK, NAMESPACES

CASES = {"tests": [{"input": "1 2\n", "output": "3"}, {"input": "20 30\n", "output": "50"}]}
FAST_OUTPUT = """
import os, sys
from io import BytesIO, IOBase

class FastIO(IOBase):
    newlines = 0
    def __init__(self, file):
        self._fd = file.fileno()
        self.buffer = BytesIO()
        self.writable = "x" in file.mode or "r" not in file.mode
        self.write = self.buffer.write if self.writable else None
    def readline(self):
        while self.newlines == 0:
            b = os.read(self._fd, max(os.fstat(self._fd).st_size, 8192))
            self.newlines = b.count(b"\\n") + (not b)
            ptr = self.buffer.tell()
            self.buffer.seek(0, 2), self.buffer.write(b), self.buffer.seek(ptr)
        self.newlines -= 1
        return self.buffer.readline()
    def flush(self):
        if self.writable:
            os.write(self._fd, self.buffer.getvalue())
            self.buffer.truncate(0), self.buffer.seek(0)

class IOWrapper(IOBase):
    def __init__(self, file):
        self.buffer = FastIO(file)
        self.flush = self.buffer.flush
        self.write = lambda s: self.buffer.write(s.encode("ascii"))
        self.readline = lambda: self.buffer.readline().decode("ascii")

sys.stdin, sys.stdout = IOWrapper(sys.stdin), IOWrapper(sys.stdout)
input = lambda: sys.stdin.readline().rstrip()
print(sum(map(int, input().split())))
"""
WAYS = {
    "a thread that is not joined": (
        "import threading, time\na, b = map(int, input().split())\n"
        "def later():\n    time.sleep(0.05)\n    print(a + b)\nthreading.Thread(target=later).start()"
    ),
    "a pool that is not shut down": (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "ThreadPoolExecutor(2).submit(lambda: print(sum(map(int, input().split()))))"
    ),
    "an exit handler": "import atexit\natexit.register(print, sum(map(int, input().split())))",
    "the first standard output": "import sys\nsys.__stdout__.write(str(sum(map(int, sys.__stdin__.read().split()))))",
    "output collected": (
        "import io, sys\nsys.stdout = text = io.StringIO()\nprint(sum(map(int, input().split())))\n"
        "sys.__stdout__.write(text.getvalue())"
    ),
    "output opened again": "import sys\nsys.stdout = open(1, 'w')\nprint(sum(map(int, input().split())))",
    "output never flushed": (
        "import io\nout = io.TextIOWrapper(io.FileIO(1, 'w'))\nout.write(str(sum(map(int, input().split()))))"
    ),
    "fast output": FAST_OUTPUT,
    "bytes": (
        "import sys\nread = sys.stdin.buffer.read\nsys.stdout.buffer.write(str(sum(map(int, read().split()))).encode())"
    ),
    "descriptor 0": "print(sum(map(int, open(0).read().split())))",
    "fileinput": "import fileinput\nfor line in fileinput.input():\n    print(sum(map(int, line.split())))",
    "arguments": "import sys\nprint(sum(map(int, input().split())) if len(sys.argv) == 1 else sys.argv)",
    "the main module": "if __name__ == '__main__':\n    print(sum(map(int, input().split())))",
    "no import of typing and math": (
        "def total(xs: List[int]) -> Optional[int]: return floor(fsum(xs))\nprint(total(map(int, input().split())))"
    ),
    "no import of sys": "print(sum(map(int, stdin.readline().split())))",
    "names that graders import": "from math import gcd\npow = sum\nprint(pow(map(int, input().split())))",
    "deep recursion": (
        "def count(n): return n and 1 + count(n - 1)\nprint(count(40_000) - 40_000 + sum(map(int, input().split())))"
    ),
}


@pytest.fixture(scope="module")
def judge():
    judge = Judge(tier=NAMESPACES)
    yield judge
    judge.close()


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_read_and_to_print(judge, way):
    program = f"```python\n{WAYS[way]}\n```"
    verdict = judge.judge(program, CASES, timeout=60.0)
    assert verdict.score == 1.0, verdict
    assert "sum(map(int" in program or "a + b" in program or "fsum(" in program or "pow(map" in program
    wrong = program.replace("sum(", "(lambda xs: 1 + sum(xs))(").replace("a + b", "a - b")
    wrong = wrong.replace("fsum", "sum").replace("pow = sum", "pow = max")
    assert judge.judge(wrong, CASES, timeout=60.0).score == 0.0


@pytest.mark.parametrize("tier", [NAMESPACES, BUBBLEWRAP, LANDLOCK])
def test_scripts_in_every_tier(tier):
    try:
        judge = Judge(tier=tier)
    except RewardError as error:
        pytest.skip(str(error))
    assert judge.judge("print(sum(map(int, input().split())))", CASES).score == 1.0
    assert judge.judge("print(max(map(int, input().split())))", CASES).score == 0.0
    judge.close()


def test_standard_input_is_a_device_where_there_is_a_root_of_our_own(judge):
    assert judge.judge("print(sum(map(int, open('/dev/stdin').read().split())))", CASES).score == 1.0
    assert judge.judge("print(max(map(int, open('/dev/stdin').read().split())))", CASES).score == 0.0


def test_large_input_and_output(judge):
    numbers = "12345678\n" * 2_500_000  # 22 MB
    row = {"tests": [{"input": numbers, "output": numbers}]}
    assert judge.judge("import sys\nsys.stdout.write(sys.stdin.read())", row, timeout=300.0).score == 1.0
    assert judge.judge("import sys\nsys.stdout.write(sys.stdin.read() + '1')", row, timeout=300.0).score == 0.0


def test_a_flood_of_output_ends(judge):
    verdict = judge.judge("while True: print('3' * 10_000_000)", CASES, timeout=60.0)
    assert (verdict.score, verdict.status) == (0.0, "wrong")


def test_no_file_is_left_for_the_next_case_or_the_next_program(judge):
    leaves = "for place in 'note', '/tmp/note':\n    open(place, 'a').write('x')\n"
    looks = (
        "import os\nseen = [place for place in ('note', '/tmp/note') if os.path.exists(place)]\n"
        "print(seen or sum(map(int, input().split())))\n"
    )
    assert judge.judge(looks + leaves, CASES).score == 1.0
    assert judge.judge(leaves + looks, CASES).score == 0.0
    assert judge.judge(looks, CASES).score == 1.0
    once = "first, second = map(int, input().split())\nif first == 1: open('note', 'w').close()\nprint(first + second)"
    assert judge.judge(once, CASES).score == 1.0
    assert judge.judge(looks, CASES).score == 1.0
    calls = {"test_list": ["assert f(2) == 4"]}
    assert judge.judge(f"{leaves}def f(x): return x * x", calls).score == 1.0
    assert judge.judge("import os\ndef f(x): return x * x - os.path.exists('note')", calls).score == 1.0


def test_a_script_has_no_descriptor_but_the_standard_ones_and_cannot_take_its_input_from_the_next_case(judge):
    descriptors = (
        "import os\nopen_ = []\nfor fd in range(64):\n    try:\n        os.fstat(fd)\n        open_.append(fd)\n"
        "    except OSError: pass\nprint(open_)\n"
    )
    assert judge.judge(descriptors, {"tests": [{"input": "", "output": "[0, 1, 2]"}]}).score == 1.0
    for change in ("os.mkdir('/tmp/.stdin')", "os.symlink('/dev/null', '/tmp/.stdin')", "os.chmod('/tmp', 0)"):
        program = "import os\nprint(sum(map(int, input().split())))\nos.unlink('/tmp/.stdin')\n"
        assert judge.judge(f"{program}try: {change}\nexcept OSError: pass", CASES).score == 1.0
    assert judge.judge("print(sum(map(int, open('/dev/stdin').read().split())))", CASES).score == 1.0


def test_more_input_than_a_sandbox_holds_is_no_fault_of_the_program(judge):
    verdict = judge.judge("print(3)", {"tests": [{"input": "1" * (65 << 20), "output": "3"}]}, timeout=60.0)
    assert (verdict.score, verdict.status) == (None, "error"), verdict
    assert "64 MiB" in verdict.detail


@pytest.mark.parametrize(
    ("printed", "expected", "near", "exact"),
    [
        ("0.3333333", "0.33333333", 1.0, 0.0),
        ("0.3334", "0.33333333", 0.0, 0.0),
        ("1e-9", "0.0", 1.0, 0.0),
        ("1e-9", "0", 0.0, 0.0),
        ("100001", "100000", 0.0, 0.0),
        ("2.0 0.5000001", "2 0.5", 1.0, 0.0),
        ("yes 0.5", "no 0.5", 0.0, 0.0),
        ("0.5", "0.5 ", 1.0, 1.0),
    ],
)
def test_decimals_are_near_only_where_the_data_set_takes_them_so(judge, printed, expected, near, exact):
    program = f"print({printed!r})"
    taco = {"input_output": {"inputs": [""], "outputs": [expected]}}
    assert judge.judge(program, taco).score == near
    assert judge.judge(program, {"tests": [{"input": "", "output": expected}]}).score == exact


CALL = {"public_test_cases": [{"input": "[3, 6]", "output": "9"}], "metadata": {"func_name": "total"}}


@pytest.mark.parametrize(
    ("program", "score"),
    [
        ("class Solution:\n    def total(self, xs: List[int]) -> int: return sum(xs)", 1.0),
        ("class Solution:\n    def total(self, xs: List[int]) -> int: return max(xs)", 0.0),
        ("def total(xs: List[int]): return int(fsum(xs))", 1.0),
        ("class Solution:\n    pass\ndef total(xs): return sum(xs)", 1.0),
        ("class Solution:\n    def total(self, xs): return 9\ndef total(xs): return max(xs)", 0.0),
        ("total = lambda xs: sum(xs)", 1.0),
        ("from functools import partial\ntotal = partial(sum)", 1.0),
        (
            "def count(n): return n and 1 + count(n - 1)\ndef total(xs): return sum(xs) + count(40_000) - 40_000",
            1.0,
        ),
    ],
)
def test_functions_and_methods(judge, program, score):
    assert judge.judge(program, CALL).score == score


def test_a_method_named_like_what_graders_or_programs_import(judge):
    row = {"public_test_cases": [{"input": "[3, 6]", "output": "9"}], "metadata": {"func_name": "gcd"}}
    for imports in ("", "from math import *\n"):
        assert judge.judge(imports + "class Solution:\n    def gcd(self, xs): return sum(xs)", row).score == 1.0
        assert judge.judge(imports + "class Solution:\n    def gcd(self, xs): return max(xs)", row).score == 0.0


def test_names_are_imported_only_where_the_data_set_s_grader_does(judge):
    row = {"test_list": ["assert f(2) == 4"]}
    assert judge.judge("from math import floor\ndef f(x): return floor(x * x)", row).score == 1.0
    assert judge.judge("def f(x): return floor(x * x)", row).score == 0.0
    assert judge.judge("import builtins\ndef f(x): return x * x + hasattr(builtins, 'floor')", row).score == 1.0
    assert judge.judge("def g(n): return n and g(n - 1)\ndef f(x): return x * x + g(5000)", row).score == 0.0
