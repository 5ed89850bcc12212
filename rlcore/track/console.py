"""The run on the console: a progress bar on a terminal, plain lines elsewhere."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from rlcore.evaluate.metrics import attempts_in

BETWEEN_LINES = 30.0
"""Seconds between lines of a side task."""
LINES = 50
"""About how many lines a whole run prints where there is no terminal."""


class Bar:
    """A live bar of steps with stage, accuracies, KL and the time left."""

    def __init__(self, console: Console, total_steps: int, done: int) -> None:
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            expand=True,
            speed_estimate_period=3600,
        )
        self._task = self._progress.add_task(
            "starting", total=total_steps, completed=done, figures="", visible=total_steps > 0
        )
        self._progress.start()

    def show(self, step: int, stage: str, metrics: Mapping[str, float]) -> None:
        """Move the bar; evaluations become lines that stay."""
        if line := evaluation_line(step, metrics):
            self.say(line)
        if figures := training_figures(metrics):
            self._progress.update(self._task, figures=figures)
        self._progress.update(self._task, description=escape(stage), completed=step)

    def say(self, text: str) -> None:
        self._progress.console.print(Text(text))

    @contextmanager
    def progress(self, description: str, total: int) -> Iterator[Callable[[int], None]]:
        """A second bar, gone when the task is done."""
        task, pace = self._progress.add_task(description, total=total, figures=""), Pace(total)

        def advance(done: int) -> None:
            pace.done += done
            self._progress.update(task, advance=done, figures=pace.rate)

        yield advance
        self._progress.remove_task(task)

    def close(self) -> None:
        """Stop the bar and leave its last state."""
        self._progress.stop()


class Lines:
    """One plain line every few steps."""

    def __init__(self, console: Console, total_steps: int, done: int) -> None:
        self._console, self._total, self._first = console, total_steps, done + 1
        self._every = max(1, total_steps // LINES)
        self._first_end = 0.0

    def show(self, step: int, stage: str, metrics: Mapping[str, float]) -> None:
        """Print the step if it is its turn; evaluations always."""
        if step == self._first:
            self._first_end = time.monotonic()
        figures = training_figures(metrics)
        if figures and (step % self._every == 0 or step in (self._first, self._total)):
            self.say("  ".join([f"step {step}/{self._total}", stage, figures, *self._time_left(step)]))
        if line := evaluation_line(step, metrics):
            self.say(line)

    def say(self, text: str) -> None:
        self._console.print(Text(text))

    @contextmanager
    def progress(self, description: str, total: int) -> Iterator[Callable[[int], None]]:
        """A line twice a minute, whether or not a part is done, and one when the task is."""
        pace, ended = Pace(total), threading.Event()

        def advance(done: int) -> None:
            pace.done += done

        def tell() -> None:
            while not ended.wait(BETWEEN_LINES):
                self.say(f"{description}: {pace.done:,}/{total:,}  {pace.rate}  {pace.left}")

        teller = threading.Thread(target=tell, daemon=True)
        teller.start()
        try:
            yield advance
        finally:
            ended.set()
            teller.join()
        self.say(f"{description}: {total:,} in {pace.seconds:.0f} s")

    def close(self) -> None:
        """There is nothing to stop."""

    def _time_left(self, step: int) -> list[str]:
        """From the steps after the first one, which may hold all that happens once."""
        if step <= self._first:
            return []
        each = (time.monotonic() - self._first_end) / (step - self._first)
        return [f"left {clock(each * (self._total - step))}"]


@dataclass(slots=True)
class Pace:
    """How fast a side task goes, and how long it will still take."""

    total: int
    done: int = 0
    start: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.start

    @property
    def rate(self) -> str:
        return f"{self.done / max(self.seconds, 1e-9):.1f}/s"

    @property
    def left(self) -> str:
        if not self.done:
            return f"since {clock(self.seconds)}"
        return f"left {clock((self.total - self.done) * self.seconds / self.done)}"


def clock(seconds: float) -> str:
    """Hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


RunConsole = Bar | Lines


def open_console(total_steps: int, *, done: int) -> RunConsole:
    """A progress bar where stdout is a terminal, else plain lines; `done` steps lie behind."""
    console = Console(soft_wrap=True, highlight=False)
    return Bar(console, total_steps, done) if console.is_terminal else Lines(console, total_steps, done)


def training_figures(metrics: Mapping[str, float]) -> str:
    """The figures of a training step on one line: accuracies in points, KL in nats."""
    shown = [("t1", "train/t1", ""), ("t2", "train/t2", ""), ("Δ", "train/delta", "+")]
    parts = [f"{label} {100 * metrics[name]:{sign}.1f}" for label, name, sign in shown if name in metrics]
    kls = [f"{metrics[name]:.3f}" for name in sorted(metrics) if name.startswith("learner/kl_t")]
    return "  ".join(parts + ([f"KL {' '.join(kls)}"] if kls else []))


def evaluation_line(step: int, metrics: Mapping[str, float]) -> str:
    """The figures of an evaluation on one line; empty where the record holds none."""
    parts = []
    for mode in ("greedy", "sampled"):
        points = {n.removeprefix(f"eval/{mode}/"): 100 * v for n, v in metrics.items() if n.startswith(f"eval/{mode}/")}
        if "delta" in points:
            last = attempts_in(points)[-1]
            t1, tn, delta = (points[name] for name in ("t1", f"t{last}", "delta"))
            parts.append(f"{mode} t1 {t1:.1f}  t{last} {tn:.1f}  Δ {delta:+.1f}")
    return f"evaluation at step {step}: {'  |  '.join(parts)}" if parts else ""
