"""What an interrupted evaluation left is read back whole or not at all."""

import json

import pytest

from rlcore.errors import UserError
from rlcore.evaluate.journal import Journal

THIS = {"seed": 0, "model": {"path": "a"}}


def _record(problem: str, stage: str = "greedy", score: float | None = 1.0) -> dict:
    said = {"role": "user", "content": "2 + 3?"}
    attempt = {"text": "5", "score": score, "status": "correct", "answer": "5", "finish": "stop", "tokens": 2}
    shown = {"step": 0, "stage": stage, "problem_id": problem, "messages": [said], "attempts": [attempt], "between": []}
    return {**shown, "parts": {}, "flip": None, "edit_ratio": float("nan")}


def test_conversations_are_read_back_and_a_torn_line_is_not(tmp_path):
    path = tmp_path / "attempts-0.jsonl"
    journal = Journal(path, THIS)
    written = [journal.write(_record("a"), sample) for sample in (1, 0)]
    path.write_bytes(path.read_bytes()[:-20])
    again = Journal(path, THIS)
    assert again.read("greedy", "a", 1) == written[0]
    assert [again.read(*name) for name in (("greedy", "a", 0), ("greedy", "b", 1), ("sampled", "a", 1))] == [None] * 3
    assert again.write(_record("a"), 0) == written[1]
    assert len(path.read_text().splitlines()) == 3
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_a_conversation_whose_reward_failed_is_held_again(tmp_path):
    path = tmp_path / "attempts-0.jsonl"
    journal = Journal(path, THIS)
    failed, scored = (journal.write(_record(problem, score=score), 0) for problem, score in (("a", None), ("b", 0.0)))
    assert failed["attempts"][0]["score"] is None
    again = Journal(path, THIS)
    assert (again.done, again.read("greedy", "a", 0), again.read("greedy", "b", 0)) == (1, None, scored)
    judged = again.write(_record("a"), 0)
    assert Journal(path, THIS).read("greedy", "a", 0) == judged
    assert len(path.read_text().splitlines()) == 3


def test_a_reply_without_its_tokens_is_named(tmp_path):
    """What a conversation spent is not known without them."""
    path = tmp_path / "attempts-0.jsonl"
    said = {"after": 1, "role": "critique", "text": "Carry the 1.", "claim": None, "tokens": 4}
    written = Journal(path, THIS).write(_record("a") | {"between": [said]}, 0)
    assert Journal(path, THIS).read("greedy", "a", 0) == written
    path.write_text(path.read_text().replace(', "tokens": 4', ""))
    with pytest.raises(UserError, match=rf"{path}:2 is no such record: between\.0\.tokens: Field required"):
        Journal(path, THIS)


def test_another_evaluation_is_refused_unless_nothing_was_kept_of_it(tmp_path):
    path = tmp_path / "attempts-0.jsonl"
    Journal(path, THIS)
    Journal(path, {**THIS, "model": {"path": "b"}}).write(_record("a"), 0)
    kept = path.read_bytes()
    with pytest.raises(
        UserError, match=rf"{tmp_path} holds an evaluation that was begun with other model\.path: output=FOLDER"
    ):
        Journal(path, THIS)
    assert path.read_bytes() == kept


def test_without_a_path_nothing_is_kept():
    journal = Journal()
    assert journal.write(_record("a"), 0)["edit_ratio"] is None
    assert journal.read("greedy", "a", 0) is None
