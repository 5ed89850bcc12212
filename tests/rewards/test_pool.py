"""Worker processes: deadlines, crashes, limits, and nothing left behind."""

import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from rewards import RewardError, RewardPool, Verdict, score
from rewards.dispatch import Dispatcher
from rewards.pool import shared_pool
from rewards.worker import Setup

FUNCTIONS = f"{Path(__file__).parent / 'functions.py'}:"


def processes_of(root: int) -> set[int]:
    """Every living process below this one."""
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if fields[0] != "Z":
                parents[int(entry)] = int(fields[1])
    below: set[int] = set()
    while new := {pid for pid, parent in parents.items() if parent in below | {root}} - below:
        below |= new
    return below


def eventually(condition) -> bool:
    """Whether something becomes true within a time that only a mistake takes."""
    for _ in range(2000):
        if condition():
            return True
        time.sleep(0.01)
    return False


def gone(pids: set[int]) -> bool:
    return eventually(lambda: not any(Path(f"/proc/{pid}/status").exists() for pid in pids))


def test_only_the_culprits_of_a_chunk_are_lost():
    texts = ["a"] * 40 + ["hang"] + ["b"] * 40 + ["exit", "raise"] + ["c"] * 40 + ["fill"]
    verdicts = score(FUNCTIONS + "by_text", texts, deadline=1.0)
    by_status = {text: verdict.status for text, verdict in zip(texts, verdicts, strict=True)}
    assert by_status == {
        "a": "correct", "b": "correct", "c": "correct",
        "hang": "timeout", "exit": "error", "raise": "error", "fill": "error",
    }  # fmt: skip
    failed = {text: verdict for text, verdict in zip(texts, verdicts, strict=True) if verdict.score is None}
    assert set(failed) == {"hang", "exit", "raise", "fill"}
    assert failed["raise"].detail == "reward 'by_text': KeyError: 'no such\\nthing'"
    assert "passed its deadline" in failed["hang"].detail
    assert "MemoryError" in failed["fill"].detail


def test_many_workers_that_end_at_once_are_all_replaced():
    with RewardPool([FUNCTIONS + "by_text"], workers=16) as pool:
        assert {verdict.status for verdict in pool.score(["exit"] * 100, {})} == {"error"}
        assert pool.score(["fine"], {})[0].score == 1.0


def test_a_killed_worker_takes_what_it_started_along():
    with RewardPool([FUNCTIONS + "by_text"], workers=1, deadline=0.5) as pool:
        assert pool.score(["fine"], {})[0].score == 1.0
        others = processes_of(os.getpid())
        slow = pool.submit(["spawn and hang"], {})
        assert eventually(lambda: processes_of(os.getpid()) - others)
        started = processes_of(os.getpid()) - others
        assert slow.result()[0].status == "timeout"
        assert gone(started)
        assert pool.score(["fine"], {})[0].score == 1.0


def test_a_worker_that_is_killed_while_it_waits_costs_no_row_its_verdict():
    others = processes_of(os.getpid())
    with RewardPool([FUNCTIONS + "by_text"], workers=1) as pool:
        assert pool.score(["fine"], {})[0].score == 1.0
        (worker,) = (pid for pid in processes_of(os.getpid()) - others if not processes_of(pid))
        os.kill(worker, signal.SIGKILL)
        assert eventually(lambda: worker not in processes_of(os.getpid()))
        assert pool.score(["fine"], {})[0].score == 1.0


@pytest.mark.parametrize(
    ("name", "texts", "told"),
    [
        ("too_few", ["a", "b", "c"], "reward 'too_few' returned 1 scores for"),
        ("too_few", ["a", "b"], "reward 'too_few' returned 1 scores for 2 completions"),
        ("not_a_list", ["a"], "reward 'not_a_list' returned a float, not a list"),
        ("odd_values", ["nan"], "reward 'odd_values' returned nan"),
        ("odd_values", ["inf"], "reward 'odd_values' returned inf"),
        ("odd_values", ["text"], "reward 'odd_values' returned a str, not a number"),
    ],
)
def test_broken_returns_name_the_function(name, texts, told):
    verdict = score(FUNCTIONS + name, texts)[-1]
    assert (verdict.score, verdict.status) == (None, "error")
    assert told in verdict.detail


