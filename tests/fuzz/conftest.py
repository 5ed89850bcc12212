"""What the cases are made from."""

from typing import Any

import pytest
import yaml

from rlcore.recipe import dump_recipe, load_recipe
from tests.tiny import write_recipe


@pytest.fixture
def resolved(tmp_path) -> dict[str, Any]:
    """A tiny recipe, `recipe.yaml` in `tmp_path`, with every key there is."""
    return yaml.safe_load(dump_recipe(load_recipe(write_recipe(tmp_path))))
