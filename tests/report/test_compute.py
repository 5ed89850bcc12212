"""Accuracy against tokens, and the graph of propositions: from records and figures to what a page shows."""

import json

import numpy as np
import pytest

from rlcore.cli import main
from rlcore.errors import UserError
from rlcore.evaluate.results import Evaluation, Results, save_evaluation
from rlcore.report.compute import spent_tokens, ways_of, write_compute
from rlcore.report.diagram import diagram
from rlcore.report.page import write_report
from rlcore.report.run_folder import read_runs, results_of
from rlcore.report.style import name_ends, panels
from rlcore.report.table import Row
from tests.report.synthetic_runs import HOSTILE, make_run


def row(**figures: float) -> Row:
    names = {name.replace("_at_", "@"): (value, value - 0.1, value + 0.1) for name, value in figures.items()}
    return Row("sampled", "arm", "seed 0", names)


def points(row: Row, kind: str) -> dict[str, list[tuple[float, float]]]:
    return {way.name: [(p.tokens, p.accuracy[0]) for p in way.points] for way in ways_of(row, kind)}


def test_points_worked_by_hand():
    """10 tokens for attempt 1, 30 for attempt 2: a vote of 4 conversations costs 40 or 160."""
    figures = {"t1": 0.4, "t2": 0.6, "tokens_t1": 10, "tokens_t2": 30, "maj_at_4_t1": 0.5, "maj_at_4_t2": 0.7}
    assert points(row(**figures), "correct") == {
        "parallel": [(10, 0.4), (40, 0.5)],
        "correct": [(10, 0.4), (40, 0.6)],
        "both halves": [(160, 0.7)],
    }
    critiques = row(t1=0.4, t2=0.6, tokens_t1=10, tokens_t2=30, spent_t1=10, spent_t2=55)
    assert points(critiques, "critique") == {"critique": [(10, 0.4), (55, 0.6)]}
    assert spent_tokens(critiques) == {1: 10, 2: 55}


def test_adapted_arms_have_one_point():
    adapted = {"t1": 0.2, "tokens_t1": 9, "top1": 0.5, "top2": 0.6, "sampled_tokens": 144, "trained_tokens": 900}
    assert points(row(**adapted), "correct") == {"test-time training": [(144, 0.5)]}
    assert points(row(**adapted | {"trained_tokens": 0}), "correct") == {"views and votes": [(144, 0.5)]}


def evaluated(folder, arm: str, kind: str, names: range, **more: list[float]):
    """A folder as `rlcore eval` leaves it, of made-up figures on these problems."""
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(f"name: {arm}\nconversation:\n  kind: {kind}\nevaluate: {{}}\n")
    rows = {"t1": [0, 1, 0, 1], "t2": [0, 1, 1, 1], "tokens_t1": [8] * 4, "tokens_t2": [8] * 4, "spent_t1": [8] * 4}
    rows |= {"spent_t2": [20] * 4, **more}
    measured = Evaluation.of_rows("sampled", names, {name: np.array(row, dtype=float) for name, row in rows.items()})
    save_evaluation(folder / "evaluation.json", Results(arm, 0, 0, (measured,)))
    return folder


def test_one_page_and_plot_of_all_runs(tmp_path, capsys):
    """Votes among first answers are the policy's, whatever comes after these: told once."""
    votes = {"maj@2_t1": [0, 1, 0, 1]}
    runs = [
        evaluated(tmp_path / "one", "refine", "critique", range(4), **votes),
        evaluated(tmp_path / "two", "iterated<b>", "iterate_guided", range(4), **votes),
    ]
    stored = json.loads((runs[1] / "evaluation.json").read_bytes())
    stored["evaluations"][0]["metrics"]["t1"][1] += 1e-12  # an interval that differs by a rounding
    (runs[1] / "evaluation.json").write_text(json.dumps(stored))
    main(["report", "--compute", *map(str, runs), "--output", str(tmp_path / "page")])
    assert capsys.readouterr().out.strip() == str(tmp_path / "page" / "compute.html")
    text = (tmp_path / "page" / "compute.html").read_text()
    assert text.count("data:image/png;base64,") == 2
    assert "iterated&lt;b&gt;" in text
    assert "cannot be compared" not in text
    told = json.loads((tmp_path / "page" / "compute.json").read_bytes())
    assert [(way["arm"], way["name"], [p["tokens"] for p in way["points"]]) for way in told] == [
        ("refine", "parallel", [8, 16]), ("refine", "critique", [8, 20]), ("iterated<b>", "iterate guided", [8, 20]),
    ]  # fmt: skip
    runs[1] = evaluated(tmp_path / "three", "other", "correct", range(4, 8))
    write_compute(tmp_path / "page", runs)
    assert "cannot be compared" in (tmp_path / "page" / "compute.html").read_text()


