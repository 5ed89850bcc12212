"""Seeded cases of commands: recipes that train a step, and damaged folders of runs and models."""

import copy
import shutil
from pathlib import Path
from random import Random

import pytest
import yaml

from tests.fuzz.mutations import SMALL, damage_file, mutate
from tests.fuzz.survive import command, noted, survive
from tests.tiny import write_recipe

ELSEWHERE = ("engine", "mode", "source", "wandb", "device", "servers", "endpoint", "deadline", "dtype")
"""Keys left as they are in cases that train: other values start servers, ask a hub or import for seconds."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A recipe beside the folder `run` of a run of it that has come to its end."""
    recipe = write_recipe(tmp_path_factory.mktemp("finished"))
    command("train", recipe, *settings(recipe.parent / "run"))
    assert (recipe.parent / "run" / "final").is_dir()
    return recipe


def settings(output: Path) -> list[str]:
    return [f"output={output}", "stages.0.steps=1", "stages.1.steps=1", "evaluate.problems=2"]


def test_training(finished, tmp_path, resolved):
    def case(rng: Random) -> None:
        values = copy.deepcopy({**resolved, "stages": resolved["stages"][:1]})
        values["stages"][0]["steps"] = 1
        before = copy.deepcopy(values)
        done = mutate(values, rng, SMALL)
        path = tmp_path / "case.yaml"
        if done.split()[0].rpartition(".")[2] in ELSEWHERE:
            values = before
        path.write_text(yaml.safe_dump(values))
        output = tmp_path / "runs" / str(rng.random())
        with noted(done):
            command("train", path, f"output={output}", "evaluate.problems=2")

    survive(30, case)


def test_damaged_runs(finished, tmp_path):
    run, out = tmp_path / "run", tmp_path / "out"
    what = {
        "resume": ("train", finished, *settings(run), "stages.1.steps=2"),
        "eval": ("eval", run, "evaluate.problems=2"),
        "export": ("export", run, out),
        "watch": ("watch", run, "--once"),
        "report": ("report", run, "--output", out),
    }

    def case(rng: Random) -> None:
        for folder in (run, out):
            shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(finished.parent / "run", run)
        asked = rng.choice([*what] * 4 + ["watch"] * 12)  # which is quick, and reads all that a report does
        while asked == "report" and rng.random() < 0.8:
            asked = rng.choice(list(what))
        part = {"eval": ["final"], "export": ["checkpoints"], "resume": ["", "checkpoints"]}.get(asked, [""])
        with noted(f"{asked} after {damage_file(run / rng.choice(part), rng)}"):
            command(*what[asked])

    survive(80, case)
