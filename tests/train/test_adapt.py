"""Training at test time: adapters that come and go, what is learned and asked, votes, and going on."""

import asyncio
import json
import math
from copy import deepcopy
from pathlib import Path

import pytest
import torch
import yaml

from rlcore.cli import main
from rlcore.data.transformations import IDENTITY, Transformation
from rlcore.errors import UserError
from rlcore.files import read_records
from rlcore.policy.lora import add_lora
from rlcore.policy.many_adapters import many_adapters
from rlcore.policy.scratch import scratch_model, scratch_tokenizer
from rlcore.recipe.adapt import AdaptConfig
from rlcore.recipe.schema import LoraConfig, ScratchConfig
from rlcore.rollout.embedded.engine import TorchEngine
from rlcore.rollout.engine import Sampling
from rlcore.train.adapt import voted_row
from rlcore.train.copies import Copy, copies, lessons
from rlcore.train.few_steps import Row, learn
from rlcore.types import Problem
from tests.processes import python, torchrun
from tests.refusals import refusal

LORA = LoraConfig(rank=4, alpha=8, dropout=0.1)
ROWS = [Row((5, 6, 7), (8, 9, 2), (1,)), Row((5, 7), (9, 2)), Row((6,), (8, 8, 8, 2))]
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


def logits(model, ids=None):
    with torch.no_grad():
        return model(torch.arange(12)[None] if ids is None else ids).logits


def test_adapters_change_the_model_and_leave_the_base_bit_by_bit(model):
    before, plain = {name: value.clone() for name, value in model.state_dict().items()}, logits(model)
    first = []
    for _ in range(2):
        with many_adapters(model, LORA, seeds=[3]) as adapters:
            assert torch.equal(logits(model), plain), "adapters have an effect before they are trained"
            learn(model, adapters, [ROWS * 4], batch=3, lr=0.01, micro_batch_tokens=1000, seed=1)
            adapters.aim(torch.zeros(1, dtype=torch.int64))
            first.append(logits(model))
        assert not torch.equal(first[-1], plain)
        assert torch.equal(logits(model), plain)
    assert torch.equal(*first), "what one problem taught is left over for the next"
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_step_learns_the_mean_over_learned_tokens_however_its_rows_are_split(model):
    with torch.no_grad():
        total = 0.0
        for row in ROWS:
            log_p = model(torch.tensor([[*row.prompt_ids, *row.answer_ids]])).logits[0].log_softmax(-1)
            at = len(row.prompt_ids)
            total -= sum(log_p[at + i - 1, token].item() for i, token in enumerate(row.answer_ids))
            total -= sum(log_p[place - 1, row.prompt_ids[place]].item() for place in row.places)
    for tokens in (1, 1000):  # one row at a time, all together
        with many_adapters(model, LoraConfig(rank=4), seeds=[3]) as adapters:
            (loss,) = learn(model, adapters, [ROWS], batch=3, lr=0.01, micro_batch_tokens=tokens, seed=1)
            (again,) = learn(model, adapters, [ROWS * 30], batch=3, lr=0.01, micro_batch_tokens=tokens, seed=1)
        assert loss == pytest.approx(total / 10, rel=1e-5)
        assert again < loss - 0.2


