"""Checkpoints that are damaged in every way a disk or a kill damages them, and the rules of which ones stay."""

import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from rlcore.errors import UserError
from rlcore.ranks import Ranks
from rlcore.recipe.schema import CheckpointConfig
from rlcore.train.checkpoints import Checkpoints, read_state
from tests.learner.tiny import parameters, random_batch, tiny_learner

pytestmark = pytest.mark.usefixtures("ranks")


def checkpoints(folder: Path, **section: object) -> Checkpoints:
    return Checkpoints(folder, CheckpointConfig.model_validate(section), Ranks(0, 1, torch.device("cpu")))


@pytest.fixture(scope="module")
def two_saved(tmp_path_factory) -> Path:
    """Checkpoints of steps 1 and 2."""
    folder = tmp_path_factory.mktemp("saved")
    learner = tiny_learner(kl_used=False)
    for step in (1, 2):
        learner.update(random_batch(seed=step))
        checkpoints(folder).save(step, learner, {"step": step}, best=None)
    return folder


def cut(folder: Path) -> None:
    file = next(folder.glob("learner/*.safetensors"))
    file.write_bytes(file.read_bytes()[:-100])


def flip_a_bit(folder: Path) -> None:
    file = next(folder.glob("learner/*.safetensors"))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def lose(name: str):
    return lambda folder: next(folder.glob(name)).unlink()


DAMAGES = {
    "cut": cut,
    "flipped bit": flip_a_bit,
    "lost weights": lose("learner/rank*"),
    "lost random state": lose("random*"),
    "lost state": lose("state.json"),
    "lost manifest": lose("manifest.json"),
    "empty manifest": lambda folder: (folder / "manifest.json").write_text(""),
    "other manifest": lambda folder: (folder / "manifest.json").write_text("[1, 2]"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_taken(two_saved, tmp_path, damage):
    shutil.copytree(two_saved, tmp_path / "run")
    damage(tmp_path / "run" / "step-000002")
    newest, notes = checkpoints(tmp_path / "run").newest()
    assert newest is not None
    assert read_state(newest) == {"step": 1}
    assert len(notes) == 1
    assert "step-000002 is damaged" in notes[0]
    assert (tmp_path / "run" / "damaged-step-000002").is_dir()
    assert checkpoints(tmp_path / "run").newest() == (newest, [])


def test_a_checkpoint_that_was_never_finished_is_not_seen(two_saved, tmp_path):
    shutil.copytree(two_saved / "step-000002", tmp_path / "run" / "partial-000002")
    assert checkpoints(tmp_path / "run").newest() == (None, [])


def test_only_damaged_checkpoints_are_no_fresh_start(two_saved, tmp_path):
    shutil.copytree(two_saved / "step-000002", tmp_path / "run" / "step-000002")
    cut(tmp_path / "run" / "step-000002")
    with pytest.raises(UserError, match="holds no whole checkpoint: checkpoint step-000002 is damaged"):
        checkpoints(tmp_path / "run").newest()


def test_loading_brings_back_weights_and_random_numbers(tmp_path):
    learner, kept = tiny_learner(kl_used=False), checkpoints(tmp_path)
    learner.update(random_batch())
    kept.save(1, learner, {}, best=None)
    weights, drawn = parameters(learner), (random.random(), np.random.rand(), torch.rand(()).item())
    learner.update(random_batch())
    other = tiny_learner(kl_used=False)
    kept.load(tmp_path / "step-000001", other)
    assert (random.random(), np.random.rand(), torch.rand(()).item()) == drawn
    assert all(torch.equal(tensor, weights[name]) for name, tensor in other.weights())


@pytest.mark.parametrize(
    ("section", "best", "expected"),
    [
        ({"keep_last": 2}, None, [6, 7]),
        ({"keep_last": 1}, 3, [3, 7]),
        ({"keep_last": 1, "keep_best": False}, 3, [7]),
        ({"keep_last": 1, "keep_every": 3}, None, [3, 6, 7]),
    ],
)
def test_the_checkpoints_that_stay(two_saved, tmp_path, section, best, expected):
    for step in range(1, 7):
        shutil.copytree(two_saved / "step-000002", tmp_path / f"step-{step:06d}")
    kept = checkpoints(tmp_path, **section)
    kept.save(7, tiny_learner(kl_used=False), {}, best)
    assert kept.steps() == expected
    assert not list(tmp_path.glob("partial*"))


def test_an_old_checkpoint_that_cannot_be_removed_is_named_and_the_new_one_stands(two_saved, tmp_path):
    shutil.copytree(two_saved, tmp_path / "run")
    shutil.move(tmp_path / "run" / "step-000001", tmp_path / "elsewhere")
    (tmp_path / "run" / "step-000001").symlink_to(tmp_path / "elsewhere")  # such a link is not removed
    kept = checkpoints(tmp_path / "run", keep_last=1)
    (note,) = kept.save(3, tiny_learner(kl_used=False), {"step": 3}, best=None)
    assert note.startswith("checkpoint step-000001, which no rule keeps, cannot be removed: ")
    assert kept.newest() == (tmp_path / "run" / "step-000003", [])
    assert kept.steps() == [1, 3]


def test_what_a_killed_process_left_does_not_keep_the_next_from_saving(two_saved, tmp_path):
    shutil.copytree(two_saved / "step-000002", tmp_path / "step-000002")
    shutil.copytree(two_saved / "step-000001", tmp_path / "former-step-000002")
    checkpoints(tmp_path).save(2, tiny_learner(kl_used=False), {"step": "again"}, best=None)
    assert read_state(tmp_path / "step-000002") == {"step": "again"}
    assert [path.name for path in tmp_path.iterdir()] == ["step-000002"]


def test_a_checkpoint_that_cannot_be_written_leaves_the_others_alone(two_saved, tmp_path):
    shutil.copytree(two_saved, tmp_path / "run")
    (tmp_path / "run" / "partial-000003").write_text("in the way")
    with pytest.raises(UserError, match=r"checkpoint of step 3 cannot be written to .* the last good one is .*000002"):
        checkpoints(tmp_path / "run").save(3, tiny_learner(kl_used=False), {}, best=None)
    assert checkpoints(tmp_path / "run").steps() == [1, 2]
