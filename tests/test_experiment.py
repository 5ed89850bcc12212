"""Every arm of a folder with every seed by one command, and the table that compares them."""

import gc
import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from rlcore.cli import main
from rlcore.session.evaluation import BASE_RESULTS, evaluate_and_save
from tests.processes import rlcore
from tests.refusals import refusal
from tests.tiny import write_recipe


def test_arms_and_seeds_in_one_table(repository: Path, tmp_path: Path):
    ablations = repository / "recipes/quickstart/ablations"
    small = (
        "data: {options: {count: 300}}\nevaluate: {problems: 20, data: {options: {count: 100}}}\ntrack: {wandb: off}\n"
    )
    (tmp_path / "arms").mkdir()
    (tmp_path / "arms.yaml").write_text(f"extends: {ablations}/self_refine.yaml\nname: asked\n{small}")
    supervised = "name: taught\nsft: {problems: 32, samples: 4, batch: 8}\n"
    (tmp_path / "arms/taught.yaml").write_text(f"extends: {ablations}/pair_sft_plus.yaml\n{supervised}{small}")
    command = ["paper-table", str(tmp_path / "arms"), "--seeds", "0", "1", "--output", str(tmp_path / "out")]
    command += ["--against", "asked"]
    done = rlcore(*command)
    assert done.returncode == 0, done.stderr
    assert "taught, seed 1" in done.stdout
    assert "over problems and seeds" in done.stdout
    table, differences, note = (tmp_path / "out/table.md").read_text().split("\n\n")
    assert [line.split("|")[1:4] for line in differences.splitlines()[2:]] == [
        [f" {mode} ", " taught ", " minus asked "] for mode in ("greedy", "sampled")
    ]
    assert "over problems and seeds" in note
    table = table.splitlines()
    cells = [[cell.strip(" *") for cell in line.split("|")[1:4]] for line in table[2:]]
    each = ["mean of 2", "seed 0", "seed 1"]
    assert cells == [[mode, arm, run] for mode in ("greedy", "sampled") for arm in ("taught", "asked") for run in each]
    assert (tmp_path / "out/report.html").exists()
    trained = tmp_path / "out/taught-seed0/final/model.safetensors"
    before = trained.stat().st_mtime_ns
    assert rlcore(*command).returncode == 0
    assert trained.stat().st_mtime_ns == before
    refused = rlcore(*command[:-1], "aksed")
    assert refused.returncode == 2
    assert "no arm is called aksed, to print differences from; did you mean asked?" in refused.stderr


def second_of_two(tmp_path: Path, **first: object) -> Path:
    """A recipe of one step, after another one that `first` changes."""
    short = {"stages": [{"name": "only", "steps": 1}]}
    for name, changes in (("first", short | first), ("second", short | {"after": "../first/recipe.yaml"})):
        (tmp_path / name).mkdir()
        write_recipe(tmp_path / name, **changes)
    return tmp_path / "second/recipe.yaml"


def test_a_stop_while_the_run_before_is_evaluated_stops_all_and_the_same_command_goes_on(tmp_path, monkeypatch):
    recipe, run = second_of_two(tmp_path), tmp_path / "second/run"

    def asked_to_stop(*arguments, name, **further):
        if name == "evaluation":
            os.kill(os.getpid(), signal.SIGTERM)
        return evaluate_and_save(*arguments, name=name, **further)

    with monkeypatch.context() as patch:
        patch.setattr("rlcore.train.run.evaluate_and_save", asked_to_stop)
        main(["train", str(recipe)])
    assert (run / "before/final").is_dir()
    assert not (run / "before/evaluation.json").exists()
    assert not (run / "recipe.yaml").exists()
    main(["train", str(recipe)])
    assert (run / "before/evaluation.json").exists()
    assert (run / "evaluation.json").exists()


def test_a_recipe_after_one_that_trains_nothing_is_refused(tmp_path, capfd):
    said = refusal(capfd, "train", second_of_two(tmp_path, stages=[]))
    assert "first/recipe.yaml has neither stages nor sft: it trains no policy to start from" in said