def peft_alone(model, rows, steps: int) -> torch.Tensor:
    """Logits after the same steps by peft's adapters, which start as those of seed 7 do, and transformers' own loss."""
    section, model = LoraConfig(rank=4, alpha=8), deepcopy(model)
    with many_adapters(model, section, seeds=[7]) as adapters:
        starts = [part[0].clone() for part in adapters.parameters[::2]]
    add_lora(model, section, seed=0)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with torch.no_grad():
        for parameter, start in zip(trained[::2], starts, strict=True):
            parameter.copy_(start)
    optimizer = torch.optim.AdamW(trained, lr=0.01, weight_decay=0.0)
    ids = torch.tensor([[*row.prompt_ids, *row.answer_ids] for row in rows])
    labels = ids.clone()
    labels[:, : len(rows[0].prompt_ids)] = -100
    for _ in range(steps):
        model(ids, labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return logits(model)


def test_adapters_of_several_problems_in_one_batch_are_those_of_each_alone_and_peft_s(model):
    section = LoraConfig(rank=4, alpha=8)
    mine, other = [Row((5, 6), (8, 9)), Row((5, 7), (9, 2))], [Row((1,), (3, 3, 3)), Row((4, 4, 4, 4), (1,))]
    alone = {}
    for seed, rows in ((7, mine), (8, other)):
        with many_adapters(model, section, seeds=[seed]) as adapters:
            learn(model, adapters, [rows * 5], batch=2, lr=0.01, micro_batch_tokens=1000, seed=1)
            alone[seed] = logits(model)
    for tokens in (1, 8, 1000):
        with many_adapters(model, section, seeds=[8, 7]) as adapters:
            learn(model, adapters, [other * 5, mine * 5], batch=2, lr=0.01, micro_batch_tokens=tokens, seed=1)
            adapters.aim(torch.tensor([1, 0, 1]))
            together = logits(model, torch.arange(12)[None].expand(3, -1))
        for row, seed in enumerate((7, 8, 7)):
            torch.testing.assert_close(together[row], alone[seed][0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(alone[7], peft_alone(model, mine, steps=5), rtol=1e-4, atol=1e-5)


def test_each_conversation_is_sampled_through_its_own_adapters(model):
    """Greedy, against the model's own passes with one problem's adapters; equal prompts are not shared across them."""
    prompts = [tuple(range(1, 30)), tuple(range(1, 25))]
    engine = TorchEngine(model, [2], slots=8, max_tokens=60)
    rows_PN = [[Row((*prompts[0], 9), (4 + p,) * 12)] * 30 for p in range(3)]
    with many_adapters(model, LoraConfig(rank=4), seeds=[1, 2, 3]) as engine.adapters:
        learn(model, engine.adapters, rows_PN, batch=3, lr=0.03, micro_batch_tokens=1000, seed=1)

        async def ask():
            told = [(p, ids) for p in range(3) for ids in prompts]
            asked = [
                engine.sample(ids, Sampling(16, temperature=0.0, adapter=p), key=key, last=True)
                for key, (p, ids) in enumerate(told)
            ]
            return dict(zip(told, await asyncio.gather(*asked), strict=True))

        found = asyncio.run(ask())
        for (p, ids), sample in found.items():
            engine.adapters.aim(torch.tensor([p]))
            expected = list(ids)
            for _ in range(len(sample.ids)):
                expected.append(int(logits(model, torch.tensor([expected]))[0, -1].argmax()))
            assert expected[len(ids) :] == list(sample.ids)
    assert len({found[p, prompts[0]].ids for p in range(3)}) == 3


def test_targets_that_a_model_lacks_are_refused(model):
    with pytest.raises(UserError, match=r"adapt\.lora\.targets"), many_adapters(model, LoraConfig(targets=["x"]), [1]):
        pass
    with many_adapters(model, LoraConfig(targets=["q_proj"]), [1]) as adapters:
        assert len(adapters.parameters) == 2 * 2
    with many_adapters(model, LoraConfig(targets=["self_attn.q_proj", "v_proj"]), [1]) as adapters:
        assert len(adapters.parameters) == 2 * 2 * 2


def test_a_layer_that_sees_no_rows_takes_the_adapters_of_one_problem_alone(model):
    for seeds in ([1], [1, 2]):
        with many_adapters(model, LoraConfig(), seeds) as adapters:
            adapters.aim(torch.zeros(3, dtype=torch.int64))
            layer = model.get_submodule("model.layers.0.self_attn.q_proj")
            if len(seeds) == 1:
                assert layer(torch.zeros(5, 32)).shape == (5, 32)
            else:
                with pytest.raises(UserError, match=r"adapt\.together=1"):
                    layer(torch.zeros(5, 32))


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


def test_copies_and_lessons_may_keep_to_the_colours_that_are_shown():
    section = AdaptConfig(steps=10, views=20, colours="shown")
    made = [copy.posed for copy in copies(PROBLEM, section, "{prompt}", seed=1)]
    made += lessons(PROBLEM, section, "{prompt}", seed=1)
    text = "".join(problem.messages[-1]["content"] for problem in made)
    assert {character for character in text if character.isdigit()} == set("01239")


def talk(view: int, answer: str | None, right: bool, transformation: Transformation = IDENTITY, tokens: int = 5):
    attempt = {"answer": answer, "score": float(right), "status": "correct" if right else "wrong", "tokens": tokens}
    return Copy(PROBLEM, view, 0, transformation, PROBLEM), {
        "attempts": [attempt],
        "between": [],
        "trained_tokens": 70.0,
    }


def test_what_is_measured_of_a_problem():
    """Right is `1 2`: the second view says it transposed. `3 4` is said three times, in one view."""
    down = Transformation(transposed=True)
    talks = [talk(0, "1 2", True), *[talk(1, "3 4", False)] * 3, talk(2, "1\n2", True, down), talk(3, None, False)]
    row = voted_row(talks, "two_level")
    assert row == {"top1": 1.0, "top2": 1.0, "sampled_tokens": 30.0, "trained_tokens": 70.0}
    assert (voted_row(talks, "plain")["top1"], voted_row(talks, "plain")["top2"]) == (0.0, 1.0)
    assert voted_row([talk(0, None, False)], "plain")["top2"] == 0.0
    talks[0][1]["between"].append({"tokens": 9})
    assert voted_row(talks, "plain")["sampled_tokens"] == 39.0


def test_what_could_not_be_scored_is_not_counted_as_wrong():
    unscored = talk(0, None, False)
    unscored[1]["attempts"][0] |= {"score": None, "status": "timeout"}
    assert math.isnan(voted_row([unscored, unscored], "two_level")["top1"])
    assert voted_row([unscored, talk(0, "1 2", True)], "two_level")["top1"] == 1.0
    known = talk(0, "1 2", True)
    late = (known[0], {**known[1], "attempts": [{**known[1]["attempts"][0], "score": None, "status": "error"}]})
    assert voted_row([late, known], "plain") == voted_row([known, late], "plain")


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


def test_ranks_answer_problems_of_their_own_as_one_process_answers_them(tmp_path):
    """With one problem at a time, so that no rank's batches are others than those of one process."""
    words = ("-m", "rlcore", "adapt", recipe(tmp_path), "adapt.together=1", "adapt.samples=1")
    assert python(*words, f"output={tmp_path / 'alone'}").returncode == 0
    ranked = torchrun(2, *words, f"output={tmp_path / 'ranks'}")
    assert ranked.returncode == 0, ranked.stderr
    alone, *ranks = (
        read_records(tmp_path / name)[1:]
        for name in ("alone/attempts-0.jsonl", "ranks/attempts-0.jsonl", "ranks/attempts-1.jsonl")
    )
    assert [len(records) for records in ranks] == [2 * 2, 2]

    def said(records):
        return {(r["stage"], r["problem_id"]): [a["text"] for a in r["attempts"]] for r in records}

    assert said(ranks[0]) | said(ranks[1]) == said(alone)
    figures = [
        json.loads((tmp_path / name / "evaluation.json").read_bytes())["evaluations"][0] for name in ("alone", "ranks")
    ]
    assert figures[0]["problems"] == figures[1]["problems"] == 3
    assert figures[0]["metrics"]["top2"] == figures[1]["metrics"]["top2"]
    shared = torchrun(2, *words, f"output={tmp_path / 'shared'}", "adapt.shared=true")
    assert shared.returncode
    assert "adapt.shared: one adapter of all problems is trained by one process alone" in shared.stderr


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("adapt=null", "needs a section adapt"),
        ("evaluate=null", "has no evaluate section"),
        ("model.lora={rank: 2}", "leave model.lora out"),
        ("learner.zero=3", "learner.zero below 3"),
        ("stages=[{name: one, steps: 1, reward: [1], kl: [0]}]", "take no sft, and stages: []"),
        ("evaluate.data={source: arithmetic, options: {count: 9}}", "shows no demonstrations"),
    ],
)
def test_a_mistake_is_one_line(override, said, tmp_path, capfd):
    assert said in refusal(capfd, "adapt", recipe(tmp_path), f"output={tmp_path / 'run'}", override)


def test_an_evaluation_does_not_pass_over_the_section(tmp_path, capfd):
    assert "adapt=null" in refusal(capfd, "eval", recipe(tmp_path), f"output={tmp_path / 'run'}")


def test_other_words_that_are_too_long_are_named_before_anything_is_trained(tmp_path, capfd):
    pair = {"input": "two", "output": "deux", "paraphrases": ["two, " + "which is the number after one " * 9]}
    row = {"train": [pair, pair], "input": "three", "output": "trois"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    data = {"source": "examples", "path": str(tmp_path / "rows.jsonl")}
    path = recipe(tmp_path, data=data, evaluate={"data": data, "problems": 1})
    told = refusal(capfd, "adapt", path, f"output={tmp_path / 'run'}", "adapt.views=9")
    assert "in other words: conversation.max_prompt_tokens is 160" in told
