"""More mistakes that end in one line and code 2: of values, rows, templates, folders and other commands' arguments."""

import json
import shutil
from functools import partial
from pathlib import Path

import datasets
import pytest
import torch
import yaml

from rlcore.cli import main
from rlcore.errors import UserError
from rlcore.policy import load_policy, save_policy
from rlcore.recipe import load_recipe
from tests.refusals import refusal
from tests.tiny import write_recipe

ONE_STEP = [{"name": "only", "steps": 1}]


@pytest.fixture
def refused(capfd):
    """Runs the command, expects it to be refused, and gives the line it said."""
    return partial(refusal, capfd)


@pytest.fixture
def train(refused):
    """The same of `rlcore train`, with `run` beside the recipe as its output."""
    return lambda recipe, *overrides: refused("train", recipe, f"output={recipe.parent / 'run'}", *overrides)


def add_row(recipe: Path, line: str) -> None:
    with (recipe.parent / "train.jsonl").open("a") as rows:
        rows.write(line + "\n")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (['conversation.instruction=" "'], "conversation.instruction: must say something"),
        (["stages.1.base_first=1.0"], "stage two: base_first 1 of 4 first attempts is all of them"),
        (["stages=[]", "sft={rows: column, column: lettr}"], "did you mean letter?"),
        (["learner.deepspeed={optimizer: {type: Nope}}"], "learner.deepspeed: DeepSpeed refuses it: Nope"),
        (["learner.deepspeed={optimizr: {type: Adam}}"], "unknown key optimizr; did you mean optimizer?"),
        (["learner.deepspeed={zero_optimization: 3}"], "learner.deepspeed.zero_optimization must be a mapping"),
        (["learner.deepspeed={zero_optimization: {overlap_com: true}}"], "did you mean overlap_comm?"),
        (["learner.deepspeed={zero_optimization: {stage: 3}}"], "a recipe says it as learner.zero"),
        (["learner.deepspeed={optimizer: {params: {lr: 1}}}"], "a recipe says it as learner.lr"),
        (["learner.deepspeed={optimizer: {params: {lrr: 1}}}"], "learner.deepspeed: DeepSpeed refuses it"),
        (["learner.deepspeed={gradient_accumulation_steps: 4}"], "a recipe says it as learner.minibatches"),
        (["batch.group=1", "credit={baseline: none, scale: group}"], "would make every advantage 0"),
        (["name=../../x"], "cannot name a run's folder: no slash"),
        (["data.split=test"], "train.jsonl is one file, which has no splits"),
        (["after=recipe.yaml"], "recipe recipe.yaml comes after itself"),
    ],
)
def test_values_that_cannot_work_are_named(train, tmp_path, monkeypatch, overrides, said):
    recipe = write_recipe(tmp_path, evaluate=None)
    if overrides == ["after=recipe.yaml"]:
        recipe.write_text(recipe.read_text() + "after: recipe.yaml\n")
    monkeypatch.chdir(tmp_path)
    assert said in train(recipe, *overrides)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_cuda_where_there_is_none(train, tmp_path):
    assert "device cuda: PyTorch finds no CUDA device" in train(write_recipe(tmp_path), "device=cuda")


def test_a_demonstration_that_is_null_is_a_bad_row(train, tmp_path):
    recipe = write_recipe(tmp_path, evaluate=None)
    add_row(recipe, json.dumps({"question": "x", "letter": None}))
    assert "train.jsonl:33: 1 of 33 rows have no letter" in train(
        recipe, "stages=[]", "sft={rows: column, column: letter}"
    )


@pytest.mark.parametrize("column", ["question", "letter"])
def test_half_a_character_is_a_bad_row(train, tmp_path, capfd, column):
    recipe = write_recipe(tmp_path, evaluate=None, stages=ONE_STEP)
    add_row(recipe, json.dumps({"question": "a", "letter": "a", column: "\ud83d"}))
    add_row(recipe, json.dumps({"question": "a whole one: \N{GRINNING FACE}", "letter": "a"}))
    assert "train.jsonl:33: a lone surrogate" in train(recipe)
    main(["train", str(recipe), f"output={tmp_path / 'run'}", "data.skip_bad_rows=true"])
    assert "left out 1 of 34 rows: a lone surrogate: line 33" in capfd.readouterr().out


@pytest.mark.parametrize("template", ["{{ messages[0].content + 1 }}", "{{ 1 / 0 }}", "{{ messages[3].content.x }}"])
def test_a_template_that_fails(train, tmp_path, template):
    recipe = write_recipe(tmp_path)
    values = yaml.safe_load(recipe.read_text())
    values["model"]["chat_template"] = template
    recipe.write_text(yaml.safe_dump(values))
    assert "chat template of model.scratch does not work" in train(recipe)


