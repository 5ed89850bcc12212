"""Problems from files: columns, prompts, ids, exclusion, and what is said of bad input."""

import gzip
import json

import datasets
import huggingface_hub
import pytest

from rlcore.data import load_problems
from rlcore.errors import UserError
from rlcore.recipe.schema import DataConfig

ROWS = [{"question": f"What is {i} + 1?", "answer": f"#### {i + 1}", "source": "made"} for i in range(6)]


def write(path, rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def rows_file(tmp_path):
    return write(tmp_path / "rows.jsonl", ROWS)


def test_prompt_template_system_and_columns(rows_file):
    section = DataConfig(source="gsm8k", path=rows_file, prompt="Q: {prompt} Use \\boxed{}.", system="Be brief.")
    problem = load_problems(section)[2]
    assert problem.messages == (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Q: What is 2 + 1? Use \\boxed{}."},
    )
    assert problem.columns == ROWS[2]
    assert problem.domain == "math"


def test_all_kinds_of_file_give_the_same_problems(rows_file, tmp_path):
    packed = tmp_path / "rows.jsonl.gz"
    packed.write_bytes(gzip.compress((tmp_path / "rows.jsonl").read_bytes()))
    table = datasets.Dataset.from_list(ROWS)
    table.to_parquet(tmp_path / "rows.parquet")
    folder = tmp_path / "hub_form"
    folder.mkdir()
    table.to_parquet(folder / "train.parquet")
    columns = {"prompt": "question"}
    expected = [problem.messages for problem in load_problems(DataConfig(source="gsm8k", path=rows_file))]
    for source, path in [("jsonl", packed), ("parquet", tmp_path / "rows.parquet"), ("hub", folder)]:
        problems = load_problems(DataConfig(source=source, path=str(path), columns=columns))
        assert [problem.messages for problem in problems] == expected
        assert problems[0].columns == {"prompt": "What is 0 + 1?", "answer": "#### 1", "source": "made"}
    assert [
        p.messages for p in load_problems(DataConfig(source="gsm8k", path=str(tmp_path / "rows.parquet")))
    ] == expected


def test_a_data_set_folder_has_splits(tmp_path):
    write(tmp_path / "train.jsonl", ROWS[:4])
    write(tmp_path / "test.jsonl", ROWS[4:])
    counts = {
        split: len(load_problems(DataConfig(source="gsm8k", path=str(tmp_path), split=split)))
        for split in ("train", "test", "train+test", "all")
    }
    assert counts == {"train": 4, "test": 2, "train+test": 6, "all": 6}
    with pytest.raises(UserError, match="dev"):
        load_problems(DataConfig(source="gsm8k", path=str(tmp_path), split="dev"))


def test_a_file_has_no_splits(rows_file):
    with pytest.raises(UserError, match=r"data\.split test: .* is one file, which has no splits"):
        load_problems(DataConfig(source="jsonl", path=rows_file, columns={"prompt": "question"}, split="test"))
    said: list[str] = []
    assert len(load_problems(DataConfig(source="gsm8k", path=rows_file, split="test"), said.append)) == len(ROWS)
    assert said == [f"data set {rows_file} is one file, which is read whole: it has no split test"]


def test_ids_are_the_rows_own_or_follow_the_text_not_the_place(tmp_path, rows_file):
    backwards = write(tmp_path / "backwards.jsonl", ROWS[::-1])
    forth, back = (load_problems(DataConfig(source="gsm8k", path=path)) for path in (rows_file, backwards))
    assert [problem.id for problem in forth] == [problem.id for problem in back][::-1]
    assert len({problem.id for problem in forth}) == 6
    own = write(tmp_path / "own.jsonl", [{"prompt": "a", "id": 7}, {"prompt": "b", "id": "x"}])
    assert [problem.id for problem in load_problems(DataConfig(source="jsonl", path=own))] == ["7", "x"]


def test_repeated_ids_become_distinct_ones_that_no_row_has(tmp_path):
    told = {"a": ["a", "a#2", "a", "a"], "b": ["b", "b", "b#2", "b#3", "b#2"]}
    got = {}
    for name, own in told.items():
        path = write(tmp_path / f"{name}.jsonl", [{"prompt": f"p{n}", "id": each} for n, each in enumerate(own)])
        got[name] = [problem.id for problem in load_problems(DataConfig(source="jsonl", path=path), lambda line: None)]
    assert got == {"a": ["a", "a#2", "a#3", "a#4"], "b": ["b", "b#4", "b#2", "b#3", "b#2#2"]}


def test_rows_that_have_the_new_names_already_are_read_as_they_stand(tmp_path):
    def answers(rows, columns):
        path = write(tmp_path / "rows.jsonl", rows)
        section = DataConfig(source="jsonl", path=path, columns=columns)
        return [(p.columns["prompt"], p.columns["answer"]) for p in load_problems(section)]

    columns = {"prompt": "question", "answer": "gold"}
    for row in ({"question": "q", "gold": "g"}, {"prompt": "q", "answer": "g"}):
        assert answers([row], columns) == [("q", "g")]
    chain = {"prompt": "answer", "answer": "gold"}
    for row in ({"answer": "q", "gold": "g"}, {"prompt": "q", "answer": "g"}):
        assert answers([row], chain) == [("q", "g")]
    with pytest.raises(UserError, match=r"has no column gld; .*did you mean gold"):
        answers([{"question": "q", "gold": "g", "answer": "other"}], columns | {"answer": "gld"})


def test_exclude_compares_texts_whatever_their_white_space_and_limit_counts_what_is_left(tmp_path, rows_file):
    held_out = write(tmp_path / "held_out.jsonl", [{"question": "What  is\n0 + 1? "}, {"question": "What is 2 + 1?"}])
    section = DataConfig(source="gsm8k", path=rows_file, exclude=held_out, limit=3)
    assert [p.messages[0]["content"][8] for p in load_problems(section)] == ["1", "3", "4"]
    with pytest.raises(UserError, match="no problems are left"):
        load_problems(section.model_copy(update={"exclude": rows_file}))


def test_math_rows_without_an_answer_get_their_solution(tmp_path):
    rows = [{"problem": "p", "solution": "so \\boxed{3}"}, {"problem": "q", "solution": "s", "answer": "4"}]
    problems = load_problems(DataConfig(source="math", path=write(tmp_path / "math.jsonl", rows)))
    assert [problem.columns["answer"] for problem in problems] == ["so \\boxed{3}", "4"]


def test_mbpp_takes_its_split_by_task_number_and_shows_the_tests(tmp_path):
    rows = [
        {"text": "Add.", "task_id": i, "test_list": ["assert add(1, 2) == 3"], "code": ""} for i in (10, 11, 510, 601)
    ]
    path = write(tmp_path / "mbpp.jsonl", rows)
    taken = {
        split: [p.id for p in load_problems(DataConfig(source="mbpp", path=path, split=split))]
        for split in ("prompt", "test", "train", "train+test")
    }
    assert taken == {"prompt": ["10"], "test": ["11", "510"], "train": ["601"], "train+test": ["11", "510", "601"]}
    problem = load_problems(DataConfig(source="mbpp", path=path))[0]
    assert "assert add(1, 2) == 3" in problem.messages[0]["content"]
    assert problem.domain == "code"
    with pytest.raises(UserError, match="no problems are left"):
        load_problems(DataConfig(source="mbpp", path=path, split="validation"))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (['{"question": "a", "answer": "1"}', "", '{"question": "b"}'], r"bad.jsonl:3: 1 of 2 rows have no answer"),
        (
            ['{"question": "a", "answer": "1"}', *['{"question": "b", "answer": null}'] * 7],
            r"bad.jsonl: lines 2, 3, 4, 5, 6, ...: 7 of 8 rows have no answer",
        ),
        (['{"question": "a", "answr": "1"}'], "has no column answer; it has answr, question; did you mean answr?"),
        (['{"question": "a", "answer": "1"}', '{"question": '], r"bad.jsonl:2: not JSON"),
        (['["a", "1"]'], r"bad.jsonl:1: a row must be a JSON object, not list"),
        (['{"question": ["a"], "answer": "1"}'], r"bad.jsonl:1: 1 of 1 rows have a question that is not text"),
        (['{"question": "a", "answer": []}'], r"bad.jsonl:1: 1 of 1 rows have no answer"),
        (['{"question": " ", "answer": "1"}'], r"bad.jsonl:1: 1 of 1 rows have no question"),
        ([], "is empty"),
        (["", ""], "is empty"),
    ],
)
def test_bad_rows_are_named_in_one_line(tmp_path, lines, message):
    path = tmp_path / "bad.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(UserError, match=message) as error:
        load_problems(DataConfig(source="gsm8k", path=str(path)))
    assert "\n" not in str(error.value)


