"""Every measurement that a run logs, as `measurements.yaml` lists them by section of this room's page."""

from importlib.resources import files
from typing import NamedTuple

import yaml


class Measurement(NamedTuple):
    """One line of the page. In a name `{n}` is the number of an attempt, `{mode}` is greedy or sampled."""

    name: str
    means: str
    moves: str = ""
    """What it says when it moves, and what to do then."""
    panel: str = ""
    """`section / title` of the panel on dashboards that draws it, with others of that title; none draws it if empty."""


def _listed() -> dict[str, list[Measurement]]:
    text = files("rlcore.track").joinpath("measurements.yaml").read_text(encoding="utf-8")
    return {section: [Measurement(**row) for row in rows] for section, rows in yaml.safe_load(text).items()}


MEASUREMENTS = _listed()
