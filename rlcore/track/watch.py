"""A live view of a run in the terminal, read from the files in its folder: of a running run or a finished one."""

import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from rlcore.errors import UserError
from rlcore.evaluate.metrics import attempts_in
from rlcore.evaluate.results import Results
from rlcore.files import WAITING, Record
from rlcore.report.run_folder import RunFolder, read_run
from rlcore.track.alarms import ALARMS, WINDOW, recent_mean
from rlcore.track.console import clock

BARS = " ▁▂▃▄▅▆▇█"
SPARK = 40
"""Width of the small curves, in characters."""
SHOWN = 3
"""Trajectories shown, the newest."""
LONG = 300
"""Characters of a question or attempt that are shown, its last ones: answers stand at the end."""
ACCURACY = {"delta": "Δ", "i_to_c": "i→c", "c_to_i": "c→i", "answer_change": "answer change"}
COLOURS = {"correct": "green", "wrong": "red"}


def watch(folder: Path, *, every: float, once: bool) -> None:
    """Shows a run until it is finished, looking every so many seconds; once only where asked or without a terminal.

    Raises UserError where the folder holds no run.
    """
    if every <= 0:
        raise UserError("--every must be above 0 seconds")
    console = Console(highlight=False)
    if once or not console.is_terminal:
        console.print(view(read_run(folder)))
        return
    with Live(console=console, auto_refresh=False, vertical_overflow="visible") as live:
        while True:
            run = read_run(folder)
            live.update(view(run), refresh=True)
            if finished(run):
                return
            time.sleep(every)


def finished(run: RunFolder) -> bool:
    """Whether the run came to its recipe's end: its last policy is evaluated or, where none is to be, written."""
    if run.evaluates:
        return run.final is not None and run.final.step >= run.steps
    trained = run.metrics[-1]["step"] if run.metrics else 0
    return (run.folder / "final").is_dir() and trained >= run.steps


def view(run: RunFolder) -> RenderableType:
    """Where the run is, its accuracies, its phases, its alarms and its last trajectories."""
    parts: list[RenderableType] = [_heading(run), *_waiting(run), _accuracies(run)]
    trained = [record for record in run.metrics if "time/step" in record]
    if trained:
        parts.append(_phases(trained))
        parts += [Text(f"alarm {name}: {alarm(trained)}", style="bold red") for name, alarm in ALARMS.items()
                  if f"alarm/{name}" in trained[-1]]  # fmt: skip
    parts += [_trajectory(record) for record in run.trajectories[-SHOWN:]]
    return Group(*parts)


def _heading(run: RunFolder) -> Text:
    last: Record = run.metrics[-1] if run.metrics else {"step": 0, "stage": "starting"}
    words = [f"{run.arm}, seed {run.seed}", f"{last['stage']}", f"step {last['step']:,}/{run.steps:,}"]
    seconds = recent_mean(run.metrics, "time/step", min(WINDOW, max(1, len(run.metrics))))
    tokens = recent_mean(run.metrics, "learner/tokens", min(WINDOW, max(1, len(run.metrics))))
    if seconds:
        words.append(f"{seconds:.2g} s a step")
        if tokens:
            words.append(f"{tokens / seconds:,.0f} loss tokens a second")
    if finished(run):
        words.append("finished")
    elif seconds:
        age = max(0.0, time.time() - (run.folder / "metrics.jsonl").stat().st_mtime)
        words += [f"{clock(seconds * (run.steps - last['step']))} left", f"last written {clock(age)} ago"]
    return Text("  ".join(words), style="bold")


def _waiting(run: RunFolder) -> list[Text]:
    """What ranks wait for that takes long."""
    found = []
    for path in sorted((run.folder / WAITING).glob("*.txt")):
        with suppress(FileNotFoundError):  # it went meanwhile: the wait is over
            found.append(Text(f"{path.stem.replace('-', ' ')}: {path.read_text()}", style="yellow"))
    return found


def _accuracies(run: RunFolder) -> Table:
    """Training curves beside the newest evaluations, in points."""
    table, final = Table(box=None, pad_edge=False), run.final if finished(run) else None
    for heading in ("", "base", "last steps", "evaluated", "over the run"):
        table.add_column(heading, justify="left" if heading in ("", "over the run") else "right", no_wrap=True)
    logged = attempts_in(name.removeprefix("train/") for record in run.metrics for name in record)
    for name in [*(f"t{attempt}" for attempt in logged), *ACCURACY]:
        _, values = run.series(f"train/{name}")
        recent = recent_mean(run.metrics, f"train/{name}", min(WINDOW, max(1, len(values))))
        _, evaluated = run.series(f"eval/sampled/{name}")
        newest = _sampled(final, name) if final else (evaluated[-1] if evaluated else None)
        figures = (_sampled(run.base, name), recent, newest)
        if any(figure is not None for figure in figures):
            table.add_row(ACCURACY.get(name, name), *map(_points, figures), sparkline(values))
    return table


def _phases(trained: Sequence[Record]) -> Text:
    """Seconds and shares of the phases of a step, over the last steps."""
    recent = trained[-WINDOW:]
    names = [name for name in recent[-1] if name.startswith("time/") and name != "time/step"]
    whole = sum(record["time/step"] for record in recent) or 1.0
    spent = {name.removeprefix("time/"): sum(record.get(name) or 0.0 for record in recent) for name in names}
    return Text("  ".join(f"{name} {s / len(recent):.2g} s ({100 * s / whole:.0f} %)" for name, s in spent.items()))


def _trajectory(record: Record) -> Panel:
    lines = [Text(_end(record["messages"][-1]["content"]), style="dim")]
    for number, attempt in enumerate(record["attempts"], start=1):
        lines.append(Text(f"{number}. {attempt['status']}", style=COLOURS.get(attempt["status"], "yellow")))
        lines.append(Text(_end(attempt["text"])))
    title = f"step {record['step']}  {record['stage']}  {record['problem_id']}  {record['flip'] or '?'}"
    return Panel(Group(*lines), title=escape(title), title_align="left")


def sparkline(values: Sequence[float]) -> str:
    """The values as a small curve of at most `SPARK` characters, from their lowest to their highest."""
    if len(values) < 2:
        return ""
    width = min(SPARK, len(values))
    edges = [round(i * len(values) / width) for i in range(width + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = min(means), max(means)
    return "".join(BARS[1 + round((mean - low) / ((high - low) or 1.0) * (len(BARS) - 2))] for mean in means)


def _sampled(results: Results | None, name: str) -> float | None:
    found = [e.metrics[name][0] for e in (results.evaluations if results else ()) if name in e.metrics]
    return found[-1] if found else None


def _points(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _end(text: str) -> str:
    return text if len(text) <= LONG else f"… {text[-LONG:]}"
