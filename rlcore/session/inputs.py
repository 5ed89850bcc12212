"""Digests of what a run reads beside its recipe: its problems, and the code files that the recipe names.

A run that resumes says which of them have changed, and what of its recipe.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from rlcore.errors import UserError
from rlcore.files import JsonlFile, Line
from rlcore.recipe import Recipe
from rlcore.track import Tracker
from rlcore.types import Problem

CODE = re.compile(r"(.+\.py):\w+")
HISTORY = "history.jsonl"
"""What was changed when the run resumed, and after which of its steps or rounds."""
Changes = dict[str, list[Any]]
"""`[before, now]` by dotted key of the recipe, or by what is read."""
Inputs = dict[str, Any]
"""Digests by name: `data` and `evaluate.data` (see `_of_problems`), and the path of each code file."""


class DataLine(Line):
    """The digests of problems (`_of_problems`)."""

    count: int
    order: str
    members: str
    content: str


class InputsLine(Line):
    """Digests in a record of their own; those of files of code are its other keys."""

    __pydantic_extra__: dict[str, str]
    data: DataLine
    held_out: DataLine = Field(alias="evaluate.data")


def read_inputs(recipe: Recipe, problems: Sequence[Problem], held_out: Sequence[Problem]) -> Inputs:
    """Digests of a run's problems, its held-out problems, and the code files that its recipe names."""
    return {"data": _of_problems(problems), "evaluate.data": _of_problems(held_out), **read_code(recipe)}


def read_code(recipe: Recipe) -> dict[str, str]:
    """Digests of the code files that a recipe names."""
    files = [path for path in map(Path, sorted(set(_code(recipe.model_dump())))) if path.is_file()]
    return {str(path): hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest() for path in files}


def read_weights(recipe: Recipe) -> str:
    """A digest of the names, sizes and times of the files in the folder of a recipe's model, if it is a folder."""
    path = Path(recipe.model.path or "")
    files = sorted(path.glob("*")) if recipe.model.path and path.is_dir() else []
    weights = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file()]
    return hashlib.blake2b(repr(weights).encode(), digest_size=16).hexdigest()


def input_changes(folder: Path, saved: Mapping[str, Any], now: Inputs) -> Changes:
    """Digests that differ from those saved by the run in `folder`: `[before, now]` by name.

    Raises UserError if the run would meet its problems in another order.
    """
    before, data = saved.get("data"), now["data"]
    # An edited problem is another one: only the same problems can be in another order.
    moved = before and before["members"] == data["members"] and before["order"] != data["order"]
    if before and (before["count"] != data["count"] or moved):
        raise UserError(
            f"the data of the run in {folder} have changed: {data['count']:,} problems, {before['count']:,} before, so "
            "that it would come to them in another order; restore the data, or give another output"
        )
    both = ((name, saved[name], now[name]) for name in now if name in saved)
    return {f"contents of {name}": [_short(old), _short(new)] for name, old, new in both if old != new}


def note_changes(tracker: Tracker, folder: Path, changes: Changes, done: int, unit: str) -> None:
    """Says what the run in `folder` changes as it resumes after `done` units, and adds it to the run's history."""
    if not changes or not tracker.enabled:
        return
    history = JsonlFile(folder / HISTORY)
    history.write({unit: done, "changes": changes})
    history.close()
    told = ", ".join(f"{key} {now} (was {before})" for key, (before, now) in changes.items())
    tracker.say(f"from {unit} {done + 1} on: {told}")


def _of_problems(problems: Sequence[Problem]) -> dict[str, Any]:
    """Their number, and digests of their ids in order, of the set of ids, and of their content."""
    names = [problem.id for problem in problems]
    rows = (json.dumps([p.id, p.messages, dict(p.columns)], sort_keys=True, default=str) for p in problems)
    return {
        "count": len(names),
        "order": _of_lines(names),
        "members": _of_lines(sorted(names)),
        "content": _of_lines(rows),
    }


def _of_lines(lines: Iterable[str]) -> str:
    """Digested line by line: the tests of code problems take many megabytes."""
    digest = hashlib.blake2b(digest_size=16)
    for line in lines:
        digest.update(f"{line}\n".encode())
    return digest.hexdigest()


def _short(digest: str | Mapping[str, Any]) -> str:
    return (digest if isinstance(digest, str) else digest["content"])[:8]


def _code(value: object) -> Iterator[str]:
    """The files of all values `path/to/file.py:name` in a recipe."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _code(item)
    elif isinstance(value, str) and (match := CODE.fullmatch(value)):
        yield match[1]
