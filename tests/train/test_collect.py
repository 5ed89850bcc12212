"""Runs with trees, offline first attempts, resampled groups and an adapted β: their figures, and that they resume."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.processes import rlcore
from tests.tiny import figures, write_recipe

STAGES = [
    {"name": "one", "steps": 2, "reward": [0, 1], "kl": [0.1, 0.01], "kl_target": [1e-4, 0]},
    {"name": "two", "steps": 4, "bonus": 2, "kl": [0.02, 0.01], "kl_target": [1e-4, 1e-4], "base_first": 0.5},
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("collect")
    batch = {"problems": 4, "group": 4, "branches": 2, "resample": 2}
    recipe = write_recipe(
        folder,
        stages=STAGES,
        batch=batch,
        credit={"baseline": "tree"},
        evaluate=None,
    )
    done = rlcore("train", recipe, f"output={folder / 'run'}")
    assert done.returncode == 0, done.stderr
    return folder / "run"


def test_dead_groups_are_counted_and_others_sampled_for_them(finished):
    resampled = [record["train/resampled"] for record in figures(finished)]
    assert all(0 <= share <= 2 for share in resampled)
    assert max(resampled) > 0


def test_beta_moves_towards_its_target_and_starts_anew_with_a_stage(finished):
    records = figures(finished)
    first, second = ([record[f"train/beta_t{t}"] for record in records] for t in (1, 2))
    assert first[0] == 0.1
    assert first[1] == pytest.approx(0.09), "nothing has moved yet: the KL is 0"
    assert first[2] == 0.02
    assert second[:3] == [0.01] * 3
    ratios = np.array(first[3:]) / np.array(first[2:-1])
    assert np.all((ratios >= 0.9 - 1e-9) & (ratios <= 1.1 + 1e-9))


def test_it_resumes_bit_for_bit(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    shutil.rmtree(run / "checkpoints" / "step-000006")
    done = rlcore("train", finished.parent / "recipe.yaml", f"output={run}")
    assert done.returncode == 0, done.stderr
    assert figures(run) == figures(finished)
    (run / "first_attempts.jsonl").unlink()
    shutil.rmtree(run / "checkpoints" / "step-000006")
    lost = rlcore("train", finished.parent / "recipe.yaml", f"output={run}")
    assert lost.returncode == 2
    assert "first_attempts.jsonl" in lost.stderr.splitlines()[-1]
