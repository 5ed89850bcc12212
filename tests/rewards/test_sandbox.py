"""Hostile programs, in every isolation tier that this machine has: the right verdict, and the next job unharmed."""

import marshal
import os
import signal

import pytest

from rewards import RewardError
from rewards.code import Judge
from rewards.sandbox import _ENVIRONMENT, Sandbox
from rewards.sandbox.guest import PROGRAM
from rewards.sandbox.runner import READY
from rewards.sandbox.values import decoder, dumps
from rewards.sandbox.zygote import BUBBLEWRAP, LANDLOCK, NAMESPACES
from tests.rewards.programs import ENDLESS, HONEST, HOSTILE, INNOCENT
from tests.rewards.test_pool import eventually, gone, processes_of

TESTS = {"test_list": ["assert f(2) == 4", "assert f(3) == 9", "assert f(5) == 25"]}


@pytest.fixture(scope="module", params=[NAMESPACES, BUBBLEWRAP, LANDLOCK])
def judge(request):
    try:
        judge = Judge(memory_mb=128, tier=request.param)
    except RewardError as error:
        pytest.skip(str(error))
    yield judge
    judge.close()


PATIENT = 300.0  # seconds: for programs that end by themselves, on a machine that may be busy


def judged(judge: Judge, program: str, timeout: float = PATIENT):
    verdict = judge.judge(program, TESTS, timeout=timeout)
    after = judge.judge(HONEST, TESTS, timeout=PATIENT)
    assert after.score == 1.0, f"the next job got {after}"
    return verdict


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_programs_are_wrong(judge, name):
    verdict = judged(judge, HOSTILE[name])
    assert (verdict.score, verdict.status) == (0.0, "wrong"), verdict


@pytest.mark.parametrize("name", ENDLESS)
def test_endless_programs_end_at_the_deadline(judge, name):
    verdict = judged(judge, ENDLESS[name], timeout=0.7)
    assert verdict.score == 0.0
    assert verdict.status == "timeout" or name == "memory again and again"


@pytest.mark.parametrize("name", INNOCENT)
def test_innocent_programs_are_right(judge, name):
    assert judged(judge, INNOCENT[name]).score == 1.0


def test_a_bomb_leaves_no_process_and_no_file_behind(judge):
    work = marshal.dumps({"source": "pass", "prints": False, "imports": False})
    with judge.programs.start_job(PROGRAM, PATIENT, work) as job:
        assert job.receive() == READY  # so that the process of a job is among those counted
        # Each sandbox has a process that waits for its next job; looked at once, it may just be about to be forked.
        processes = max(len(processes_of(os.getpid())) for _ in range(50))
    files = len(os.listdir("/proc/self/fd"))
    for name in ("fork bomb", "thread bomb", "swallowed signals"):
        judge.judge(ENDLESS[name], TESTS, timeout=0.5)
    judge.judge(HONEST, TESTS)
    assert eventually(lambda: len(processes_of(os.getpid())) <= processes)
    assert len(os.listdir("/proc/self/fd")) == files


def test_what_a_program_wrote_is_gone_for_the_next():
    judge = Judge(tier=NAMESPACES)
    writes = "def f(x):\n    open('/tmp/note', 'w').write('seen')\n    return x * x"
    reads = "import os\ndef f(x): return x * x if not os.path.exists('/tmp/note') else None"
    assert judge.judge(writes, TESTS).score == 1.0
    assert judge.judge(reads, TESTS).score == 1.0
    judge.close()


def test_a_job_sees_nobody_and_has_no_privilege():
    questions = {
        "os.getpid() != 1": True,
        "os.listdir('/tmp')": [],
        "sorted(os.listdir('/dev'))": ["full", "null", "random", "stdin", "urandom", "zero"],
        "[name for name in os.environ if name not in ('LC_CTYPE', 'LD_LIBRARY_PATH')]": list(_ENVIRONMENT),
        "os.path.exists('/proc/1') or os.path.exists('/etc/passwd') or os.path.exists('/home')": False,
        "os.getcwd()": "/tmp",
    }
    judge = Judge(tier=NAMESPACES)
    asserts = [f"assert f({question!r}) == {answer!r}" for question, answer in questions.items()]
    verdict = judge.judge("import os\ndef f(question): return eval(question)", {"test_list": asserts})
    assert verdict.score == 1.0, verdict
    judge.close()


def test_a_job_has_no_descriptor_but_its_own_socket_and_the_null_device():
    judge = Judge(tier=NAMESPACES)
    program = (
        "import os, stat\nopen_ = []\nfor fd in range(64):\n    try: open_.append((fd, os.fstat(fd).st_mode))\n"
        "    except OSError: pass\n"
        "def f(x): return ['null' if stat.S_ISCHR(m) else 'socket' if stat.S_ISSOCK(m) else 'other' for _, m in open_]"
    )
    assert judge.judge(program, {"test_list": ["assert f(0) == ['null'] * 3 + ['socket']"]}).score == 1.0
    judge.close()


def test_a_zygote_that_dies_is_replaced():
    judge = Judge(tier=NAMESPACES)
    assert judge.judge(HONEST, TESTS, timeout=PATIENT).score == 1.0
    zygote = judge.programs._zygote.pid
    below = processes_of(zygote)
    assert below
    os.kill(zygote, signal.SIGKILL)
    assert gone(below)
    assert judge.judge(HONEST, TESTS, timeout=PATIENT).score == 1.0
    below = processes_of(judge.programs._zygote.pid)
    judge.close()
    assert gone(below)


def test_without_any_tier_it_refuses_unless_told(monkeypatch):
    monkeypatch.setattr("rewards.sandbox._command", lambda *_: ["false"])
    with pytest.raises(RewardError, match=r"no sandbox on this machine \(namespaces: .*landlock: .*unsafe: true"):
        Sandbox()
    monkeypatch.undo()
    unsafe = Judge(unsafe=True, tier="unsafe")
    assert unsafe.judge(HONEST, TESTS).score == 1.0
    assert unsafe.judge(HOSTILE["always equal object"], TESTS).score == 0.0
    unsafe.close()


VALUES = [
    None, True, 0, -1, 2**200, 1.5, float("inf"), 1 + 2j, "é\ud800", b"\x00\xff", [1, [2]], (1, (2,)), {1, 2}, {},
    frozenset({3}), {"a": {1: (2,)}}, {(1, 2): [3]}, True,
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_plain_values_survive_exactly(value):
    back = decoder()(dumps(value))
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[" * 99_999,
        b'{"t": 5}',
        b'{"x": 1}',
        b'{"i": "zz"}',
        b'{"s": [[1]]}',
        b'{"t": 1, "s": 1}',
        b'{"t": {"d": []}}',
        b"1 1",
        b"\xff",
    ],
    ids=lambda data: repr(data[:20]),
)
def test_what_is_no_value_is_refused(data):
    with pytest.raises(ValueError):  # noqa: PT011  (any message will do)
        decoder()(data)
