"""Runs that are killed, stopped, damaged, starved of disk or moved to other ranks, and how they go on."""

import json
import os
import random
import shutil
import signal
import subprocess
import time
from functools import partial
from pathlib import Path

import pytest

from rlcore.recipe import load_recipe
from rlcore.train.loop import train as train_here
from tests.processes import Started, python, rlcore, torchrun
from tests.tiny import REWARD, figures, write_recipe


def recipe_of(run: Path) -> Path:
    return run.parent / "recipe.yaml"


def start(recipe: Path, output: Path) -> Started:
    return Started("-m", "rlcore", "train", recipe, f"output={output}")


def train(recipe: Path, output: Path, processes: int) -> str:
    """Runs the recipe to its end; what it said."""
    launch = partial(torchrun, processes) if processes > 1 else python
    done = launch("-m", "rlcore", "train", recipe, f"output={output}")
    assert done.returncode == 0, done.stderr
    return done.stdout


def wait_for_records(run: Path, count: int) -> None:
    deadline = time.monotonic() + 120
    while not (run / "metrics.jsonl").exists() or len((run / "metrics.jsonl").read_text().splitlines()) < count:
        assert time.monotonic() < deadline, "the run did not get so far"
        time.sleep(0.01)


def test_a_run_killed_at_any_moment_goes_on_bit_for_bit(finished, tmp_path):
    run = tmp_path / "run"
    process = start(recipe_of(finished), run)
    wait_for_records(run, random.randrange(1, 5))
    process.kill()
    process.wait()
    resumed = rlcore("train", recipe_of(finished), f"output={run}")
    assert resumed.returncode == 0, resumed.stderr
    assert figures(run) == figures(finished)
    before, after = (json.loads((folder / "evaluation.json").read_text()) for folder in (finished, run))
    assert after["evaluations"] == before["evaluations"]
    assert (run / "best" / "model.safetensors").read_bytes() == (finished / "best" / "model.safetensors").read_bytes()
    written = (run / "final" / "model.safetensors").stat().st_mtime_ns
    again = rlcore("train", recipe_of(finished), f"output={run}")
    assert again.returncode == 0, again.stderr
    assert f"{run} holds a finished run, of 6 steps: nothing is left to train" in again.stdout
    kept = (run / "final" / "model.safetensors").stat().st_mtime_ns
    assert kept == written, "an evaluation of it is still that of these files"


def test_ctrl_c_saves_and_the_same_command_goes_on(finished, tmp_path):
    run = tmp_path / "run"
    process = start(recipe_of(finished), run)
    wait_for_records(run, 3)
    process.send_signal(signal.SIGINT)
    output = process.wait()
    assert process.returncode == 0, output
    assert "the same command goes on from there" in output
    stopped_at = len(figures(run))
    assert (run / "checkpoints" / f"step-{stopped_at:06d}").is_dir()
    assert rlcore("train", recipe_of(finished), f"output={run}").returncode == 0
    assert figures(run) == figures(finished)


def test_a_full_disk_stops_the_run_with_the_last_checkpoint_whole(finished, tmp_path):
    """On a file system with room for the first checkpoint but not for all of them."""
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1200k", "tmpfs", str(small)], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small file system cannot be mounted here")
    try:
        done = rlcore("train", recipe_of(finished), f"output={small / 'run'}", "checkpoint.every=1")
        assert done.returncode == 2
        assert done.stderr.strip().startswith("rlcore: ")
        assert "\n" not in done.stderr.strip()
        kept = sorted((small / "run" / "checkpoints").glob("step-*/state.json"))
        assert not list((small / "run" / "checkpoints").glob("partial-*"))
        for state in kept:
            assert json.loads(state.read_text())["step"] >= 1
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_damaged_checkpoint_is_named_and_the_run_goes_on_from_the_one_before(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    weights = next((run / "checkpoints" / "step-000006" / "learner").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1])
    said = train(recipe_of(finished), run, 1)
    assert "checkpoint step-000006 is damaged" in said
    assert figures(run) == figures(finished)


