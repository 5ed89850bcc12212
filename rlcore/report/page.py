"""The report of one or several runs: `report.json`, plots, and one page that needs nothing but a browser."""

import re
import secrets
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from rapidfuzz.distance import Levenshtein

from rlcore.errors import UserError
from rlcore.evaluate.metrics import attempts_in
from rlcore.evaluate.results import Results
from rlcore.files import Record, to_json, writing
from rlcore.report.diagram import diagram
from rlcore.report.plots import CURVES, arm_colours, draw_plots
from rlcore.report.render import embedded, render
from rlcore.report.run_folder import RunFolder, read_runs, results_of
from rlcore.report.table import (
    Row,
    cell,
    columns_of,
    coverage_note,
    headline_mode,
    headline_rows,
    part_rows,
    result_rows,
    vote_table,
)

SHOWN = 400
"""Trajectories on the page, over all runs."""
LONG = 6000
"""Characters of an attempt that the page shows."""
FLIPS = {"i→c": "repaired", "c→i": "spoilt", "c→c": "kept right", "i→i": "stayed wrong", None: "not scored"}
SLUGS = {"i→c": "ic", "c→i": "ci", "c→c": "cc", "i→i": "ii", None: "none"}


def write_report(folder: Path, runs: Sequence[Path], on_part: Callable[[int], object] = lambda done: None) -> Path:
    """Writes `report.json`, `*.png` and `report.html` about the runs' folders into `folder`; returns the page.

    An unfinished run is shown as far as it has come. `on_part` is called after each run read, then after the plots and
    the page. Raises UserError if a folder is not a run's, a file is damaged, or the report cannot be written.
    """
    read = read_runs(map(Path, runs), on_part)
    if not read:
        raise UserError("a report needs at least one run")
    with writing(f"the report in {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        rows = result_rows(results_of(read))
        plots = draw_plots(folder, read, rows)
        on_part(1)
        (folder / "report.json").write_bytes(to_json(_numbers(read, rows)))
        page = folder / "report.html"
        page.write_text(_page(read, rows, plots), encoding="utf-8", errors="replace")
        on_part(1)
    return page


def _numbers(runs: Sequence[RunFolder], rows: Sequence[Row]) -> dict[str, Any]:
    """The content of `report.json`: the runs, and the rows of the table."""
    return {
        "runs": [
            {"folder": str(run.folder), "arm": run.arm, "seed": run.seed, "finished": run.final is not None}
            for run in runs
        ],
        "table": [asdict(row) for row in rows],
    }


def _page(runs: Sequence[RunFolder], rows: Sequence[Row], plots: Mapping[str, Mapping[str, Path]]) -> str:
    """The page, whose security policy forbids any script but its own."""
    results = results_of(runs)
    pictures = {name: embedded(themes) for name, themes in plots.items()}
    return render(
        "report.html",
        nonce=secrets.token_hex(16),
        runs=runs,
        colours=arm_colours(runs),
        headlines=headline_rows(rows, headline_mode(rows)),
        rows=rows,
        columns=columns_of(rows),
        last_of=lambda row: f"t{max(attempts_in(row.metrics), default=1)}",
        cell=cell,
        plots={name: drawn for name, drawn in pictures.items() if name not in CURVES},
        curves={name: drawn for name, drawn in pictures.items() if name in CURVES},
        votes=vote_table(headline_rows(rows, "sampled")),
        parts=part_rows(results, headline_mode(rows)),
        notes=list(dict.fromkeys([*([coverage_note(results)] if results else []), *_notes(results)])),
        alarms=[(run, name, steps) for run in runs for name, steps in _alarms(run).items()],
        trajectories=_trajectories(runs),
        flips=[(SLUGS[kind], kind or "?", words) for kind, words in FLIPS.items()],
    )


def _notes(results: Sequence[Results]) -> list[str]:
    return [note for result in results for note in result.notes]


def _alarms(run: RunFolder) -> dict[str, tuple[int, int]]:
    """First and last step at which each alarm sounded."""
    steps = defaultdict(list)
    for record in run.metrics:
        for name in record:
            if name.startswith("alarm/"):
                steps[name.removeprefix("alarm/")].append(record["step"])
    return {name: (at[0], at[-1]) for name, at in steps.items()}


def _trajectories(runs: Sequence[RunFolder]) -> list[dict[str, Any]]:
    """Trajectories on the page: an equal share from each run, with stages and kinds of flip in turn."""
    shown = []
    for i, run in enumerate(runs):
        kinds = defaultdict(list)
        for arm, record in _records(run, known=[earlier.base for earlier in runs[:i]]):
            kinds[arm, record["stage"], record["flip"]].append((arm, record))
        in_turn = [item for item in chain.from_iterable(zip_longest(*kinds.values())) if item]
        shown += [_shown(run, arm, record) for arm, record in in_turn[: max(SHOWN // len(runs), 4)]]
    return shown


def _records(run: RunFolder, known: Sequence[Results | None]) -> list[tuple[str, Record]]:
    """Trajectories of the final evaluation, of the base's unless that is `known`, and of training, newest first."""
    results = [result for result in reversed(run.results) if result not in known]
    evaluated = [(result.arm, dict(record)) for result in results for record in result.examples]
    return evaluated + [(run.arm, record) for record in reversed(run.trajectories)]


def _shown(run: RunFolder, arm: str, record: Record) -> dict[str, Any]:
    attempts = [{**attempt, "text": attempt["text"][:LONG]} for attempt in record["attempts"]]
    texts = [attempt["text"] for attempt in attempts]
    neighbours = [texts[min(1, len(texts) - 1)], *texts[:-1]]
    parts = [_marked(text, neighbour) for text, neighbour in zip(texts, neighbours, strict=True)]
    return {
        "arm": arm,
        "seed": run.seed,
        "where": f"{record['stage']}, step {record['step']}",
        "problem_id": record["problem_id"],
        "messages": record["messages"],
        "flip": record["flip"] or "?",
        "slug": SLUGS.get(record["flip"], "none"),
        "attempts": [{**attempt, "parts": part} for attempt, part in zip(attempts, parts, strict=True)],
        "diagram": diagram(record),
        "between": [{**said, "text": said["text"][:LONG]} for said in record["between"]],
    }


def _marked(text: str, other: str) -> list[tuple[str, bool]]:
    """The text in pieces of whole words, each with whether it differs from the other text."""
    words, others = (re.findall(r"\w+|\s+|[^\w\s]", t) for t in (text, other))
    opcodes = Levenshtein.opcodes(words, others)
    return [("".join(words[o.src_start : o.src_end]), o.tag != "equal") for o in opcodes if o.src_end > o.src_start]
