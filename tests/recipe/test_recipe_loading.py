"""Recipes: inheritance, overrides, checks that answer in one line, and the way back to YAML."""

import re
from pathlib import Path

import pytest

from rlcore.errors import UserError
from rlcore.recipe import batch_arithmetic, dump_recipe, load_recipe, saved_recipe
from rlcore.recipe.compare import differences
from rlcore.recipe.load import with_overrides

BASE = """
name: base
model: {scratch: {layers: 2}}
data: {source: arithmetic, options: {count: 10}}
rewards: {functions: [{name: pair_sum}]}
stages:
  - {name: stage_1, steps: 3, reward: [0, 1]}
  - {name: stage_2, steps: 5, bonus: 2}
"""


@pytest.fixture
def base(tmp_path) -> Path:
    return write(tmp_path / "base.yaml", BASE)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def mistake(path: Path, *overrides: str) -> str:
    with pytest.raises(UserError) as error:
        load_recipe(path, list(overrides))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_child_changes_what_it_names_and_lists_replace_lists(base, tmp_path):
    write(tmp_path / "arms/child.yaml", "extends: ../base.yaml\nname: child\ndata: {options: {seed: 7}}\n")
    grandchild = write(
        tmp_path / "arms/grandchild.yaml",
        "extends: child.yaml\nlearner: {lr: 5e-6}\nstages: [{name: only, steps: 1}]\n",
    )
    recipe = load_recipe(grandchild)
    assert recipe.name == "child"
    assert recipe.data.options == {"count": 10, "seed": 7}
    assert recipe.learner.lr == 5e-6
    assert [stage.name for stage in recipe.stages] == ["only"]
    assert recipe.output == "runs/child"


def test_overrides_reach_sections_lists_and_free_form_settings(base):
    recipe = load_recipe(
        base,
        [
            "learner.lr=3e-4",
            "stages.1.steps=9",
            "stages.0.reward.1=0.5",
            "data.options.max_number=9",
            "learner.deepspeed.zero_optimization.bucket=5e8",
            "data.columns={answer: gold}",
            "learner.betas=[0.9, 0.99]",
            "track.wandb=off",
            "data.options.whole=true",
        ],
    )
    assert recipe.learner.lr == 3e-4
    assert (recipe.stages[0].steps, recipe.stages[1].steps) == (3, 9)
    assert recipe.stages[0].reward == [0, 0.5]
    assert recipe.data.options == {"count": 10, "max_number": 9, "whole": True}
    assert recipe.track.wandb == "off"
    assert recipe.learner.deepspeed == {"zero_optimization": {"bucket": 5e8}}
    assert recipe.data.columns == {"answer": "gold"}
    assert recipe.learner.betas == (0.9, 0.99)


def test_a_chat_template_may_be_a_file(base, tmp_path):
    write(tmp_path / "chat.jinja", "{{ messages[0].content }}")
    assert load_recipe(base, [f"model.chat_template={tmp_path}/chat.jinja"]).model.chat_template.startswith("{{")
    message = mistake(base, f"model.chat_template={tmp_path}/chat.jnja")
    assert "no template, which has {{ ... }} in it, and no file of text; did you mean" in message