def test_a_stop_before_the_first_step_says_that_nothing_is_saved(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr("rlcore.train.run.evaluate_and_save", lambda *_, **__: os.kill(os.getpid(), signal.SIGINT))
    assert train_here(load_recipe(write_recipe(tmp_path))) is None
    line = capfd.readouterr().out.splitlines()[-1]
    assert line == "stopped before the first step, with nothing to save; the same command begins anew"
    assert not (tmp_path / "run" / "checkpoints").exists()


HELD_REWARD = """
import time
from pathlib import Path

def held_reward(completions, letter, prompt):
    while Path("HOLD").exists() and any("7 times" in text for text in prompt):  # held-out problems alone
        Path("ASKED").touch()
        time.sleep(0.05)
    return letter_reward(completions, letter)
"""


def test_a_signal_to_the_whole_group_during_an_evaluation_while_training_saves(finished, tmp_path):
    recipe = write_recipe(tmp_path, rewards={"functions": [{"name": "./my_reward.py:held_reward"}], "deadline": 600})
    run, hold, asked = (tmp_path / name for name in ("run", "hold", "asked"))
    (tmp_path / "my_reward.py").write_text(REWARD + HELD_REWARD.replace("HOLD", str(hold)).replace("ASKED", str(asked)))
    process = start(recipe, run)
    wait_for_records(run, 1)
    hold.touch()
    while not asked.exists():
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(1)
    hold.unlink()
    output = process.wait()
    assert process.returncode == 0, output
    assert "Traceback" not in output
    stopped_at = len(figures(run))
    assert stopped_at in (2, 4)  # the steps after which it evaluates
    assert (run / "checkpoints" / f"step-{stopped_at:06d}").is_dir()
    train(recipe, run, 1)
    assert figures(run) == figures(finished)


SLOW_REWARD = (
    REWARD
    + """
import time
from functools import partial
from pathlib import Path

def slow_reward(completions, letter):
    while Path("HOLD").exists():
        time.sleep(0.05)
    return letter_reward(completions, letter)
"""
)


def test_sigterm_in_the_middle_of_sampling_does_not_wait_for_its_end(finished, tmp_path):
    """Rewards that never answer: the step in hand is given up, saved as not begun, and done again."""
    recipe = write_recipe(tmp_path, rewards={"functions": [{"name": "./my_reward.py:slow_reward"}], "deadline": 600})
    hold = tmp_path / "hold"
    (tmp_path / "my_reward.py").write_text(SLOW_REWARD.replace("HOLD", str(hold)))
    process = start(recipe, tmp_path / "run")
    wait_for_records(tmp_path / "run", 3)
    hold.touch()
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    output = process.wait()
    assert process.returncode == 0, output
    stopped_at = len(figures(tmp_path / "run"))
    assert (tmp_path / "run" / "checkpoints" / f"step-{stopped_at:06d}").is_dir()
    hold.unlink()
    train(recipe, tmp_path / "run", 1)
    assert figures(tmp_path / "run") == figures(finished)


def test_a_run_goes_on_with_another_number_of_ranks(finished, tmp_path):
    recipe = recipe_of(finished)
    train(recipe, tmp_path / "two", 2)
    before = figures(tmp_path / "two")
    for processes in (1, 2):
        run = tmp_path / f"on-{processes}"
        shutil.copytree(tmp_path / "two", run)
        shutil.rmtree(run / "checkpoints" / "step-000006")
        train(recipe, run, processes)
        after = figures(run)
        assert after[:4] == before[:4]
        assert [record["step"] for record in after] == [1, 2, 3, 4, 5, 6]
    for name, value in before[-1].items():  # two ranks again: they draw the same numbers
        assert after[-1][name] == (value if name == "stage" else pytest.approx(value, rel=1e-3, abs=1e-6)), name


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_whole_group_saves_and_leaves_no_traceback(finished, tmp_path, number):
    """As a terminal sends Ctrl-C: to the run and to every helper that shares its process group."""
    run = tmp_path / "run"
    process = start(recipe_of(finished), run)
    wait_for_records(run, random.randrange(1, 5))
    os.killpg(process.pid, number)
    output = process.wait()
    assert process.returncode == 0, output
    assert "the same command goes on from there" in output
    assert "Traceback" not in output
    assert (run / "checkpoints" / f"step-{len(figures(run)):06d}").is_dir()