def test_a_model_whose_config_is_broken(train, tmp_path):
    recipe = write_recipe(tmp_path)
    policy = load_policy(load_recipe(recipe).model, ["a text"])
    save_policy(policy, tmp_path / "model")
    config = tmp_path / "model" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "vocab_size": None}))
    assert f"model {tmp_path / 'model'} cannot be loaded" in train(recipe, f"model={{path: {tmp_path / 'model'}}}")


def test_a_tokenizer_that_cannot_be_written_is_a_mistake_of_the_folder(tmp_path):
    policy = load_policy(load_recipe(write_recipe(tmp_path)).model, ["a text"])
    (tmp_path / "full" / "tokenizer.json").mkdir(parents=True)  # the tokenizers library raises a bare Exception for it
    with pytest.raises(UserError, match="the policy cannot be written to"):
        save_policy(policy, tmp_path / "full")


def test_a_copied_checkpoint_is_not_one_of_the_run(tmp_path, capfd):
    recipe = write_recipe(tmp_path, evaluate=None, stages=ONE_STEP)
    arguments = ["train", str(recipe), f"output={tmp_path / 'run'}"]
    main(arguments)
    checkpoints = tmp_path / "run" / "checkpoints"
    shutil.copytree(checkpoints / "step-000001", checkpoints / "step-000001.bak")
    main([*arguments, "stages.0.steps=2"])
    assert {path.name for path in checkpoints.iterdir()} >= {"step-000002", "step-000001.bak"}
    (checkpoints / "step-000001.bak" / "state.json").unlink()
    shutil.move(checkpoints / "step-000001.bak", checkpoints / "step-000002.bak")
    main(["export", str(tmp_path / "run"), str(tmp_path / "policy")])
    assert (tmp_path / "policy" / "config.json").exists()


def test_a_checkpoint_damaged_twice_is_set_aside_twice(train, tmp_path):
    recipe = write_recipe(tmp_path, evaluate=None, stages=ONE_STEP)
    main(["train", str(recipe), f"output={tmp_path / 'run'}"])
    checkpoint = tmp_path / "run" / "checkpoints" / "step-000001"
    shutil.copytree(checkpoint, tmp_path / "whole")
    for aside in ("damaged-step-000001", "damaged-step-000001-2"):
        (checkpoint / "state.json").write_text("{}")
        assert train(recipe).endswith(f"set aside as {aside}; remove the run's folder to start anew")
        shutil.copytree(tmp_path / "whole", checkpoint)


def test_a_run_of_one_attempt_has_a_report(tmp_path):
    recipe = write_recipe(tmp_path, stages=[{"name": "only", "steps": 2, "reward": [1], "kl": [0.1]}])
    main(["train", str(recipe), f"output={tmp_path / 'run'}", "conversation.attempts=1"])
    main(["report", str(tmp_path / "run"), "--output", str(tmp_path / "report")])
    assert (tmp_path / "report" / "accuracy-light.png").exists()
    assert "report.html" in {path.name for path in (tmp_path / "report").iterdir()}


def test_curate_refuses_mixed_columns_before_it_samples(refused, tmp_path):
    recipe = write_recipe(tmp_path)
    add_row(recipe, json.dumps({"question": "x", "letter": ["a"]}))
    said = refused("curate", recipe, "--output", tmp_path / "out")
    assert "curate: column letter cannot be written as Parquet" in said
    assert not list(tmp_path.glob("out/pass_rates*"))


def test_curate_on_a_disk_that_is_full(refused, tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(datasets.Dataset, "to_parquet", full)
    said = refused("curate", write_recipe(tmp_path), "--output", tmp_path / "out", "--lowest", "0", "--highest", "1")
    assert said.endswith("out cannot be written: No space left on device")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--gpu-memory", "nan"], "--gpu-memory must be above 0, not nan"),
        (["--prompt-tokens", "-5"], "--prompt-tokens must be above 0, not -5"),
        (["--spread", "nan"], "--spread must be above 0, not nan"),
    ],
)
def test_numbers_of_a_plan_that_are_none(refused, tmp_path, arguments, said):
    assert said in refused("plan", write_recipe(tmp_path), *arguments)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["data={source: jsonl, path: x.jsonl}"], "data.source jsonl: a warm start makes its conversations"),
        (["seed=-1"], "seed: input should be greater than or equal to 0"),
        (["output=file"], "folder file cannot be written: File exists"),
    ],
)
def test_a_warm_start_that_cannot_work(refused, tmp_path, monkeypatch, repository, overrides, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    assert said in refused("sft", repository / "recipes/quickstart_base.yaml", *overrides)
