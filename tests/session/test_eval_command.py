"""`rlcore eval` in processes of its own: a served model, an interruption, going on, and a run's policy."""

import json
import os
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml

from rlcore.policy import load_policy, save_policy
from rlcore.recipe import dump_recipe, load_recipe
from tests.processes import Started, rlcore, torchrun
from tests.session.chat_server import ChatServer
from tests.tiny import write_recipe

SAMPLES = 4


def served_recipe(folder: Path, **conversation: object) -> Path:
    """32 problems of two levels, 8 conversations at once."""
    folder.mkdir(exist_ok=True)
    path = write_recipe(folder, rollout={"slots": 8})
    recipe = yaml.safe_load(path.read_text())
    rows = [json.loads(line) | {"level": i % 2} for i, line in enumerate((folder / "train.jsonl").open())]
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe["evaluate"] |= {"problems": 32, "samples": SAMPLES}
    recipe["conversation"] |= conversation
    path.write_text(yaml.safe_dump(recipe))
    return path


def evaluation(folder: Path) -> dict:
    return json.loads((folder / "eval" / "evaluation.json").read_text())


def test_a_served_model_an_interruption_and_going_on(tmp_path):
    recipe = served_recipe(tmp_path)
    environment = {**os.environ, "OPENAI_API_KEY": "secret"}
    with ChatServer(delay=0.05).serving() as server:
        first = ["eval", str(recipe), f"evaluate.endpoint={server.url}", f"output={tmp_path / 'first'}"]
        process = Started("-m", "rlcore", *first, env=environment)
        deadline = time.monotonic() + 120
        while len(server.asked) < 32 * 2 + 40:  # all greedy ones, and some of the sampled
            assert time.monotonic() < deadline, "the evaluation did not get so far"
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        output = process.wait()
        assert process.returncode == 0, output
        assert "Traceback" not in output
        assert "the same command goes on from there" in output
        assert not (tmp_path / "first" / "eval" / "evaluation.json").exists()
        stopped_at = len(server.asked)
        assert stopped_at < 2 * 32 * (1 + SAMPLES)
        assert server.keys == {"Bearer secret"}
        assert {body["model"] for body in server.asked} == {"first-model"}
        server.status = [503]  # one refusal that passes
        done = rlcore(*first, env=environment)
        assert done.returncode == 0, done.stderr
        whole, under_way = 2 * 32 * (1 + SAMPLES), 2 * 8
        assert whole < len(server.asked) <= whole + under_way + 1, "more than what was under way was asked for again"
        again = rlcore("eval", recipe, f"evaluate.endpoint={server.url}", f"output={tmp_path / 'second'}")
        assert again.returncode == 0, again.stderr
    assert evaluation(tmp_path / "first") == evaluation(tmp_path / "second")
    check_figures(tmp_path / "second" / "eval")


def check_figures(folder: Path) -> None:
    """The figures against the attempts in the files of all ranks, counted anew."""
    greedy, sampled = json.loads((folder / "evaluation.json").read_text())["evaluations"]
    files = sorted(folder.glob("attempts-*.jsonl"))
    lines = [json.loads(line) for file in files for line in file.read_text().splitlines()[1:]]
    lines.sort(key=lambda line: (line["problem_id"], line["sample"]))  # they are in the order in which they ended
    assert len(lines) == 32 * (1 + SAMPLES)
    asked = Counter((line["stage"], line["problem_id"]) for line in lines)
    assert Counter(asked.values()) == {1: 32, SAMPLES: 32}
    for part in (greedy, sampled):
        scores = np.array([[a["score"] for a in r["attempts"]] for r in lines if r["stage"] == part["mode"]])
        assert part["metrics"]["t1"][0] == pytest.approx(scores[:, 0].mean())
        assert part["metrics"]["t2"][0] == pytest.approx(scores[:, 1].mean())
        assert part["metrics"]["i_to_c"][0] == pytest.approx(((scores[:, 0] == 0) & (scores[:, 1] == 1)).mean())
        by_level = [part["parts"]["level"][level]["metrics"]["t1"][0] for level in "01"]
        assert np.mean(by_level) == pytest.approx(scores[:, 0].mean())
        assert part["parts"]["level"]["0"]["problems"] == 16
    by_problem = scores.reshape(32, SAMPLES, 2)
    assert sampled["metrics"]["pass@4_t2"][0] == pytest.approx((by_problem[..., 1] == 1).any(1).mean())
    assert not [name for name in sampled["metrics"] if name.startswith("maj")], "this reward reads no answers"
    truncated = [a["finish"] == "length" for r in lines if r["stage"] == "greedy" for a in r["attempts"][:1]]
    assert greedy["metrics"]["truncated_t1"][0] == pytest.approx(np.mean(truncated))
    assert greedy["metrics"]["tokens_t1"][0] > 1
    assert "Majority votes are left out" in (folder / "report.html").read_text()


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """An evaluation on one rank; its recipe is beside it."""
    folder = tmp_path_factory.mktemp("whole")
    done = rlcore("eval", served_recipe(folder), f"output={folder / 'whole'}")
    assert done.returncode == 0, done.stderr
    return folder / "whole"


def test_an_evaluation_is_watched_to_its_own_end(whole):
    """Its recipe has stages, which an evaluation does not come to."""
    assert load_recipe(whole.parent / "recipe.yaml").steps
    assert "finished" in rlcore("watch", whole / "eval", "--once").stdout


