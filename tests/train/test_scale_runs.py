"""Whole runs with adapters and with ZeRO-3, and the folders that come out of them."""

import math

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from rlcore.errors import UserError
from rlcore.export import export
from tests.processes import rlcore, torchrun
from tests.tiny import figures, write_recipe

LORA = "model.lora={rank: 4, alpha: 8}"


@pytest.mark.parametrize("zero", [0, 3])
def test_a_run_with_adapters_samples_what_it_trains_and_is_exported(zero, finished, tmp_path):
    """The first policy is a folder, so that peft can load the adapters upon it."""
    base, run = tmp_path / "base", tmp_path / "run"
    export(finished / "checkpoints" / "step-000004", base)
    settings = [f"model={{path: {base}}}", LORA, "evaluate=null", f"learner.zero={zero}", f"output={run}"]
    done = rlcore("train", write_recipe(tmp_path), *settings)
    assert done.returncode == 0, done.stderr
    records = figures(run)
    assert max(record["learner/max_abs_logprob_gap"] for record in records) < 1e-4
    assert records[0]["learner/kl_t2"] == pytest.approx(0, abs=1e-6)
    assert records[-1]["learner/kl_t2"] > 1e-6
    export(run, tmp_path / "merged")
    export(run, tmp_path / "adapter", adapter=True)
    ids = torch.arange(20)[None]
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(tmp_path / "adapter"))
    final = AutoModelForCausalLM.from_pretrained(run / "final")
    logits = [model.eval()(input_ids=ids).logits for model in (merged, adapted, final)]
    torch.testing.assert_close(logits[0], logits[1], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logits[0], logits[2])
    before = AutoModelForCausalLM.from_pretrained(base).eval()(input_ids=ids).logits
    assert (logits[0] - before).abs().max() > 1e-4


def test_the_quickstart_with_zero_3_on_two_processes(repository, tmp_path):
    settings = ["learner.zero=3", "stages.0.steps=1", "stages.1.steps=2", "batch.problems=4", "evaluate=null"]
    settings += ["data.options.count=500"]
    sizes = "model={scratch: {hidden_size: 32, layers: 1, heads: 2, kv_heads: 1, vocab_size: 300}}"
    settings += [sizes, "track.wandb=off", "conversation.max_prompt_tokens=128", f"output={tmp_path / 'run'}"]
    done = torchrun(2, "-m", "rlcore", "train", repository / "recipes/quickstart.yaml", *settings)
    assert done.returncode == 0, done.stderr
    records = figures(tmp_path / "run")
    assert [record["stage"] for record in records] == ["stage I", "stage II", "stage II"]
    assert all(math.isfinite(record["learner/loss"]) for record in records)
    assert max(record["learner/max_abs_logprob_gap"] for record in records) < 1e-3


def test_an_export_holds_the_weights_of_its_checkpoint(finished, tmp_path):
    done = rlcore("export", finished, tmp_path / "policy")
    assert done.returncode == 0, done.stderr
    exported, final = (load_file(folder / "model.safetensors") for folder in (tmp_path / "policy", finished / "final"))
    assert exported.keys() == final.keys()
    assert all(torch.equal(tensor, final[name]) for name, tensor in exported.items())


def test_exports_that_cannot_be_are_named(finished, tmp_path):
    with pytest.raises(UserError, match="is neither a checkpoint nor a run"):
        export(tmp_path, tmp_path / "out")
    with pytest.raises(UserError, match="is not empty"):
        export(finished, finished)
    with pytest.raises(UserError, match="without adapters"):
        export(finished, tmp_path / "out", adapter=True)