def test_what_a_recipe_comes_after_is_not_taken_as_it_was_once_its_recipe_or_seed_has_changed(tmp_path, capfd):
    first = second_of_two(tmp_path).parent.with_name("first") / "recipe.yaml"
    third = write_recipe(tmp_path, stages=[{"name": "only", "steps": 1}], after="./second/recipe.yaml")
    main(["train", str(third)])
    trained = (tmp_path / "run/before/before/final/model.safetensors").stat().st_mtime_ns
    main(["train", str(third), "track.trajectories=1", "learner.lr=0.1"])  # its own settings, not theirs
    shutil.rmtree(tmp_path / "run/checkpoints")  # as if stopped before its first
    for recipe in (first, tmp_path / "second/recipe.yaml"):  # what a policy does not depend on may change
        recipe.write_text(recipe.read_text().replace("every: 2", "every: 3"))
    main(["train", str(third)])
    shutil.rmtree(tmp_path / "run/checkpoints")
    said = refusal(capfd, "train", third, "seed=1")
    assert (
        f"after: {tmp_path}/run/before/before was trained with seed 0, not 1: restore it, or remove the folder" in said
    )
    first.write_text(first.read_text().replace("lr: 0.003", "lr: 0.001"))
    assert "run/before/before was trained with learner.lr 0.003, not 0.001" in refusal(capfd, "train", third)
    assert (tmp_path / "run/before/before/final/model.safetensors").stat().st_mtime_ns == trained


def test_a_finished_run_is_read_on_a_machine_that_it_would_not_fit(tmp_path, monkeypatch):
    recipe = str(write_recipe(tmp_path, stages=[{"name": "only", "steps": 1}]))
    main(["train", recipe])
    monkeypatch.setattr("rlcore.plan.start.free_bytes", lambda device: 1)
    main(["train", recipe])
    with pytest.raises(SystemExit):
        main(["train", recipe, f"output={tmp_path / 'another'}"])


def test_a_base_that_arms_share_is_measured_once(repository: Path, tmp_path: Path, monkeypatch):
    measured = []

    def evaluate(recipe, *rest, name, **further):
        measured.append((recipe.name, name))
        return evaluate_and_save(recipe, *rest, name=name, **further)

    monkeypatch.setattr("rlcore.train.run.evaluate_and_save", evaluate)
    arms = [repository / "recipes/quickstart.yaml", repository / "recipes/quickstart/plain.yaml"]
    small = ["data.options.count=300", "evaluate.problems=40", "evaluate.data.options.count=100", "track.wandb=off"]
    stage = "stages=[{name: short, steps: 1, kl: [0.1, 0.1]}]"
    monkeypatch.chdir(tmp_path)
    main(["paper-table", *map(str, arms), "--set", *small, stage, "batch.problems=2"])
    output = tmp_path / "runs/quickstart"  # named after the first of the recipes
    assert gc.get_freeze_count() == 0, "runs that follow each other leave nothing to each other"
    assert measured == [("score", BASE_RESULTS), ("score", "evaluation"), ("plain", "evaluation")]
    first, second = (
        json.loads((output / f"{arm}-seed0/{BASE_RESULTS}.json").read_text()) for arm in ("score", "plain")
    )
    assert first == second
    assert (first["arm"], first["step"]) == ("base", 0)


def test_two_recipes_of_one_name_are_no_table(tmp_path, capfd):
    recipe = write_recipe(tmp_path, name="one")
    (tmp_path / "other.yaml").write_text("extends: ./recipe.yaml\nseed: 3\n")
    said = refusal(capfd, "paper-table", recipe, tmp_path / "other.yaml", "--output", tmp_path / "runs")
    assert (
        f"two runs would be {tmp_path}/runs/one-seed0: recipes of one table need names, and seeds, of their own" in said
    )


def test_what_arms_come_after_runs_once_for_each_seed_of_a_table(tmp_path, capfd):
    arm, out = second_of_two(tmp_path), tmp_path / "out"
    other = arm.with_name("other.yaml")
    other.write_text("extends: ./recipe.yaml\nname: other\nlearner: {lr: 0.001}\n")
    main(["paper-table", str(arm), str(other), "--seeds", "0", "1", "--output", str(out)])
    trained = sorted(path.relative_to(out).parent.as_posix() for path in out.rglob("final"))
    assert trained == [
        *(f"before/recipe-seed{seed}" for seed in (0, 1)),
        *(f"{name}-seed{seed}" for name in ("other", "tiny") for seed in (0, 1)),
    ]
    namesake = arm.with_name("namesake.yaml")
    namesake.write_text("extends: ./recipe.yaml\nname: namesake\nafter: ./recipe.yaml\n")
    said = refusal(capfd, "paper-table", str(arm), str(namesake), "--output", str(out))
    assert "after: two recipes are called recipe" in said
