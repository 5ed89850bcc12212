"""Which conversations STaR and Pair-SFT learn, what of them, and real rounds of both on one process and two."""

import json
import time
from pathlib import Path
from random import Random
from unittest.mock import Mock

import pytest
import torch
from safetensors.torch import load_file

from rewards import Verdict
from rewards.grids import write_grid
from rlcore.data import load_problems
from rlcore.errors import UserError
from rlcore.evaluate.results import load_evaluation
from rlcore.policy.scratch import scratch_tokenizer
from rlcore.recipe import load_recipe
from rlcore.recipe.schema import ConversationConfig, DataConfig, SftConfig
from rlcore.rollout import Conversation
from rlcore.session.build import first_policy
from rlcore.sft.corrections import column_rows, pair_rows, star_rows
from rlcore.sft.trainer import IGNORED
from rlcore.types import Problem, Trajectory, Turn
from tests.processes import Started, rlcore, torchrun
from tests.tiny import figures, write_recipe

PROBLEM = Problem("p", ({"role": "user", "content": "?"},))


def conversation(first: int, second: int, scores: tuple[float | None, ...], finish: str = "stop") -> Trajectory:
    """Prompt [1, 2], attempt [first], instruction [3], attempt [second]."""
    turns = (
        Turn((1, 2), (first,), (0.0,), finish, "", (0,)),
        Turn((3,), (second,), (0.0,), finish, "", (0,)),
    )
    statuses = ["error" if s is None else "correct" if s == 1 else "wrong" for s in scores]
    return Trajectory(PROBLEM, turns, tuple(Verdict(s, status) for s, status in zip(scores, statuses, strict=True)))


MENDED, SPOILT = conversation(10, 20, (0, 1)), conversation(11, 21, (1, 0))
TWICE, NEVER = conversation(12, 22, (1, 1)), conversation(13, 23, (0, 0))
PARTLY, UNSCORED = conversation(14, 24, (0.5, 1)), conversation(15, 25, (None, 1))
CUT = conversation(16, 26, (0, 1), finish="length")
GROUP = [MENDED, SPOILT, TWICE, NEVER, PARTLY, CUT, UNSCORED]


def row(first: int, second: int) -> dict[str, list[int]]:
    return {"input_ids": [1, 2, first, 3, second], "labels": [*[IGNORED] * 4, second]}


def test_star_learns_mended_attempts_and_nothing_else():
    assert star_rows([GROUP], keep_right=False) == [row(10, 20), row(14, 24)]
    assert star_rows([GROUP], keep_right=True) == [row(10, 20), row(12, 22), row(14, 24)]


def test_an_attempt_that_was_not_scored_is_not_taken_for_wrong_or_right():
    assert pair_rows([[UNSCORED, NEVER]], keep_right=True, rng=Random(0)) == []


def test_pairs_join_wrong_first_attempts_with_right_ones_of_others():
    rows = pair_rows([GROUP, [MENDED, NEVER]], keep_right=False, rng=Random(0))
    assert [r["input_ids"][2] for r in rows] == [10, 13, 14]
    assert all(r["input_ids"][-1] in (11, 12) and r["labels"][-1] == r["input_ids"][-1] for r in rows)
    assert all(r["labels"][:-1] == [IGNORED] * 4 for r in rows)
    both = pair_rows([GROUP], keep_right=True, rng=Random(0))
    assert [(r["input_ids"][2], r["input_ids"][-1]) for r in both if r["input_ids"][2] in (11, 12)] == [
        (11, 12),
        (12, 11),
    ]


QUICK = ["evaluate.problems=32", "evaluate.data.options.count=100", "data.options.count=500", "track.wandb=off"]
SMALL = ["sft.problems=64", "sft.samples=4", "sft.batch=8", *QUICK]


def killed_in_round_2(recipe: Path, run: Path) -> None:
    """Starts the run and kills it as soon as its first round is finished."""
    process = Started("-m", "rlcore", "train", recipe, f"output={run}", "sft.rounds=2", *SMALL)
    deadline = time.monotonic() + 600
    while not (run / "round-1").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline, "no round was finished"
        time.sleep(0.005)
    process.kill()
    process.wait()


