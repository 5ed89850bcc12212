"""Whole runs in processes of their own, and what they leave behind."""

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.processes import rlcore, torchrun
from tests.tiny import figures


def test_a_run_leaves_figures_trajectories_evaluations_and_policies(finished):
    records = figures(finished)
    assert [record["step"] for record in records] == [1, 2, 3, 4, 5, 6]
    assert [record["stage"] for record in records] == ["one"] * 3 + ["two"] * 3
    assert [record["step"] for record in records if "eval/greedy/t1" in record] == [2, 4]
    for record in records:
        assert record["train/t2"] == pytest.approx(
            record["train/t1"] + record["train/i_to_c"] - record["train/c_to_i"], abs=1e-9
        )
    trajectories = [json.loads(line) for line in (finished / "trajectories.jsonl").read_text().splitlines()]
    assert len(trajectories) == 6 * 4
    assert all(len(trajectory["attempts"]) == 2 for trajectory in trajectories)
    evaluation = json.loads((finished / "evaluation.json").read_text())
    assert [part["mode"] for part in evaluation["evaluations"]] == ["greedy", "sampled"]
    for name in ("best", "final"):
        AutoTokenizer.from_pretrained(finished / name)
        assert AutoModelForCausalLM.from_pretrained(finished / name).config.hidden_size == 32


def test_sampler_and_learner_agree_on_every_log_probability(finished):
    assert max(record["learner/max_abs_logprob_gap"] for record in figures(finished)) < 1e-4


def test_training_moves_the_policy_away_from_its_reference(finished):
    records = figures(finished)
    assert records[0]["learner/kl_t2"] == pytest.approx(0, abs=1e-6)
    assert records[-1]["learner/kl_t2"] > 1e-4


def test_the_same_seed_gives_the_same_run_and_no_process_is_left_behind(finished, tmp_path):
    marker = f"RLCORE_TEST_{os.getpid()}"
    words = ["train", finished.parent / "recipe.yaml", f"output={tmp_path / 'again'}"]
    command = [sys.executable, "-m", "rlcore", *words]
    environment = {**os.environ, "LEFT_BEHIND": marker}
    again = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert again.returncode == 0, again.stderr
    assert figures(tmp_path / "again") == figures(finished)
    alive = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            alive += [path] if marker.encode() in path.read_bytes() else []
        except OSError:
            continue
    assert not alive


def test_another_seed_gives_another_run(finished, tmp_path):
    shorter = ["seed=1", "evaluate=null", "stages=[{name: one, steps: 1, reward: [0, 1], kl: [0.1, 0.01]}]"]
    done = rlcore("train", finished.parent / "recipe.yaml", *shorter, f"output={tmp_path / 'other'}")
    assert done.returncode == 0, done.stderr
    assert figures(tmp_path / "other")[0]["learner/loss"] != figures(finished)[0]["learner/loss"]


def test_a_finished_run_is_not_trained_again(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    before = (run / "metrics.jsonl").read_bytes()
    assert rlcore("train", finished.parent / "recipe.yaml", f"output={run}").returncode == 0
    assert (run / "metrics.jsonl").read_bytes() == before


def test_two_processes_share_the_problems_and_agree(finished, tmp_path):
    recipe = finished.parent / "recipe.yaml"
    done = torchrun(2, "-m", "rlcore", "train", recipe, f"output={tmp_path / 'two'}")
    assert done.returncode == 0, done.stderr
    one, two = figures(finished), figures(tmp_path / "two")
    assert [record["step"] for record in two] == [record["step"] for record in one]
    # The ranks draw random numbers of their own, but greedy evaluation of the untrained policy is the same measurement.
    greedy = [
        json.loads((run / "evaluation_base.json").read_text())["evaluations"][0]["metrics"]
        for run in (finished, tmp_path / "two")
    ]
    assert greedy[0] == greedy[1]
    assert all(math.isfinite(record["learner/loss"]) for record in two)


def test_evaluation_of_a_finished_run_repeats_its_greedy_figures(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    for policy in (run, run / "best"):
        assert rlcore("eval", policy).returncode == 0
    assert (run / "eval-best" / "evaluation.json").exists()
    again = json.loads((run / "eval" / "evaluation.json").read_text())["evaluations"]
    assert again == json.loads((run / "evaluation.json").read_text())["evaluations"]
