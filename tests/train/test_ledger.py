"""What is sampled ahead of the learner survives: kills at any moment, other numbers of ranks, a full disk."""

import random
import sqlite3
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch

from rewards import Verdict
from rlcore.errors import UserError
from rlcore.ranks import Ranks
from rlcore.train.ledger import Ledger
from rlcore.train.made_of import MadeOf
from rlcore.types import Problem, Trajectory, Turn
from tests.processes import FORKED

ALONE = Ranks(0, 1, torch.device("cpu"))
SAME, OTHER = MadeOf(["x"] * 999, ["x"] * 999), MadeOf(["y"] * 999, ["x"] * 999)
PROBLEMS = [Problem(name, ({"role": "user", "content": name},)) for name in "ab"]


def group(seed: int, problem: Problem) -> list[Trajectory]:
    """Two trajectories with all that a row has to hold."""
    draw = random.Random(seed)

    def turn(role: str, claim: bool | None, trained: bool) -> Turn:
        ids = tuple(draw.randrange(1 << 17) for _ in range(draw.randrange(1, 30)))
        logprobs = tuple(float(torch.tensor(-draw.random() * 9)) for _ in ids)
        versions = tuple(sorted(draw.randrange(3) for _ in ids))
        return Turn((1, 2), ids, logprobs, draw.choice(["stop", "length"]), "ü\n\0", versions, role, claim, trained)

    parts = {"a": Verdict(0.1 + 0.2, "wrong", "so", 1e-3), "b": Verdict(None, "timeout")}
    verdicts = Verdict(1 / 3, "wrong", "d", 0.25, parts, "5"), Verdict(None, "error", "x")
    turns = turn("attempt", None, False), turn("verdict", True, True), turn("attempt", None, True)
    return [Trajectory(problem, turns, verdicts) for _ in range(2)]


def test_what_is_read_is_what_was_written_to_the_last_bit(tmp_path):
    ledger = Ledger(tmp_path, ALONE, SAME, 1)
    written = {serial: [group(serial + at, PROBLEMS[at]) for at in range(1 + serial % 2)] for serial in range(6)}
    for serial, groups in written.items():
        ledger.write(serial, groups)
    ledger.close()
    reader = Ledger(tmp_path, ALONE, SAME, 1)
    assert {serial: reader.read(serial, PROBLEMS) for serial in range(6)} == written
    assert reader.read(6, PROBLEMS) is None


def test_rows_of_other_settings_and_of_processes_that_outlived_their_launch_are_passed_over(tmp_path):
    first = Ledger(tmp_path, ALONE, SAME, 1)
    first.write(0, [group(0, PROBLEMS[0])])
    second = Ledger(tmp_path, ALONE, SAME, 1)
    first.write(1, [group(1, PROBLEMS[0])])  # its launch is over
    assert second.read(0, PROBLEMS) is not None
    assert second.read(1, PROBLEMS) is None
    second.write(1, [group(2, PROBLEMS[0])])
    assert Ledger(tmp_path, ALONE, OTHER, 1).read(0, PROBLEMS) is None
    third = Ledger(tmp_path, ALONE, SAME, 1)
    assert third.read(1, PROBLEMS) == [group(2, PROBLEMS[0])], "the later launch is the one that went on"


def test_what_no_checkpoint_needs_is_deleted_with_the_files_that_hold_nothing_else(tmp_path):
    for launch in range(3):
        ledger = Ledger(tmp_path, ALONE, SAME, 1)
        for serial in range(4 * launch, 4 * launch + 4):
            ledger.write(serial, [group(serial, PROBLEMS[0])])
    assert len(list(tmp_path.iterdir())) == 3
    ledger.forget(6)
    assert [path.name[:6] for path in sorted(tmp_path.iterdir())] == ["000001", "000002"]
    assert [ledger.read(serial, PROBLEMS) is not None for serial in range(12)] == [False] * 6 + [True] * 6
    ledger.forget(10)
    again = Ledger(tmp_path, ALONE, SAME, 1)
    assert [serial for serial in range(12) if again.read(serial, PROBLEMS)] == [10, 11]


def write_on(folder: Path, serial: int, told: Connection) -> None:
    """Rows without end; each is told of once it is written."""
    ledger = Ledger(folder, ALONE, SAME, 1)
    while True:
        ledger.write(serial, [group(serial, PROBLEMS[0])])
        told.send(serial)
        serial += 1


def test_a_process_killed_at_any_moment_loses_no_row_that_it_had_written_and_tears_none(tmp_path):
    known = -1
    for _ in range(6):
        hears, told = FORKED.Pipe(duplex=False)
        writer = FORKED.Process(target=write_on, args=(tmp_path, known + 1, told))
        writer.start()
        told.close()
        for _ in range(random.randrange(3, 20)):
            known = hears.recv()
        time.sleep(random.random() / 200)
        writer.kill()
        writer.join()
        with suppress(EOFError):
            while True:
                known = hears.recv()
    reader = Ledger(tmp_path, ALONE, SAME, 1)
    for serial in range(known + 1):
        assert reader.read(serial, PROBLEMS) == [group(serial, PROBLEMS[0])]


def test_a_full_disk_is_one_line_and_what_was_written_before_stays_whole(tmp_path, monkeypatch):
    ledger = Ledger(tmp_path, ALONE, SAME, 1)
    ledger.write(0, [group(0, PROBLEMS[0])])
    ledger._file.execute("PRAGMA max_page_count = 4")

    def fill() -> None:
        for serial in range(1, 99):
            ledger.write(serial, [group(serial, PROBLEMS[0])])

    with pytest.raises(UserError, match=r"^the ledger .*000000-00000.sqlite cannot be used: database or disk is full$"):
        fill()
    ledger.close()
    again = Ledger(tmp_path, ALONE, SAME, 1)
    kept = [serial for serial in range(99) if again.read(serial, PROBLEMS)]
    assert kept == list(range(len(kept)))
    assert all(again.read(serial, PROBLEMS) == [group(serial, PROBLEMS[0])] for serial in kept)
    with sqlite3.connect(tmp_path / "000000-00000.sqlite") as file:
        assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    (tmp_path / "no folder").write_text("")
    with pytest.raises(UserError, match="no folder cannot be written: File exists"):
        Ledger(tmp_path / "no folder", ALONE, SAME, 1)
