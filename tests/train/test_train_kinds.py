"""A short training of every conversation kind, all in one process of their own."""

import json

import pytest
import yaml

from tests.processes import python
from tests.tiny import figures, write_recipe

KINDS = ("critique", "verify", "feedback", "stop", "iterate", "diagram", "think_if_unsure")
SCRIPT = """
import sys
from rlcore.recipe import load_recipe
from rlcore.kinds import stop, verify
from rlcore.train.loop import train

# A random model says neither "Verdict: wrong" nor "STOP": here the number of letters says it.
verify.read_verdict = lambda text: len(text) % 2 == 0
stop.accepts = lambda text: len(text) % 2 == 0
for path in sys.argv[1:]:
    train(load_recipe(path))
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A finished run of each kind."""
    recipes = {}
    for kind in KINDS:
        folder = tmp_path_factory.mktemp(kind)
        path = write_recipe(folder, evaluate=None, output=str(folder / "run"))
        recipe = yaml.safe_load(path.read_text())
        recipe["conversation"] |= {"kind": kind, "attempts": 3, "review": "Look at it."}
        stages = [{**stage, "steps": 1, "reward": [0, 1, 1], "kl": [0.1, 0.1, 0.1]} for stage in recipe["stages"]]
        path.write_text(yaml.safe_dump(recipe | {"stages": stages}))
        for name in ("train.jsonl", "test.jsonl"):
            rows = [json.loads(line) | {"public_tests": ["assert f(1) == 2"]} for line in (folder / name).open()]
            (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        recipes[kind] = path
    script = tmp_path_factory.mktemp("script") / "train.py"
    script.write_text(SCRIPT)
    done = python(script, *recipes.values())
    assert done.returncode == 0, done.stderr
    return {kind: path.parent / "run" for kind, path in recipes.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_trains(runs, kind):
    records = figures(runs[kind])
    assert len(records) == 2
    for record in records:
        assert record["learner/max_abs_logprob_gap"] < 1e-4
        assert record["train/unscored"] == 0
        assert record["train/t3"] == pytest.approx(record["train/t1"] + record["train/i_to_c"] - record["train/c_to_i"])
    assert any(record["learner/grad_norm"] > 0 for record in records)
    lengths = {record.get("train/attempts") for record in records}
    # no program passes its public tests, and no first look is sure
    fixed = {"critique": {None}, "diagram": {None}, "feedback": {3.0}, "think_if_unsure": {3.0}}
    assert lengths == fixed[kind] if kind in fixed else all(1 <= length < 3 for length in lengths)
    if kind in ("verify", "diagram"):
        assert all(0 <= record["train/verdict_right"] <= 1 for record in records)
    trajectories = [json.loads(line) for line in (runs[kind] / "trajectories.jsonl").read_text().splitlines()]
    roles = {part["role"] for trajectory in trajectories for part in trajectory["between"]}
    said = {"critique": {"critique"}, "verify": {"verdict"}, "stop": {"stop"}, "feedback": set()}
    said |= {"iterate": {"critique", "stop"}, "diagram": {"critique", "verdict"}, "think_if_unsure": set()}
    assert roles == said[kind]
