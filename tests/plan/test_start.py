"""What cannot fit this machine is refused before it starts."""

import pytest

from rlcore.cli import main
from rlcore.errors import UserError
from rlcore.plan import start
from rlcore.recipe import load_recipe
from tests.tiny import write_recipe


@pytest.mark.parametrize("command", ["train", "eval"])
def test_what_cannot_fit_is_refused_in_one_line(command, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(start, "free_bytes", lambda device: 1 << 10)
    with pytest.raises(SystemExit) as stopped:
        main([command, str(write_recipe(tmp_path)), f"output={tmp_path / 'run'}", "device=cpu"])
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("rlcore: memory: ")
    assert "are free" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("training", [True, False])
def test_the_overrides_that_are_named_make_it_fit(training, monkeypatch, tmp_path):
    monkeypatch.setattr(start, "free_bytes", lambda device: 3 << 30)
    path, given = write_recipe(tmp_path), ["device=cpu", "rollout.slots=10000000", "rollout.kv_memory=64"]
    if training:
        given += ["learner.micro_batch_tokens=400000", "batch.problems=20000"]
    with pytest.raises(UserError, match="makes it fit") as told:
        start.check_memory(load_recipe(path, given), training=training)
    named = [word for word in str(told.value).split() if "=" in word]
    assert named
    start.check_memory(load_recipe(path, [*given, *named]), training=training)
