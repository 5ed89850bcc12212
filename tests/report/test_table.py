"""The result table: figures, order, means, and both forms."""

from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from rlcore.evaluate.results import Evaluation, Results
from rlcore.report.table import console_table, coverage_note, difference_rows, markdown_table, part_rows, result_rows


def _results(
    arm: str, seed: int, t1: float, t2: float, half: float = 0.02, modes: tuple[str, ...] = ("sampled",)
) -> Results:
    metrics = {"t1": t1, "t2": t2, "delta": t2 - t1, "i_to_c": 0.1, "c_to_i": 0.0625, "answer_change": float("nan")}
    intervals = {name: (value, value - half, value + half) for name, value in metrics.items()}
    return Results(arm, seed, 300, (Evaluation("sampled", 2000, intervals),))


def test_one_run_in_markdown():
    assert markdown_table(result_rows([_results("score", 0, 0.5, 0.45)])) == (
        "| sampling | arm | run | t1 | t2 | Δ | i→c | c→i | answer change |\n"
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        "| sampled | score | seed 0 | 50.0 ± 2.0 | 45.0 ± 2.0 | -5.0 ± 2.0 | 10.0 ± 2.0 | 6.2 ± 2.0 | – |\n"
    )


def test_the_base_comes_first_and_only_once_though_every_arm_measured_it():
    base = _results("base", 0, 0.5, 0.5)
    rows = result_rows([_results("score", 0, 0.5, 0.6), base, _results("grpo", 0, 0.5, 0.5), base])
    assert [(row.arm, row.run) for row in rows] == [("base", "seed 0"), ("score", "seed 0"), ("grpo", "seed 0")]


def test_the_base_is_one_row_whatever_the_seed_of_the_run_that_measured_it():
    found = result_rows([_measured("base", seed, [1, 0, 1]) for seed in (0, 1, 2)])
    assert [(row.arm, row.run) for row in found] == [("base", "seed 0")]
    found = result_rows([_measured("base", 0, [1, 0, 1]), _measured("base", 1, [1, 1, 1])])
    assert [row.run for row in found] == ["mean of 2", "seed 0", "seed 1"]


def test_the_copies_of_the_base_make_its_intervals_by_level_no_narrower():
    """Each of three arms holds the base of each of two seeds."""
    problems, levels = [f"p{place}" for place in range(100)], [{"level": str(place % 2)} for place in range(100)]
    base = []
    for seed, right in ((0, 40), (1, 60)):
        rows = {"t2": np.array([1.0] * right + [0.0] * (100 - right))}
        whole = Evaluation.of_rows("sampled", problems, rows).with_parts(problems, rows, levels)
        base.append(Results("base", seed, 0, (whole,)))
    assert part_rows(base * 3, "sampled") == part_rows(base, "sampled")


def test_levels_of_all_seeds_are_shown_whichever_comes_first():
    few, more = (
        Evaluation.of_rows("sampled", problems, rows).with_parts(problems, rows, [{"level": each} for each in levels])
        for problems, rows, levels in (
            [list("ab"), {"t2": np.array([1.0, 0.0])}, "12"],
            [list("abcde"), {"t2": np.array([0.0, 0.0, 1.0, 1.0, 1.0])}, "12335"],
        )
    )
    results = [Results("score", 0, 0, (few,)), Results("score", 1, 0, (more,))]
    for each in (results, results[::-1]):
        shown = part_rows(each, "sampled")["level"]
        assert [(value, problems) for value, problems, _ in shown] == [("1", 1), ("2", 1), ("3", 2), ("5", 1)]
        assert [row.metrics["t2"][0] for _, _, row in shown] == [0.5, 0.0, 1.0, 1.0]


def _measured(arm: str, seed: int, right_P: list[int], named: str = "p") -> Results:
    rows = {"t1": np.zeros(len(right_P)), "t2": np.array(right_P, dtype=float)}
    problems = [f"{named}{place}" for place in range(len(right_P))]
    return Results(arm, seed, 300, (Evaluation.of_rows("sampled", problems, rows),))


