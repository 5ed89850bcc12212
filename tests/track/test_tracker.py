"""The tracker on real files, resumed, torn, full, and its real offline W&B file read back."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from wandb_file import config, history

from rlcore.errors import UserError
from rlcore.recipe.schema import TrackConfig
from rlcore.track import Tracker

OFF = TrackConfig(wandb="off")


def _tracker(
    folder: Path, *, resume_step: int | None = None, section: TrackConfig = OFF, enabled: bool = True
) -> Tracker:
    return Tracker(
        folder,
        section,
        {"name": "score", "learner": {"lr": 1e-6}},
        run_name="score",
        resume_step=resume_step,
        enabled=enabled,
        total_steps=40,
    )


def _train(tracker: Tracker, steps: range) -> None:
    for step in steps:
        tracker.log(step, "II", {"train/t1": 0.5, "train/t2": 0.4 + step / 100, "train/answer_change": 0.01})
        tracker.trajectories(step, "II", [{"problem_id": f"p{step}", "attempts": [{"text": "é</script>\n"}]}])


def _files(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in ("metrics.jsonl", "trajectories.jsonl")}


def _records(folder: Path, name: str = "metrics.jsonl") -> list[dict]:
    def refuse(word: str):
        pytest.fail(f"{word} is not JSON")

    return [json.loads(line, parse_constant=refuse) for line in (folder / name).read_text().splitlines()]


def test_each_record_is_in_the_file_at_once(tmp_path: Path):
    with _tracker(tmp_path) as tracker:
        tracker.log(1, "I", {"train/t1": 0.5})
        tracker.trajectories(1, "I", [{"problem_id": "p"}])
        assert _records(tmp_path) == [{"step": 1, "stage": "I", "train/t1": 0.5}]
        assert _records(tmp_path, "trajectories.jsonl") == [{"problem_id": "p", "step": 1, "stage": "I"}]


def test_values_that_are_no_numbers_in_json_become_null(tmp_path: Path):
    import numpy as np

    with _tracker(tmp_path) as tracker:
        tracker.log(1, "I", {"a": float("nan"), "b": float("inf"), "c": np.float32(0.5), "d": np.float64("nan")})
        tracker.trajectories(1, "I", [{"attempts": [{"score": float("nan"), "text": "\ud800"}]}])
    assert _records(tmp_path)[0] == {"step": 1, "stage": "I", "a": None, "b": None, "c": 0.5, "d": None}
    assert _records(tmp_path, "trajectories.jsonl")[0]["attempts"] == [{"score": None, "text": "?"}]


@pytest.mark.parametrize("torn", [b"", b'{"step": 18, "tra', b'{"step": 18, "stage": "\xc3', b"\0\0\0"])
def test_a_resumed_run_leaves_the_files_of_an_uninterrupted_one(tmp_path: Path, torn: bytes):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    with _tracker(whole) as tracker:
        _train(tracker, range(1, 21))
    first = _tracker(broken)
    _train(first, range(1, 18))  # crashes here, after a checkpoint at step 15
    for name in _files(broken):
        with (broken / name).open("ab") as file:
            file.write(torn)
    with _tracker(broken, resume_step=15) as second:
        _train(second, range(16, 21))
    assert _files(broken) == _files(whole)
    assert second.run_id == first.run_id


def test_a_run_that_starts_afresh_has_fresh_files_and_a_new_id_and_keeps_the_former_records(tmp_path: Path):
    with _tracker(tmp_path) as first:
        _train(first, range(1, 4))
    former = _files(tmp_path)
    with _tracker(tmp_path) as second:
        assert _files(tmp_path) == {"metrics.jsonl": b"", "trajectories.jsonl": b""}
    assert first.run_id != second.run_id
    assert [(tmp_path / f"{name}.previous.jsonl").read_bytes() for name in ("metrics", "trajectories")] == [
        *former.values()
    ]


def test_a_damaged_record_in_the_middle_is_named_and_nothing_is_lost(tmp_path: Path):
    text = '{"step": 1}\n{"step": \n{"step": 3}\n'
    (tmp_path / "metrics.jsonl").write_text(text)
    with pytest.raises(UserError, match=r"metrics\.jsonl:2 is not a JSON record"):
        _tracker(tmp_path, resume_step=3)
    assert (tmp_path / "metrics.jsonl").read_text() == text


def test_a_full_disk_is_one_line(tmp_path: Path):
    tracker = _tracker(tmp_path)
    tracker._metrics._file = open("/dev/full", "ab", buffering=0)  # noqa: SIM115
    with pytest.raises(UserError, match=r"metrics\.jsonl cannot be written: No space left on device"):
        tracker.log(1, "I", {})


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be written: Not a directory"):
        _tracker(tmp_path / "file" / "run")


def test_other_ranks_write_nothing(tmp_path: Path):
    with _tracker(tmp_path / "run", enabled=False) as tracker:
        _train(tracker, range(1, 3))
    assert list(tmp_path.iterdir()) == []


def test_an_alarm_is_printed_once_and_recorded_as_long_as_it_lasts(tmp_path: Path, capsys):
    with _tracker(tmp_path) as tracker:
        _train(tracker, range(1, 21))
    assert [r["step"] for r in _records(tmp_path) if r.get("alarm/copying") == 1.0] == list(range(10, 21))
    assert capsys.readouterr().out.count("alarm copying: only 1.0 % of the answers change") == 1
    with _tracker(tmp_path, resume_step=20) as tracker:
        _train(tracker, range(21, 23))
    assert "alarm copying" not in capsys.readouterr().out


def test_plain_lines_where_there_is_no_terminal(tmp_path: Path, capsys):
    with _tracker(tmp_path) as tracker:
        tracker.log(1, "I", {"train/t1": 0.5, "train/t2": 0.625, "train/delta": 0.125, "learner/kl_t2": 0.25})
        tracker.log(2, "I", {f"eval/sampled/{name}": v for name, v in [("t1", 0.5), ("t2", 0.75), ("delta", 0.25)]})
    out = capsys.readouterr().out
    assert "step 1/40  I  t1 50.0  t2 62.5  Δ +12.5  KL 0.250\n" in out
    assert "evaluation at step 2: sampled t1 50.0  t2 75.0  Δ +25.0" in out
    assert "\x1b" not in out


def _environment(tmp_path: Path, **extra: str) -> dict[str, str]:
    """The environment of a user without a W&B login."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    return kept | {"HOME": str(tmp_path), "NETRC": str(tmp_path / "netrc")} | extra


