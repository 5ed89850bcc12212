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


@pytest.fixture(scope="module")
def judge_of_tables():
    pytest.importorskip("pandas")
    judge = Judge(modules=["pandas"])
    yield judge
    judge.close()


@pytest.mark.parametrize(
    ("body", "test", "score"),
    [
        ("np.int64(x * x)", "f(2) == 4", 1.0),
        ("[np.float32(x)]", "f(2) == [2.0]", 1.0),
        ("np.array([x, x])", "(f(2) == np.array([2, 2])).all()", 1.0),
        ("np.array([x, x])", "np.allclose(f(2), [2, 3])", 0.0),
        ("np.array([[1, 2], [3, 4]])[:, ::-1]", "np.array_equal(f(0), [[2, 1], [4, 3]])", 1.0),
        ("np.array([[1, 'a'], [None, 2.5]], object)", "f(0).tolist() == [[1, 'a'], [None, 2.5]]", 1.0),
        ("np.array(['2024-05-06'], 'M8[D]')", "f(0)[0] == np.datetime64('2024-05-06')", 1.0),
        ("np.ones(3)", "isinstance(f(0), np.ndarray) and f(0).dtype == float and f(0).shape == (3,)", 1.0),
        ("x.sum()", "f(np.array([1, 2])) == 3", 1.0),
        ("np.zeros(2).view(type('A', (np.ndarray,), {'__eq__': lambda s, o: np.ones(2, bool)}))",
         "(f(0) == np.ones(2)).all()", 0.0),
        ("pd.DataFrame({'a': [1, 2], 'b': ['x', 'y']})",
         "pd.testing.assert_frame_equal(f(0), pd.DataFrame({'a': [1, 2], 'b': ['x', 'y']})) is None", 1.0),
        ("pd.DataFrame({'a': [1, 2]})", "f(0).equals(pd.DataFrame({'a': [1, 3]}))", 0.0),
        ("x['a'].cumsum()", "f(pd.DataFrame({'a': [1, 2]})).tolist() == [1, 3]", 1.0),
        ("pd.Series([1.5], index=['k'], name='n')", "f(0)['k'] == 1.5 and f(0).name == 'n'", 1.0),
    ],
)  # fmt: skip
def test_arrays_and_tables_are_the_tests_own(judge_of_tables, body, test, score):
    imports = "import numpy as np\nimport pandas as pd\n"
    row = {"test_list": [f"assert {test}"], "test_imports": [imports]}
    verdict = judge_of_tables.judge(f"{imports}def f(x): return {body}", row, timeout=PATIENT)
    assert verdict.score == score, verdict


@pytest.fixture(scope="module")
def judge_of_figures():
    pytest.importorskip("matplotlib")
    judge = Judge(memory_mb=1024, modules=["matplotlib.pyplot"])
    yield judge
    judge.close()


@pytest.mark.parametrize(
    ("body", "score"),
    [
        ("axes = plt.figure().add_subplot()\n    axes.plot(xs)\n    axes.set_title('xs')\n    return axes", 1.0),
        ("axes = plt.figure().add_subplot()\n    axes.plot(xs)\n    return axes", 0.0),
        ("return plt.figure()", 0.0),
        ("return type('Axes', (), {'get_title': lambda self: 'xs'})()", 0.0),
        ("return type('str', (), {'__module__': 'builtins', 'get_title': lambda self: 'xs'})()", 0.0),
    ],
)
def test_objects_of_a_library_are_instances_of_its_classes(judge_of_figures, body, score):
    test = (
        "import unittest\nimport matplotlib.pyplot as plt\n\nclass TestCases(unittest.TestCase):\n"
        "    def test_axes(self):\n        axes = f([1, 3])\n        self.assertIsInstance(axes, plt.Axes)\n"
        "        self.assertEqual(axes.get_title(), 'xs')\n"
        "        self.assertEqual(axes.lines[0].get_ydata().tolist(), [1, 3])\n"
    )
    program = f"import matplotlib.pyplot as plt\ndef f(xs):\n    {body}"
    verdict = judge_of_figures.judge(program, {"test": test}, timeout=PATIENT)
    assert verdict.score == score, verdict
