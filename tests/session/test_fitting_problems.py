"""Every prompt is counted before anything runs, and rows that repeat an id stay apart."""

import json
import re
from dataclasses import replace

import pytest
from transformers import LlamaConfig

from rlcore.data import load_problems
from rlcore.errors import UserError
from rlcore.recipe.schema import DataConfig
from rlcore.session.build import check_model_length, fitting_problems
from rlcore.types import Problem
from tests.rollout.scripted import conversation


def asked(name: str, text: str) -> Problem:
    return Problem(id=name, messages=({"role": "user", "content": text},))


def test_a_long_prompt_of_few_characters_is_found_and_left_out(monkeypatch, capsys):
    talk = conversation()
    problems = [asked("short", "What is 2 + 3?"), *(asked(f"{n}", "word " * 12) for n in range(70))]
    problems.append(asked("dense", "\N{GRINNING FACE}" * 50))
    limit = max(talk.prompt_tokens(problems[:-1]))
    rendered = [talk.template.render(problem.messages) for problem in problems]
    for part in (100, 7):
        monkeypatch.setattr("rlcore.rollout.conversation.PART", part)
        assert talk.prompt_tokens(problems, shown=True) == [len(talk.template.encode(text)) for text in rendered]
    assert capsys.readouterr().out == "", "a bar is for terminals"
    talk.max_prompt_tokens = limit
    said: list[str] = []
    assert fitting_problems(talk, problems, said.append) == problems[:-1]
    (line,) = said
    assert "1 of 72 problems is left out (dense)" in line
    talk.open(problems[0])
    with pytest.raises(UserError, match=r"evaluate.data: 1 of 72 prompts"):
        fitting_problems(talk, problems, None)
    with pytest.raises(UserError, match="all prompts are longer"):
        fitting_problems(talk, problems[-1:], said.append)


def test_prompts_are_tokenised_once_for_a_tokenizer(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    problems = [asked(f"{n}", f"{n} words " * (n % 5)) for n in range(1200)]
    counts = conversation().prompt_tokens(problems)
    (kept,) = tmp_path.rglob("*.i4")
    talk = conversation()
    with monkeypatch.context() as patch:
        patch.setattr(
            "rlcore.rollout.token_counts.TokenCounts._count", lambda counts, texts: pytest.fail("counted again")
        )
        assert talk.prompt_tokens(problems) == counts
    talk.tokenizer.add_tokens(["words"])
    assert talk.prompt_tokens(problems) != counts, "another tokenizer"
    assert talk.prompt_tokens([*problems[:-1], asked("last", "")]) != counts
    assert len(list(tmp_path.rglob("*.i4"))) == 3
    kept.write_bytes(b"torn!")
    assert conversation().prompt_tokens(problems) == counts
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    assert conversation().prompt_tokens(problems) == counts, "where nothing can be kept"


def test_rows_that_share_an_id_are_two_problems(tmp_path):
    rows = [{"id": "x", "prompt": "Write a.", "letter": "a"}, {"id": "x", "prompt": "Write a.", "letter": "b"}]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    said: list[str] = []
    problems = load_problems(DataConfig(source="jsonl", path=str(path)), said.append)
    assert len({problem.id for problem in problems}) == 2
    assert [problem.columns["letter"] for problem in problems] == ["a", "b"]
    assert "1 rows repeat the id or text of another (x)" in said[0]


def test_problems_without_public_tests_are_left_out_where_feedback_needs_them():
    talk = conversation(kind="feedback")
    rows = {"good": ["assert f(3) == 6"], "none": [], "broken": ["assert ("]}
    problems = [replace(asked(name, "Write f."), columns={"public_tests": tests}) for name, tests in rows.items()]
    said: list[str] = []
    assert fitting_problems(talk, problems, said.append) == problems[:1]
    (line,) = said
    assert "2 of 3 problems are left out (none, broken), unfit for conversation.kind feedback: problem none" in line
    with pytest.raises(UserError, match=r"evaluate.data: 2 of 3 prompts are unfit .*skip_bad_rows=true"):
        fitting_problems(talk, problems, None)
    with pytest.raises(UserError, match=r"all prompts are unfit .* problem broken: the tests cannot be read"):
        fitting_problems(talk, problems[2:], said.append)


@pytest.mark.parametrize(("kind", "attempts", "replies"), [("correct", 3, 3), ("correct", 1, 1), ("iterate", 2, 3)])
def test_what_makes_a_conversation_too_long_adds_up(kind, attempts, replies):
    talk = conversation(kind=kind, attempts=attempts, max_attempt_tokens=12)
    check_model_length(talk, LlamaConfig(max_position_embeddings=talk.max_tokens))
    with pytest.raises(UserError, match=r"conversation: 100 tokens of prompt \+ ") as told:
        check_model_length(talk, LlamaConfig(max_position_embeddings=talk.max_tokens - 1))
    said = str(told.value)
    assert said.endswith("; lower conversation.max_attempt_tokens")
    between = int(re.search(rf" {replies - 1} x (\d+) of messages between them", said)[1])
    assert f" {replies} x 12 of replies" in said
    assert 100 + replies * 12 + (replies - 1) * between == talk.max_tokens == int(re.search(r"make (\d+)", said)[1])
