"""The terminal view of runs: what it says of a running and a finished one, and that it ends by itself."""

import json
import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

from rlcore.cli import main
from rlcore.errors import UserError
from rlcore.track.watch import sparkline
from tests.report.synthetic_runs import make_run

RECIPE = """
name: score
evaluate: {problems: 8}
stages: [{name: I, steps: 20}, {name: II, steps: 40}]
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run of 60 steps of two seconds each, looked at in a wide terminal."""
    monkeypatch.setenv("COLUMNS", "200")
    folder = make_run(tmp_path / "run", text="the <b>[bold]answer")
    (folder / "recipe.yaml").write_text(RECIPE)
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for record in records:
        record |= {"time/rollout": 1.5, "time/learner": 0.5, "time/step": 2.0, "learner/tokens": 600.0}
    records[-1]["alarm/copying"] = 1.0
    records = [record | {"train/answer_change": 0.01} for record in records]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (folder / "final").mkdir()
    return folder


def test_what_ranks_wait_for_for_long_is_shown(run: Path, capsys):
    (run / "waiting").mkdir()
    (run / "waiting" / "rank-2.txt").symlink_to("gone")  # as what goes between the look at the folder and at the file
    (run / "waiting" / "rank-3.txt").write_text("step 61 waits for the serials 1922: 1 requests on http://node5:8000")
    main(["watch", str(run), "--once"])
    assert "rank 3: step 61 waits for the serials 1922: 1 requests on http://node5:8000" in capsys.readouterr().out


def test_a_finished_run(run: Path, capsys):
    main(["watch", str(run), "--once"])
    said = capsys.readouterr().out
    assert "step 60/60" in said
    assert "finished" in said
    assert "2 s a step  300 loss tokens a second" in said
    assert "rollout 1.5 s (75 %)  learner 0.5 s (25 %)" in said
    assert "alarm copying: only 1.0 % of the answers change" in said
    rows = {line.split()[0]: line.split() for line in said.splitlines() if line.startswith(("t1", "t2", "Δ"))}
    final = json.loads((run / "evaluation.json").read_text())["evaluations"][-1]["metrics"]
    for label, name in (("t1", "t1"), ("t2", "t2"), ("Δ", "delta")):
        assert rows[label][3] == f"{100 * final[name][0]:.1f}"
    assert "the <b>[bold]answer, because" in said
    assert any(bar in said for bar in "▁▂▃▄▅▆▇█")


def test_a_running_run_says_how_long_it_will_take(run: Path, capsys):
    (run / "evaluation.json").unlink()
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(lines[:30]) + '{"step": 31, "tr')
    main(["watch", str(run), "--once"])
    said = capsys.readouterr().out
    assert "step 30/60" in said
    assert "0:01:00 left" in said


@pytest.mark.parametrize("evaluate", ["{problems: 8}", "null"])
def test_a_finished_run_that_is_given_more_steps_is_a_running_one_until_their_end(run: Path, capsys, evaluate):
    recipe = RECIPE.replace("{problems: 8}", evaluate)
    for steps, finished in ((40, True), (60, False)):
        (run / "recipe.yaml").write_text(recipe.replace("steps: 40", f"steps: {steps}"))
        main(["watch", str(run), "--once"])
        said = capsys.readouterr().out
        assert ("finished" in said) == finished
        assert ("0:00:40 left" in said) != finished


def test_on_a_terminal_it_follows_until_the_run_is_finished(run: Path):
    (run / "evaluation.json").rename(run / "later.json")
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "rlcore", "watch", str(run), "--every", "0.2"]
    process = subprocess.Popen(command, env=os.environ | {"TERM": "xterm", "COLUMNS": "120"}, stdout=theirs)
    said = b""
    while b"step 60/60" not in said:
        assert select.select([ours], [], [], 60)[0]
        said += os.read(ours, 1 << 16)
    assert process.poll() is None
    (run / "later.json").rename(run / "evaluation.json")
    assert process.wait(timeout=900) == 0


def test_a_folder_without_a_run_is_refused(tmp_path: Path):
    from rlcore.track.watch import watch

    with pytest.raises(UserError, match="is not the folder of a run"):
        watch(tmp_path, every=1, once=True)


def test_a_sparkline_goes_from_the_lowest_to_the_highest():
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert sparkline([1, 1]) == "▁▁"
    assert sparkline([1]) == ""
    assert len(sparkline(list(range(1000)))) == 40