def test_runs_of_one_name_and_seed_are_arms_of_their_own(tmp_path):
    names = ("one", "two")
    runs = [evaluated(tmp_path / "one", "think", "think_if_unsure", range(4))]
    runs += [evaluated(tmp_path / "two", "think", "correct", range(4), spent_t2=[40] * 4)]
    write_compute(tmp_path / "page", runs)
    told = json.loads((tmp_path / "page" / "compute.json").read_bytes())
    assert [(way["arm"], way["points"][1]["tokens"]) for way in told] == [
        (f"think ({runs[0]})", 20), (f"think ({runs[1]})", 40),
    ]  # fmt: skip
    write_report(tmp_path / "page", runs)
    rows = json.loads((tmp_path / "page" / "report.json").read_bytes())["table"]
    assert {row["arm"] for row in rows} == {f"think ({tmp_path / name})" for name in names}


def test_the_base_in_two_kinds_of_conversation_is_two_arms(tmp_path):
    kinds = {"one": "correct", "two": "./kinds.py:ITERATE", "three": "correct"}
    runs = [evaluated(tmp_path / name, name, kind, range(4)) for name, kind in kinds.items()]
    for run, t2 in zip(runs, ([0.0, 1, 1, 1], [0.0, 0, 0, 1], [0.0, 1, 1, 1]), strict=True):
        figures = {"t1": np.array([0.0, 1, 0, 1]), "t2": np.array(t2)}
        base = Evaluation.of_rows("sampled", range(4), figures)
        save_evaluation(run / "evaluation_base.json", Results("base", 0, 0, (base,)))
    write_report(tmp_path / "page", runs)
    rows = json.loads((tmp_path / "page" / "report.json").read_bytes())["table"]
    assert [(row["arm"], row["metrics"]["t2"][0]) for row in rows] == [
        ("base, correct", 0.75), ("base, ITERATE", 0.25), ("one", 0.75), ("two", 0.75), ("three", 0.75),
    ]  # fmt: skip
    write_report(tmp_path / "page", [runs[0], runs[2]])
    rows = json.loads((tmp_path / "page" / "report.json").read_bytes())["table"]
    assert [row["arm"] for row in rows] == ["base", "one", "three"]


def test_bases_of_several_policies_are_as_many_arms(tmp_path):
    runs = [evaluated(tmp_path / name, name, "correct", range(4)) for name in ("small", "large")]
    for run, t2 in zip(runs, ([0.0, 0, 0, 1], [0.0, 1, 1, 1]), strict=True):
        base = Evaluation.of_rows("sampled", range(4), {"t1": np.zeros(4), "t2": np.array(t2)})
        save_evaluation(run / "evaluation_base.json", Results("base", 0, 0, (base,)))
    write_report(tmp_path / "page", runs)
    rows = json.loads((tmp_path / "page" / "report.json").read_bytes())["table"]
    assert [(row["arm"], row["run"], row["metrics"]["t2"][0]) for row in rows[:2]] == [
        ("base, small", "seed 0", 0.25), ("base, large", "seed 0", 0.75),
    ]  # fmt: skip


def test_one_base_is_one_arm_though_one_run_has_measured_less_of_it(tmp_path):
    runs = [evaluated(tmp_path / name, name, "correct", range(4)) for name in ("greedy", "both")]
    figures = {"t1": np.zeros(4), "t2": np.array([0.0, 1, 1, 1])}
    greedy, sampled = (Evaluation.of_rows(mode, range(4), figures) for mode in ("greedy", "sampled"))
    less = Evaluation.of_rows("greedy", range(4), {"t1": figures["t1"]})
    for run, measured in zip(runs, ((less,), (sampled, greedy)), strict=True):
        save_evaluation(run / "evaluation_base.json", Results("base", 0, 0, measured))
    assert {result.arm for result in results_of(read_runs(runs))} == {"base", "greedy", "both"}


def test_the_names_of_lines_stand_at_the_others_though_one_has_no_height():
    _, (axes,) = panels(1, height=5)
    name_ends(axes, [(0.5, "one", "red"), (float("nan"), "none", "blue"), (0.9, "two", "green")])
    assert {text.get_text(): text.xy[1] for text in axes.texts} == pytest.approx({"one": 0.5, "two": 0.9})


def test_runs_without_samples_have_no_page(tmp_path):
    run = make_run(tmp_path / "run")
    for path in run.glob("evaluation*.json"):
        path.unlink()
    with pytest.raises(UserError, match="no run was sampled"):
        write_compute(tmp_path / "page", [run])


def record(*claims: bool | None, text: str = "it is 5") -> dict:
    between = []
    for number, claim in enumerate(claims, start=1):
        between += [{"after": number, "role": "critique", "text": f"remark {number}", "claim": None}]
        between += [{"after": number, "role": "verdict", "text": "so", "claim": claim}]
    return {"attempts": [{"text": text}] * (len(claims) + 1), "between": between}


def test_the_graph_leads_valid_propositions_to_the_summary_and_others_on():
    drawn = diagram(record(False, True, None))
    assert [drawn.count(word) for word in (">valid<", ">invalid<", ">not judged<", ">summary<")] == [1, 1, 1, 1]
    assert drawn.count("<path") == 2, "the first leads to the second, the second to the summary, the third nowhere"
    assert "remark 2" in drawn
    assert diagram(record(True, True)).count("<path") == 2
    assert diagram({"attempts": [{"text": ""}] * 2, "between": record(True)["between"][1:]}) is None


def test_the_graph_shows_words_as_words():
    drawn = diagram(record(True, text=HOSTILE))
    assert "<script>" not in drawn
    assert "<img" not in drawn
