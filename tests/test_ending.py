"""What ends all ranks is said once by the one that met it, and it is the last line that a user sees."""

import subprocess
import sys

import pytest

from rlcore.errors import UserError
from tests.tiny import REWARD, write_recipe

DYING = """
import os, pathlib, signal

metrics = pathlib.Path({run!r}) / "metrics.jsonl"

def dying(completions, letter):
    if os.environ["RANK"] == "1" and metrics.exists() and metrics.stat().st_size:
        os.kill(os.getppid(), signal.SIGKILL)  # the server of this rank's reward workers
    return letter_reward(completions, letter)
"""


def test_one_ranks_mistake_in_mid_run_is_the_last_line_below_torchruns_report(tmp_path):
    run = tmp_path / "run"
    recipe = write_recipe(tmp_path, rewards={"functions": [{"name": "./my_reward.py:dying"}]}, evaluate=None)
    (tmp_path / "my_reward.py").write_text(REWARD + DYING.format(run=str(run)))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, "-m", "rlcore", "train", str(recipe), f"output={run}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert lines[-1] == "rlcore: rewards: the reward server ended"
    assert lines.count(lines[-1]) == 2
    assert done.stderr.count("Traceback") == 1  # torchrun's own
    assert lines.index(lines[-1]) < lines.index("Traceback (most recent call last):")


@pytest.mark.parametrize("text", ["one\ntwo", "one\r\n   two\n", "one\x0btwo"])
def test_what_a_library_said_in_lines_is_said_in_one(text):
    assert str(UserError(text)) == "one two"
