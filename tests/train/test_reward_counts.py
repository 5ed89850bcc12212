"""What rewards count reaches the figures of a run."""

import pytest

from tests.processes import rlcore
from tests.rewards.judge_server import Server
from tests.tiny import figures, write_recipe


def test_what_a_judge_counts_is_in_the_figures_of_each_step_under_its_name(tmp_path):
    server = Server()
    judge = {"name": "judge", "kwargs": {"url": server.url, "model": "m", "timeout": 60.0}}
    stages = [{"name": "one", "steps": 2, "kl": [0, 0]}]
    recipe = write_recipe(tmp_path, rewards={"functions": [judge]}, stages=stages, evaluate=None)
    done = rlcore("train", recipe, f"output={tmp_path / 'run'}")
    server.shutdown()
    server.server_close()
    assert done.returncode == 0, done.stderr
    records = figures(tmp_path / "run")
    counted = {name: [record.get(f"rewards/judge/{name}", 0) for record in records] for name in ("requests", "votes")}
    assert len(records) == 2
    assert all(votes > 0 for votes in counted["votes"])
    assert sum(counted["requests"]) == len(server.seen)
    assert sum(record.get("rewards/judge/prompt_tokens", 0) for record in records) == 10 * len(server.seen)
    assert [record["train/t2"] for record in records] == pytest.approx([1.0, 1.0])
