"""What an interrupted evaluation left is read back whole or not at all."""

import json

import pytest

from rlcore.errors import UserError
from rlcore.evaluate.journal import Journal


def _records(count: int, stage: str = "greedy") -> list[dict]:
    said = {"role": "user", "content": "2 + 3?"}
    attempt = {"text": "5", "score": 1.0, "status": "correct", "answer": "5", "finish": "stop", "tokens": 2}
    record = {"step": 0, "stage": stage, "messages": [said], "parts": {}, "attempts": [attempt], "between": []}
    return [{**record, "problem_id": str(i), "flip": None, "edit_ratio": float("nan")} for i in range(count)]


def test_chunks_that_are_whole_are_read_back_and_a_torn_one_is_not(tmp_path):
    path = tmp_path / "attempts-0.jsonl"
    journal = Journal(path, "this")
    written = [journal.write("greedy", start, _records(3)) for start in (0, 3)]
    path.write_bytes(path.read_bytes()[:-20])
    again = Journal(path, "this")
    assert again.read("greedy", 0) == written[0]
    assert again.read("greedy", 3) is None
    assert again.read("sampled", 0) is None
    assert again.write("greedy", 3, _records(3)) == written[1]
    assert len(path.read_text().splitlines()) == 7
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_another_evaluation_is_refused_unless_nothing_was_kept_of_it(tmp_path):
    path = tmp_path / "attempts-0.jsonl"
    Journal(path, "this")
    Journal(path, "that").write("greedy", 0, _records(1))
    kept = path.read_bytes()
    with pytest.raises(UserError, match=f"{tmp_path} holds another evaluation .* give another output"):
        Journal(path, "this")
    assert path.read_bytes() == kept


def test_without_a_path_nothing_is_kept():
    journal = Journal()
    assert journal.write("greedy", 0, _records(1))[0]["edit_ratio"] is None
    assert journal.read("greedy", 0) is None
