"""Training against the length of attempts."""

from rlcore.cli import main
from tests.tiny import figures, write_recipe


def test_a_policy_that_is_charged_for_length_learns_to_be_brief(tmp_path):
    recipe = write_recipe(
        tmp_path,
        evaluate=None,
        rewards={"functions": [{"name": "length", "kwargs": {"max_length": 8}}], "workers": 1},
        stages=[{"name": "brief", "steps": 16, "reward": [1, 1], "kl": [0, 0]}],
        batch={"problems": 8, "group": 8},
    )
    main(["train", str(recipe), f"output={tmp_path / 'run'}", "learner.lr=0.03"])
    records = figures(tmp_path / "run")
    for attempt in ("t1", "t2"):
        lengths = [record[f"train/tokens_{attempt}"] for record in records]
        assert sum(lengths[-3:]) < 0.5 * sum(lengths[:3])
    assert records[-1]["train/reward"] > records[0]["train/reward"] + 0.3
