"""Messages that once sent a user the wrong way say what is the matter, and what to write instead."""

import json
from functools import partial

import pytest
import yaml

from rlcore.cli import main
from rlcore.data import load_problems
from rlcore.errors import UserError, did_you_mean
from rlcore.policy import check_same_parameters, load_policy, parameter_shapes, save_policy
from rlcore.recipe import load_recipe, schema
from rlcore.rollout import Conversation
from tests.refusals import refusal
from tests.rollout.scripted import conversation
from tests.tiny import write_recipe

ROWS = [{"prompt": "1 + 1?", "answer": "2"}, {"prompt": "2 + 2?", "answer": "4"}]


@pytest.fixture
def refused(capfd):
    return partial(refusal, capfd)


@pytest.mark.parametrize("indent", [None, 2])
def test_an_array_of_rows_is_read(tmp_path, indent):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(ROWS, indent=indent))
    problems = load_problems(schema.DataConfig(source="jsonl", path=str(path)))
    assert [problem.columns for problem in problems] == ROWS
    path.write_text(json.dumps([*ROWS, {"answer": "6"}], indent=indent))
    with pytest.raises(UserError, match=r"rows.json:3: 1 of 3 rows have no prompt"):
        load_problems(schema.DataConfig(source="jsonl", path=str(path)))


def test_a_column_of_another_name_is_mapped(tmp_path):
    (tmp_path / "rows.jsonl").write_text(json.dumps({"question": "1 + 1?"}))
    with pytest.raises(UserError, match=r"no column prompt; it has question; data.columns=\{prompt: NAME\} says which"):
        load_problems(schema.DataConfig(source="jsonl", path=str(tmp_path / "rows.jsonl")))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("m.content | upper", "it writes turns in other letters"),
        ("m.content if m.role == 'user' else ''", "it drops an earlier turn"),
    ],
)
def test_a_template_that_does_not_fit_is_told_apart_from_one_that_drops_turns(content, told):
    tokenizer = conversation().tokenizer
    tokenizer.chat_template = "{% for m in messages %}<|{{ m.role }}|>{{ " + content + " }}{% endfor %}"
    with pytest.raises(UserError, match="cannot take a second user turn: " + told):
        Conversation(tokenizer, schema.ConversationConfig(instruction="Check it."), [tokenizer.eos_token_id])


def test_a_model_in_place_of_a_scratch_one(refused, tmp_path):
    said = refused("train", write_recipe(tmp_path), "model.path=m")
    assert "give exactly one of path and scratch; model={path: m} leaves scratch out" in said


def test_a_name_that_is_near_nothing_brings_none_to_mind():
    assert did_you_mean("quux", schema.RolloutConfig.model_fields) == ""
    assert did_you_mean("temprature", schema.RolloutConfig.model_fields) == "; did you mean temperature?"


def test_a_model_with_code_of_its_own(tmp_path):
    save_policy(load_policy(load_recipe(write_recipe(tmp_path)).model, ["a text"]), tmp_path / "model")
    config = tmp_path / "model" / "config.json"
    own = {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"}}
    config.write_text(json.dumps({**json.loads(config.read_text()), **own}))
    with pytest.raises(UserError) as refused:
        load_policy(load_recipe(write_recipe(tmp_path), [f"model={{path: {tmp_path / 'model'}}}"]).model)
    assert str(refused.value).endswith("read it, then say model.trust_remote_code=true")


def test_a_scratch_model_whose_data_changed(refused, tmp_path):
    recipe = write_recipe(tmp_path, evaluate=None, stages=[{"name": "only", "steps": 1}])
    main(["train", str(recipe), f"output={tmp_path / 'run'}"])
    rows = (tmp_path / "train.jsonl").read_text().splitlines()
    (tmp_path / "train.jsonl").write_text("\n".join(rows[:1] * 32))  # too few letters for as many tokens
    said = refused("train", recipe, f"output={tmp_path / 'run'}", "stages.0.steps=2")
    assert "another tokenizer: that of a scratch model is made from the data, which have changed" in said
    assert "another model" not in said


def test_another_model_is_still_called_one(tmp_path):
    model = load_policy(load_recipe(write_recipe(tmp_path)).model, ["a text"]).model
    with pytest.raises(UserError, match="x is of another model: it has a parameter more"):
        check_same_parameters(model, {**parameter_shapes(model), "more": [1]}, "x is of another model")


def test_a_cluster_that_is_not_there_is_called_one(refused, tmp_path):
    said = refused("plan", write_recipe(tmp_path), "--cluster", tmp_path / "nowhere.yaml")
    assert f"cluster {tmp_path / 'nowhere.yaml'} does not exist" in said


def test_a_run_is_evaluated_twice_and_what_differs_is_named(refused, tmp_path, capfd):
    recipe = write_recipe(tmp_path, stages=[{"name": "only", "steps": 1}])
    main(["train", str(recipe), f"output={tmp_path / 'run'}"])
    for _ in range(2):
        main(["eval", str(tmp_path / "run")])
    assert "is not sampled again" in capfd.readouterr().out
    said = refused("eval", tmp_path / "run", "evaluate.temperature=0.5")
    assert "was begun with other evaluate.temperature: output=FOLDER writes this one elsewhere" in said
    main(["eval", str(tmp_path / "run"), "evaluate.temperature=0.5", f"output={tmp_path / 'other'}"])
    assert (tmp_path / "other" / "eval" / "evaluation.json").exists()


def test_a_finished_run_of_rounds_says_that_nothing_is_left(tmp_path, capfd):
    recipe = write_recipe(tmp_path, stages=[], evaluate=None)
    values = yaml.safe_load(recipe.read_text())
    recipe.write_text(yaml.safe_dump({**values, "sft": {"rows": "column", "column": "letter", "batch": 8}}))
    for _ in range(2):
        main(["train", str(recipe), f"output={tmp_path / 'run'}"])
    assert f"{tmp_path / 'run'} holds a finished run, of 1 rounds: nothing is left to do" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ("{source: jsonl}", "evaluate.data.path is missing"),
        ("{source: jsonl, path: ROWS, split: test}", "evaluate.data.split test: ROWS is one file, which has no splits; "
         "evaluate.data.split=all reads the whole file"),
        ("{source: arithmetic, split: test, options: {cuont: 3}}", "evaluate.data.options: unknown key cuont"),
        ("{source: jsonl, path: ROWS}", "evaluate.data.columns={prompt: NAME} says which"),
    ],
)  # fmt: skip
def test_mistakes_in_what_is_evaluated_name_its_own_keys(section, said, capsys, tmp_path):
    recipe, rows = str(write_recipe(tmp_path)), str(tmp_path / "test.jsonl")
    with pytest.raises(SystemExit):
        main(["eval", recipe, f"evaluate.data={section.replace('ROWS', rows)}"])
    line = capsys.readouterr().err
    assert said.replace("ROWS", rows) in line
    assert " data." not in line


def test_a_file_that_is_read_whole_as_asked_needs_no_note(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"prompt": "What is 2 + 3?"}\n')
    said: list[str] = []
    load_problems(schema.DataConfig(source="jsonl", path=str(tmp_path / "rows.jsonl"), split="all"), said.append)
    assert said == []
