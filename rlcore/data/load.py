"""Loading the problems of a recipe's data section."""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rlcore.data.bad_rows import BadRows, numbers
from rlcore.data.prompts import asked, image_columns, is_prompt, text_of
from rlcore.data.table import REFUSED, Table, read_table
from rlcore.entries import SOURCES, Row, Source
from rlcore.errors import UserError, did_you_mean
from rlcore.recipe.schema import DataConfig
from rlcore.types import Problem

_KEYS = re.compile(rf"(?<![\w./-])data(?=: |\.(?:{'|'.join(DataConfig.model_fields)})\b)")
"""The section, where the text of an error names it or a key of it."""


def load_problems(
    section: DataConfig, say: Callable[[str], object] = print, texts: Sequence[str] = ()
) -> list[Problem]:
    """The problems of a data section, in the order of the source. `texts` are columns that must contain text.

    `say` receives one line about rows that `skip_bad_rows` left out, and one about each part of the data that is not
    used. Raises UserError for a missing, unreadable or empty table, a line that is not JSON, rows without a column that
    the source, the column map or the prompt names, or unknown generator options.
    """
    source = SOURCES[section.source]
    bad = BadRows(section.skip_bad_rows)
    table = _table(section, source, bad)
    unread = sum(map(len, bad.places.values()))
    for note in _unused(table, section, source):
        say(note)
    rows = _rows(table, section, source, bad, texts)
    if left_out := bad.summary(table.name, table.unit, len(table.rows) + unread):
        say(left_out)
    if section.exclude is not None:
        held_out = {_normal(text) for text in problem_texts(section.exclude, section)}
        rows = [row for row in rows if _normal(_own_text(row, section, source)) not in held_out]
    if not rows:
        raise UserError(
            f"data: no problems are left from {section.path or source.hub or section.source} (split {section.split})"
        )
    return _distinct([_problem(row, section, source) for row in rows[: section.limit]], table.name, say)


def load_held_out(section: DataConfig, say: Callable[[str], object] = print) -> list[Problem]:
    """The problems of `evaluate.data`, as `load_problems` has them; what it raises names the keys of that section."""
    try:
        return load_problems(section, say)
    except UserError as error:
        raise UserError(_KEYS.sub("evaluate.data", str(error))) from None


def _unused(table: Table, section: DataConfig, source: Source) -> Iterator[str]:
    """Notes on what the recipe asks for but the data lack, and on what the data contain but is not used."""
    if source.in_split is None and section.split not in ("train", "all") and Path(table.name).is_file():
        yield f"data set {table.name} is one file, which is read whole: it has no split {section.split}"
    if images := image_columns(table.rows):
        yield f"data set {table.name} has images ({', '.join(images)}): the policy is shown the text alone"


def _distinct(problems: list[Problem], name: str, say: Callable[[str], object]) -> list[Problem]:
    """Gives every problem an id of its own: repeated ids become `ID#2`, `ID#3` and so on, but for ids of other rows."""
    seen: Counter[str] = Counter()
    taken = {problem.id for problem in problems}
    distinct, repeated = [], []
    for problem in problems:
        own = problem.id
        seen[own] += 1
        if seen[own] > 1:
            repeated.append(own)
            while (free := f"{own}#{seen[own]}") in taken:
                seen[own] += 1
            taken.add(free)
            problem = replace(problem, id=free)
        distinct.append(problem)
    if repeated:
        named = ", ".join(dict.fromkeys(repeated[:3]))
        say(f"data set {name}: {len(repeated)} rows repeat the id or text of another ({named}); each is a problem")
    return distinct


def problem_texts(path: str, section: DataConfig) -> list[str]:
    """The texts of all problems at `path`, of any split, in the column that the section's source names or maps."""
    source = SOURCES[section.source]
    table = read_table(path, split="all")
    mapped = section.columns.get(source.text, source.text)
    column = source.text if any(source.text in row for row in table.rows) else mapped
    table = _with_prompt(_with_column(table, column, REFUSED), column, REFUSED)
    return [text_of(row[column]) for row in table.rows]


def _table(section: DataConfig, source: Source, bad: BadRows) -> Table:
    if source.make:
        if section.path:
            raise UserError(f"data.path: the {section.source} source makes its problems, it reads no {section.path}")
        return source.make(section.options, section.split)
    if section.options:
        raise UserError(f"data.options: the {section.source} source has none, got {', '.join(section.options)}")
    path = section.path or source.hub
    if path is None:
        raise UserError(f"data.path is missing: the {section.source} source needs a file or hub name")
    own_subset = source.subset if section.path is None else None
    return (source.read or read_table)(path, section.subset or own_subset, section.split, bad)


