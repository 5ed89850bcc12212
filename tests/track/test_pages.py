"""Every measurement that a run logs has a line on the page that explains them, the workspace draws what is logged."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb_file import axes, history

from rlcore import pages
from rlcore.cli import main
from rlcore.track.alarms import ALARMS
from rlcore.track.workspace import PANELS
from tests.processes import rlcore
from tests.tiny import write_recipe

LINE = re.compile(r"^\| `(?P<name>[a-z_]+/[^`]+)` \|", re.MULTILINE)
PLACES = {"{n}": r"\d+", "{mode}": "(greedy|sampled)", "{name}": r"\w+"}


@pytest.fixture(scope="module")
def documented(repository: Path) -> list[str]:
    """The names on the page, as regular expressions."""
    lines = LINE.findall((repository / "rlcore/track/README.md").read_text())
    return [re.sub(r"\{\w+\}", lambda place: PLACES[place[0]], line) for line in lines]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A real run with every dashboard."""
    folder = tmp_path_factory.mktemp("run")
    track = {"wandb": "offline", "tensorboard": True, "every": 2}
    done = rlcore("train", write_recipe(folder, track=track), f"output={folder / 'run'}")
    assert done.returncode == 0, done.stderr
    return folder / "run"


def _logged(run: Path) -> set[str]:
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {name for record in records for name in record} - {"step", "stage"}


def _is_in(name: str, patterns: list[str]) -> bool:
    return any(re.fullmatch(pattern, name) for pattern in patterns)


def test_every_measurement_of_a_run_has_its_line(run: Path, documented: list[str]):
    (log,) = run.glob("wandb/offline-run-*/*.wandb")
    shown = {name for row in history(log) for name in row if "/" in name and not name.startswith("_")}
    shown = {name.split(".")[0] for name in shown} - {"trainer/step", "eval/step"}
    tables = {"train/trajectories", "eval/trajectories"}
    assert tables < shown
    assert not [name for name in sorted(_logged(run) | shown - tables) if not _is_in(name, documented)]
    assert not [name for name in ALARMS if f"alarm/{name}" not in documented]


@pytest.mark.parametrize("page", pages.PAGES)
def test_the_tables_of_a_page_are_those_of_the_code(page: str, repository: Path):
    text = (repository / page).read_text()
    assert "made from the code" in text
    assert pages.filled(text) == text, "python -m rlcore.pages"


def test_every_panel_draws_something_that_is_logged_and_explained(run: Path, documented: list[str]):
    logged = _logged(run) | {f"alarm/{name}" for name in ALARMS}
    for title, (_, names) in (panel for drawn in PANELS.values() for panel in drawn.items()):
        assert [name for name in logged if re.fullmatch(names, name)], title


def test_the_offline_wandb_file_of_a_run(run: Path):
    (log,) = run.glob("wandb/offline-run-*/*.wandb")
    rows = history(log)
    assert [row["trainer/step"] for row in rows if "train/t1" in row] == [1, 2, 3, 4, 5, 6]
    assert [row["eval/step"] for row in rows if "eval/greedy/t1" in row] == [0, 2, 4, 6]
    assert all(("trainer/step" in row) != ("eval/step" in row) for row in rows)
    assert axes(log)["train/t1"] == axes(log)["learner/kl_t2"] == axes(log)["time/step"] == "trainer/step"
    assert axes(log)["eval/greedy/t1"] == axes(log)["eval/histogram/edit_ratio"] == "eval/step"
    histograms = [row for row in rows if any(name.startswith("train/histogram/reward_t1") for name in row)]
    assert [row["trainer/step"] for row in histograms] == [2, 4, 6]


def test_the_tables_hold_both_attempts(run: Path):
    tables = sorted(run.glob("wandb/offline-run-*/files/media/table/train/*.json"))
    assert len(tables) == 3
    table = json.loads(tables[0].read_text())
    names = ["step", "stage", "problem", "question", "attempt 1", "score 1", "attempt 2", "score 2", "flip"]
    assert table["columns"] == names
    records = [json.loads(line) for line in (run / "trajectories.jsonl").read_text().splitlines()]
    texts = {(r["step"], r["problem_id"], *(a["text"] for a in r["attempts"])) for r in records}
    assert {(row[0], row[2], row[4], row[6]) for row in table["data"]} <= texts
    assert {row[0] for table in tables for row in json.loads(table.read_text())["data"]} == {1, 2, 3, 4, 5, 6}


def test_the_tensorboard_files_of_a_run(run: Path):
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"histograms": 0})
    events.Reload()
    assert [event.step for event in events.Scalars("train/t1")] == [1, 2, 3, 4, 5, 6]
    assert [event.step for event in events.Scalars("eval/greedy/t1")] == [0, 2, 4, 6]
    assert [event.step for event in events.Histograms("train/histogram/reward_t1")] == [2, 4, 6]
    logged = [json.loads(line)["train/t1"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [event.value for event in events.Scalars("train/t1")] == pytest.approx(logged)


def test_the_workspace_is_printed_without_an_account(capsys):
    main(["dashboard", "--project", "p", "--entity", "e", "--print"])
    spec = json.loads(capsys.readouterr().out)
    assert (spec["entity"], spec["project"]) == ("e", "p")
    sections = {s["name"]: s["panels"] for s in spec["spec"]["section"]["panelBankConfig"]["sections"]}
    assert list(sections) == [*PANELS, "Trajectories"]
    panel = sections["Learner"][0]["config"]
    assert (panel["metricRegex"], panel["useMetricRegex"]) == (r"^(learner/kl_t\d+)$", True)
    assert panel["xAxis"] == "trainer/step"
    assert sections["Held-out accuracy"][0]["config"]["xAxis"] == "eval/step"


def test_without_a_login_the_dashboard_says_what_to_do(tmp_path: Path):
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": str(Path.cwd())}
    command = [sys.executable, "-m", "rlcore", "dashboard"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 2
    assert "rlcore: there is no W&B login here: run `wandb login`" in done.stderr