def test_two_ranks_share_the_problems_and_measure_what_one_does(whole, tmp_path):
    recipe = whole.parent / "recipe.yaml"
    done = torchrun(2, "-m", "rlcore", "eval", recipe, f"output={tmp_path / 'two'}")
    assert done.returncode == 0, done.stderr
    one, two = (evaluation(folder)["evaluations"] for folder in (whole, tmp_path / "two"))
    assert two[0] == one[0], "greedy attempts do not depend on how many ranks there are"
    assert two[1]["metrics"].keys() == one[1]["metrics"].keys()
    check_figures(tmp_path / "two" / "eval")
    assert done.stdout.count("report: ") == 1


def test_another_evaluation_does_not_take_the_place_of_one_that_is_there(whole):
    files = {path: path.read_bytes() for path in (whole / "eval").iterdir()}
    refused = rlcore("eval", whole.parent / "recipe.yaml", f"output={whole}", "seed=1")
    assert refused.returncode == 2
    told = f"rlcore: {whole / 'eval'} holds an evaluation that was begun with other seed: output=FOLDER"
    assert told in refused.stderr.splitlines()[-1]
    assert {path: path.read_bytes() for path in (whole / "eval").iterdir()} == files


def test_a_run_s_policy_goes_on_from_a_torn_file(whole, tmp_path):
    recipe, torn = whole.parent / "recipe.yaml", tmp_path / "torn"
    shutil.copytree(whole, torn)
    kept = (torn / "eval" / "attempts-0.jsonl").read_bytes()
    (torn / "eval" / "attempts-0.jsonl").write_bytes(kept[: int(len(kept) * 0.6)])
    (torn / "eval" / "evaluation.json").unlink()
    done = rlcore("eval", recipe, f"output={torn}")
    assert done.returncode == 0, done.stderr
    assert f"what {torn / 'eval'} holds of this evaluation is not sampled again" in done.stdout
    assert evaluation(torn) == evaluation(whole)
    assert sorted((torn / "eval" / "attempts-0.jsonl").read_bytes().splitlines()) == sorted(kept.splitlines())


@pytest.mark.parametrize(
    ("status", "words"), [([400], "gives no reply: status 400"), (None, "does not say what it serves")]
)
def test_a_server_that_refuses_is_named_in_one_line(tmp_path, status, words):
    recipe = served_recipe(tmp_path)
    server = ChatServer()
    with server.serving():
        server.status = (status or []) * 200
        url = server.url if status else server.url.replace("/v1", "/nothing-here:1")
        done = rlcore("eval", recipe, f"evaluate.endpoint={url if status else 'http://127.0.0.1:9/v1'}")
    assert done.returncode == 2
    assert words in done.stderr
    assert "\n" not in done.stderr.strip()


def test_a_reply_without_a_message_ends_in_one_line(tmp_path):
    server = ChatServer()
    server.message = False
    with server.serving():
        done = rlcore("eval", served_recipe(tmp_path), f"evaluate.endpoint={server.url}", "rollout.slots=1")
    assert done.returncode == 2
    assert "gives no reply: the reply has no choice with a message" in done.stderr
    assert "\n" not in done.stderr.strip()


def test_an_evaluation_does_not_go_on_with_another_served_model(tmp_path):
    recipe, server = served_recipe(tmp_path), ChatServer()
    with server.serving():
        sets = [f"evaluate.endpoint={server.url}", f"output={tmp_path / 'run'}"]
        assert rlcore("eval", recipe, *sets).returncode == 0
        server.models = ["another-model"]
        done = rlcore("eval", recipe, *sets)
    assert done.returncode == 2
    assert "holds an evaluation that was begun with other inputs" in done.stderr


def test_a_greedy_evaluation_alone_does_not_read_the_training_data(tmp_path):
    recipe = write_recipe(tmp_path)
    save_policy(load_policy(load_recipe(recipe).model, ["Write the letter a 3 times."]), tmp_path / "model")
    model = f"model={{path: {tmp_path / 'model'}}}"
    sets = ["data.path=gone.jsonl", "evaluate.problems=2", "evaluate.samples=0", f"output={tmp_path}"]
    done = rlcore("eval", recipe, model, *sets)
    assert done.returncode == 0, done.stderr
    assert [part["mode"] for part in evaluation(tmp_path)["evaluations"]] == ["greedy"]
    assert (tmp_path / "eval" / "report.html").exists()


def test_a_run_s_policy_is_measured_in_the_precision_and_with_the_attention_of_the_run(tmp_path):
    recipe = write_recipe(tmp_path)
    model = yaml.safe_load(recipe.read_text())["model"] | {"dtype": "bfloat16", "attention": "eager", "lora": {}}
    run = load_recipe(write_recipe(tmp_path, model=model), ["evaluate.problems=2", "evaluate.samples=0"])
    folder = Path(run.output)
    save_policy(load_policy(run.model, ["Write the letter a 3 times."]), folder / "final")
    (folder / "recipe.yaml").write_text(dump_recipe(run))
    done = rlcore("eval", folder)
    assert done.returncode == 0, done.stderr
    measured = load_recipe(folder / "eval" / "recipe.yaml").model
    assert measured == run.model.model_copy(update={"path": str(folder / "final"), "scratch": None, "lora": None})
