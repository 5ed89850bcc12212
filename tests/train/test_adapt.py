"""Training at test time: adapters that come and go, what is learned and asked, votes, and going on."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from rlcore.cli import main
from rlcore.data.transformations import IDENTITY, Transformation
from rlcore.files import read_records
from rlcore.policy.scratch import scratch_model, scratch_tokenizer
from rlcore.recipe.adapt import AdaptConfig
from rlcore.recipe.schema import LoraConfig, ScratchConfig
from rlcore.train.adapt import voted_row
from rlcore.train.copies import Copy, copies, lessons
from rlcore.train.few_steps import Row, adapters, learn
from rlcore.types import Problem
from tests.refusals import refusal

LORA = LoraConfig(rank=4, alpha=8, dropout=0.1)
ROWS = [Row((5, 6, 7), (8, 9, 2)), Row((5, 7), (9, 2)), Row((6,), (8, 8, 8, 2))]
ASKED = [[9, 9], [9, 9]]
PROBLEM = Problem(
    "p",
    ({"role": "user", "content": "..."},),
    {"train": [{"input": [[n, 0]], "output": [[0, n]]} for n in (1, 2, 3)], "input": ASKED, "output": ASKED},
)


@pytest.fixture
def model():
    sizes = ScratchConfig(hidden_size=32, layers=2, heads=2, kv_heads=1)
    return scratch_model(sizes, scratch_tokenizer(["Input: 1 2 Output: 3"], 300), seed=0)


def test_adapters_change_the_model_and_leave_the_base_bit_by_bit(model):
    ids = torch.arange(12)[None]
    before, logits = {name: value.clone() for name, value in model.state_dict().items()}, model(ids).logits
    first = []
    for _ in range(2):
        with adapters(model, LORA, seed=3):
            assert torch.equal(model(ids).logits, logits), "adapters have an effect before they are trained"
            learn(model, ROWS * 4, batch=3, lr=0.01, micro_batch_tokens=1000, seed=1)
            first.append(model(ids).logits)
        assert not torch.equal(first[-1], logits)
        assert torch.equal(model(ids).logits, logits)
    assert torch.equal(*first), "what one problem taught is left over for the next"
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_step_learns_the_mean_over_learned_tokens_however_its_rows_are_split(model):
    with torch.no_grad():
        total = 0.0
        for row in ROWS:
            log_p = model(torch.tensor([[*row.prompt_ids, *row.learned_ids]])).logits[0].log_softmax(-1)
            at = len(row.prompt_ids)
            total -= sum(log_p[at + i - 1, token].item() for i, token in enumerate(row.learned_ids))
    for tokens in (1, 1000):  # one row at a time, all together
        with adapters(model, LoraConfig(rank=4), seed=3):
            loss = learn(model, ROWS, batch=3, lr=0.01, micro_batch_tokens=tokens, seed=1)
            again = learn(model, ROWS * 30, batch=3, lr=0.01, micro_batch_tokens=tokens, seed=1)
        assert loss == pytest.approx(total / 9, rel=1e-5)
        assert again < loss - 0.2


@pytest.mark.parametrize("tasks", ["leave_one_out", "alone"])
def test_lessons_are_made_of_the_demonstrations_alone(tasks):
    section = AdaptConfig(steps=3, batch=4, tasks=tasks, transform=False)
    made = list(lessons(PROBLEM, section, "{prompt}", seed=0))
    assert len(made) == 12
    assert all("9" not in json.dumps([p.messages, dict(p.columns)]) for p in made)
    assert len({p.messages[-1]["content"].count("Output:") for p in made} - {3 if tasks == "leave_one_out" else 1}) == 0
    turned = lessons(PROBLEM, section.model_copy(update={"transform": True}), "{prompt}", seed=0)
    assert len({p.messages[-1]["content"] for p in turned}) > 9


def test_copies_are_asked_and_undone():
    section = AdaptConfig(views=4, samples=2)
    made = copies(PROBLEM, section, "So:\n{prompt}", seed=1)
    assert [(copy.view, copy.sample) for copy in made] == [(v, s) for v in range(4) for s in range(2)]
    assert made[0].posed.columns["train"] == PROBLEM.columns["train"]
    assert made[0].transformation == made[1].transformation == IDENTITY != made[2].transformation
    assert len({copy.posed.id for copy in made}) == 8
    for copy in made:
        assert copy.posed.messages[0]["content"].startswith("So:\nInput:\n")
        assert copy.undone(copy.posed.columns["answer"]) == "9 9\n9 9"
    text = Problem("t", PROBLEM.messages, {"train": [{"input": "a", "output": "b"}] * 2, "input": "c", "output": "d"})
    assert {copy.transformation for copy in copies(text, section, "{prompt}", seed=1)} == {IDENTITY}
    assert copies(text, section, "{prompt}", seed=1)[3].undone("d") == "d"


def talk(view: int, answer: str | None, right: bool, transformation: Transformation = IDENTITY, tokens: int = 5):
    attempt = {"answer": answer, "score": float(right), "status": "correct" if right else "wrong", "tokens": tokens}
    return Copy(PROBLEM, view, 0, transformation, PROBLEM), {"attempts": [attempt], "trained_tokens": 70.0}


def test_what_is_measured_of_a_problem():
    """Right is `1 2`: the second view says it transposed. `3 4` is said three times, in one view."""
    down = Transformation(transposed=True)
    talks = [talk(0, "1 2", True), *[talk(1, "3 4", False)] * 3, talk(2, "1\n2", True, down), talk(3, None, False)]
    row = voted_row(talks, "two_level")
    assert row == {"top1": 1.0, "top2": 1.0, "sampled_tokens": 30.0, "trained_tokens": 70.0}
    assert (voted_row(talks, "plain")["top1"], voted_row(talks, "plain")["top2"]) == (0.0, 1.0)
    assert voted_row([talk(0, None, False)], "plain")["top2"] == 0.0


def recipe(folder: Path, **changes: object) -> Path:
    data = {"source": "grids", "options": {"size": 2, "colours": 2, "rules": ["turn"], "demonstrations": 2, "count": 9}}
    values = {
        "name": "adapted",
        "device": "cpu",
        "model": {"scratch": {"hidden_size": 32, "layers": 1, "heads": 2, "kv_heads": 1, "vocab_size": 300}},
        "data": data,
        "conversation": {"attempts": 1, "max_prompt_tokens": 160, "max_attempt_tokens": 8},
        "rewards": {"functions": [{"name": "grid"}]},
        "stages": [],
        "evaluate": {"data": {**data, "split": "train"}, "problems": 3},
        "adapt": {"steps": 2, "batch": 2, "lr": 0.01, "lora": {"rank": 2}, "views": 2, "samples": 2},
        "track": {"wandb": "off"},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({**values, **changes}))
    return path


def test_the_command_resumes_where_it_was_stopped(tmp_path, capfd):
    arguments = ["adapt", str(recipe(tmp_path)), f"output={tmp_path / 'run'}"]
    main(arguments)
    kept, written = tmp_path / "run" / "attempts-0.jsonl", tmp_path / "run" / "evaluation.json"
    first, evaluation = read_records(kept), json.loads(written.read_bytes())
    assert len(first) == 1 + 3 * 2 * 2
    (figures,) = evaluation["evaluations"]
    assert {"t1", "top1", "top2", "sampled_tokens", "trained_tokens"} <= figures["metrics"].keys()
    assert figures["problems"] == 3
    kept.write_bytes(b"\n".join(kept.read_bytes().splitlines()[:6]) + b"\n")
    written.unlink()
    main(arguments)

    def by_name(records):
        return sorted(json.dumps(record, sort_keys=True) for record in records)

    assert by_name(read_records(kept)) == by_name(first)
    assert json.loads(written.read_bytes())["evaluations"] == evaluation["evaluations"]
    assert "adapt.views" in refusal(capfd, *arguments, "adapt.views=3")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("adapt=null", "needs a section adapt"),
        ("evaluate=null", "has no evaluate section"),
        ("model.lora={rank: 2}", "leave model.lora out"),
        ("learner.zero=3", "learner.zero below 3"),
        ("evaluate.data={source: arithmetic, options: {count: 9}}", "shows no demonstrations"),
    ],
)
def test_a_mistake_is_one_line(override, said, tmp_path, capfd):
    assert said in refusal(capfd, "adapt", recipe(tmp_path), f"output={tmp_path / 'run'}", override)
