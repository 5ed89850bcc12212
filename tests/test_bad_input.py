"""A user's mistake ends with one line that says what and where, and code 2; nothing that was saved is lost."""

import json
import shutil
from functools import partial
from pathlib import Path

import pytest
import yaml

from rlcore.cli import main
from tests.refusals import refusal
from tests.tiny import write_recipe


@pytest.fixture
def refused(capfd):
    """Runs the command, expects it to be refused, and gives the line it said."""
    return partial(refusal, capfd)


def train(refused, recipe: Path, *overrides: str) -> str:
    return refused("train", recipe, f"output={recipe.parent / 'run'}", *overrides)


def test_a_missing_recipe_names_the_nearest(refused, tmp_path):
    recipe = write_recipe(tmp_path)
    assert f"did you mean {recipe}" in refused("train", tmp_path / "recpie.yaml")


def test_a_recipe_that_is_not_text(refused, tmp_path):
    (tmp_path / "r.yaml").write_bytes(b"\xff\xfe\x00")
    assert "r.yaml" in refused("train", tmp_path / "r.yaml")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["learner.learning_rate=1"], "learner.learning_rate"),
        (["learner.lr=-1"], "learner.lr"),
        (["batch.group=1"], "batch.group is 1"),
        (["batch.branches=3"], "batch.branches 3 does not divide batch.group 4"),
        (["batch.branches=2", "credit.unit=trajectory"], "credit.unit attempt"),
        (["credit.discount=0.5", "credit.unit=trajectory"], "take credit.unit attempt, or credit.discount 0"),
        (["credit.baseline=tree"], "batch.branches above 1"),
        (["batch.branches=2", "learner.correction.level=trajectory"], "batch.branches 1"),
        (["stages.1.base_first=0.1"], "stage two: base_first 0.1 of 4 first attempts is none"),
        (["stages.0.kl_target=[0.1]"], "stage one: kl_target needs 2 values"),
        (["stages.0.kl=[0, 0.1]", "stages.0.kl_target=[0.1, 0.1]"], "stage one: a kl of 0 cannot be adapted"),
        (["conversation.max_prompt_tokens=4"], "conversation.max_prompt_tokens 4"),
        (["conversation.max_attempt_tokens=2000"], "the model takes 1024"),
        (['rewards.functions=[{"name": "mth"}]'], "mth"),
        (["rewards.functions.0.name=missing.py:reward"], "missing.py"),
        (["data.path=tran.jsonl"], "tran.jsonl"),
        (["data.columns.prompt=questoin"], "did you mean question"),
        (["model={path: no/such/folder}"], "no/such/folder"),
        (["device=tpu"], "device"),
        (["stages=[]", "sft={rows: star}", "model.lora={rank: 4}"], "no model.lora"),
        (["stages=[]", "sft={rows: star}", "learner.sequence_parallel=2"], "learner.sequence_parallel"),
        (
            ["rollout={engine: vllm, mode: servers, start_servers: 1, vllm: {transfer: nccl}}", "model.lora={rank: 4}"],
            "adapters travel by files",
        ),
    ],
)
def test_values_that_cannot_work_are_named(refused, tmp_path, overrides, said):
    assert said in train(refused, write_recipe(tmp_path), *overrides)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_recipe_for_another_command_is_named_with_its_command(refused, tmp_path, repository):
    recipe, warm_start = write_recipe(tmp_path), repository / "recipes/quickstart_base.yaml"
    assert refused("sft", recipe).endswith(f"{recipe} is a training recipe, for rlcore train")
    assert refused("train", warm_start).endswith(f"{warm_start} is a warm start, for rlcore sft")


def test_an_empty_data_set(refused, tmp_path):
    recipe = write_recipe(tmp_path)
    (tmp_path / "train.jsonl").write_text("")
    assert "train.jsonl" in train(refused, recipe)


def test_a_row_without_its_column_is_named_by_line(refused, tmp_path):
    recipe = write_recipe(tmp_path)
    with (tmp_path / "train.jsonl").open("a") as rows:
        rows.write(json.dumps({"letter": "a"}) + "\n")
    assert "train.jsonl:33" in train(refused, recipe)


