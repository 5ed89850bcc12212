"""`python -m rewards` on real files, and what a mistake is told."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rewards", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=dict(os.environ), check=False)


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "data.jsonl"
    table = [
        {"completion": r"\boxed{4}", "answer": "4", "solution": "2+2\n#### 4"},
        {"completion": r"\boxed{5}", "answer": "4", "solution": "2+2\n#### 4"},
        {"completion": "none", "answer": "4", "solution": "2+2\n#### 4"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in table))
    return path


def test_scores_a_file_and_writes_verdicts(data, tmp_path):
    done = run("--reward", "math", data, "--output", tmp_path / "verdicts.jsonl")
    assert done.returncode == 0, done.stderr
    shown = [line.split() for line in done.stdout.splitlines()]
    assert [line[:3] for line in shown[:3]] == [
        ["correct", "1", "33.33%"], ["wrong", "1", "33.33%"], ["no_answer", "1", "33.33%"],
    ]  # fmt: skip
    assert "mean score 0.3333 over 3 scored of 3" in done.stdout
    verdicts = [json.loads(line) for line in (tmp_path / "verdicts.jsonl").read_text().splitlines()]
    assert [(v["row"], v["score"], v["status"]) for v in verdicts] == [
        (0, 1.0, "correct"), (1, 0.0, "wrong"), (2, 0.0, "no_answer"),
    ]  # fmt: skip


def test_what_a_program_says_is_shown_without_its_control_characters(tmp_path):
    path = tmp_path / "programs.jsonl"
    programs = ["def f(x): raise ValueError('\\ud800\\x1b[31m\\a\\ncaf\u00e9')", "def f(x): return x * x"]
    table = [{"completion": program, "test_list": ["assert f(2) == 4"]} for program in programs]
    path.write_text("".join(json.dumps(row) + "\n" for row in table))
    done = run("--reward", "code", path, "--output", tmp_path / "verdicts.jsonl")
    assert done.returncode == 0, done.stderr
    assert "mean score 0.5000 over 2 scored of 2" in done.stdout
    assert "ValueError: \\ud800\\x1b[31m\\x07 caf\u00e9" in done.stdout
    assert not set(done.stdout) & {"\x1b", "\a", "\ud800"}
    assert json.loads((tmp_path / "verdicts.jsonl").read_text().splitlines()[1])["score"] == 1.0


def test_scores_the_references(data):
    done = run("--reward", "math", "--gold", data)
    assert "correct           3  100.00%" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--reward", "mth"], "no reward named 'mth'"),
        (["--reward", "math", "--completion", "text"], "row 1: no column 'text'"),
        (["--reward", "math", "--kwargs", "{"], "--kwargs is not JSON"),
        (["--reward", "pair_sum"], "needs column 'numbers'; the data has: answer, solution"),
        (["--reward", "math", "--output", "/no/such/folder/x"], "No such file or directory: '/no/such/folder/x'"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(data, arguments, told):
    done = run(*arguments, data)
    assert done.returncode == 2
    assert told in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "no rows"),
        (b"{\n", "line 1: not JSON"),
        (b"\xff\xfe\xff\n", "line 1: not JSON"),
        (b"[1]\n", "line 1: a list"),
        (b'{"x": 1}\n', "none of the columns"),
    ],
)
def test_bad_files(tmp_path, content, told):
    path = tmp_path / "bad.jsonl"
    path.write_bytes(content)
    done = run("--reward", "math", path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert told in done.stderr
    assert run("--reward", "math", tmp_path / "absent.jsonl").returncode == 2
