"""Tasks by demonstration: rows whose rule is shown by examples, of grids or of text.

A row holds `train`, a list of `{"input": ..., "output": ...}`; `input`, what is asked; and `output`, the gold answer.
Grids are lists of rows of digits. `prompt` and `answer` are demonstrations and gold as they are written. An input of
text may have `paraphrases` beside it, a list of other words for it.
"""

from collections.abc import Mapping
from dataclasses import replace
from random import Random
from typing import Any

from rewards.grids import Grid, is_grid, write_grid
from rlcore.data.prompts import asked
from rlcore.data.transformations import Transformation
from rlcore.entries import Row
from rlcore.errors import UserError
from rlcore.types import Problem

GOLD = ("train", "input", "output")
"""The columns that make a row a task."""
BETWEEN = "\n\n"
"""What stands between two demonstrations."""


def written_row(row: Row) -> Row:
    """The row with its `prompt`, and its `answer` where it has an output. What lacks a part is left as it is."""
    if "train" not in row or not row.get("input"):
        return row
    shown = [*row["train"], {"input": row["input"]}]
    prompt = BETWEEN.join(_written_pair(pair) for pair in shown)
    return {**row, "prompt": prompt, "answer": _written(row.get("output"))}


def unlike_a_task(row: Row) -> str:
    """What is wrong with the columns of a task, empty if nothing is: inputs and outputs are all text, or all grids."""
    shown = row.get("train") or []
    pairs = shown if isinstance(shown, list) else [shown]
    if not all(isinstance(pair, Mapping) and {"input", "output"} <= pair.keys() for pair in pairs):
        return "train is no list of inputs and outputs"
    values = [pair[name] for pair in pairs for name in ("input", "output")]
    values += [row[name] for name in ("input", "output") if row.get(name) is not None]
    if all(isinstance(value, str) for value in values) or all(map(is_grid, values)):
        return ""
    return "inputs and outputs are neither all text nor all grids"


def _written_pair(pair: Row) -> str:
    output = f"\n{_written(pair['output'])}" if "output" in pair else ""
    return f"Input:\n{_written(pair['input'])}\nOutput:{output}"


def _written(value: Grid | str | None) -> str:
    return value if isinstance(value, str) else write_grid(value or [])


def output_spans(row: Mapping[str, Any], text: str) -> list[tuple[int, int]]:
    """Where in a text that contains the row's prompt the outputs of its demonstrations stand: from, to.

    The first is left out: nothing before it shows the rule. Raises UserError for a text without the prompt.
    """
    at, spans = text.find(row.get("prompt", "")), []
    if at < 0:
        raise UserError("the chat template changes the prompts: what their demonstrations show is not found in them")
    for pair in row.get("train", ()):
        end = at + len(_written_pair(pair))
        spans.append((end - len(_written(pair["output"])), end))
        at = end + len(BETWEEN)
    return spans[1:]


def leave_one_out(row: Row) -> list[Row]:
    """A task for each demonstration: it is asked, and the others are shown. Of `input` and `output` nothing is read.

    Akyürek et al. 2024 (arXiv 2411.07279), section 3.1.
    """
    shown: list[Row] = row["train"]
    return [{"train": shown[:at] + shown[at + 1 :], **pair} for at, pair in enumerate(shown)]


def alone(row: Row) -> list[Row]:
    """A task for each demonstration, which is asked without any other: what leave-one-out is compared with."""
    return [{"train": [], **pair} for pair in row["train"]]


def shown_colours(row: Row) -> list[int]:
    """The colours of the demonstrations and of what is asked, in order."""
    grids = [row["input"], *(pair[name] for pair in row["train"] for name in ("input", "output"))]
    return sorted({cell for grid in grids for line in grid for cell in line})


def transformed(row: Row, transformation: Transformation) -> Row:
    """The task with every grid transformed; text stays as it is."""

    def change(pair: Row) -> Row:
        grids = {name: pair[name] for name in ("input", "output") if isinstance(pair.get(name), list)}
        return {**pair, **{name: transformation.apply(grid) for name, grid in grids.items()}}

    return {**change(row), "train": [change(pair) for pair in row["train"]]}


def retold(row: Row, rng: Random) -> Row:
    """The task with its demonstrations in another order, and each input that has paraphrases in one of its wordings.

    Orders and wordings are drawn uniformly.
    """
    shown: list[Row] = rng.sample(row["train"], len(row["train"]))
    return {**_reworded(row, rng), "train": [_reworded(pair, rng) for pair in shown]}


def _reworded(pair: Row, rng: Random) -> Row:
    if not pair.get("paraphrases"):
        return pair
    return {**pair, "input": rng.choice([pair["input"], *pair["paraphrases"]])}


def posed(problem: Problem, name: str, row: Row, template: str) -> Problem:
    """The problem with another row of its task in its place, called `name`, asked in the template of its data."""
    row = written_row(row)
    messages = [*problem.messages[:-1], *asked(template, row, row["prompt"])]
    return replace(problem, id=name, messages=tuple(messages), columns=row)


def check_task(problem: Problem) -> None:
    """Raises UserError for a problem that is no task, or has too few demonstrations to leave one out."""
    shown = problem.columns.get("train")
    if not isinstance(shown, list) or "input" not in problem.columns:
        raise UserError(
            f"problem {problem.id} shows no demonstrations (columns train and input): data.source arc, grids or "
            "examples has them"
        )
    if len(shown) < 2:
        raise UserError(f"problem {problem.id} has {len(shown)} demonstrations: one cannot be left out of them")
