"""One vLLM engine that two ranks hold, beside the learner's own model; and whole runs, beside an engine each."""

import json
from pathlib import Path

import pytest

from tests.processes import rlcore, torchrun
from tests.tiny import figures, write_recipe

pytest.importorskip("vllm", reason="vLLM is not installed (launch/setup_vllm_cpu.sh)")


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> list[dict]:
    """What rank 0 and rank 1 found."""
    folder = tmp_path_factory.mktemp("ranks")
    done = torchrun(2, "-m", "tests.rollout.vllm.tensor_parallel_ranks", folder, vllm=True)
    assert done.returncode == 0, done.stderr[-5000:]
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def test_each_rank_is_answered_its_own_requests_as_the_learners_model_would(found):
    for rank, requests in ((0, 2), (1, 4)):  # rank 1 asks twice while rank 0 asks once
        assert found[rank]["greedy"] == [True] * requests
        assert max(found[rank]["differences"] + found[rank]["differences drawn"]) < 1e-4
    drawn = [tuple(ids) for rank in found for ids in rank["drawn"]]
    assert len(set(drawn)) == 8


def test_a_reply_ends_with_the_token_that_ends_a_text(found):
    for rank in found:
        assert rank["stopped"]
        assert rank["stopped early"] > 0


def test_a_request_that_is_refused_fails_on_its_rank_alone(found):
    assert found[0]["refused"] == ""
    assert "length 257" in found[1]["refused"]


def test_every_published_parameter_reaches_both_parts_of_the_model(found):
    for rank in found:
        for name, (before, after) in rank["published"].items():
            assert before > 1e-2, name
            assert after < 1e-4, name


def test_adapters_reach_both_parts_of_the_model(found):
    for rank in found:
        before, after = rank["adapters"]
        assert before > 1e-2
        assert after < 1e-4


def test_a_rank_that_fails_or_is_asked_to_stop_takes_the_other_along(found):
    assert found[1]["ended"] == ["ValueError: no such reward", "Stopped: "]
    assert found[0]["ended"] == [
        "RuntimeError: rank 1, with which rank 0 shares a vLLM engine, ended: ValueError: no such reward",
        "Stopped: ",
    ]
    assert found[0]["after"] == found[1]["after"] > 0


def test_ranks_that_draw_different_tokens_end_instead_of_going_on(found):
    assert found[0]["parted"] == "rank 0 and rank 1 share a vLLM engine, but drew different tokens"
    assert found[1]["parted"] == "rank 1 and rank 0 share a vLLM engine, but drew different tokens"


def recipe(folder: Path, **vllm: object) -> Path:
    """Of a model with two heads of attention, one of keys; ranks sample different numbers of times."""
    folder.mkdir()
    return write_recipe(
        folder,
        model={"scratch": {"hidden_size": 64, "layers": 1, "heads": 2, "kv_heads": 1, "vocab_size": 300}},
        rollout={"engine": "vllm", "slots": 4, "vllm": vllm},
        batch={"problems": 4, "group": 2, "resample": 2},
        stages=[{"name": "only", "steps": 2, "kl": [0, 0]}],
        output=str(folder / "run"),
    )


def trained(folder: Path, **vllm: object) -> tuple[list[dict], list[dict], dict]:
    """Figures, trajectories and evaluation of a run of two ranks."""
    settings = ["learner.zero=3", "evaluate.problems=9", "evaluate.every=0", "track.trajectories=8"]
    done = torchrun(2, "-m", "rlcore", "train", recipe(folder, **vllm), *settings, vllm=True)
    assert done.returncode == 0, done.stderr[-5000:]
    lines = (folder / "run/trajectories.jsonl").read_text().splitlines()
    return (
        figures(folder / "run"),
        list(map(json.loads, lines)),
        json.loads((folder / "run/evaluation.json").read_text()),
    )


def test_ranks_that_share_an_engine_train_as_ranks_that_have_one_each(tmp_path):
    shared, own = trained(tmp_path / "shared", tensor_parallel=2), trained(tmp_path / "own")
    for ours, theirs in zip(shared[0], own[0], strict=True):
        assert max(ours["learner/mismatch_kl"], theirs["learner/mismatch_kl"]) < 1e-6
        assert ours == pytest.approx(theirs, abs=1e-3)
    assert shared[1] == own[1]
    assert shared[2]["evaluations"][0]["metrics"] == own[2]["evaluations"][0]["metrics"]


def test_ranks_that_do_not_divide_into_engines_are_refused(tmp_path):
    refused = rlcore("eval", recipe(tmp_path / "alone", tensor_parallel=2))
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1] == "rlcore: rollout.vllm.tensor_parallel 2 does not divide 1 rank"
