"""What ends all ranks is said once by the one that met it, and it is the last line that a user sees."""

import subprocess
import sys

import pytest

from rlcore.errors import UserError
from tests.processes import Started
from tests.rollout.servers.running import until
from tests.tiny import REWARD, write_recipe

DYING = """
import os, pathlib, signal

metrics = pathlib.Path({run!r}) / "metrics.jsonl"

def dying(completions, letter):
    if os.environ["RANK"] == "1" and metrics.exists() and metrics.stat().st_size:
        os.kill(os.getppid(), signal.SIGKILL)  # the server of this rank's reward workers
    return letter_reward(completions, letter)
"""


def test_one_ranks_mistake_in_mid_run_is_the_last_line_below_torchruns_report(tmp_path, repository):
    """By torchrun's own command, which starts its ranks as forks of itself."""
    run = tmp_path / "run"
    recipe = write_recipe(tmp_path, rewards={"functions": [{"name": "./my_reward.py:dying"}]}, evaluate=None)
    (tmp_path / "my_reward.py").write_text(REWARD + DYING.format(run=str(run)))
    torchrun = [
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        2,
        "--run-path",
        "--start-method=fork",
    ]
    job = Started(*torchrun, repository / "rlcore/__main__.py", "train", recipe, f"output={run}")
    job.wait()
    assert job.returncode == 1
    last = "rlcore: rewards: the reward server ended"
    until(lambda: job.said.count(last) == 2, seconds=60)
    lines = job.said.splitlines()
    assert lines[-1] == last
    assert job.said.count("Traceback") == 2  # torchrun's own, in its log and in its report
    assert lines.index(lines[-1]) < lines.index("Traceback (most recent call last):")


@pytest.mark.parametrize("text", ["one\ntwo", "one\r\n   two\n", "one\x0btwo"])
def test_what_a_library_said_in_lines_is_said_in_one(text):
    assert str(UserError(text)) == "one two"


@pytest.mark.parametrize("command", [["recipe", "show"], ["plan"]])
def test_output_that_nobody_reads_any_more_ends_a_command_quietly(command, repository):
    show = [sys.executable, "-m", "rlcore", *command, "recipes/quickstart.yaml"]
    process = subprocess.Popen(show, cwd=repository, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 1
