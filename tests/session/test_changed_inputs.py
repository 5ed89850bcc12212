"""What a run reads may change while it is stopped: that is said, or refused where the order would differ."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from rlcore.cli import main
from rlcore.errors import UserError
from rlcore.recipe import load_recipe
from rlcore.session.inputs import input_changes, read_inputs
from rlcore.types import Problem
from tests.refusals import refusal
from tests.tiny import write_recipe


def steps(folder: Path, count: int) -> list[str]:
    return ["train", str(folder / "recipe.yaml"), f"output={folder / 'run'}", f"stages.0.steps={count}"]


def test_changes_of_what_a_stopped_run_reads(tmp_path, capfd):
    write_recipe(tmp_path, stages=[{"name": "only", "steps": 1}], evaluate=None)
    main(steps(tmp_path, 1))
    data, reward = tmp_path / "train.jsonl", tmp_path / "my_reward.py"
    lines = data.read_text().splitlines()
    for other in (lines[:-1], lines[::-1]):
        data.write_text("\n".join(other))
        assert "come to them in another order" in refusal(capfd, *steps(tmp_path, 2))

    data.write_text("\n".join([lines[0].replace('"letter": "a"', '"letter": "e"'), *lines[1:]]))
    main(steps(tmp_path, 2))
    assert "contents of data " in next(line for line in capfd.readouterr().out.splitlines() if "from step 2 on" in line)

    reward.write_text(f"{reward.read_text()}# another\n")
    main(steps(tmp_path, 3))
    said = next(line for line in capfd.readouterr().out.splitlines() if "from step 3 on" in line)
    assert f"contents of {reward} " in said
    assert "contents of data " not in said
    history = [json.loads(line)["changes"] for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    assert [any("contents of" in key for key in changes) for changes in history] == [True, True]


def test_a_problem_edited_in_its_place_keeps_the_order(tmp_path):
    recipe = load_recipe(write_recipe(tmp_path))
    problems = [Problem(name, ({"role": "user", "content": name},), {"letter": "a"}) for name in "abc"]
    before = read_inputs(recipe, problems, problems)
    assert input_changes(tmp_path, before, read_inputs(recipe, problems, problems)) == {}
    for edited in (replace(problems[1], id="d"), replace(problems[1], columns={"letter": "b"})):
        now = read_inputs(recipe, [problems[0], edited, problems[2]], problems)
        assert list(input_changes(tmp_path, before, now)) == ["contents of data"]
    assert list(input_changes(tmp_path, before, read_inputs(recipe, problems, []))) == ["contents of evaluate.data"]
    for moved in (problems[::-1], problems[:2], [*problems, problems[0]]):
        with pytest.raises(UserError, match=r"another order; restore the data, or give another output"):
            input_changes(tmp_path, before, read_inputs(recipe, moved, problems))
