"""What a run left in its folder, read back."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rlcore.errors import UserError
from rlcore.evaluate.results import Results, load_evaluation
from rlcore.files import Record, read_records


@dataclass(frozen=True, slots=True)
class RunFolder:
    """One run. A run that has not come to its end has no `final` yet; `base` is the policy it started from."""

    folder: Path
    recipe_text: str
    arm: str
    seed: int
    metrics: list[Record]
    trajectories: list[Record]
    final: Results | None
    base: Results | None

    @property
    def results(self) -> list[Results]:
        """The evaluations there are, the base first."""
        return [result for result in (self.base, self.final) if result]

    def series(self, name: str) -> tuple[list[int], list[float]]:
        """Steps and values of a measurement, where it was logged and finite."""
        points = [(record["step"], record[name]) for record in self.metrics if record.get(name) is not None]
        return [step for step, _ in points], [value for _, value in points]


def read_run(folder: Path) -> RunFolder:
    """Read a run's folder.

    Raises UserError where it is no folder of a run, or holds neither metrics nor an evaluation, or a file is damaged.
    """
    recipe_text, recipe = _read_recipe(folder)
    metrics, evaluation = folder / "metrics.jsonl", folder / "evaluation.json"
    if not metrics.exists() and not evaluation.exists():
        raise UserError(f"{folder} holds neither metrics.jsonl nor evaluation.json: the run has not measured anything")
    final = _if_there(load_evaluation, evaluation)
    return RunFolder(
        folder=folder,
        recipe_text=recipe_text,
        arm=final.arm if final else str(recipe.get("name", folder.name)),
        seed=final.seed if final else int(recipe.get("seed", 0)),
        metrics=_if_there(read_records, metrics) or [],
        trajectories=_if_there(read_records, folder / "trajectories.jsonl") or [],
        final=final,
        base=_if_there(load_evaluation, folder / "evaluation_base.json"),
    )


def _read_recipe(folder: Path) -> tuple[str, Mapping[str, Any]]:
    path = folder / "recipe.yaml"
    try:
        text = path.read_text(encoding="utf-8")
        recipe = yaml.safe_load(text)
    except OSError as error:
        raise UserError(f"{folder} is not the folder of a run: cannot read {path.name}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise UserError(f"{path} is not YAML") from None
    if not isinstance(recipe, dict):
        raise UserError(f"{path} is not a recipe")
    return text, recipe


def _if_there(read: Any, path: Path) -> Any:
    return read(path) if path.exists() else None
