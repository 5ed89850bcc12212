"""A run that ends with its best policy, where training went wrong after it or was stopped on the way."""

import json
import os
import signal

import torch
from safetensors.torch import load_file

from rlcore.evaluate.results import load_evaluation
from rlcore.recipe import load_recipe
from rlcore.session.evaluation import evaluate
from rlcore.train.loop import train
from rlcore.train.step_metrics import step_metrics
from tests.tiny import figures, write_recipe


def test_a_run_ends_with_the_policy_of_highest_training_reward(tmp_path):
    stages = [{"name": "up", "steps": 4, "reward": [0, 1]}, {"name": "down", "steps": 8, "reward": [0, -1]}]
    learner, checkpoint = {"lr": 0.03}, {"every": 2, "keep_last": 1, "final": "best"}
    path = write_recipe(tmp_path, stages=stages, learner=learner, checkpoint=checkpoint)
    recipe = load_recipe(path, [f"output={tmp_path / 'run'}"])
    results = train(recipe)
    rewards = [record["train/reward"] for record in figures(tmp_path / "run")]
    means = [sum(pair) / 2 for pair in zip(rewards[::2], rewards[1::2], strict=True)]
    best = 2 * means.index(max(means)) + 2
    state = json.loads((tmp_path / "run/checkpoints/step-000012/state.json").read_text())
    assert state["best_step"] == best < 12
    ended, highest = (load_file(tmp_path / "run" / name / "model.safetensors") for name in ("final", "best"))
    assert all(torch.equal(ended[name], highest[name]) for name in highest)
    model = [f"output={tmp_path / 'measured'}", f"model={{path: {tmp_path / 'run/best'}}}"]
    measured = evaluate(load_recipe(path, model))
    figures_of = [[part.metrics for part in r.evaluations] for r in (results, measured)]
    assert figures_of[0] == figures_of[1]
    assert load_evaluation(tmp_path / "run/evaluation.json").step == 12


def test_which_policy_is_best_does_not_depend_on_when_the_run_was_stopped(tmp_path, monkeypatch):
    """Stops after single steps, one of them where the run saves in any case."""
    stages = [{"name": "only", "steps": 8, "reward": [0, 1]}]
    settings = {"stages": stages, "learner": {"lr": 0.01}, "checkpoint": {"every": 3, "keep_last": 9}, "evaluate": None}
    path = write_recipe(tmp_path, **settings)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    train(load_recipe(path, [f"output={whole}"]))
    stops = [1, 2, 4, 6, 7]

    def asked_to_stop(*of_step):
        if len(figures(stopped)) + 1 in stops:
            os.kill(os.getpid(), signal.SIGINT)
        return step_metrics(*of_step)

    monkeypatch.setattr("rlcore.train.loop.step_metrics", asked_to_stop)
    stopped.mkdir()
    (stopped / "metrics.jsonl").touch()
    for done in [*stops, 8]:
        train(load_recipe(path, [f"output={stopped}"]))
        assert len(figures(stopped)) == done
    ended = [json.loads((run / "checkpoints/step-000008/state.json").read_text()) for run in (whole, stopped)]
    assert [state["best_step"] for state in ended] == [ended[0]["best_step"]] * 2
    assert ended[0]["best"] == ended[1]["best"]
    best = [(run / "best/model.safetensors").read_bytes() for run in (whole, stopped)]
    assert best[0] == best[1]
