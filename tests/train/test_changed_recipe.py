"""A recipe that changes while its run is stopped: what the run says of it is what it does."""

import json
from dataclasses import asdict

import pytest

from rlcore.recipe import load_recipe
from rlcore.train.checkpoints import read_state
from rlcore.train.loop import train
from rlcore.train.run import Run
from tests.tiny import write_recipe


@pytest.mark.parametrize("kl_target", [[], [0.02, 0]])
def test_another_kl_holds_from_the_next_step_on_but_where_the_stage_adapts_it(tmp_path, ranks, kl_target):
    stage = {"name": "only", "kl_target": kl_target}
    path = write_recipe(tmp_path, evaluate=None, stages=[stage | {"steps": 1, "kl": [0.1, 0.01]}])
    train(load_recipe(path))
    adapted = read_state(tmp_path / "run/checkpoints/step-000001")["kl"][0]
    changed = load_recipe(write_recipe(tmp_path, evaluate=None, stages=[stage | {"steps": 3, "kl": [0.5, 0.3]}]))
    with Run(changed, ranks) as run:
        _, following = next(run.steps())
    assert following.kl == [adapted if kl_target else 0.5, 0.3]


def test_a_finished_run_says_that_other_settings_of_its_evaluation_change_nothing(tmp_path, capfd):
    path = write_recipe(tmp_path, stages=[{"name": "only", "steps": 1}])
    first = train(load_recipe(path))
    capfd.readouterr()
    again = train(load_recipe(path, ["evaluate.temperature=0.5"]))
    assert json.dumps(asdict(again)) == json.dumps(asdict(first))
    said = capfd.readouterr().out
    assert "from step 2 on" not in said
    assert "evaluate.temperature 0.5 (was" not in said
    (line,) = [line for line in said.splitlines() if "evaluate.temperature" in line]
    assert f"rlcore eval {tmp_path / 'run'}" in line
    assert not (tmp_path / "run" / "history.jsonl").exists()
