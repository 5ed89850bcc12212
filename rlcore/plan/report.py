"""The output of `rlcore plan`: batch, memory, time, other numbers of GPUs, and what to change."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rlcore.plan.advice import Change, changes_until_it_fits
from rlcore.plan.cluster import Cluster
from rlcore.plan.lengths import Lengths
from rlcore.plan.memory import GIB, Part, host_bytes, learner_ranks, memory_parts, peak
from rlcore.plan.rates import Rates
from rlcore.plan.shapes import Shapes
from rlcore.plan.simulation import Simulated, simulate
from rlcore.recipe import Recipe, batch_arithmetic

AHEAD = (0, 1, 2, 4)
"""Values of `batch.ahead` to compare."""
PAYS = 1.05
"""The smallest value pays whose step is at most this many times as long as the shortest."""


def print_plan(
    console: Console, recipe: Recipe, shapes: Shapes, cluster: Cluster, lengths: Lengths, rates: Rates, origin: str
) -> None:
    """Prints all tables. `origin` says where the rates come from."""
    ranks, samplers = learner_ranks(recipe, cluster.gpus)
    console.print(
        f"[bold]{recipe.name}[/] on {cluster.name}: {shapes.name}, {shapes.parameters / 1e9:.3g}B parameters, "
        f"{recipe.model.dtype}, ZeRO {recipe.learner.zero}"
    )
    for line in batch_arithmetic(recipe, ranks):
        console.print(f"  {line}", highlight=False)
    console.print()
    gpu = int(cluster.memory_gib * GIB)
    parts = memory_parts(recipe, shapes, ranks, gpu)
    console.print(memory_table(parts, cluster, ranks))
    reserved, host = int(cluster.reserved_gib * GIB), cluster.host_memory_gib * GIB / _local(ranks, cluster)
    fits = peak(parts) <= gpu - reserved and host_bytes(parts) <= host
    _print_changes(console, fits, changes_until_it_fits(recipe, shapes, ranks, gpu, reserved, host))
    console.print()
    console.print(time_table(recipe, lengths, rates, ranks, samplers))
    assumed = f"prompts of {lengths.prompt:,} tokens, responses of {lengths.response:,.0f} (spread {lengths.spread:g})"
    console.print(f"  {assumed}; {origin}", highlight=False)
    console.print()
    console.print(scaling_table(recipe, lengths, rates, cluster.gpus))
    if recipe.rollout.mode == "servers":
        console.print()
        _print_ahead(console, recipe, lengths, rates, ranks, samplers)


def memory_table(parts: list[Part], cluster: Cluster, ranks: int) -> Table:
    """The parts of memory on one GPU while it samples and while it learns, and on the host of a node."""
    table = _table("memory", "part", "sampling", "learning", "host of a node")
    local = _local(ranks, cluster)
    for part in parts:
        table.add_row(part.name, *map(_size, (part.sampling, part.learning, part.host * local)))
    sampling, learning, host = (sum(getattr(part, name) for part in parts) for name in ("sampling", "learning", "host"))
    table.add_section()
    table.add_row("all", *map(_size, (sampling, learning, host * local)), style="bold")
    free = (cluster.memory_gib - cluster.reserved_gib) * GIB
    table.add_row("available", *map(_size, (free, free, cluster.host_memory_gib * GIB)))
    return table


def time_table(recipe: Recipe, lengths: Lengths, rates: Rates, learners: int, samplers: int) -> Table:
    """A step as it runs, and as it would run if second attempts waited for all first ones."""
    table = _table("time of a step, simulated", "", "as it runs", "if attempt 2 waited")
    ranks = {"learners": learners, "samplers": samplers}
    runs = [simulate(recipe, lengths, rates, **ranks, barrier=barrier) for barrier in (False, True)]
    table.add_row("step, seconds", *(f"{run.step:.3g}" for run in runs))
    for at, name in enumerate(("sampling", "learning", "publication", "samplers wait", "learners wait")):
        table.add_row(name, *(_shares(run)[at] for run in runs))
    table.add_row("tokens sampled a step", *(f"{run.sampled:,.0f}" for run in runs))
    table.add_row("tokens trained on a step", *(f"{run.trained:,.0f}" for run in runs))
    table.add_row("tokens sampled a second", *(f"{run.sampled / run.step:,.0f}" for run in runs))
    table.add_row("whole run, hours", *(f"{run.step * recipe.steps / 3600:,.1f}" for run in runs))
    return table


def scaling_table(recipe: Recipe, lengths: Lengths, rates: Rates, gpus: int) -> Table:
    """A step on other numbers of GPUs over which its problems divide evenly."""
    headings = ("GPUs", "step s", "sampling", "learning", "samplers wait", "trajectories/s", "each GPU")
    table = _table("on other numbers of GPUs, at the same rates of each", *headings)
    counts = sorted({count for count in (1, 8, gpus // 2, gpus, 2 * gpus, 4 * gpus) if count > 0})
    total, base = recipe.batch.problems * recipe.batch.group, 0.0
    for count in counts:
        learners, samplers = learner_ranks(recipe, count)
        if learners < 1 or recipe.batch.problems % learners or learners % recipe.learner.sequence_parallel:
            continue
        run = simulate(recipe, lengths, rates, learners=learners, samplers=samplers)
        each = total / run.step / count
        base = base or each
        sampling, learning, _, waiting, _ = _shares(run)
        shown = f"{run.step:.3g}", sampling, learning, waiting, f"{total / run.step:,.1f}", f"{each / base:.2f}"
        table.add_row(f"{count:,}", *shown, style="bold" if count == gpus else "")
    return table


def _print_ahead(
    console: Console, recipe: Recipe, lengths: Lengths, rates: Rates, learners: int, samplers: int
) -> None:
    """A step under each `batch.ahead`, and which of them pays."""
    headings = "batch.ahead", "step s", "learners busy", "servers busy", "learners wait s", "mean age of a token"
    table = _table("sampling ahead of the learner", *headings)
    runs = {
        ahead: simulate(recipe, lengths, rates, learners=learners, samplers=samplers, ahead=ahead, steps=16)
        for ahead in sorted({*AHEAD, recipe.batch.ahead})
    }
    for ahead, run in runs.items():
        shown = f"{run.step:.3g}", f"{run.learners_busy:.0%}", f"{run.samplers_busy:.0%}", f"{run.sampling:.3g}"
        table.add_row(str(ahead), *shown, f"{run.lag:.2f}", style="bold" if ahead == recipe.batch.ahead else "")
    console.print(table)
    best = min(run.step for run in runs.values())
    pays = next(ahead for ahead, run in runs.items() if run.step <= PAYS * best)
    console.print(
        f"  batch.ahead={pays} pays: {runs[0].step / runs[pays].step:.2g} times as many steps in the same time as 0"
        if pays
        else "  no batch.ahead pays: learners or servers would have as much to do as with 0",
        highlight=False,
    )


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title, title_justify="left")
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("", "part") else "right")
    return table


def _local(ranks: int, cluster: Cluster) -> int:
    """Learner ranks of one node, which share its host's memory."""
    return min(ranks, cluster.gpus_per_node)


def _print_changes(console: Console, fits: bool, changes: list[Change]) -> None:
    if fits:
        console.print("  [green]it fits[/]")
        return
    console.print("  [red]it does not fit.[/] What to change, each on top of those before it:")
    for change in changes:
        state = "[green]fits[/]" if change.fits else "does not fit yet"
        console.print(f"    {escape(change.override):<58} {change.peak / GIB:8.1f} GiB, {state}", highlight=False)
    if not (changes and changes[-1].fits):
        console.print("    then more GPUs, more of the host's memory, or a smaller model")


def _shares(run: Simulated) -> list[str]:
    phases = [run.sampling, run.learning, run.publishing]
    return [f"{phase / run.step:.0%}" for phase in phases] + [f"{run.waiting:.0%}", f"{run.learner_waiting:.0%}"]


def _size(size: float) -> str:
    return "" if not size else f"{size / GIB:,.2f} GiB" if size >= GIB / 10 else f"{size / (1 << 20):,.2f} MiB"