def test_no_row_of_a_batch_is_scored_alone_so_that_a_wrong_length_shows_on_all():
    verdicts = score(FUNCTIONS + "slow_and_too_few", ["a", "b", "c", "d", "e", "f", "g"])
    assert [verdict.status for verdict in verdicts] == ["error"] * 7


def test_values_that_are_read():
    verdicts = score(FUNCTIONS + "odd_values", ["none", "half", "true"])
    assert [(v.score, v.status) for v in verdicts] == [(None, "unscorable"), (0.5, "wrong"), (1.0, "correct")]


def test_weights_parts_and_equal_names():
    specs = [{"name": "pair_sum", "weight": 2.0}, {"name": "format", "weight": 0.5}, {"name": "format", "weight": 0.25}]
    columns = {"numbers": [{"b": 8, "c": 5}] * 2, "target": [13] * 2}
    with RewardPool(specs) as pool:
        right, wrong = pool.score([r"b and c \boxed{13}", "c and b"], columns)
    assert right.score == 2.0 + 0.5 + 0.25
    assert wrong.score == 2.0
    assert list(right.parts) == ["pair_sum", "format", "format#2"]


def test_a_failed_part_leaves_the_whole_unscored_and_an_unscorable_one_is_left_out():
    with RewardPool([FUNCTIONS + "by_text", FUNCTIONS + "length"]) as pool:
        failed = pool.score(["raise"], {})[0]
    assert (failed.score, failed.status) == (None, "error")
    assert failed.parts["length"].score == 5.0
    with RewardPool(["math", FUNCTIONS + "length"]) as pool:
        unread = pool.score([r"\boxed{1}"], {"answer": [""]})[0]
    assert unread.score == len(r"\boxed{1}")
    assert unread.parts["math"].status == "unscorable"


def test_two_thousand_calls_leak_nothing():
    columns, others = {"numbers": [{"b": 8, "c": 5}], "target": [13]}, processes_of(os.getpid())
    with RewardPool(["pair_sum"]) as pool:
        pool.score(["b and c"], columns)
        files, processes = len(os.listdir("/proc/self/fd")), len(processes_of(os.getpid()) - others)
        for _ in range(2_000):
            assert pool.score(["b and c"], columns)[0].score == 1.0
        assert len(os.listdir("/proc/self/fd")) == files
        assert eventually(lambda: len(processes_of(os.getpid()) - others) == processes)


def test_closing_ends_every_process_and_file():
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        pool = RewardPool([FUNCTIONS + "length"])
        pool.score(["a"], {})
        below = processes_of(os.getpid())
        pool.close()
        pool.close()
        started = below - processes_of(os.getpid())
        assert len(started) >= 2
        assert gone(started)
    assert len(os.listdir("/proc/self/fd")) == before
    with pytest.raises(RewardError, match="closed"):
        pool.submit(["a"], {})


def test_workers_that_end_after_their_server_has_stopped_reading_say_nothing(tmp_path):
    (tmp_path / "slow.py").write_text(
        "import atexit, time\n"
        "atexit.register(time.sleep, 0.3)\n"  # in the server, while its workers end
        "def slow(completions):\n"
        "    global ballast\n"
        "    ballast = b'1' * (1 << 26)\n"
        "    return [1.0] * len(completions)\n"
    )
    script = (
        "from rewards import RewardPool\n"
        f"with RewardPool([{f'{tmp_path}/slow.py:slow'!r}]) as pool: pool.score(['a'] * 64, {{}})"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env={**os.environ, **path()})
    assert (done.returncode, done.stderr) == (0, "")


def test_a_shared_pool_whose_server_was_killed_is_replaced():
    before = processes_of(os.getpid())
    assert score(FUNCTIONS + "by_text", ["a"], deadline=7.0)[0].score == 1.0
    started = processes_of(os.getpid()) - before
    pool = shared_pool(FUNCTIONS + "by_text", 7.0)
    assert shared_pool(FUNCTIONS + "by_text", 7.0) is pool
    for pid in started:
        with suppress(ProcessLookupError):  # the workers end with their server
            os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: not pool.alive)
    with pytest.raises(RewardError, match="the reward server ended"):
        pool.score(["a"], {})
    assert score(FUNCTIONS + "by_text", ["a"], deadline=7.0)[0].score == 1.0


def test_a_server_that_ends_before_it_has_read_anything_is_told(monkeypatch):
    def start(self, remote):
        return subprocess.Popen([sys.executable, "-c", ""], pass_fds=[remote.fileno()])

    monkeypatch.setattr(Dispatcher, "_start_server", start)
    with pytest.raises(RewardError, match="the reward server ended while it loaded the rewards"):
        RewardPool(["math"])


