"""The report from folders of runs: complete, partial, damaged, hostile; and in a real browser."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from rlcore.errors import UserError
from rlcore.report.page import write_report
from rlcore.report.plots import arm_colours
from rlcore.report.run_folder import read_run
from tests.report.synthetic_runs import HOSTILE, make_run

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")


class _Page(HTMLParser):
    """What a browser would make of a page: its tags with attributes, and its text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report on two arms, one with two seeds, whose texts are hostile."""
    root = tmp_path_factory.mktemp("runs")
    runs = [
        make_run(root / "grpo", arm="grpo", gain=0.02),
        make_run(root / "score0", text=HOSTILE),
        make_run(root / "score1", seed=1, text=HOSTILE),
    ]
    return write_report(root / "report", runs)


def test_the_page_needs_nothing_but_itself(report: Path):
    page = _Page(report)
    sources = [a.get("src") for a in page.all("img")] + [a["srcset"] for a in page.all("source")]
    assert len(sources) == 6
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert page.all("link") == []
    assert all("src" not in attributes for attributes in page.all("script"))
    assert not re.search(r"https?://|url\(|@import", report.read_text())


def test_the_numbers_are_those_of_the_evaluations(report: Path):
    saved = json.loads((report.parent / "report.json").read_text())
    evaluation = json.loads((report.parent.parent / "score1" / "evaluation.json").read_text())
    sampled = next(e for e in evaluation["evaluations"] if e["mode"] == "sampled")
    row = next(r for r in saved["table"] if (r["arm"], r["run"], r["mode"]) == ("score", "seed 1", "sampled"))
    assert row["metrics"] == sampled["metrics"]
    assert [run["finished"] for run in saved["runs"]] == [True, True, True]
    value, low, high = sampled["metrics"]["t2"]
    text = _Page(report).text
    assert f"{100 * value:.1f} ± {50 * (high - low):.1f}" in text
    assert "mean of 2" in text
    assert "dead groups in score, seed 1: steps 10 to 25" in " ".join(text.split())


def test_the_command_shows_its_progress_and_then_the_page(tmp_path: Path):
    """On a terminal."""
    runs = [make_run(tmp_path / name, steps=3) for name in ("one", "two")]
    command = [sys.executable, "-m", "rlcore", "report", *map(str, runs), "--output", str(tmp_path / "report")]
    ours, theirs = os.openpty()
    with subprocess.Popen(command, stdout=theirs, env={**os.environ, "TERM": "xterm", "COLUMNS": "120"}) as process:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # how a terminal ends
            while part := os.read(ours, 4096):
                shown += part
    os.close(ours)
    assert process.returncode == 0
    assert b"parts of the report" in shown
    assert b"0/4" in shown
    assert shown.decode().rstrip().endswith(str(tmp_path / "report" / "report.html"))


def test_hostile_text_stays_text(report: Path):
    page = _Page(report)
    assert len(page.all("script")) == 1
    assert page.all("svg") == []
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert "{{ 7 * 7 }}{% raw %}&lt;" in page.text


def test_every_kind_of_flip_and_every_arm_can_be_chosen(report: Path):
    page = _Page(report)
    rows = [a for a in page.all("tr") if "data-flip" in a]
    assert {row["data-flip"] for row in rows} == {"ic", "ci", "cc", "ii"}
    assert {row["data-arm"] for row in rows} == {"base", "grpo", "score"}
    assert {"#all", "#ic", "#ci", "#cc", "#ii"} <= {a["href"] for a in page.all("a")}
    assert len(page.all("mark")) >= len(rows)


def _in_browser(page: Path, fragment: str) -> str:
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", f"file://{page}#{fragment}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=900, check=True).stdout


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_in_a_browser_filters_work_and_hostile_text_does_not_run(report: Path):
    whole, repaired = _in_browser(report, ""), _in_browser(report, "ic")
    for dom in (whole, repaired):
        assert "<title>Self-correction: base, grpo, score</title>" in dom
    rows = re.findall(r'<tr data-flip="(\w+)" data-arm="\w+"( hidden="")?>', repaired)
    assert {kind for kind, hidden in rows if not hidden} == {"ic"}
    assert {kind for kind, hidden in rows if hidden} == {"ci", "cc", "ii"}
    assert 'hidden=""' not in whole


def test_an_arm_keeps_its_colour_and_the_base_is_grey(report: Path):
    runs = [read_run(report.parent.parent / name) for name in ("grpo", "score0", "score1")]
    colours = arm_colours(runs)
    assert list(colours) == ["base", "grpo", "score"]
    assert len(set(colours.values())) == 3
    assert arm_colours(runs[:1]) == {name: colours[name] for name in ("base", "grpo")}


def test_a_run_that_is_not_finished_is_shown_as_far_as_it_is(tmp_path: Path):
    run = make_run(tmp_path / "run", steps=5)
    for name in ("evaluation.json", "evaluation_base.json", "trajectories.jsonl"):
        (run / name).unlink()
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 6, "sta')
    page = write_report(tmp_path / "report", [run])
    text = _Page(page).text
    assert "No evaluation yet" in text
    assert "not finished" in text
    assert {path.name for path in page.parent.glob("*.png")} == {
        f"{plot}-{theme}.png" for plot in ("accuracy", "kl") for theme in ("light", "dark")
    }


def test_a_run_that_has_just_begun_and_one_that_was_only_evaluated(tmp_path: Path):
    begun, evaluated = make_run(tmp_path / "begun", steps=5), make_run(tmp_path / "evaluated", arm="hub model", steps=5)
    (begun / "metrics.jsonl").write_text("")
    (begun / "trajectories.jsonl").write_text("")
    for name in ("evaluation.json", "evaluation_base.json"):
        (begun / name).unlink()
    for name in ("metrics.jsonl", "trajectories.jsonl", "evaluation_base.json"):
        (evaluated / name).unlink()
    assert "No evaluation yet" in _Page(write_report(tmp_path / "one", [begun])).text
    assert "hub model" in _Page(write_report(tmp_path / "two", [begun, evaluated])).text


def _break(run: Path, name: str, content: bytes | None) -> None:
    (run / name).unlink()
    if content is not None:
        (run / name).write_bytes(content)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("recipe.yaml", None, "is not the folder of a run: cannot read recipe.yaml"),
        ("recipe.yaml", b"a: [", "recipe.yaml is not YAML"),
        ("recipe.yaml", b"- 1", "recipe.yaml is not a recipe"),
        ("metrics.jsonl", b'{"step": 1, "stage": "I"}\n{oops\n{"step": 3}\n', "metrics.jsonl:2 is not a JSON record"),
        ("evaluation.json", b"{}", "evaluation.json is not an evaluation file"),
        ("recipe.yaml", b"stages: 3", "recipe.yaml is not a recipe: stages"),
        ("recipe.yaml", b"name: 2024-99-99", "recipe.yaml is not YAML"),
        ("metrics.jsonl", b'{"step": 1, "stage": "I", "train/t1": "x"}', "metrics.jsonl:1 is no such record: train/t1"),
        ("trajectories.jsonl", b'{"step": 1, "stage": "I"}', "trajectories.jsonl:1 is no such record: problem_id"),
    ],
)
def test_what_is_missing_or_damaged_is_named_in_one_line(tmp_path: Path, name: str, content: bytes | None, words: str):
    run = make_run(tmp_path / "run", steps=3)
    _break(run, name, content)
    with pytest.raises(UserError, match=re.escape(words)) as caught:
        write_report(tmp_path / "report", [run])
    assert "\n" not in str(caught.value)


def test_folders_that_hold_nothing(tmp_path: Path):
    with pytest.raises(UserError, match=r"nowhere is not the folder of a run"):
        write_report(tmp_path / "report", [tmp_path / "nowhere"])
    run = make_run(tmp_path / "run", steps=3)
    _break(run, "metrics.jsonl", None)
    _break(run, "evaluation.json", None)
    with pytest.raises(UserError, match="the run has not measured anything"):
        write_report(tmp_path / "report", [run])
    with pytest.raises(UserError, match="at least one run"):
        write_report(tmp_path / "report", [])


def test_a_report_that_cannot_be_written(tmp_path: Path):
    run = make_run(tmp_path / "run", steps=3)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"the report in .*file.* cannot be written"):
        write_report(tmp_path / "file" / "report", [run])


def test_votes_and_levels_have_tables_and_curves(tmp_path: Path):
    run = make_run(tmp_path / "run", steps=3)
    path = run / "evaluation.json"
    saved = json.loads(path.read_text())
    sampled = saved["evaluations"][1]
    parts = {value: {**sampled, "problems": 7, "parts": {}} for value in ("easy <b>", "hard")}
    sampled |= {"parts": {"level": parts}}
    sampled["metrics"] = {
        **sampled["metrics"],
        **{f"{kind}@{k}_t{a}": [0.1234, 0.1, 0.2] for kind in ("pass", "maj") for k in (2, 4) for a in (1, 2)},
    }
    path.write_text(json.dumps({**saved, "notes": ["nothing to add"]}))
    page = write_report(tmp_path / "report", [run])
    text = _Page(page).text
    assert (tmp_path / "report" / "compute-light.png").exists()
    assert "12.3 ± 5.0" in text
    assert "maj@k, t2" in text
    assert "By level" in text
    assert "easy <b>" in text
    assert "Nothing to add." in text