def test_a_reward_whose_column_the_data_lack(refused, tmp_path):
    recipe = write_recipe(tmp_path)
    for name in ("train.jsonl", "test.jsonl"):
        rows = [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
        (tmp_path / name).write_text("".join(json.dumps({"question": row["question"]}) + "\n" for row in rows))
    assert "letter" in train(refused, recipe)


def test_a_reward_that_always_fails_stops_the_run_with_its_reason(refused, tmp_path):
    recipe = write_recipe(tmp_path)
    (tmp_path / "my_reward.py").write_text("def letter_reward(completions, letter):\n    return [1 / 0]\n")
    line = train(refused, recipe, "evaluate=null")
    assert "ZeroDivisionError" in line or "division by zero" in line
    assert "rewards.max_failed" in line


def test_a_template_without_a_second_user_turn(refused, tmp_path):
    template = "{% if messages|length > 1 %}{{ raise_exception('no') }}{% endif %}{{ messages[0].content }}<|end|>"
    recipe = write_recipe(tmp_path)
    values = yaml.safe_load(recipe.read_text())
    values["model"]["chat_template"] = template
    recipe.write_text(yaml.safe_dump(values))
    assert "chat template" in train(refused, recipe)


def test_a_folder_that_cannot_be_written(refused, tmp_path):
    (tmp_path / "file").write_text("")
    assert "file" in refused("train", write_recipe(tmp_path), f"output={tmp_path / 'file' / 'run'}")


def test_a_run_of_another_recipe_is_not_touched(refused, tmp_path):
    recipe = write_recipe(tmp_path, stages=[{"name": "only", "steps": 1}])
    main(["train", str(recipe), f"output={tmp_path / 'run'}"])
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert "(seed differs)" in train(refused, recipe, "seed=1")
    assert "checkpoint.resume" in train(refused, recipe, "checkpoint.resume=never")
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_a_checkpoint_of_another_model_is_named(refused, tmp_path):
    recipe = write_recipe(tmp_path, stages=[{"name": "only", "steps": 1}])
    main(["train", str(recipe), f"output={tmp_path / 'small'}"])
    main(["train", str(recipe), f"output={tmp_path / 'large'}", "model.scratch.hidden_size=48"])
    model = tmp_path / "model"
    shutil.copytree(tmp_path / "small" / "final", model)
    main(["train", str(recipe), f"model={{path: {model}}}", f"output={tmp_path / 'run'}"])
    shutil.rmtree(model)
    shutil.copytree(tmp_path / "large" / "final", model)
    assert "model.embed_tokens.weight" in train(refused, recipe, f"model={{path: {model}}}")


def test_a_damaged_checkpoint_is_named(refused, tmp_path):
    recipe = write_recipe(tmp_path, stages=[{"name": "only", "steps": 1}])
    main(["train", str(recipe), f"output={tmp_path / 'run'}"])
    (state,) = (tmp_path / "run" / "checkpoints").glob("step-*/state.json")
    whole = state.read_text()
    state.write_text(whole[:20])
    assert f"state.json has 20 bytes instead of {len(whole)}" in train(refused, recipe)
    assert (state.parent.parent / "damaged-step-000001" / "state.json").read_text() == whole[:20], "nothing is lost"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "folder"], "recipe folder cannot be read: Is a directory"),
        (["recipe", "show", "recipe.yaml", "--ranks", "0"], "--ranks must be above 0"),
        (["eval", "run/other"], "run/other is neither a recipe nor the folder of a run, which has a recipe.yaml"),
        (["eval", "recipe.yaml", "evaluate.endpoint=localhost:8000"], "give it as http://HOST:PORT/v1"),
        (["watch", "folder", "--every", "0"], "--every must be above 0"),
        (["curate", "recipe.yaml", "--output", "recipe.yaml"], "folder recipe.yaml cannot be written: File exists"),
        (["export", "folder", "recipe.yaml"], "recipe.yaml is not empty: name a new folder"),
        (["export", "run", "out"], "; run/final is such a folder already"),
    ],
)
def test_arguments_that_cannot_work_are_named(refused, tmp_path, monkeypatch, arguments, said):
    write_recipe(tmp_path)
    for folder in ("folder", "run/final", "run/other"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert said in refused(*arguments)


def test_the_command_line_teaches(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    said = capsys.readouterr().out
    for command in ("train", "eval", "recipe", "report", "paper-table"):
        assert command in said
    assert "examples:" in said


def test_overrides_may_come_after_flags_but_are_no_flags(refused, tmp_path, capfd):
    recipe = write_recipe(tmp_path)
    main(["recipe", "show", str(recipe), "--ranks", "2", "seed=3", "batch.group=2"])
    shown = capfd.readouterr().out
    assert (yaml.safe_load(shown)["seed"], yaml.safe_load(shown)["batch"]["group"]) == (3, 2)
    assert "2 ranks" in shown
    assert refused("train", recipe, "--seed=3").endswith("--seed=3; what a recipe says is replaced by key=value")
    assert refused("watch", tmp_path, "seed=3").endswith("unrecognized arguments: seed=3")


def test_recipe_show_prints_what_loads_again(tmp_path, capsys):
    recipe = write_recipe(tmp_path)
    main(["recipe", "show", str(recipe), "seed=3"])
    shown = capsys.readouterr().out
    assert yaml.safe_load(shown)["seed"] == 3
    assert "4 problems x 4 trajectories = 16 trajectories a step, x 2 attempts = 32 attempts" in shown


def test_a_folder_of_adapters_is_not_a_model(refused, tmp_path):
    (tmp_path / "adapters").mkdir()
    (tmp_path / "adapters" / "adapter_config.json").write_text("{}")
    said = train(refused, write_recipe(tmp_path), f"model={{path: {tmp_path / 'adapters'}}}")
    assert "holds LoRA adapters, not a whole model" in said


def test_held_out_problems_that_are_too_long_are_an_error_unless_asked(refused, tmp_path):
    said = train(refused, write_recipe(tmp_path, evaluate=long_evaluation(tmp_path)))
    assert "evaluate.data: 1 of 3 prompts is longer than conversation.max_prompt_tokens 64" in said
    assert "evaluate.data.skip_bad_rows=true" in said


def long_evaluation(folder: Path) -> dict[str, object]:
    rows = [{"question": text, "letter": "a"} for text in ("one", "two", "\N{GRINNING FACE}" * 50)]
    (folder / "long.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"data": {"source": "jsonl", "columns": {"prompt": "question"}, "path": "./long.jsonl"}}