def _rows(table: Table, section: DataConfig, source: Source, bad: BadRows, texts: Sequence[str]) -> list[Row]:
    """The rows of the wanted split under the source's column names, each with all columns that it needs."""
    if not table.rows:
        raise UserError(f"data set {table.name} is empty")
    named = _without_refused(_renamed(table, section.columns, bad), source, bad)
    if source.complete is not None:
        named = replace(named, rows=[source.complete(row) for row in named.rows])
    shown = [source.text if name == "prompt" else name for name in section.asked_columns]
    if source.ask:  # it writes the prompt from a text
        texts = (source.text, *texts)
    for column in dict.fromkeys((*shown, *texts, *source.gold, *section.columns)):
        hint = "" if column in section.columns else f"; data.columns={{{column}: NAME}} says which of them it is"
        named = _with_column(named, column, bad, hint)
    for column in texts:
        named = _with_form(named, column, lambda value: isinstance(value, str), "text", bad)
    if source.text in shown:
        named = _with_prompt(named, source.text, bad)
    if source.in_split is None:
        return named.rows
    return [row for row in named.rows if source.in_split(row, section.split)]


def _renamed(table: Table, columns: dict[str, str], bad: BadRows) -> Table:
    if _has_new_names(table, columns):
        return table
    for here in columns.values():
        table = _with_column(table, here, bad)
    taken = set(columns.values())
    rows = [
        {name: value for name, value in row.items() if name not in taken}
        | {new: row[old] for new, old in columns.items()}
        for row in table.rows
    ]
    return replace(table, rows=rows)


def _has_new_names(table: Table, columns: dict[str, str]) -> bool:
    """Whether the rows are renamed already, as those that `rlcore curate` wrote are."""
    former = set(columns.values()) - set(columns)
    there = {name for row in table.rows for name in row} if former else set()
    return bool(there) and not former & there and there >= set(columns)


def _without_refused(table: Table, source: Source, bad: BadRows) -> Table:
    told = {place: why for row, place in zip(table.rows, table.places, strict=True) if (why := source.refusal(row))}
    if not told:
        return table
    first = next(iter(told.values()))
    return _without(table, list(told), f"cannot be used: {first}", first, bad)


def _with_column(table: Table, column: str, bad: BadRows, hint: str = "") -> Table:
    """The rows in which the column is not empty. Raises UserError if no row has the column."""
    lacking = [place for row, place in zip(table.rows, table.places, strict=True) if _blank(row.get(column))]
    if not lacking:
        return table
    if not any(column in row for row in table.rows):
        known = sorted({name for row in table.rows for name in row})
        raise UserError(
            f"data set {table.name} has no column {column}; it has {', '.join(known)}{did_you_mean(column, known)}"
            f"{hint}"
        )
    return _without(table, lacking, f"have no {column}", f"no {column}", bad)


def _blank(value: Any) -> bool:
    return value is None or value == [] or (isinstance(value, str) and not value.strip())


def _with_prompt(table: Table, column: str, bad: BadRows) -> Table:
    return _with_form(table, column, is_prompt, "text, nor messages that end with the user's", bad)


def _with_form(table: Table, column: str, fits: Callable[[Any], bool], form: str, bad: BadRows) -> Table:
    wrong = [place for row, place in zip(table.rows, table.places, strict=True) if not fits(row[column])]
    if not wrong:
        return table
    return _without(table, wrong, f"have a {column} that is not {form}", f"{column} is not {form}", bad)


def _without(table: Table, places: list[int], said: str, reason: str, bad: BadRows) -> Table:
    bad.refuse(f"{_at(table, places)}: {len(places)} of {len(table.rows)} rows {said}", reason, places)
    left_out = set(places)
    kept = [(row, place) for row, place in zip(table.rows, table.places, strict=True) if place not in left_out]
    return replace(table, rows=[row for row, _ in kept], places=[place for _, place in kept])


def _at(table: Table, places: list[int]) -> str:
    """`file:4` for one place, `file: lines 4, 9, 12, ...` for more."""
    return f"{table.name}:{places[0]}" if len(places) == 1 else f"{table.name}: {table.unit}s {numbers(places)}"


def _normal(text: str) -> str:
    return " ".join(text.split())


def _own_text(row: Row, section: DataConfig, source: Source) -> str:
    """The text that identifies a problem: its own if the prompt contains it, else the prompt."""
    own: Any = row.get(source.text)
    return text_of(own if is_prompt(own) else asked(section.prompt, row, ""))


def _problem(row: Row, section: DataConfig, source: Source) -> Problem:
    prompt = row.get(source.text, "") if source.ask is None else source.ask(row)
    messages = asked(section.prompt, row, prompt)
    if section.system is not None:
        messages = [{"role": "system", "content": section.system}, *messages]
    own_id = row.get(source.id)
    text = _own_text(row, section, source)
    return Problem(
        id=str(own_id) if own_id is not None else hashlib.sha256(_normal(text).encode()).hexdigest()[:16],
        messages=tuple(messages),
        columns=row,
        domain=str(row.get("domain", source.domain)),
        conversational=not isinstance(prompt, str),
        text=text,
    )