def test_rounds_on_one_process_killed_and_the_same_run_again(repository, tmp_path):
    run, recipe = tmp_path / "run", repository / "recipes/quickstart/ablations/star_plus.yaml"
    killed_in_round_2(recipe, tmp_path / "killed")
    again = rlcore("train", recipe, f"output={tmp_path / 'killed'}", "sft.rounds=2", *SMALL)
    assert again.returncode == 0, again.stderr
    assert "round 2: " in again.stdout
    assert "round 1: " not in again.stdout
    done = rlcore("train", recipe, f"output={run}", "sft.rounds=2", *SMALL)
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [1, 2]
    assert all(record["sft/rows"] >= 8 and record["sft/loss"] > 0 for record in records)
    assert load_evaluation(run / "evaluation.json").step == 2
    assert figures(tmp_path / "killed") == figures(run)
    assert (tmp_path / "killed/evaluation.json").read_bytes() == (run / "evaluation.json").read_bytes()
    assert not list(tmp_path.glob("*/round-*"))
    before = (run / "metrics.jsonl").stat().st_mtime_ns
    assert rlcore("train", recipe, f"output={run}", "sft.rounds=2", *SMALL).returncode == 0
    assert (run / "metrics.jsonl").stat().st_mtime_ns == before
    other = rlcore("train", recipe, f"output={run}", "sft.rounds=3", *SMALL)
    assert other.returncode == 2
    assert "holds a run of another recipe (sft.rounds differs)" in other.stderr


def test_every_round_teaches_the_policy_that_the_run_started_from(repository, tmp_path, monkeypatch):
    from rlcore.sft import fine_tune

    taught, train = [], fine_tune.train_supervised

    def learn(policy, rows, *rest, **further):
        taught.append((len(rows), {n: w.clone() for n, w in policy.model.state_dict().items()}))
        return train(policy, rows, *rest, **further)

    monkeypatch.setattr(fine_tune, "train_supervised", learn)
    recipe = load_recipe(
        repository / "recipes/quickstart/ablations/star_plus.yaml",
        [f"output={tmp_path / 'run'}", "sft.rounds=2", "learner.lr=0.01", *SMALL],
    )
    fine_tune.fine_tune(recipe)
    (first, start), (second, again) = taught
    assert all(torch.equal(start[name], again[name]) for name in start)
    assert first != second  # what it learned was sampled by the policy of the first round
    ended = load_file(tmp_path / "run/final/model.safetensors")
    assert not all(torch.equal(start[name], ended[name]) for name in ended)


def test_rounds_on_two_processes(repository, tmp_path):
    recipe = repository / "recipes/quickstart/ablations/pair_sft_plus.yaml"
    done = torchrun(2, "-m", "rlcore", "train", recipe, f"output={tmp_path / 'two'}", *SMALL)
    assert done.returncode == 0, done.stderr
    assert load_evaluation(tmp_path / "two" / "evaluation.json").step == 1


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_two_processes_learn_what_one_learns(tmp_path, dtype):
    """In bfloat16 each has a share of the float32 copies. A step is of all rows, in whatever order."""
    recipe = write_recipe(
        tmp_path,
        stages=[],
        evaluate=None,
        sft={"rows": "column", "column": "letter", "batch": 32, "epochs": 20},
    )
    settings, found = [f"model.dtype={dtype}", "learner.lr=1e-3", "track.wandb=off"], []
    for done in (
        rlcore("train", recipe, f"output={tmp_path / 'one'}", *settings),
        torchrun(2, "-m", "rlcore", "train", recipe, f"output={tmp_path / 'two'}", *settings),
    ):
        assert done.returncode == 0, done.stderr
    for run in ("one", "two"):
        weights = load_file(tmp_path / run / "final/model.safetensors")
        assert {weight.dtype for weight in weights.values()} == {getattr(torch, dtype)}
        found.append(torch.cat([weights[name].float().flatten() for name in sorted(weights)]))
    section = load_recipe(recipe, settings)
    model = first_policy(section, load_problems(section.data)).model
    start = torch.cat([model.state_dict()[name].float().flatten() for name in sorted(weights)])
    assert (found[0] - found[1]).norm() < 0.02 * (found[0] - start).norm()


def test_the_optimizer_of_a_round_is_the_learners(tmp_path):
    from rlcore.experiment import run_experiment

    recipe = write_recipe(tmp_path, stages=[], evaluate=None, sft={"rows": "column", "column": "letter", "batch": 8})
    learned = []
    for number, setting in enumerate(("lr=0.003", "betas=[0.1, 0.1]", "weight_decay=10", "max_grad_norm=1e-9")):
        run = tmp_path / str(number)
        run_experiment(load_recipe(recipe, [f"output={run}", f"learner.{setting}"]))
        learned.append(load_file(run / "final/model.safetensors")["model.embed_tokens.weight"])
    usual, *others = learned
    assert not any(torch.allclose(usual, other, atol=1e-5) for other in others)


