"""Tables: the raw rows of a JSONL file, a Parquet file, a data set folder or a hub data set."""

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlcore.data.bad_rows import BadRows
from rlcore.entries import Row
from rlcore.errors import UserError, nearest_path, one_line
from rlcore.hub import hub_or_cache

REFUSED = BadRows(skip=False)
FILE_SUFFIXES = (".jsonl", ".json", ".gz", ".parquet")


@dataclass(frozen=True)
class Table:
    """Rows and their places: `places[i]`, counted from 1, is the line (or row, according to `unit`) of `rows[i]`."""

    name: str
    rows: list[Row]
    places: list[int]
    unit: str = "row"


def read_table(path: str, subset: str | None = None, split: str = "train", bad: BadRows = REFUSED) -> Table:
    """The rows at `path`: a file, whose suffix gives its kind, a data set folder, or the name of a hub data set.

    `subset` and `split` select from a folder or hub data set; a file is read whole. Raises UserError if nothing is
    there or it cannot be read.
    """
    file = Path(path)
    if not file.exists() and (path.endswith(FILE_SUFFIXES) or path.startswith((".", "/", "~"))):
        raise UserError(f"data file {path} does not exist{nearest_path(path)}")
    if not file.is_file():
        return read_hub(path, subset, split)
    return read_parquet(path) if file.suffix == ".parquet" else read_jsonl(path, bad)


def read_jsonl(path: str, bad: BadRows = REFUSED) -> Table:
    """One JSON object a line, or an array of objects; `.gz` or plain. Read here so that errors can name the line."""
    open_text = gzip.open if path.endswith(".gz") else open
    try:
        with open_text(path, "rt", encoding="utf-8") as file:
            lines = list(file)
    except FileNotFoundError:
        raise UserError(f"data file {path} does not exist{nearest_path(path)}") from None
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise UserError(f"data file {path} cannot be read: {error}") from None
    unit, texts = "line", [(place, line) for place, line in enumerate(lines, start=1) if line.strip()]
    if texts and (entries := _array("".join(lines))) is not None:
        unit, texts = "row", list(enumerate(entries, start=1))
    found = [(row, place) for place, text in texts if (row := _parse(text, path, place, bad)) is not None]
    return Table(path, [row for row, _ in found], [place for _, place in found], unit)


def _array(text: str) -> list[str] | None:
    """The entries of a text that is one JSON array, each as JSON; None for other texts."""
    if not text.lstrip().startswith("["):
        return None
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return [json.dumps(entry) for entry in entries] if any(isinstance(entry, dict) for entry in entries) else None


def read_parquet(path: str) -> Table:
    """The rows of one Parquet file."""
    if not Path(path).exists():
        raise UserError(f"data file {path} does not exist{nearest_path(path)}")
    return _through_datasets(path, lambda datasets: datasets.Dataset.from_parquet(path))


def read_hub(path: str, subset: str | None, split: str) -> Table:
    """A data set of the Hugging Face hub, or a local folder of the same form."""
    return _through_datasets(path, lambda datasets: datasets.load_dataset(path, subset, split=split))


def _through_datasets(path: str, load: Callable[[Any], Any]) -> Table:
    import datasets  # takes a second

    try:
        with hub_or_cache(path):
            rows = load(datasets).to_list()
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise UserError(f"data set {path} cannot be loaded: {one_line(error)}") from None
    return Table(path, rows, list(range(1, len(rows) + 1)))


def _parse(line: str, path: str, place: int, bad: BadRows) -> Row | None:
    try:
        row = json.loads(line)
        if "\\ud" in line.lower():  # half of a character that takes two escapes: no tokenizer, no file takes it
            json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        bad.refuse(f"{path}:{place}: a lone surrogate (\\ud800 to \\udfff) is no text", "a lone surrogate", [place])
        return None
    except RecursionError:
        bad.refuse(f"{path}:{place}: nested too deeply", "nested too deeply", [place])
        return None
    except json.JSONDecodeError as error:
        bad.refuse(f"{path}:{place}: not JSON: {error.msg} at column {error.colno}", "not JSON", [place])
        return None
    if not isinstance(row, dict):
        kind = type(row).__name__
        bad.refuse(f"{path}:{place}: a row must be a JSON object, not {kind}", f"{kind}, not an object", [place])
        return None
    return row
