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
    assert len({word.partition("=")[0] for word in named}) == len(named), "each key once"
    start.check_memory(load_recipe(path, [*given, *named]), training=training)


def test_a_model_of_the_table_is_known_before_it_is_on_this_machine(monkeypatch, tmp_path):
    monkeypatch.setattr(start, "free_bytes", lambda device: 1 << 30)
    monkeypatch.setattr(start, "try_to_load_from_cache", lambda name, file: None)
    path = write_recipe(tmp_path, model={"path": "Qwen/Qwen2.5-Coder-0.5B-Instruct"})
    with pytest.raises(UserError, match="memory: tiny takes at least"):
        start.check_memory(load_recipe(path), training=True)


def test_every_run_of_a_table_is_refused_as_a_run_alone_is(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(start, "free_bytes", lambda device: 1 << 10)
    with pytest.raises(SystemExit):
        main(["paper-table", str(write_recipe(tmp_path)), "--output", str(tmp_path / "table")])
    assert "rlcore: memory: tiny takes at least" in capsys.readouterr().err
    assert not list((tmp_path / "table").glob("*"))


@pytest.mark.parametrize(("free", "fits", "near"), [(100, True, True), (126, True, False), (99, False, False)])
def test_what_nearly_takes_all_is_told_apart(free, fits, near):
    demand = start.Demand("cpu", 100, free, "")
    assert (demand.fits, demand.fits and demand.tight) == (fits, near)


def test_memory_is_said_to_three_digits_and_whose_it_is():
    needed, free = int(10.94 * start.GIB), int(11.31 * start.GIB)
    told = {kind: str(start.Demand(kind, needed, free, "")) for kind in ("cpu", "cuda")}
    assert told["cpu"] == "at least 10.9 GiB of this machine's memory, where 11.3 are free"
    assert told["cuda"] == "at least 10.9 GiB of each GPU's memory, where 11.3 are free"
