"""Whole runs with vLLM in the learner's processes, beside the same runs with the embedded engine."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from rlcore.export import export
from tests.processes import rlcore
from tests.rollout.vllm.asking import answers_in_vllm_are_those_of_transformers
from tests.tiny import figures, write_recipe

needs_vllm = pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed (launch/setup_vllm_cpu.sh)")
RECIPE = Path("recipes/quickstart.yaml")
REWARD = """
from pathlib import Path

def names_d(completions):
    return [float(" d" in text.partition(":")[0]) for text in completions]

def two_steps(completions, run):
    metrics = Path(run, "metrics.jsonl")
    done = metrics.read_text().count("\\n") if metrics.exists() else 0
    return [None] * len(completions) if done > 1 else names_d(completions)
"""
STEPS = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """With a reward that the quickstart's policy learns within a few steps: to choose the letter d."""
    folder = tmp_path_factory.mktemp("vllm")
    (folder / "names_d.py").write_text(REWARD)
    return folder


@pytest.fixture(scope="module")
def finished(folder) -> Path:
    done = rlcore("train", *arguments(folder), "rollout.engine=vllm", f"output={folder / 'vllm'}", vllm=True)
    assert done.returncode == 0, done.stderr
    return folder / "vllm"


def arguments(folder: Path) -> list[str]:
    """The quickstart's recipe, shorter, seed 0."""
    return [
        str(RECIPE),
        "seed=0",
        f"rewards.functions=[{{name: '{folder / 'names_d.py'}:names_d'}}]",
        f"stages=[{{name: only, steps: {STEPS}, kl: [0, 0]}}]",
        "batch.problems=16",
        "credit.baseline=group",
        "learner={lr: 1e-3}",
        "data.options.count=500",
        "evaluate.data.options.count=64",
        "evaluate.problems=64",
        "evaluate.every=0",
        "track.wandb=off",
        "device=cpu",
    ]


@needs_vllm
def test_a_run_with_vllm_learns_as_with_the_embedded_engine(folder, finished):
    done = rlcore("train", *arguments(folder), f"output={folder / 'torch'}")
    assert done.returncode == 0, done.stderr
    ours, embedded = figures(finished), figures(folder / "torch")
    for run in (ours, embedded):
        assert run[0]["train/reward"] < 0.65
        assert run[-1]["train/reward"] > 0.85
    assert ours[-1]["train/reward"] == pytest.approx(embedded[-1]["train/reward"], abs=0.1)


@needs_vllm
def test_in_every_step_sampler_and_learner_agree_on_the_log_probabilities(finished):
    records = figures(finished)
    assert len(records) == STEPS
    for record in records:
        assert record["learner/mismatch_kl"] < 1e-6
        assert abs(record["learner/mismatch_k1"]) < 1e-5


@needs_vllm
def test_the_embedded_engine_evaluates_the_trained_policy_alike(finished):
    done = rlcore("eval", finished, "rollout.engine=torch")
    assert done.returncode == 0, done.stderr
    by_vllm, by_torch = (
        json.loads((finished / path).read_text())["evaluations"][0]["metrics"]
        for path in ("evaluation.json", "eval/evaluation.json")
    )
    for name in ("t1", "t2"):
        assert by_torch[name][0] == pytest.approx(by_vllm[name][0], abs=0.04)  # a tie may fall either way


@needs_vllm
def test_an_exported_policy_answers_in_vllm_as_in_transformers(finished, tmp_path):
    export(finished, tmp_path / "policy")
    questions = ["Which two add up to 13: a = 3, b = 8, c = 5, d = 9?", "Which two add up to 7: a = 1, b = 2, c = 5?"]
    answers_in_vllm_are_those_of_transformers(tmp_path / "policy", questions)


@needs_vllm
def test_a_run_with_adapters_samples_as_its_learner_and_a_mistake_once_vllm_runs_ends_it_in_one_line(folder):
    run = folder / "lora"
    reward = f"rewards.functions=[{{name: '{folder / 'names_d.py'}:two_steps', kwargs: {{run: '{run}'}}}}]"
    settings = ["rollout.engine=vllm", "model.lora={rank: 4}", "learner.zero=3", "evaluate=null", reward]
    command = [sys.executable, "-m", "rlcore", "train", *arguments(folder), f"output={run}", *settings]
    # A process of its own, with all that Python does at its end.
    refused = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert [record["learner/mismatch_kl"] < 1e-6 for record in figures(run)] == [True, True]
    assert refused.returncode == 2
    assert "Traceback" not in refused.stderr
    assert refused.stderr.splitlines()[-1].startswith("rlcore: rewards gave no score for ")


@needs_vllm
def test_a_sampler_of_quantised_weights_is_corrected_for(folder):
    done = rlcore(
        "train",
        *arguments(folder),
        f"output={folder / 'int8'}",
        "rollout={engine: vllm, vllm: {quantization: int8_per_channel_weight_only}}",
        "model.dtype=bfloat16",
        "learner={lr: 1e-3, correction: {mode: mask, bounds: [0.95, 1.05]}}",
        "stages.0.steps=2",
        "evaluate=null",
        vllm=True,
    )
    assert done.returncode == 0, done.stderr
    for record in figures(folder / "int8"):
        assert 1e-6 < record["learner/mismatch_kl"] < 0.1
        assert 0 < record["learner/corrected"] < 0.5
        assert record["learner/correction"] == pytest.approx(1, abs=0.5)
        assert record["learner/skipped"] == 0


def test_without_vllm_the_recipe_is_refused_with_what_to_install(tmp_path):
    if find_spec("vllm"):
        pytest.skip("vLLM is installed")
    refused = rlcore("eval", write_recipe(tmp_path, rollout={"engine": "vllm"}))
    assert refused.returncode == 2
    assert "launch/setup_vllm_cpu.sh" in refused.stderr.splitlines()[-1]
