"""The result table: figures, order, means, and both forms."""

from pathlib import Path

from rich.console import Console

from rlcore.evaluate.results import Evaluation, Results
from rlcore.report.table import console_table, markdown_table, result_rows


def _results(
    arm: str, seed: int, t1: float, t2: float, half: float = 0.02, modes: tuple[str, ...] = ("sampled",)
) -> Results:
    metrics = {"t1": t1, "t2": t2, "delta": t2 - t1, "i_to_c": 0.1, "c_to_i": 0.0625, "answer_change": float("nan")}
    intervals = {name: (value, value - half, value + half) for name, value in metrics.items()}
    return Results(arm, seed, 300, (Evaluation("sampled", 2000, intervals),))


def test_one_run_in_markdown():
    assert markdown_table([_results("score", 0, 0.5, 0.45)]) == (
        "| sampling | arm | run | t1 | t2 | Δ | i→c | c→i | answer change |\n"
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        "| sampled | score | seed 0 | 50.0 ± 2.0 | 45.0 ± 2.0 | -5.0 ± 2.0 | 10.0 ± 2.0 | 6.2 ± 2.0 | – |\n"
    )


def test_the_base_comes_first_and_only_once_though_every_arm_measured_it():
    base = _results("base", 0, 0.5, 0.5)
    rows = result_rows([_results("score", 0, 0.5, 0.6), base, _results("grpo", 0, 0.5, 0.5), base])
    assert [(row.arm, row.run) for row in rows] == [("base", "seed 0"), ("score", "seed 0"), ("grpo", "seed 0")]


def test_several_seeds_have_a_mean_before_their_own_rows():
    rows = result_rows([_results("score", s, 0.5, t2, half) for s, t2, half in [(0, 0.55, 0.01), (1, 0.65, 0.03)]])
    assert [(row.run, row.is_mean) for row in rows] == [("mean of 2", True), ("seed 0", False), ("seed 1", False)]
    assert [round(v, 6) for v in rows[0].metrics["delta"]] == [0.1, 0.08, 0.12]
    assert markdown_table([_results("score", s, 0.5, 0.6) for s in (0, 1)]).count("**+10.0 ± 2.0**") == 1


def test_modes_are_apart_and_every_attempt_has_its_column():
    third = {"t10": (0.7, 0.6, 0.8), "t2": (0.5, 0.4, 0.6), "t1": (0.4, 0.3, 0.5)}
    table = markdown_table([Results("n", 0, 1, (Evaluation("greedy", 9, third), Evaluation("sampled", 9, third)))])
    assert table.splitlines()[0] == "| sampling | arm | run | t1 | t2 | t10 |"
    assert [line.split(" | ")[0] for line in table.splitlines()[2:]] == ["| greedy", "| sampled"]


def test_an_arm_may_be_named_anything(tmp_path: Path):
    results = [_results("a|b [red]x[/red]", 0, 0.5, 0.6)]
    assert r"a\|b [red]x[/red]" in markdown_table(results)
    console = Console(width=160, file=(tmp_path / "out").open("w", encoding="utf-8"))
    console.print(console_table(results))
    console.file.close()
    text = (tmp_path / "out").read_text(encoding="utf-8")
    assert "a|b [red]x[/red]" in text
    assert "+10.0 ± 2.0" in text


def test_no_evaluations_make_an_empty_table():
    assert result_rows([]) == []
    assert markdown_table([]).count("\n") == 2
