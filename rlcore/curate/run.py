"""`rlcore curate`: selects the problems of a recipe's data that are worth training on, and reports why."""

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pyarrow

from rlcore.curate.options import CurateOptions
from rlcore.curate.overlap import contaminated, duplicates
from rlcore.curate.pass_rate import check_settings, pass_rates
from rlcore.curate.select import BANDS, band_of, select
from rlcore.data import load_held_out, load_problems
from rlcore.data.load import problem_texts
from rlcore.errors import UserError, one_line
from rlcore.files import holding, to_json, write_records, write_whole, writing
from rlcore.ranks import Ranks, start_distributed
from rlcore.recipe import Recipe
from rlcore.session.inputs import read_code, read_weights
from rlcore.session.interrupt import Stopped
from rlcore.types import Problem

PROBLEMS = "problems.parquet"


@dataclass(frozen=True, slots=True)
class Removed:
    """A problem that was not selected, and the reason."""

    problem: Problem
    reason: str
    detail: str


def curate(recipe: Recipe, options: CurateOptions, folder: Path) -> Path | None:
    """Writes `problems.parquet`, `removed.jsonl`, `statistics.json` and `statistics.md`; returns the first.

    Duplicates, problems that occur in held-out sets and those with too long a prompt are removed; the pass rates of the
    others are measured; problems with rates from `lowest` to `highest` are kept, and `count` of them selected. Returns
    None when asked to stop. Raises UserError if no problem is left, if the folder holds pass rates measured under other
    settings, or if another process is using it.
    """
    ranks = start_distributed(recipe.device, recipe.learner.deadline)
    with holding(folder, ranks.first):
        return _curate(recipe, options, folder, ranks)


def _curate(recipe: Recipe, options: CurateOptions, folder: Path, ranks: Ranks) -> Path | None:
    problems = load_problems(recipe.data, print if ranks.first else lambda line: None)
    texts = [problem.text or "" for problem in problems]
    _check_columns(problems)
    removed = _overlaps(recipe, options, problems, texts)
    left = [index for index in range(len(problems)) if index not in removed]
    asked = _first_attempts(recipe)
    if ranks.first:
        check_settings(folder, _settings(asked, options.samples))
    try:
        rates = pass_rates(asked, [problems[i] for i in left], options.samples, folder, ranks)
    except Stopped:
        if ranks.first:
            print(f"stopped; what is measured is kept in {folder}, and the same command goes on from there")
        return None
    long = f"more than {recipe.conversation.max_prompt_tokens} tokens"
    removed |= {i: Removed(problems[i], "prompt", long) for i in left if problems[i].id not in rates}
    rate_of = {i: rates[problems[i].id] for i in left if problems[i].id in rates}
    kept = []
    for index in rate_of:
        if options.lowest <= rate_of[index] <= options.highest:  # False for NaN
            kept.append(index)
        else:
            removed[index] = Removed(problems[index], "pass rate", f"{rate_of[index]:.3f}")
    chosen = kept
    if options.count is not None and options.count < len(kept):
        order = select([texts[i] for i in kept], [rate_of[i] for i in kept], options.count, options.diversity)
        chosen = sorted(kept[place] for place in order)
        removed |= {i: Removed(problems[i], "selection", f"{rate_of[i]:.3f}") for i in set(kept) - set(chosen)}
    if not chosen:
        raise UserError(f"curate: none of {len(problems):,} problems is left{_where(removed)}")
    if ranks.first:
        rows = [
            {**problems[i].columns, "pass_rate": rate_of[i], "band": band_of(rate_of[i]), "samples": options.samples}
            for i in chosen
        ]
        statistics = _statistics(recipe, options, len(problems), removed, rate_of, chosen)
        lines = [
            {"id": r.problem.id, "reason": r.reason, "detail": r.detail, "text": texts[i]}
            for i, r in sorted(removed.items())
        ]
        _write(folder, rows, lines, statistics)
    return folder / PROBLEMS


def _check_columns(problems: list[Problem]) -> None:
    """Raises UserError for a column that Parquet cannot store, before anything is sampled."""
    for name in dict.fromkeys(name for problem in problems for name in problem.columns):
        try:
            datasets.Dataset.from_list([{name: problem.columns.get(name)} for problem in problems])
        except (pyarrow.ArrowException, TypeError, ValueError, OverflowError) as error:
            raise UserError(f"curate: column {name} cannot be written as Parquet: {one_line(error)}") from None