def test_stages_after_a_supervised_recipe_start_from_its_policy(repository, tmp_path):
    folder = repository / "recipes" / "quickstart"
    (tmp_path / "first.yaml").write_text(f"extends: {folder}/ablations/pair_sft_plus.yaml\n")
    (tmp_path / "second.yaml").write_text(
        f"extends: {folder}.yaml\nname: second\nafter: ./first.yaml\nstages: [{{name: only, steps: 1}}]\n"
    )
    with (tmp_path / "first.yaml").open("a") as first:
        first.write("sft: {problems: 64, samples: 4, batch: 8}\ndata: {options: {count: 500}}\ntrack: {wandb: off}\n")
        first.write("evaluate: {problems: 32, data: {options: {count: 100}}}\n")
    done = rlcore("train", tmp_path / "second.yaml", f"output={tmp_path / 'run'}", *QUICK)
    assert done.returncode == 0, done.stderr
    supervised = load_evaluation(tmp_path / "run/before/evaluation.json").evaluations[0].metrics
    assert load_evaluation(tmp_path / "run/evaluation_base.json").evaluations[0].metrics == supervised


def test_changes_of_what_rounds_read_are_told_or_refused(tmp_path, monkeypatch, capsys):
    """A run of two rounds that ended after the first."""
    from rlcore.experiment import run_experiment
    from rlcore.sft import fine_tune

    recipe = write_recipe(tmp_path, stages=[], sft={"rows": "column", "column": "letter", "rounds": 2, "batch": 4})
    data, settings = tmp_path / "train.jsonl", [f"output={tmp_path / 'run'}", "evaluate=null"]
    rounds = iter([fine_tune.train_supervised, Mock(side_effect=OSError("no room"))])
    with monkeypatch.context() as ends:
        ends.setattr(fine_tune, "train_supervised", lambda *args, **named: next(rounds)(*args, **named))
        with pytest.raises(OSError, match="no room"):
            run_experiment(load_recipe(recipe, settings))
    lines = data.read_text().splitlines()
    data.write_text("\n".join(lines[::-1]))
    with pytest.raises(UserError, match="come to them in another order"):
        run_experiment(load_recipe(recipe, settings))
    data.write_text("\n".join([lines[0].replace('"letter": "a"', '"letter": "e"'), *lines[1:]]))
    capsys.readouterr()
    run_experiment(load_recipe(recipe, settings))
    said = next(line for line in capsys.readouterr().out.splitlines() if "from round 2 on" in line)
    assert "contents of data " in said
    (entry,) = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    assert entry["round"] == 1


def test_what_demonstrations_show_may_be_learned_beside_the_answer():
    options = {"size": 2, "rules": ["recolour"], "demonstrations": 3, "count": 5}
    problems = load_problems(DataConfig(source="grids", options=options))
    tokenizer = scratch_tokenizer([problem.columns["prompt"] for problem in problems], 300)
    talk = Conversation(tokenizer, ConversationConfig(attempts=1), [tokenizer.eos_token_id])
    answer = SftConfig(rows="column", column="answer")
    for problem, alone, shown in zip(
        problems,
        column_rows(problems, talk, answer),
        column_rows(problems, talk, answer.model_copy(update={"loss": "outputs"})),
        strict=True,
    ):
        assert alone["input_ids"] == shown["input_ids"]
        parts = [tokenizer.decode([label for label in row["labels"] if label != IGNORED]) for row in (alone, shown)]
        outputs = [write_grid(pair["output"]) for pair in problem.columns["train"]]
        assert parts == [
            f"{problem.columns['answer']}<|end|>",
            f"{''.join(outputs[1:])}{problem.columns['answer']}<|end|>",
        ]
        assert all(label in (IGNORED, token) for label, token in zip(shown["labels"], shown["input_ids"], strict=True))
    with pytest.raises(UserError, match="shows no demonstrations"):
        list(column_rows([PROBLEM], talk, SftConfig(rows="column", column="answer", loss="outputs")))


def test_demonstrations_that_are_too_long_are_left_out(tmp_path):
    from rlcore.experiment import run_experiment

    rows = [{"question": f"Say {i}.", "letter": "a", "solution": str(7 ** (1 if i % 2 else 60 + i))} for i in range(8)]
    path = write_recipe(tmp_path, stages=[], sft={"rows": "column", "batch": 4}, evaluate=None)
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    assert run_experiment(load_recipe(path, [f"output={tmp_path / 'run'}"])) is None
    (record,) = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert (record["sft/rows"], record["sft/kept"]) == (4, 0.5)
    with pytest.raises(UserError, match=r"round 1 found 4 conversations to learn among 8, fewer than sft.batch 8"):
        run_experiment(load_recipe(path, [f"output={tmp_path / 'more'}", "sft.batch=8"]))
