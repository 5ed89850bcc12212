"""From a name in a recipe to a reward, and what a wrong one is told."""

import sys
from pathlib import Path

import pytest

from rewards import RewardError, RewardPool, load_reward, score

HERE = Path(__file__).parent
FUNCTIONS = f"{HERE / 'functions.py'}:"


def test_registered_name():
    assert load_reward("pair_sum")(["b and c"], numbers=[{"b": 8, "c": 5}], target=[13]) == [1.0]


def test_function_of_a_module():
    reward = load_reward("rewards.shaping:repetition_reward")
    assert reward(["a b c d e"]) == [0.0]


def test_function_of_a_file_with_arguments_and_weight():
    reward = load_reward({"name": FUNCTIONS + "takes_option", "weight": 0.5, "kwargs": {"factor": 3.0}})
    assert reward(["x"]) == [3.0]
    assert reward.weight == 0.5


def test_entry_point_of_an_installed_package(tmp_path, monkeypatch):
    (tmp_path / "their_rewards.py").write_text("def always(completions, **columns): return [1.0] * len(completions)\n")
    info = tmp_path / "their_rewards-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-rewards\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[rlcore.rewards]\nalways = their_rewards:always\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert [verdict.score for verdict in score("always", ["x", "y"])] == [1.0, 1.0]


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("mth", r"no reward named 'mth'; known: math, .*pair_sum"),
        ("rewards.shaping:format_rewrd", r"nothing called 'format_rewrd' there; did you mean 'format_reward'\?"),
        ("no_such_package:f", "No module named 'no_such_package'"),
        ("no/such/file.py:f", "no file no/such/file.py"),
        (FUNCTIONS + "SIDE_EFFECTS", "is a list, not a function"),
        ({"name": "math", "wieght": 1}, "unknown key 'wieght'; known: name, weight, kwargs"),
        ({"name": "math", "weight": "big"}, "weight is 'big', not a number"),
        ({"weight": 1}, "reward without a name"),
        ({"name": "pair_sum", "kwargs": {"tarjet": 1}}, "takes no argument 'tarjet'; it takes none"),
        ({"name": "math", "kwargs": {"polcy": ["boxed"]}}, "takes no argument 'polcy'; did you mean 'policy'?"),
        ({"name": "repetition", "kwargs": {"n_gram": 2}}, "takes no argument 'n_gram'; did you mean 'ngram'?"),
        ({"name": "judge", "kwargs": {"temprature": 1}}, "takes no argument 'temprature'; did you mean 'temperature'?"),
        ({"name": "format", "kwargs": {"answer": "7"}}, "takes no argument 'answer'; it takes policy"),
        (7, "not by a int"),
    ],
)
def test_wrong_specs_are_told_in_one_line(spec, told):
    for load in (load_reward, lambda spec: RewardPool([spec])):
        with pytest.raises(RewardError, match=told) as error:
            load(spec)
        assert "\n" not in str(error.value)


def test_file_that_fails_to_load_is_told(tmp_path):
    (tmp_path / "broken.py").write_text("import no_such_thing_at_all\n")
    with pytest.raises(RewardError, match="no_such_thing_at_all"):
        RewardPool([f"{tmp_path / 'broken.py'}:f"])


def test_a_local_function_cannot_be_scored_elsewhere():
    with pytest.raises(RewardError, match="not a function of a module"):
        score(lambda completions: [1.0], ["x"])
