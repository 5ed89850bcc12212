"""From a recipe's data section to problems."""

import hashlib
from dataclasses import replace
from typing import Any

from rlcore.data.sources import SOURCES, Source
from rlcore.data.sources.arithmetic import generate
from rlcore.data.table import Row, Table, read_hub, read_jsonl, read_parquet, read_table
from rlcore.hints import did_you_mean
from rlcore.recipe.schema import Data
from rlcore.types import Message, Problem, UserError


def load_problems(section: Data) -> list[Problem]:
    """The problems of a data section, in the order of their source.

    Raises UserError for a missing, unreadable or empty table, a line that is not JSON, rows without a column that the
    source or the column map names, or unknown generator options.
    """
    source = SOURCES[section.source]
    rows = _rows(_table(section, source), section, source)
    if section.exclude is not None:
        held_out = _held_out_texts(section, source)
        rows = [row for row in rows if _normal(row[source.text]) not in held_out]
    if not rows:
        raise UserError(
            f"data: no problems are left from {section.path or source.hub or section.source} (split {section.split})"
        )
    return [_problem(row, section, source) for row in rows[: section.limit]]


def _table(section: Data, source: Source) -> Table:
    if section.source == "arithmetic":
        if section.path:
            raise UserError(f"data.path: the arithmetic source makes its problems, it reads no {section.path}")
        return generate(section.options, section.split)
    if section.options:
        raise UserError(f"data.options: the {section.source} source has none, got {', '.join(section.options)}")
    path = section.path or source.hub
    if path is None:
        raise UserError(f"data.path is missing: the {section.source} source needs a file or hub name")
    if section.source == "jsonl":
        return read_jsonl(path)
    if section.source == "parquet":
        return read_parquet(path)
    if section.source == "hub":
        return read_hub(path, section.subset, section.split)
    own_subset = source.subset if section.path is None else None
    return read_table(path, section.subset or own_subset, section.split)


def _rows(table: Table, section: Data, source: Source) -> list[Row]:
    """The table's rows under the source's column names, each with every column it must have, of the wanted split."""
    if not table.rows:
        raise UserError(f"data set {table.name} is empty")
    named = _renamed(table, section.columns)
    if source.complete is not None:
        named = replace(named, rows=[source.complete(row) for row in named.rows])
    for column in dict.fromkeys((source.text, *source.gold, *section.columns)):
        _require(named, column)
    _require_text(named, source.text)
    if source.in_split is None:
        return named.rows
    return [row for row in named.rows if source.in_split(row, section.split)]


def _renamed(table: Table, columns: dict[str, str]) -> Table:
    for here in columns.values():
        _require(table, here)
    taken = set(columns.values())
    rows = [
        {name: value for name, value in row.items() if name not in taken}
        | {new: row[old] for new, old in columns.items()}
        for row in table.rows
    ]
    return replace(table, rows=rows)


def _require(table: Table, column: str) -> None:
    """Refuses rows where a column is absent or holds nothing."""
    lacking = [place for row, place in zip(table.rows, table.places, strict=True) if _blank(row.get(column))]
    if not lacking:
        return
    if not any(column in row for row in table.rows):
        known = sorted({name for row in table.rows for name in row})
        raise UserError(
            f"data set {table.name} has no column {column}; it has {', '.join(known)}{did_you_mean(column, known)}"
        )
    raise UserError(f"{_at(table, lacking)}: {len(lacking)} of {len(table.rows)} rows have no {column}")


def _blank(value: Any) -> bool:
    return value is None or value == [] or (isinstance(value, str) and not value.strip())


def _require_text(table: Table, column: str) -> None:
    wrong = [place for row, place in zip(table.rows, table.places, strict=True) if not isinstance(row[column], str)]
    if wrong:
        raise UserError(f"{_at(table, wrong)}: {len(wrong)} of {len(table.rows)} rows have a {column} that is not text")


def _at(table: Table, places: list[int]) -> str:
    """`file:4` for one place, `file: lines 4, 9, 12, ...` for more."""
    if len(places) == 1:
        return f"{table.name}:{places[0]}"
    return f"{table.name}: {table.unit}s {', '.join(map(str, places[:5]))}" + (", ..." if len(places) > 5 else "")


def _held_out_texts(section: Data, source: Source) -> set[str]:
    """Texts of the problems in `exclude`, all splits of it, under the source's own column name or the mapped one."""
    table = read_table(str(section.exclude), split="all")
    mapped = section.columns.get(source.text, source.text)
    column = source.text if any(source.text in row for row in table.rows) else mapped
    _require(table, column)
    _require_text(table, column)
    return {_normal(row[column]) for row in table.rows}


def _normal(text: str) -> str:
    return " ".join(text.split())


def _problem(row: Row, section: Data, source: Source) -> Problem:
    text = row[source.text] if source.ask is None else source.ask(row)
    system: tuple[Message, ...] = () if section.system is None else ({"role": "system", "content": section.system},)
    own_id = row.get(source.id)
    return Problem(
        id=str(own_id) if own_id is not None else hashlib.sha256(_normal(row[source.text]).encode()).hexdigest()[:16],
        messages=(*system, {"role": "user", "content": section.prompt.replace("{prompt}", text)}),
        columns=row,
        domain=str(row.get("domain", source.domain)),
    )
