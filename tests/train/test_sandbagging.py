"""The base policy that sandbagging is measured against."""

import pytest

from rlcore.evaluate.results import load_evaluation
from rlcore.recipe import load_recipe
from rlcore.session.evaluation import BASE_RESULTS
from rlcore.train.loop import train
from tests.tiny import figures, write_recipe


@pytest.mark.parametrize(
    ("changes", "measured"), [({}, True), ({"samples": 0}, False), ({"temperature": 0.5}, False), ({"every": 0}, True)]
)
def test_sandbagging_is_measured_against_a_base_that_was_sampled_as_training_samples(tmp_path, changes, measured):
    path = write_recipe(tmp_path, stages=[{"name": "only", "steps": 1}])
    train(load_recipe(path, [f"evaluate.{key}={value}" for key, value in changes.items()]))
    (step,) = figures(tmp_path / "run")
    assert ("train/sandbagging" in step) == measured
    if measured:
        base = load_evaluation(tmp_path / "run" / f"{BASE_RESULTS}.json")
        (t1,) = (part.metrics["t1"][0] for part in base.evaluations if part.mode == "sampled")
        assert step["train/sandbagging"] == pytest.approx(t1 - step["train/t1"])