def test_several_seeds_have_a_mean_before_their_own_rows_and_an_interval_over_problems_and_seeds():
    """All problems alike: the interval is Student's t over the seeds, with two ±12.7 · 0.1 / 2."""
    rows = result_rows([_measured("score", s, [1] * right + [0] * (400 - right)) for s, right in ((0, 220), (1, 260))])
    assert [(row.run, row.is_mean) for row in rows] == [("mean of 2", True), ("seed 0", False), ("seed 1", False)]
    value, low, high = rows[0].metrics["t2"]
    assert value == pytest.approx(0.6)
    assert high - value == pytest.approx(12.7 * 0.05, rel=0.1)
    assert value - low == pytest.approx(12.7 * 0.05, rel=0.1)
    assert markdown_table(rows).count("**") == 2 * 5


def test_differences_are_paired_by_problem_and_the_note_says_what_intervals_are_over():
    plain, score = [1] * 200 + [0] * 200, [1] * 205 + [0] * 195
    results = [_measured("score", 0, score), _measured("plain", 0, plain)]
    (row,) = difference_rows(results, "plain")
    assert (row.arm, row.run, row.is_difference) == ("score", "minus plain", True)
    value, low, high = row.metrics["t2"]
    assert value == pytest.approx(0.0125)
    assert high - low < 0.03, "unpaired it would be 0.14"
    assert "+1.2 ± " in markdown_table([row])
    assert "problems alone" in coverage_note(results)
    whole = coverage_note([*results, _measured("score", 1, score)])
    assert whole.endswith("over problems and seeds.")
    part = coverage_note([*results, _measured("score", 1, score[:30])])
    assert part == f"{whole} A mean is over the problems that all runs of its arm have: some have others too."
    others = [_measured("short", seed, score[:30]) for seed in (0, 1)]
    assert coverage_note([*results, _measured("score", 1, score), *others]) == whole
    assert "problems and seeds" in coverage_note([Results("old", seed, 0, ()) for seed in (0, 1)])


def test_where_bases_are_several_each_arm_is_compared_with_its_own():
    results = [_measured("base, small", 0, [0, 0, 1, 0]), _measured("base, large", 0, [1, 1, 1, 0])]
    results += [_measured("small", 0, [0, 1, 1, 0]), _measured("large", 0, [1, 1, 1, 1])]
    found = {row.arm: row.metrics["t2"][0] for row in difference_rows(results, "base")}
    assert found == {"small": 0.25, "large": 0.25}


def test_only_problems_that_all_runs_have_are_compared():
    results = [_measured("score", 0, [1, 0, 1]), _measured("plain", 0, [0, 0])]
    assert difference_rows(results, "plain")[0].metrics["t2"][0] == 0.5
    assert difference_rows([*results[:1], _measured("plain", 0, [0], "q")], "plain")[0].metrics == {}


def test_modes_are_apart_and_every_attempt_has_its_column():
    third = {"t10": (0.7, 0.6, 0.8), "t2": (0.5, 0.4, 0.6), "t1": (0.4, 0.3, 0.5)}
    evaluations = Evaluation("greedy", 9, third), Evaluation("sampled", 9, third)
    table = markdown_table(result_rows([Results("n", 0, 1, evaluations)]))
    assert table.splitlines()[0] == "| sampling | arm | run | t1 | t2 | t10 |"
    assert [line.split(" | ")[0] for line in table.splitlines()[2:]] == ["| greedy", "| sampled"]


def test_an_arm_may_be_named_anything(tmp_path: Path):
    rows = result_rows([_results("a|b [red]x[/red]", 0, 0.5, 0.6)])
    assert r"a\|b [red]x[/red]" in markdown_table(rows)
    console = Console(width=160, file=(tmp_path / "out").open("w", encoding="utf-8"))
    console.print(console_table(rows))
    console.file.close()
    text = (tmp_path / "out").read_text(encoding="utf-8")
    assert "a|b [red]x[/red]" in text
    assert "+10.0 ± 2.0" in text


def test_no_evaluations_make_an_empty_table():
    assert result_rows([]) == []
    assert coverage_note([])
    assert markdown_table([]).count("\n") == 2
