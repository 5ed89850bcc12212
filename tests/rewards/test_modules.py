"""Third-party modules in the sandbox: there when named, read-only, and within the memory limit."""

import pytest

from rewards import RewardError
from rewards.code import Judge
from rewards.sandbox.zygote import BUBBLEWRAP, LANDLOCK, NAMESPACES

pytest.importorskip("numpy")
TESTS = {"test_list": ["assert f(2) == 4", "assert f(3) == 9"]}
PATIENT = 300.0
NUMPY = "import numpy as np\nimport numpy.polynomial, numpy.fft, numpy.ma\n"


@pytest.fixture(scope="module", params=[NAMESPACES, BUBBLEWRAP, LANDLOCK])
def judge(request):
    try:
        judge = Judge(tier=request.param, modules=["numpy"])
    except RewardError as error:
        pytest.skip(str(error))
    yield judge
    judge.close()


def test_a_module_that_is_named_can_be_imported(judge):
    right = f"{NUMPY}def f(x): return int(round(np.linalg.det(x * np.eye(2))))"
    assert judge.judge(right, TESTS, timeout=PATIENT).score == 1.0
    assert judge.judge(right.replace("eye(2)", "eye(3)"), TESTS, timeout=PATIENT).score == 0.0


def test_no_other_module_can_be_imported_and_nothing_can_be_written(judge):
    assert judge.judge("import pytest\ndef f(x): return x * x", TESTS, timeout=PATIENT).score == 0.0
    writes = "import numpy\ndef f(x):\n    open(numpy.__file__, 'a').write('')\n    return x * x"
    assert judge.judge(writes, TESTS, timeout=PATIENT).score == 0.0
    looks = "import os, numpy\ndef f(x):\n    os.listdir(os.path.dirname(os.__file__) + '/../..')\n"
    assert "pytest" not in judge.judge(f"{looks}    return str(os.listdir(numpy.__path__[0] + '/..'))", TESTS).detail


def test_sixteen_threads_within_the_memory_limit(judge):
    program = (
        "import threading\nstarted = threading.Barrier(17, timeout=60)\ndef f(x):\n    sums = []\n"
        "    def work(n):\n        started.wait()\n        sums.append(sum(range(10_000)) and n)\n"
        "    threads = [threading.Thread(target=work, args=(n,)) for n in range(16)]\n"
        "    for thread in threads: thread.start()\n    started.wait()\n"
        "    for thread in threads: thread.join()\n    return x * x + sum(sums) - 120\n"
    )
    assert judge.judge(program, TESTS, timeout=PATIENT).score == 1.0
    assert judge.judge(program.replace("- 120", "- 121"), TESTS, timeout=PATIENT).score == 0.0


def test_memory_is_still_limited(judge):
    greedy = f"{NUMPY}def f(x): return int(np.ones(1 << 27).sum()) and x * x"  # a GiB
    assert judge.judge(greedy, TESTS, timeout=PATIENT).score == 0.0


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"modules": ["nunpy"]}, "modules: no module 'nunpy' is installed here; did you mean 'numpy'?"),
        ({"modules": ["numpy"], "memory_mb": 64}, "its modules leave nothing of 64 MiB; memory_mb sets the limit"),
    ],
)
def test_a_module_that_cannot_be_had_is_told_in_one_line(options, told):
    with pytest.raises(RewardError) as raised:
        Judge(**options)
    assert told in str(raised.value)
    assert "\n" not in str(raised.value)
