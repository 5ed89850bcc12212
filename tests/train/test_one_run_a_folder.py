"""A run's folder belongs to one process at a time, and to one recipe, but for what may change when it resumes."""

import json
import shutil

import pytest

from rlcore.files import holding
from tests.processes import rlcore
from tests.refusals import refusal
from tests.tiny import REWARD, figures, write_recipe
from tests.train.test_resume import recipe_of


def last_line(done) -> str:
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.strip().splitlines()[-1]


def test_a_second_run_in_a_live_folder_names_the_process_that_holds_it(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    before = (run / "metrics.jsonl").read_bytes()
    with holding(run):
        line = last_line(rlcore("train", recipe_of(finished), f"output={run}", "learner.lr=0.1"))
        holder = (run / "lock").read_text()
    assert f"{run} is in use by {holder}" in line
    assert (run / "metrics.jsonl").read_bytes() == before
    again = rlcore("train", recipe_of(finished), f"output={run}")
    assert again.returncode == 0, again.stderr


@pytest.mark.parametrize("command", ["sft", "curate", "train with rounds"])
def test_other_commands_that_write_take_the_lock_too(tmp_path, repository, capfd, command):
    recipe, run = write_recipe(tmp_path, stages=[], evaluate=None), tmp_path / "run"
    words = {
        "sft": ("sft", repository / "recipes/quickstart_base.yaml", f"output={run}"),
        "curate": ("curate", recipe, "--output", run),
        "train with rounds": ("train", recipe, f"output={run}", "sft={rows: column, column: letter}"),
    }
    with holding(run):
        assert f"{run} is in use by process" in refusal(capfd, *words[command])
    assert {path.name for path in run.iterdir()} == {"lock"}


def test_a_finished_run_is_extended_and_its_change_is_in_its_history(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    longer = ("stages.1.steps=4", "rewards.max_failed=0.5", "rollout.deadline=99")
    done = rlcore("train", recipe_of(finished), f"output={run}", *longer)
    assert done.returncode == 0, done.stderr
    assert [record["step"] for record in figures(run)] == [1, 2, 3, 4, 5, 6, 7]
    assert figures(run)[:6] == figures(finished)
    assert "from step 7 on: " in done.stdout
    (entry,) = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    assert entry["step"] == 6
    assert entry["changes"]["rewards.max_failed"][1] == 0.5
    assert entry["changes"]["stages.1.steps"] == [3, 4]
    assert json.loads((run / "evaluation.json").read_text())["step"] == 7


def test_what_saved_state_depends_on_may_not_change(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    for change, key in (("seed=1", "seed"), ("batch.problems=8", "batch.problems"), ("stages.0.steps=2", "stages")):
        line = last_line(rlcore("train", recipe_of(finished), f"output={run}", change))
        assert f"another recipe ({key} differs)" in line


def test_rewards_that_fail_in_mid_run_save_it_first(tmp_path):
    recipe = write_recipe(tmp_path, rewards={"functions": [{"name": "./my_reward.py:fickle"}], "max_failed": 0.2})
    broken = tmp_path / "broken"
    fickle = (
        "\n\ndef fickle(completions, letter):\n"
        f"    from pathlib import Path\n    marks = Path({str(broken)!r})\n"
        "    marks.touch()\n"
        "    with marks.open('a') as file:\n        file.write('x' * len(completions))\n"
        "    if marks.stat().st_size > 250:\n        return [None] * len(completions)\n"
        "    return letter_reward(completions, letter)\n"
    )
    (tmp_path / "my_reward.py").write_text(REWARD + fickle)
    settings = (f"output={tmp_path / 'run'}", "checkpoint.every=0", "evaluate=null", "rewards.workers=1")
    assert "rewards gave no score" in last_line(rlcore("train", recipe, *settings, "stages.1.steps=30"))
    (state,) = (tmp_path / "run" / "checkpoints").glob("step-*/state.json")
    assert json.loads(state.read_text())["step"] == len(figures(tmp_path / "run")) > 0
