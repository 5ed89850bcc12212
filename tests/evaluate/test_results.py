"""Evaluations from rows, and evaluation.json there and back."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from rlcore.errors import UserError
from rlcore.evaluate.metrics import correction_rows
from rlcore.evaluate.results import Evaluation, Results, histogram, load_evaluation, save_evaluation
from tests.report.synthetic_runs import trajectory


def _evaluation(mode: str = "sampled") -> Evaluation:
    rng = np.random.default_rng(0)
    rows = correction_rows(rng.integers(0, 2, (300, 2)).astype(float))
    rows["edit_ratio"] = np.full(300, np.nan)
    return Evaluation.of_rows(mode, np.arange(300) // 3, rows)


def test_an_evaluation_has_the_mean_inside_its_interval_and_counts_problems():
    evaluation = _evaluation()
    assert evaluation.problems == 100
    for name in ("t1", "t2", "delta", "i_to_c", "c_to_i"):
        value, low, high = evaluation.metrics[name]
        assert low < value < high
    assert evaluation.values["eval/sampled/t1"] == evaluation.metrics["t1"][0]


def test_saved_and_loaded_results_are_equal_and_the_file_is_strict_json(tmp_path: Path):
    example = trajectory(np.random.default_rng(0), 3, "greedy", "</script> 😀")
    evaluations = (_evaluation("greedy"), _evaluation())
    results = Results("score", 1, 300, evaluations, {"edit_ratio": histogram(np.ones(3))}, [example])
    path = tmp_path / "evaluation.json"
    save_evaluation(path, results)
    loaded = load_evaluation(path)
    assert (loaded.arm, loaded.seed, loaded.step) == ("score", 1, 300)
    assert loaded.examples == [example]
    assert loaded.histograms == results.histograms
    for before, after in zip(results.evaluations, loaded.evaluations, strict=True):
        assert (before.mode, before.problems, before.marks) == (after.mode, after.problems, after.marks)
        assert all(np.array_equal(before.metrics[n], after.metrics[n], equal_nan=True) for n in before.metrics)
    assert math.isnan(loaded.evaluations[0].metrics["edit_ratio"][0])
    json.loads(path.read_text(), parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert [p.name for p in tmp_path.iterdir()] == ["evaluation.json"]


def test_marks_by_problem_are_means_over_its_conversations_and_take_little_room(tmp_path: Path):
    rows = {"t1": np.array([1.0, 0.0, np.nan, 1.0, np.nan]), "t2": np.ones(5)}
    evaluation = Evaluation.of_rows("sampled", ["b", "b", "a", "b", "c"], rows)
    assert evaluation.marks == {"t1": {"b": 0.6667}, "t2": {"a": 1, "b": 1, "c": 1}}
    save_evaluation(tmp_path / "one.json", Results("a", 0, 1, (evaluation,)))
    saved = json.loads((tmp_path / "one.json").read_text())["evaluations"][0]["marks"]
    assert saved == {"problems": ["a", "b", "c"], "columns": {"t1": [None, 0.6667, None], "t2": [1, 1, 1]}}
    assert load_evaluation(tmp_path / "one.json").evaluations[0].marks == evaluation.marks


def test_histogram_counts_every_value_once_and_no_nan():
    got = histogram(np.array([0.0, 0.01, 0.5, 1.0, np.nan]), bins=4)
    assert got == {"edges": [0.0, 0.25, 0.5, 0.75, 1.0], "counts": [2, 0, 1, 1]}


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"arm": "x"}', '{"arm":"x","seed":0,"step":0,"evaluations":[{}]}']
)
def test_a_file_that_is_no_evaluation_is_named_in_one_line(tmp_path: Path, text: str):
    path = tmp_path / "evaluation.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"evaluation\.json is not an evaluation file") as caught:
        load_evaluation(path)
    assert "\n" not in str(caught.value)


def test_missing_and_unwritable_files(tmp_path: Path):
    with pytest.raises(UserError, match=r"cannot read .*nowhere"):
        load_evaluation(tmp_path / "nowhere")
    (tmp_path / "evaluation.json.part").symlink_to("/dev/full")
    with pytest.raises(UserError, match="No space left") as caught:
        save_evaluation(tmp_path / "evaluation.json", Results("a", 0, 0, ()))
    assert "\n" not in str(caught.value)


def test_no_problems_is_a_users_mistake():
    with pytest.raises(UserError, match="no problems"):
        Evaluation.of_rows("greedy", [], {"t1": np.zeros(0)})
