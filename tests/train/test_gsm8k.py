"""The path on real input: GSM8K's file, a tokenizer trained on its text, a random model, the real math reward."""

import json
import math

from rlcore.policy import load_policy
from rlcore.recipe import schema
from tests.processes import rlcore
from tests.tiny import figures


def test_gsm8k_goes_all_the_way(benchmark_data, repository, tmp_path):
    run = tmp_path / "run"
    settings = [
        f"data.path={benchmark_data / 'gsm8k_train.jsonl'}",
        "data.limit=2000",
        f"evaluate.data.path={benchmark_data / 'gsm8k_test.jsonl'}",
        f"output={run}",
        "track.wandb=off",
    ]
    done = rlcore("train", repository / "recipes/gsm8k_tiny.yaml", *settings)
    assert done.returncode == 0, done.stderr
    records = figures(run)
    assert [record["stage"] for record in records] == ["stage_1", "stage_1", "stage_2", "stage_2"]
    for record in records:
        assert math.isfinite(record["learner/loss"])
        assert record["learner/max_abs_logprob_gap"] < 1e-3
        assert record["train/unscored"] == 0
    questions = {json.loads(line)["question"] for line in (benchmark_data / "gsm8k_train.jsonl").open()}
    trajectory = json.loads((run / "trajectories.jsonl").read_text().splitlines()[0])
    assert trajectory["messages"][0]["content"].removesuffix("\nEnd with #### and the number.") in questions
    assert {attempt["status"] for attempt in trajectory["attempts"]} <= {"correct", "wrong", "no_answer"}
    policy = load_policy(schema.ModelConfig(path=str(run / "final")))
    question = next(iter(questions))
    assert policy.tokenizer.decode(policy.tokenizer(question)["input_ids"]) == question