def _write(folder: Path, rows: list[dict[str, Any]], removed: list[dict[str, Any]], statistics: dict[str, Any]) -> None:
    with writing(f"curate: {folder}"):
        datasets.Dataset.from_list(rows).to_parquet(folder / PROBLEMS)
        write_records(folder / "removed.jsonl", removed)
        write_whole(folder / "statistics.json", to_json(statistics))
        (folder / "statistics.md").write_text(_markdown(statistics), encoding="utf-8")


def _overlaps(recipe: Recipe, options: CurateOptions, problems: list[Problem], texts: list[str]) -> dict[int, Removed]:
    """Duplicates, and problems that occur in held-out sets, by index."""
    held_out = [text for path in options.against for text in problem_texts(path, recipe.data)]
    if recipe.evaluate:
        held_out += [problem.text or "" for problem in load_held_out(recipe.evaluate.data, lambda line: None)]
    removed = {
        index: Removed(problems[index], "duplicate", f"of {problems[earlier].id}")
        for index, earlier in duplicates(texts, options.near).items()
    }
    shared = contaminated(texts, held_out, options.ngram)
    return removed | {index: Removed(problems[index], "contamination", words) for index, words in shared.items()}


def _first_attempts(recipe: Recipe) -> Recipe:
    """The recipe reduced to sampling one attempt of each conversation."""
    conversation = recipe.conversation.model_copy(update={"attempts": 1, "kind": "correct"})
    return recipe.model_copy(update={"conversation": conversation, "evaluate": None, "stages": [], "sft": None})


def _settings(asked: Recipe, samples: int) -> dict[str, Any]:
    """All that the pass rate of a problem depends on, but for its row: the file of the data may gain and lose some."""
    return {
        "samples": samples,
        **asked.model_dump(mode="json", exclude={"data", "output"}),
        "data": asked.data.model_dump(mode="json", include={"columns", "prompt", "system"}),
        "inputs": read_code(asked),
        "weights": read_weights(asked),
    }


def _statistics(
    recipe: Recipe,
    options: CurateOptions,
    loaded: int,
    removed: dict[int, Removed],
    rate_of: dict[int, float],
    chosen: list[int],
) -> dict[str, Any]:
    """Counts of every step, and pass rates by band before and after selection."""
    bands = [Counter(band_of(rate_of[i]) for i in part if not math.isnan(rate_of[i])) for part in (rate_of, chosen)]
    return {
        "model": recipe.model.path or "scratch",
        "data": recipe.data.path or recipe.data.source,
        "options": options.model_dump(),
        "loaded": loaded,
        "removed": dict(Counter(r.reason for r in removed.values())),
        "measured": len(rate_of),
        "unscored": sum(map(math.isnan, rate_of.values())),
        "selected": len(chosen),
        "mean_pass_rate": sum(rate_of[i] for i in chosen) / len(chosen),
        "bands": {name: {"measured": bands[0][name], "selected": bands[1][name]} for name in BANDS},
    }


def _markdown(statistics: dict[str, Any]) -> str:
    """The statistics as a page."""
    options = ", ".join(f"{name} {value}" for name, value in statistics["options"].items())
    lines = [
        f"{statistics['selected']:,} of {statistics['loaded']:,} problems of {statistics['data']}, "
        f"pass rates of {statistics['model']} ({statistics['options']['samples']} first attempts each).",
        "",
        f"Settings: {options}.",
        "",
        *(f"- removed for {reason}: {count:,}" for reason, count in statistics["removed"].items()),
        f"- measured: {statistics['measured']:,}, of which unscored: {statistics['unscored']:,}",
        f"- mean pass rate of what is selected: {statistics['mean_pass_rate']:.3f}",
        "",
        "| band | measured | selected |",
        "| --- | ---: | ---: |",
        *(f"| {name} | {c['measured']:,} | {c['selected']:,} |" for name, c in statistics["bands"].items()),
    ]
    return "\n".join(lines) + "\n"


def _where(removed: dict[int, Removed]) -> str:
    counts = Counter(r.reason for r in removed.values())
    return ": removed for " + ", ".join(f"{reason} {count:,}" for reason, count in counts.items()) if counts else ""
