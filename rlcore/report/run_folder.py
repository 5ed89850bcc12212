"""Reading a run's folder."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from rlcore.errors import UserError
from rlcore.evaluate.lines import MetricsLine, ShownLine
from rlcore.evaluate.results import Results, load_evaluation
from rlcore.files import Line, Record, check_shape, read_records
from rlcore.recipe.parse import parse_yaml
from rlcore.report.table import base_arm

METRICS, TRAJECTORIES, EVALUATION = "metrics.jsonl", "trajectories.jsonl", "evaluation.json"


@dataclass(frozen=True, slots=True)
class RunFolder:
    """One run. An unfinished run has no `final` yet; `base` is the evaluation of the policy that it started from."""

    folder: Path
    recipe_text: str
    steps: int
    """Steps of all stages of its recipe."""
    evaluates: bool
    arm: str
    seed: int
    metrics: list[Record]
    trajectories: list[Record]
    final: Results | None
    base: Results | None
    kind: str
    """The kind of its conversations."""

    @property
    def results(self) -> list[Results]:
        """The evaluations there are, the base first."""
        return [result for result in (self.base, self.final) if result]

    def series(self, name: str) -> tuple[list[int], list[float]]:
        """The steps at which a measurement was logged and finite, and its values."""
        points = [(record["step"], record[name]) for record in self.metrics if record.get(name) is not None]
        return [step for step, _ in points], [value for _, value in points]


def results_of(runs: Iterable[RunFolder]) -> list[Results]:
    """The evaluations of all runs."""
    return [result for run in runs for result in run.results]


def read_runs(folders: Iterable[Path], on_run: Callable[[int], object] = lambda done: None) -> list[RunFolder]:
    """Reads runs to be compared, and calls `on_run` after each. Raises UserError as `read_run` does.

    Runs of one arm and one seed are no repetitions: each is an arm of its own, called by its folder too. A base that is
    asked in conversations of several kinds is as many arms, called by these; bases of one seed that differ in what they
    got right are of several policies, and called by the arms that start from them.
    """
    runs = []
    for folder in folders:
        runs.append(read_run(folder))
        on_run(1)
    alike = Counter((run.arm, run.seed) for run in runs)
    runs = [_called(run, f"{run.arm} ({run.folder})") if alike[run.arm, run.seed] > 1 else run for run in runs]
    if len({run.kind for run in runs if run.base}) > 1:
        runs = [_with_base(run, base_arm(run.kind.rpartition(":")[2])) for run in runs]
    if all(map(_alike, runs, [_first_of(run, runs) for run in runs])):
        return runs
    return [_with_base(run, base_arm(run.arm)) for run in runs]


def _first_of(run: RunFolder, runs: Sequence[RunFolder]) -> RunFolder:
    """The first run of the same seed that measured a base in the same kind of conversation."""
    return next((each for each in runs if each.base and (each.seed, each.kind) == (run.seed, run.kind)), run)


def _alike(run: RunFolder, other: RunFolder) -> bool:
    """Whether the bases of two runs got the same right, as far as both were measured alike."""
    if run.base is None or other.base is None:
        return True
    told = {evaluation.mode: evaluation.marks for evaluation in other.base.evaluations}
    both = [(evaluation.marks, told.get(evaluation.mode, {})) for evaluation in run.base.evaluations]
    return all(mine[name] == theirs[name] for mine, theirs in both for name in mine.keys() & theirs.keys())


def _with_base(run: RunFolder, arm: str) -> RunFolder:
    return replace(run, base=run.base and replace(run.base, arm=arm))


def _called(run: RunFolder, arm: str) -> RunFolder:
    return replace(run, arm=arm, final=run.final and replace(run.final, arm=arm))


def read_run(folder: Path) -> RunFolder:
    """Reads a run's folder.

    Raises UserError if it is not a run's, if a file is damaged, or if there are neither metrics nor an evaluation.
    """
    text, recipe = _read_recipe(folder)
    metrics, trajectories, evaluation = (folder / name for name in (METRICS, TRAJECTORIES, EVALUATION))
    if not metrics.exists() and not evaluation.exists():
        raise UserError(f"{folder} holds neither metrics.jsonl nor evaluation.json: the run has not measured anything")
    base = folder / "evaluation_base.json"
    final = load_evaluation(evaluation) if evaluation.exists() else None
    return RunFolder(
        folder=folder,
        recipe_text=text,
        steps=sum(stage.steps for stage in recipe.stages),
        evaluates=recipe.evaluate is not None,
        arm=final.arm if final else recipe.name or folder.name,
        seed=final.seed if final else recipe.seed,
        metrics=read_records(metrics, MetricsLine) if metrics.exists() else [],
        trajectories=read_records(trajectories, ShownLine) if trajectories.exists() else [],
        final=final,
        base=load_evaluation(base) if base.exists() else None,
        kind=str((recipe.conversation or {}).get("kind", "correct")),
    )


class _StageLine(Line):
    steps: int


class _RecipeLine(Line):
    """The part of a recipe that is read, as the recipe may be that of another version of rlcore."""

    name: str = ""
    seed: int = 0
    stages: Sequence[_StageLine] = ()
    evaluate: dict[str, Any] | None = None
    conversation: dict[str, Any] | None = None


def _read_recipe(folder: Path) -> tuple[str, _RecipeLine]:
    path = folder / "recipe.yaml"
    try:
        text = path.read_text(encoding="utf-8")
        recipe = parse_yaml(text)
    except OSError as error:
        raise UserError(f"{folder} is not the folder of a run: cannot read {path.name}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise UserError(f"{path} is not YAML") from None
    return text, check_shape(recipe, _RecipeLine, f"{path} is not a recipe")