def test_bad_rows_are_left_out_and_listed_where_the_recipe_says_so(tmp_path):
    lines = [
        '{"question": "a", "answer": "1"}',
        '{"question": ',
        '{"question": "b"}',
        "[1]",
        "",
        '{"question": ["c"], "answer": "1"}',
        '{"question": "d", "answer": " "}',
        '{"question": "e", "answer": "2"}',
    ]
    path = tmp_path / "bad.jsonl"
    path.write_text("\n".join(lines))
    said: list[str] = []
    section = DataConfig(source="gsm8k", path=str(path), skip_bad_rows=True)
    problems = load_problems(section, said.append)
    assert [problem.columns["question"] for problem in problems] == ["a", "e"]
    assert said == [
        f"{path}: left out 5 of 7 rows: not JSON: line 2; list, not an object: line 4; no answer: lines 3, 7; "
        "question is not text, nor messages that end with the user's: line 6"
    ]
    table = datasets.Dataset.from_list([{"q": "a", "n": "1"}, {"q": None, "n": "2"}, {"q": "c", "n": "3"}])
    table.to_parquet(tmp_path / "rows.parquet")
    columns = {"prompt": "q"}
    own = DataConfig(source="parquet", path=str(tmp_path / "rows.parquet"), columns=columns, skip_bad_rows=True)
    assert len(load_problems(own, said.append)) == 2
    assert said[1].endswith("left out 1 of 3 rows: no q: row 2")
    with pytest.raises(UserError, match="has no column prompt"):
        load_problems(own.model_copy(update={"columns": {}}))


