"""Tables of the pages, made from the code: `python -m rlcore.pages` writes them anew where something has changed.

A page marks each with `<!-- made from the code: NAME -->`; the table that follows the mark is replaced.
"""

import re
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from rlcore.entries import LOSSES
from rlcore.recipe import Recipe
from rlcore.recipe.section import section_in
from rlcore.registry import Registry
from rlcore.track.alarms import ALARMS
from rlcore.track.measurements import MEASUREMENTS

ROOT = Path(__file__).resolve().parents[1]
MARK = re.compile(r"(<!-- made from the code: (.+?) -->\n\n)(?:\|[^\n]*\n)*")


def filled(text: str) -> str:
    """The page with every marked table as the code makes it. Raises KeyError for a mark that names no table."""
    return MARK.sub(lambda mark: mark[1] + "".join(f"{line}\n" for line in TABLES[mark[2]]()), text)


def _table(headings: str, rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table; headings are divided by ` | `."""
    columns = headings.split(" | ")
    lines = [columns, ["---"] * len(columns), *rows]
    return ["".join(f"| {cell} " if cell else "| " for cell in cells) + "|" for cells in lines]


def measurement_table(section: str) -> list[str]:
    rows = [(f"`{each.name}`", each.means, each.moves) for each in MEASUREMENTS[section]]
    return _table("measurement | means | when it moves", rows)


def alarm_table() -> list[str]:
    rows = [(f"`alarm/{name}`", alarm.when) for name, alarm in ALARMS.items()]
    return _table("alarm | sounds when (means of ten steps, over the last fifty)", rows)


def loss_table() -> list[str]:
    rows = []
    for name in LOSSES.registered:
        loss = LOSSES[name]
        clip = ", ".join(f"{end:g}" for end in loss.clip) if any(loss.clip) else "not used"
        rows.append((f"`{name}`", loss.ratio, str(loss.surrogate), clip, loss.average, loss.source))
    return _table("`loss` | `ratio` | `surrogate` | `clip` | `average` | from", rows)


def recipe_table() -> list[str]:
    rows = [(f"`{key}`", _default(field), _words(field)) for key, field in _fields(Recipe, "")]
    return _table("key | default | what it is", rows)


def _fields(section: type[BaseModel], at: str) -> Iterator[tuple[str, FieldInfo]]:
    """Every key of a section and those below it; `[]` stands for an entry of a list."""
    for name, field in section.model_fields.items():
        below = section_in(field.annotation)
        key = f"{at}{name}"
        if below is None:
            yield key, field
        else:
            yield from _fields(below, f"{key}[]." if typing.get_origin(field.annotation) is list else f"{key}.")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "needed"
    value = field.get_default(call_default_factory=True)
    if value is None or value in ("", [], {}):
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _words(field: FieldInfo) -> str:
    said = (field.description or "").replace("|", "\\|")
    registered = [name for listed in field.metadata if isinstance(listed, Registry) for name in listed.registered]
    choices = ", ".join(f"`{choice}`" for choice in [*registered, *_choices(field.annotation)])
    return "; ".join(part for part in (choices, said) if part)


def _choices(annotation: Any) -> list[str]:
    if typing.get_origin(annotation) is typing.Literal:
        return [str(choice) for choice in typing.get_args(annotation)]
    return [choice for part in typing.get_args(annotation) for choice in _choices(part)]


TABLES: dict[str, Callable[[], list[str]]] = {
    **{f"measurements, {name}": lambda name=name: measurement_table(name) for name in MEASUREMENTS},  # type: ignore[misc]
    "alarms": alarm_table,
    "losses": loss_table,
    "recipe keys": recipe_table,
}
PAGES = ("rlcore/track/README.md", "rlcore/recipe/README.md", "rlcore/learner/README.md")


if __name__ == "__main__":
    for name in PAGES:
        page = ROOT / name
        page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")
