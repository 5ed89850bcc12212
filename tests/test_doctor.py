"""What `rlcore doctor` finds here, and what it says where something is wrong."""

import importlib.metadata
import itertools
import os
import subprocess
import sys

import pytest

from rlcore import doctor


def test_this_machine_is_fit_and_every_lack_has_a_remedy(tmp_path):
    command = [sys.executable, "-m", "rlcore", "doctor", "--output", tmp_path / "runs"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "nothing stands in the way of a run"
    for topic in ("packages", "GPUs", "vLLM", "runs", "models", "hub", "sandbox", "W&B"):
        assert f" {topic} " in done.stdout
    lines = done.stdout.splitlines()
    assert any(line.startswith("-- hub") and "offline" in line for line in lines)
    for line, after in itertools.pairwise(lines):
        if line.startswith(("--", "!!")):
            assert after.strip().startswith("→")
    assert f"torch {importlib.metadata.version('torch')}" in done.stdout
    assert done.stderr == ""


def test_packages_out_of_bounds_or_missing_are_bad_and_extras_are_not_asked_for():
    found = list(doctor.packages(["torch>=99", "no-such-package<2", "numpy>=1", "nothing-here>1; extra == 'dev'"]))
    assert [(finding.state, finding.remedy) for finding in found] == [
        ("bad", "pip install 'torch>=99'"),
        ("bad", "pip install 'no-such-package<2'"),
    ]
    assert "no-such-package is missing" in found[1].said


def test_a_file_is_no_folder_for_runs(tmp_path):
    (tmp_path / "file").write_text("")
    assert doctor.disk("runs", tmp_path / "file", "elsewhere").state == "bad"


@pytest.mark.parametrize(("free", "state"), [(1 << 20, "bad"), (5 << 30, "lacking"), (500 << 30, "good")])
def test_room_on_the_disk(monkeypatch, tmp_path, free, state):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": free}))
    assert doctor.disk("runs", tmp_path / "not" / "yet", "elsewhere").state == state


def test_a_machine_without_a_sandbox_is_told_what_it_lacks(monkeypatch):
    monkeypatch.setattr("rewards.sandbox._command", lambda *_: ["false"])
    (finding,) = doctor.sandbox()
    assert finding.state == "lacking"
    assert "no sandbox on this machine" in finding.said
    assert finding.remedy


def test_a_bad_finding_is_an_exit_code(capsys):
    assert doctor.examine([doctor.Finding("disk", "bad", "is full", "make room")]) == 1
    assert (
        capsys.readouterr().out == "!! disk       is full\n              → make room\n1 to mend before any run works\n"
    )


def test_a_vllm_that_cannot_be_imported_is_bad(monkeypatch, tmp_path):
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm" / "__init__.py").write_text("raise ImportError('another torch')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(doctor, "_version", lambda name: "1.0")
    monkeypatch.delitem(sys.modules, "vllm", raising=False)  # another test may have imported the real one
    (finding,) = doctor.vllm()
    assert finding.state == "bad"
    assert "another torch" in finding.said
    assert sys.modules.get("vllm") is None