def test_bad_files_are_named_in_one_line(tmp_path, rows_file):
    not_gzip, not_parquet, latin = tmp_path / "a.jsonl.gz", tmp_path / "a.parquet", tmp_path / "latin.jsonl"
    not_gzip.write_bytes(b"plain")
    not_parquet.write_bytes(b"plain")
    latin.write_bytes(b'{"question": "caf\xe9"}')
    cases = {
        str(tmp_path / "row.jsonl"): "does not exist; did you mean .*rows.jsonl?",
        str(not_gzip): "a.jsonl.gz cannot be read",
        str(not_parquet): "a.parquet cannot be loaded",
        str(latin): "latin.jsonl cannot be read",
    }
    for path, message in cases.items():
        with pytest.raises(UserError, match=message) as error:
            load_problems(DataConfig(source="gsm8k", path=path))
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="does not exist"):
        load_problems(DataConfig(source="gsm8k", path=rows_file, exclude=str(tmp_path / "gone.jsonl")))


def test_bad_sections_are_refused(rows_file):
    cases = [
        (DataConfig(source="jsonl"), "data.path is missing"),
        (DataConfig(source="arithmetic", path=rows_file), "the arithmetic source makes its problems"),
        (DataConfig(source="gsm8k", path=rows_file, columns={"level": "lvl"}), "has no column lvl"),
        (DataConfig(source="gsm8k", path=rows_file, options={"count": 3}), "data.options: the gsm8k source has none"),
    ]
    for section, message in cases:
        with pytest.raises(UserError, match=message):
            load_problems(section)


def test_a_hub_that_cannot_be_reached_is_one_line(monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("rlcore.hub.hub_trouble", lambda: "")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="data set openai/gsm8k cannot be loaded") as error:
        load_problems(DataConfig(source="gsm8k"))
    assert "\n" not in str(error.value)


def messages(*turns: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in turns]


def test_a_prompt_over_columns(tmp_path):
    rows = [{"q": "Which?", "choices": ["A. one", "B. two"], "level": 2, "answer": "B"}]
    path = write(tmp_path / "rows.jsonl", rows)
    template = "{q} (level {level})\n{choices}\nPut it into \\boxed{answer}."
    (problem,) = load_problems(DataConfig(source="jsonl", path=path, prompt=template))
    assert problem.messages[0]["content"] == "Which? (level 2)\nA. one\nB. two\nPut it into \\boxed{answer}."
    assert problem.columns == rows[0]
    mapped = DataConfig(source="jsonl", path=path, columns={"prompt": "q"}, prompt="{prompt}\n{choices}")
    assert load_problems(mapped)[0].messages[0]["content"] == "Which?\nA. one\nB. two"
    with pytest.raises(UserError, match=r"has no column chioces; .*did you mean choices"):
        load_problems(DataConfig(source="jsonl", path=path, prompt="{q}\n{chioces}"))


def test_prompts_that_are_messages(tmp_path):
    talk = messages(("system", "Be brief."), ("user", "1 + 1?"), ("assistant", "2"), ("user", "And 2 + 2?"))
    path = write(tmp_path / "rows.jsonl", [{"prompt": talk}, {"prompt": "3 + 3?"}])
    whole, text = load_problems(DataConfig(source="jsonl", path=path))
    assert list(whole.messages) == talk
    assert (whole.conversational, text.conversational) == (True, False)
    again, _ = load_problems(DataConfig(source="jsonl", path=path, prompt="{prompt} Think.", system="Be right."))
    assert again.messages[0]["content"] == "Be right."
    assert again.messages[-1]["content"] == "And 2 + 2? Think."
    assert again.id == whole.id
    held_out = write(tmp_path / "held_out.jsonl", [{"prompt": talk}])
    assert [p.id for p in load_problems(DataConfig(source="jsonl", path=path, exclude=held_out))] == [text.id]
    write(tmp_path / "rows.jsonl", [{"prompt": talk[:3]}])
    with pytest.raises(UserError, match="not text, nor messages that end with the user's"):
        load_problems(DataConfig(source="jsonl", path=path))


@pytest.mark.parametrize(
    "row",
    [{"prompt": "?", "images": ["a.png"]}, {"prompt": "?", "picture": {"bytes": "", "path": "a.png"}}],
)
def test_images_are_noted(tmp_path, row):
    said: list[str] = []
    load_problems(DataConfig(source="jsonl", path=write(tmp_path / "rows.jsonl", [row])), said.append)
    assert len(said) == 1
    assert "has images" in said[0]