def test_a_path_in_the_users_home(base, monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    recipe = load_recipe(base, ["data.path=~/rows.jsonl", "output=~/runs/one"])
    assert (recipe.data.path, recipe.output) == ("/home/someone/rows.jsonl", "/home/someone/runs/one")


@pytest.mark.parametrize("baseline", ["outcome", "batch_outcome", "batch", "none"])
def test_resampling_is_refused_where_dead_groups_have_advantages(base, baseline):
    message = mistake(base, "batch.resample=2", f"credit.baseline={baseline}")
    assert message.endswith("take group, leave_one_out or tree")
    assert f"credit.baseline {baseline} biases the gradient" in message
    assert load_recipe(base, ["batch.resample=2", "credit.baseline=leave_one_out"]).batch.resample == 2


def test_a_stage_has_no_kl_term_unless_it_asks_for_one(base):
    recipe = load_recipe(base, ["stages=[{name: only, steps: 1}]"])
    assert recipe.stages[0].kl == [0, 0]
    assert "reference pass: none" in "".join(batch_arithmetic(recipe))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("learner.lrr=1", "unknown key learner.lrr; did you mean lr?"),
        ("lerner.lr=1", "unknown key lerner; did you mean learner?"),
        ("stages.0.stepps=1", "unknown key stages.0.stepps; did you mean steps?"),
        ("rewards.functions.0.nam=x", "unknown key rewards.functions.0.nam; did you mean name?"),
        ("model.scratch.hiden_size=3", "unknown key model.scratch.hiden_size; did you mean hidden_size?"),
        ("evaluate.evry=3", "unknown key evaluate.evry; did you mean every?"),
        ("batch.problems=many", "batch.problems: input should be a valid integer"),
        ("batch.problems=0", "batch.problems: input should be greater than 0, not 0"),
        ("batch.problems=2.5", "batch.problems: input should be a valid integer"),
        ("learner.lr=.nan", "learner.lr: input should be"),
        ("stages.0.reward=[.nan, 1]", "stages.0.reward.0: input should be a finite number"),
        ("data.prompt=Solve it.", "data: prompt must contain {prompt}"),
        ("model.scratch.vocab_size=100", "model.scratch.vocab_size: input should be greater than or equal to 259"),
        ("seed=-1", "seed: input should be greater than or equal to 0"),
        ("data.source=gsm9k", "data.source: no source named 'gsm9k'; known: gsm8k, grids"),
        ("credit.discount=1.5", "credit.discount: input should be less than or equal to 1"),
        ("stages.2.steps=1", "2 is not an entry of a list of 2"),
        ("stages.first.steps=1", "first is not an entry of a list of 2"),
        ("name.first=1", "name is a value, it has no keys"),
        ("learner.lr", "not of the form key.sub=value"),
        ("=3", "not of the form key.sub=value"),
        ("learner.lr=[1", "the value is not YAML"),
        ("model.path=x", "model: give exactly one of path and scratch"),
        ("model.scratch.heads=3", "model.scratch: heads 3 must divide hidden_size"),
        ("conversation.attempts=3", "stage stage_1: reward needs 3 values, one for each attempt"),
        ("batch.group=1", "batch.group is 1, but the group baseline"),
        ("stages.0.kl=[0.1]", "stage stage_1: kl needs 2 values"),
        ("learner.minibatches=1000", "learner.minibatches 1000 is more than 256 trajectories"),
        ("model=small", "model: input should be a valid dictionary"),
        ("rewards.functions=[]", "rewards.functions: list should have at least 1 item"),
    ],
)
def test_a_wrong_override_is_one_line_that_names_the_key(base, override, message):
    assert message in mistake(base, override)


@pytest.mark.parametrize("baseline", ["batch", "batch_outcome", "none"])
def test_baselines_of_the_whole_batch_need_no_group(base, baseline):
    overrides = ["batch.group=1", f"credit.baseline={baseline}", "credit.scale=none"]
    assert load_recipe(base, overrides).batch.group == 1
    if baseline != "none":
        assert "compares a step's trajectories" in mistake(base, *overrides, "batch.problems=1")


def test_yaml_in_files_reads_numbers_and_words_as_overrides_do(base, tmp_path):
    text = (
        BASE + "learner: {lr: 3e-4, deepspeed: {a: 5e8, b: 1.5e-3, c: e5, d: no, e: False, f: 12}}\ntrack: {wandb: off}"
    )
    recipe = load_recipe(write(tmp_path / "words.yaml", text))
    assert (recipe.learner.lr, recipe.track.wandb) == (3e-4, "off")
    assert recipe.learner.deepspeed == {"a": 5e8, "b": 1.5e-3, "c": "e5", "d": "no", "e": False, "f": 12}