def test_workers_die_with_a_parent_that_is_killed():
    script = (
        "import sys, time; from rewards import RewardPool\n"
        f"pool = RewardPool([{FUNCTIONS + 'by_text'!r}], deadline=600)\n"
        "pool.score(['a'], {}); pool.submit(['hang'], {}); print('up', flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env={**os.environ, **path()})
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"up\n"
    below = processes_of(parent.pid)
    assert len(below) >= 2
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    assert gone(below)


def path() -> dict[str, str]:
    return {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}


def test_a_worker_has_not_imported_what_no_reward_needs(tmp_path):
    (tmp_path / "looks.py").write_text(
        "import sys\n"
        "def heavy(completions, **columns):\n"
        "    found = {'torch', 'transformers', 'math_verify', 'sympy', 'numpy'} & set(sys.modules)\n"
        "    return [float(len(found))] * len(completions)\n"
    )
    assert score(f"{tmp_path / 'looks.py'}:heavy", ["x"])[0].score == 0.0


def test_what_a_worker_starts_takes_nothing_of_its_first_rows_deadline(tmp_path):
    (tmp_path / "slow.py").write_text(
        "import time\n"
        "def slow(completions, pause=0.0, **columns): return [1.0] * len(completions)\n"
        "slow.start = lambda pause: time.sleep(pause)\n"
    )
    with RewardPool([{"name": f"{tmp_path}/slow.py:slow", "kwargs": {"pause": 3.0}}], workers=1, deadline=2.0) as pool:
        assert [verdict.score for verdict in pool.score(["a", "b"], {})] == [1.0, 1.0]


def test_a_start_that_fails_leaves_it_to_the_rows(tmp_path):
    """A worker that ended before its first row would be replaced for ever."""
    (tmp_path / "broken.py").write_text(
        "def broken(completions, **columns): return [1.0] * len(completions)\n"
        "def start(**options): raise OSError('no room')\n"
        "broken.start = start\n"
    )
    with RewardPool([f"{tmp_path}/broken.py:broken"], workers=1) as pool:
        assert [verdict.score for verdict in pool.submit(["a", "b"], {}).result(timeout=60)] == [1.0, 1.0]


def test_submit_returns_while_scoring_goes_on_and_threads_may_share_a_pool():
    with RewardPool([FUNCTIONS + "by_text"], deadline=1.0) as pool:
        slow = pool.submit(["hang"], {})
        assert not slow.done()
        results: dict[int, list[Verdict]] = {}

        def use(thread: int) -> None:
            results[thread] = pool.score(["a"] * thread, {})

        threads = [threading.Thread(target=use, args=(number,)) for number in range(1, 9)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {number: len(verdicts) for number, verdicts in results.items()} == {n: n for n in range(1, 9)}
        assert slow.result()[0].status == "timeout"


def test_no_completions():
    assert score("pair_sum", [], numbers=[], target=[]) == []


def test_a_function_sees_chunks_and_every_row_once():
    chunk_sizes = [verdict.score for verdict in score(FUNCTIONS + "sees_chunk", ["x"] * 100)]
    assert all(1 <= size <= 100 for size in chunk_sizes)
    assert sum(1 / size for size in chunk_sizes) == pytest.approx(round(sum(1 / size for size in chunk_sizes)))


def test_bad_settings():
    with pytest.raises(RewardError, match="workers is 0"):
        RewardPool(["pair_sum"], workers=0)
    with pytest.raises(RewardError, match="deadline is 0"):
        RewardPool(["pair_sum"], deadline=0)
    with pytest.raises(RewardError, match="at least one reward"):
        RewardPool([])


@pytest.mark.parametrize("told", [False, True])
def test_a_server_whose_parent_hangs_up_at_once_says_nothing(told):
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    start = "from rewards.worker import main; main()"
    command = [sys.executable, "-c", start, str(theirs.fileno()), str(os.getpid())]
    server = subprocess.Popen(command, pass_fds=[theirs.fileno()], stderr=subprocess.PIPE, text=True)
    theirs.close()
    if told:
        ours.send(pickle.dumps(Setup(sys.path, ["math"], 512)))
    ours.close()
    _, said = server.communicate(timeout=300)
    assert (server.returncode, said) == (0, "")
