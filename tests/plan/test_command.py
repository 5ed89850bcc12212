"""`rlcore plan` as a user runs it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rlcore.cli import main

QWEN = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_hidden_layers": 28,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "vocab_size": 151936,
    "tie_word_embeddings": True,
}


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(QWEN))
    return path


def plan(capsys, *arguments: object) -> str:
    main(["plan", *map(str, arguments)])
    return capsys.readouterr().out


def test_what_does_not_fit_comes_with_overrides_that_make_it_fit(capsys, repository, config_file):
    recipe = repository / "recipes" / "score_math_qwen2.5_1.5b.yaml"
    cluster = repository / "recipes" / "clusters" / "one_h100_node.yaml"
    options = ["--model-config", config_file, "--cluster", cluster, "--gpu-memory", 40]
    given = ["rollout.engine=torch", "rollout.kv_memory=64", "learner.micro_batch_tokens=16384"]
    out = plan(capsys, recipe, *given, *options)
    assert "1.54B parameters" in " ".join(out.split())  # wherever the line breaks
    assert "it does not fit" in out
    overrides = [line.split()[0] for line in out.splitlines() if line.startswith("    ") and "=" in line.split()[0]]
    assert "rollout.kv_memory=32" in overrides
    assert "it fits" in plan(capsys, recipe, *given, *overrides, *options)


def test_more_gpus_than_problems_are_refused(capsys, repository):
    with pytest.raises(SystemExit) as stopped:
        plan(capsys, repository / "recipes" / "quickstart.yaml", "--gpus", 24)
    assert stopped.value.code == 2
    assert "24 ranks" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gpus", "0"], "above 0"),
        (["--cluster", "nowhere.yaml"], "nowhere.yaml does not exist"),
        (["--calibrate", "nowhere"], "nowhere"),
        (["--model-config", "nowhere.json"], "nowhere.json does not exist"),
        (["model.path=no_such/model"], "--model-config FILE"),
    ],
)
def test_a_mistake_is_one_line(capsys, monkeypatch, repository, arguments, message):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(SystemExit) as stopped:
        plan(capsys, repository / "recipes" / "quickstart.yaml", *arguments)
    assert stopped.value.code == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("rlcore: ")
    assert message in error


def test_the_arguments_need_no_torch():
    script = "import sys, rlcore.plan.arguments; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
