"""What `rlcore doctor RECIPE` finds in a recipe before anything of it runs."""

import json
import sys
from pathlib import Path

import pytest
import torch

from rlcore import doctor
from rlcore.cli import main
from rlcore.plan import start
from rlcore.preflight import inspect
from rlcore.recipe import load_recipe
from tests.tiny import write_recipe

RIGHT = """
def right(completions, answer):
    return [float(text == gold) if gold else None for text, gold in zip(completions, answer)]
"""


def found(path: Path, *overrides: str) -> dict[str, list[tuple[str, str]]]:
    """State and text of the findings, by topic."""
    by_topic: dict[str, list[tuple[str, str]]] = {}
    for finding in inspect(load_recipe(path, overrides)):
        by_topic.setdefault(finding.topic, []).append((finding.state, f"{finding.said} → {finding.remedy}"))
    return by_topic


def sums(folder: Path, answers: list[object]) -> Path:
    """A recipe that trains on sums whose references are `answers`."""
    (folder / "right.py").write_text(RIGHT)
    path = write_recipe(folder, rewards={"functions": [{"name": "./right.py:right"}], "workers": 1})
    rows = [{"question": f"What is {n} + 1?", "answer": f"{answer}"} for n, answer in enumerate(answers)]
    for name in ("train", "test"):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_recipe_that_would_start_has_only_good_findings_and_code_0(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(doctor, "diagnose", lambda output: [])
    command = ["doctor", str(sums(tmp_path, [1, 2, 3, 4])), "rewards.functions=[{name: math}]"]
    with pytest.raises(SystemExit) as ended:
        main([*command, f"output={tmp_path / 'run'}"])
    said = capsys.readouterr().out
    assert ended.value.code == 0, said
    assert "4 references (answer): 4 correct" in said
    assert all(line.startswith("ok ") for line in said.splitlines()[:-1]), said
    assert not (tmp_path / "run").exists()


def test_data_that_is_not_there_is_bad_and_the_rest_is_looked_at_all_the_same(tmp_path):
    path = sums(tmp_path, [1, 2, 3, 4])
    (tmp_path / "train.jsonl").unlink()
    by_topic = found(path, "model={scratch: {hidden_size: 32, layers: 1, heads: 2, vocab_size: 300}}")
    assert [state for state, _ in by_topic["data"]] == ["bad"]
    assert "train.jsonl" in by_topic["data"][0][1]
    assert by_topic["memory"][0][0] == "good"
    assert by_topic["evaluate"][0][0] == "good"


def test_prompts_that_are_too_long_are_counted_and_the_limit_that_takes_them_is_named(tmp_path):
    path = sums(tmp_path, [1, 2, 3, 4])
    with (tmp_path / "train.jsonl").open("a") as file:
        file.write(json.dumps({"question": "What is 0 + 9? " * 40, "answer": "9"}) + "\n")
    (told,) = [text for state, text in found(path)["data"] if state == "lacking"]
    assert told.startswith("1 of 5 problems is left out")
    limit = told.split("conversation.")[-1].split()[0]
    assert "lacking" not in [state for state, _ in found(path, f"conversation.{limit}")["data"]]


@pytest.mark.parametrize(("answers", "state"), [([1, 2, "no", 4], "good"), (["", "", ""], "bad")])
def test_rewards_are_tried_on_the_datas_own_references(answers, state, tmp_path):
    (told,) = [finding for finding in found(sums(tmp_path, answers))["data"] if "rewards of" in finding[1]]
    assert told[0] == state, told


def test_a_reward_that_misses_a_reference_is_told_which(tmp_path):
    path, reward = sums(tmp_path, [1, 2, 3, 4]), tmp_path / "strict.py"
    reward.write_text("def not_3(completions):\n    return [float(c != '3') for c in completions]\n")
    findings = found(path, f"rewards.functions=[{{name: '{reward}:not_3'}}]")["data"]
    (told,) = [text for state, text in findings if state == "lacking"]
    assert "3 correct, 1 wrong" in told


def test_memory_that_a_run_lacks_is_bad_with_what_makes_it_fit(monkeypatch, tmp_path):
    monkeypatch.setattr(start, "free_bytes", lambda device: 1 << 10)
    ((state, text),) = found(sums(tmp_path, [1, 2]))["memory"]
    assert state == "bad"
    assert "are free" in text


def test_rewards_are_tried_in_the_form_in_which_training_calls_them(tmp_path):
    path = sums(tmp_path, [1, 2, 3, 4])
    (tmp_path / "asked.py").write_text(
        "def asked(completions, prompts):\n"
        "    return [float(isinstance(p, str) and p.startswith('What')) for p in prompts]\n"
    )
    by_topic = found(path, f"rewards.functions=[{{name: {tmp_path / 'asked.py'}:asked}}]")
    (told,) = [text for _, text in by_topic["data"] if "rewards of" in text]
    assert "4 correct" in told


@pytest.mark.parametrize(
    ("override", "topic", "said"),
    [
        ("device=cuda", "device", "finds no CUDA device"),
        ("rollout.engine=vllm", "rollout", "vLLM is not installed; pip install -e '.[vllm]'"),
        ("rollout={engine: vllm, mode: servers, start_servers: 1}", "rollout", "vLLM is not installed; pip install"),
        ("learner.fused_kernels=true", "learner", "needs CUDA"),
        ("track.tensorboard=true", "track", "pip install 'rlcore[tensorboard]'"),
        ("conversation.max_attempt_tokens=2000", "data", "the model takes 1024"),
    ],
)
def test_what_a_run_refuses_as_it_starts_is_bad_in_the_same_words(override, topic, said, monkeypatch, capsys, tmp_path):
    if topic == "device" and torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    for name in ("vllm", "tensorboard"):
        monkeypatch.setitem(sys.modules, name, None)
        monkeypatch.delitem(sys.modules, f"torch.utils.{name}", raising=False)
    path = write_recipe(tmp_path)
    with pytest.raises(SystemExit):
        main(["train", str(path), override])
    line = capsys.readouterr().err.strip().removeprefix("rlcore: ")
    assert said in line
    assert ("bad", f"{line} → ") in found(path, override)[topic]


def test_a_package_that_quantised_weights_need_is_looked_for(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    section = f"model={{path: {tmp_path}, lora: {{rank: 4, quantize: nf4}}}}"
    ((state, text),) = found(write_recipe(tmp_path), section)["model"]
    assert state == "bad"
    assert "needs bitsandbytes" in text


def test_a_server_that_another_command_starts_needs_no_vllm_here(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "vllm", None)
    section = "rollout={engine: vllm, mode: servers, start_servers: 1, vllm: {command: elsewhere serve}}"
    assert "rollout" not in found(write_recipe(tmp_path), section)


def test_a_model_that_is_asked_at_an_endpoint_needs_neither_an_engine_nor_memory_here(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "vllm", None)
    recipe = write_recipe(tmp_path, stages=[], rollout={"engine": "vllm"})
    findings = found(recipe, "evaluate.endpoint=http://node:8000/v1")
    assert not {"rollout", "memory"} & findings.keys()


def test_memory_that_is_nearly_all_taken_is_no_good_sign(monkeypatch, tmp_path):
    path = sums(tmp_path, [1, 2])
    needed = start.memory_demand(load_recipe(path), 1, training=True).needed
    monkeypatch.setattr(start, "free_bytes", lambda device: int(1.1 * needed))
    ((state, text),) = found(path)["memory"]
    assert state == "lacking", text


def test_a_model_that_is_not_here_is_to_be_downloaded_by_its_name(monkeypatch, tmp_path):
    monkeypatch.setattr(start, "try_to_load_from_cache", lambda name, file: None)
    ((_, text),) = found(write_recipe(tmp_path, model={"path": "someone/unknown"}))["memory"]
    assert text.endswith("→ hf download someone/unknown")


def test_only_rows_that_are_left_out_are_to_be_looked_at(tmp_path):
    path = sums(tmp_path, [1, 2, 3, 4])
    with (tmp_path / "train.jsonl").open("a") as file:
        file.write('{"question": "What is 1 + 1?", "answer": "0"}\nno row\n')
    findings = [text for state, text in found(path, "data.skip_bad_rows=true")["data"] if state == "lacking"]
    looked = {text.endswith("→ look at these rows"): text for text in findings if "data" in text or "left out" in text}
    assert "left out 1 of" in looked[True]
    assert "repeat the id or text" in looked[False]


def test_prompts_of_one_length_are_told_by_it(tmp_path):
    assert any("prompts of " in text and " to " not in text for _, text in found(sums(tmp_path, [1, 2]))["data"])