def test_several_mistakes_are_counted(base):
    assert mistake(base, "learner.lr=0", "batch.group=0", "seed=x").endswith("(and 2 more)")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: [", "is not YAML"),
        ("", "must be a mapping"),
        ("- a\n- b", "must be a mapping"),
        ("name: x\nlearner: {lr: 1}\nlearner: {lr: 2}", "key learner stands twice"),
        ("name: x\nseed: 1", "model is missing (and 3 more)"),
        ("name: 2024-99-99", "is not YAML: month must be in 1..12"),
        ("name: &a {b: *a}", "is not YAML"),
        ('name: "\\ud83d"', "is not YAML: a lone surrogate"),
        ("name: !!bool x", "is not YAML"),
        ("extends: nowhere.yaml", "nowhere.yaml does not exist"),
        ("extends: bad.yaml", "extends itself"),
        ("extends: loop.yaml", "extends itself"),
        (BASE.replace("stages:", "stage:"), "unknown key stage; did you mean stages? (and 1 more)"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path, text, message):
    write(tmp_path / "loop.yaml", "extends: bad.yaml")
    assert message in mistake(write(tmp_path / "bad.yaml", text))


def test_files_that_cannot_be_read(base, tmp_path):
    assert mistake(tmp_path / "bsae.yaml").endswith(f"does not exist; did you mean {base}?")
    assert "cannot be read" in mistake(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9")
    assert "latin.yaml cannot be read" in mistake(tmp_path / "latin.yaml")


def test_the_dump_reads_back_equal_wherever_it_is_saved(base, tmp_path, monkeypatch):
    text = BASE.replace("{source: arithmetic,", "{source: jsonl, path: ../files/rows.jsonl, exclude: ./held_out.jsonl,")
    recipe = load_recipe(
        write(tmp_path / "recipes/paths.yaml", text + "conversation: {instruction: \"Ändere:\\n 'ok'?\"}")
    )
    saved = write(tmp_path / "runs/base/recipe.yaml", dump_recipe(recipe))
    assert load_recipe(saved) == recipe
    assert Path(recipe.data.path) == (tmp_path / "files/rows.jsonl").resolve()


def test_paths_are_relative_to_the_recipe_they_stand_in_wherever_the_command_runs(base, tmp_path, monkeypatch):
    write(tmp_path / "shared/parent.yaml", BASE + "output: ./runs\n")
    child = write(tmp_path / "arms/child.yaml", "extends: ../shared/parent.yaml\ndata: {exclude: ./x.jsonl}\n")
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe(child)
    assert recipe.output == str(tmp_path / "shared/runs")
    assert recipe.data.exclude == str(tmp_path / "arms/x.jsonl")
    monkeypatch.chdir(tmp_path / "arms")
    assert load_recipe("child.yaml") == recipe
    for exclude, changed in (("arms/x.jsonl", False), ("arms/y.jsonl", True)):  # as a run may have saved it
        saved = recipe.model_copy(update={"data": recipe.data.model_copy(update={"exclude": exclude})})
        monkeypatch.chdir(tmp_path)
        assert bool(differences(saved.model_dump(), recipe.model_dump())) == changed


SERVERS = ["rollout.engine=vllm", "rollout.mode=servers"]


@pytest.mark.parametrize(
    ("overrides", "what"),
    [
        (["rollout.mode=servers", "rollout.start_servers=2"], "rollout: mode servers needs engine vllm"),
        (SERVERS, "needs one of servers (URLs) and start_servers"),
        (["rollout.engine=vllm", "rollout.start_servers=2"], "servers and start_servers need mode servers"),
        ([*SERVERS, "rollout.servers=[node5:8000]"], "node5:8000 is no URL: give it as http://HOST:PORT"),
        ([*SERVERS, "rollout.servers=[http://node5:8000, http://node5:8000/]"], "servers names one of them twice"),
        (["rollout.engine=vllm", "rollout.vllm.data_parallel=2"], "data_parallel needs mode servers"),
    ],
)
def test_settings_of_servers_without_servers_are_refused(base, overrides, what):
    assert what in mistake(base, *overrides)


def test_a_loss_by_name_brings_its_settings_and_what_stands_beside_it_wins(base):
    gspo = load_recipe(base, ["learner.loss=gspo", "learner.average=token"]).learner
    assert (gspo.ratio, gspo.clip, gspo.average) == ("attempt", (3e-4, 4e-4), "token")
    assert load_recipe(base).learner.clip == (0.2, 0.28)
    assert "learner.loss" in mistake(base, "learner.loss=grop")
    assert "must have 1" in mistake(base, "learner.correction.bounds=[2, 3]")


def test_a_recipe_with_a_named_loss_reads_back_as_it_was(base, tmp_path):
    recipe = load_recipe(base, ["learner.loss=cispo", "learner.clip=[0.5, 2]"])
    assert load_recipe(write(tmp_path / "again.yaml", dump_recipe(recipe))) == recipe


def test_another_loss_can_be_named_on_a_saved_recipe(base, tmp_path):
    """What the former name gave goes with it; what the recipe said beside that name stays."""
    saved = write(tmp_path / "saved.yaml", dump_recipe(load_recipe(base, ["learner.average=attempt"])))
    learner = load_recipe(saved, ["learner.loss=cispo"]).learner
    assert (learner.surrogate, learner.clip, learner.average) == ("cispo", (1, 4), "attempt")
    assert with_overrides(load_recipe(base), ["learner.loss=cispo"]).learner.surrogate == "cispo"


def test_a_saved_recipe_comes_back_or_is_named_as_of_another_version(base, tmp_path):
    recipe = load_recipe(base)
    values = recipe.model_dump(mode="json")
    assert saved_recipe(values, tmp_path) == recipe
    with pytest.raises(UserError, match=r"is of another version: unknown key learner\.former") as error:
        saved_recipe({**values, "learner": {"former": 1}}, tmp_path)
    assert str(tmp_path) in str(error.value)


def test_a_key_of_former_recipes_is_refused_with_what_holds_now_and_left_out_of_saved_ones(base, tmp_path):
    with pytest.raises(UserError, match=r"probe_deadline is no key any more: rollout\.vllm\.deadline"):
        load_recipe(base, ["rollout.vllm.probe_deadline=5"])
    recipe = load_recipe(base)
    values = recipe.model_dump(mode="json")
    values["rollout"]["vllm"] |= {"probe_deadline": 30.0, "pause": "keep"}
    values["checkpoint"]["resume"] = "auto"
    assert saved_recipe(values, tmp_path) == recipe


def test_what_runs_ahead_compares_with_what_was_drawn_from_unless_the_recipe_says_otherwise(base):
    plain, ahead = load_recipe(base), load_recipe(base, ["batch.ahead=2"])
    assert plain.learning is plain.learner
    assert (ahead.learning.old_logprobs, ahead.learning.max_ratio) == ("sampler", 3.0)
    assert load_recipe(base, ["batch.ahead=2", "learner.max_ratio=5"]).learning.max_ratio == 5
    assert any("up to 2 updates early" in line for line in batch_arithmetic(ahead))
    one = load_recipe(base, ["batch.ahead=1", "learner.old_logprobs=learner"])
    assert one.learning is one.learner


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["learner.old_logprobs=learner"], "no clip bounds how far the policy goes .* or batch.ahead 1"),
        (["rollout.top_p=0.9", "learner.kl=exact"], "batch.ahead 2 with rollout.top_p 0.9: which tokens are kept"),
        (
            ["learner.loss=reinforce"],
            "learner.surrogate reinforce, which has no ratio: take learner.old_logprobs learner",
        ),
    ],
)
def test_what_earlier_weights_sampled_is_not_trained_without_a_bound(base, overrides, said):
    assert re.search(said, mistake(base, "batch.ahead=2", *overrides))
