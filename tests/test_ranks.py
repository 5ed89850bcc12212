"""Ranks wait for each other as long as the recipe says, whatever the command."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import torch

from rlcore.curate.options import CurateOptions
from rlcore.curate.run import curate
from rlcore.errors import UserError
from rlcore.recipe import Recipe, load_recipe
from rlcore.session.evaluation import evaluate
from rlcore.sft.fine_tune import fine_tune
from rlcore.train.adapt import adapt
from rlcore.train.loop import train
from tests.tiny import write_recipe

COMMANDS: dict[str, Callable[[Recipe], object]] = {
    "train": train,
    "eval": evaluate,
    "curate": lambda recipe: curate(recipe, CurateOptions(), Path(recipe.output)),
    "adapt": adapt,
    "sft": fine_tune,
}
SECTIONS = {"adapt": ["adapt={}", "stages=[]"], "sft": ["sft={rows: star}", "stages=[]"]}


@pytest.mark.usefixtures("ranks")
@pytest.mark.parametrize("command", COMMANDS)
def test_ranks_that_are_done_wait_for_the_others_for_the_learners_deadline(tmp_path, command):
    """Also where a run with another deadline came before in the process."""
    for deadline in (5000, 9000):
        changes = [f"learner.deadline={deadline}", "data.path=gone.jsonl", *SECTIONS.get(command, [])]
        with pytest.raises(UserError, match=r"gone\.jsonl"):
            COMMANDS[command](load_recipe(write_recipe(tmp_path), changes))
        group = torch.distributed.distributed_c10d._get_default_group()._get_backend(torch.device("cpu"))
        assert group.options._timeout == timedelta(seconds=deadline + 60)