SCRIPT = """
import sys
from pathlib import Path
from rlcore.recipe.schema import TrackConfig
from rlcore.track import Tracker
with Tracker(Path(sys.argv[1]), TrackConfig(), {"name": "score", "learner": {"lr": 1e-6}}, run_name="score",
             resume_step=eval(sys.argv[2]), enabled=True, total_steps=4) as tracker:
    for step in eval(sys.argv[3]):
        tracker.log(step, "II", {"train/t1": step / 10, "learner/grad_norm": float("nan")})
print("ID", tracker.run_id)
"""


def _run(folder: Path, resume_step: str, steps: str, environment: dict[str, str]) -> str:
    command = [sys.executable, "-c", SCRIPT, str(folder), resume_step, steps]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_the_offline_wandb_file_holds_what_was_logged_and_is_resumed_under_its_id(tmp_path: Path):
    folder, environment = tmp_path / "run", _environment(tmp_path)
    first = _run(folder, "None", "[1, 2, 3]", environment)
    second = _run(folder, "2", "[3, 4]", environment)
    run_id = (folder / "run_id").read_text()
    assert f"ID {run_id}" in first
    assert f"ID {run_id}" in second
    logs = sorted(folder.glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime_ns)
    assert [log.name for log in logs] == [f"run-{run_id}.wandb"] * 2
    rows = [[(row["trainer/step"], row["train/t1"], row["stage"]) for row in history(log)] for log in logs]
    assert rows == [[(1, 0.1, "II"), (2, 0.2, "II"), (3, 0.3, "II")], [(3, 0.3, "II"), (4, 0.4, "II")]]
    assert config(logs[0])["learner"] == {"lr": 1e-6}
    noise = [line for line in (first + second).splitlines() if "wandb" in line]
    assert noise == [f"W&B is offline; to see the run there: wandb sync {log.parent}" for log in logs]


def test_an_unreachable_server_leaves_the_run_offline(tmp_path: Path):
    environment = _environment(
        tmp_path, WANDB_API_KEY="0" * 40, WANDB_BASE_URL="http://127.0.0.1:9", WANDB_INIT_TIMEOUT="3"
    )
    out = _run(tmp_path / "run", "None", "[1]", environment)
    assert "W&B cannot be reached, so the run is kept offline" in out
    assert [line for line in out.splitlines() if "wandb:" in line] == []
    assert len(list((tmp_path / "run").glob("wandb/offline-run-*/*.wandb"))) == 1


BAR = """
from rlcore.track.console import open_console
console = open_console(40, done=10)
console.show(11, "II [0;1]", {"train/t1": 0.5, "train/delta": -0.125})
console.say("alarm [x]")
console.close()
"""


def test_a_bar_on_a_terminal(tmp_path: Path):
    ours, theirs = os.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "120"}
    subprocess.run([sys.executable, "-c", BAR], env=environment, stdout=theirs, check=True, timeout=900)
    out = os.read(ours, 1 << 16).decode()
    assert "\x1b[" in out
    for text in ("II [0;1]", "11/40", "t1 50.0  Δ -12.5", "left", "alarm [x]"):
        assert text in out
