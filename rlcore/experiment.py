"""A recipe from its beginning to its end: the recipe it comes after, then supervised rounds, stages, or neither."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console

from rlcore.errors import UserError, did_you_mean
from rlcore.evaluate.results import Results
from rlcore.plan.start import check_memory
from rlcore.recipe import Recipe, batch_arithmetic, load_recipe
from rlcore.recipe.compare import check_unchanged
from rlcore.report.run_folder import EVALUATION, read_run, read_runs, results_of
from rlcore.report.table import BASE_ARM, console_table, coverage_note, difference_rows, markdown_table, result_rows
from rlcore.session.evaluation import evaluate
from rlcore.train.adapt import adapt

BEFORE = "before"
"""Where in its folder a run, or a table of runs, keeps what its recipes come after."""


def run_experiment(
    recipe: Recipe, later: tuple[str, ...] = (), base: Results | None = None, before: Path | None = None
) -> Results | None:
    """Runs what a recipe says; what was finished before is not done again. `later` are recipes that come after it.

    `base` is the evaluation of the policy that its stages start from, where another run has measured it; `before` the
    folder of the recipe that it comes after, in its own folder if none is given.

    Returns the evaluation at the end; None for a recipe without one, or when the run was asked to stop. Raises
    UserError for recipes that come after each other in a circle, after one that trains nothing, or after one that ran
    with other settings than it has, and for one that lacks memory.
    """
    if not _ended(recipe):  # a finished run is only read
        check_memory(recipe, training=bool(recipe.stages or recipe.sft or recipe.adapt))
    if recipe.after:
        if recipe.after in later:
            raise UserError(f"after: recipe {recipe.after} comes after itself")
        first = _before(recipe, before or Path(recipe.output) / BEFORE)
        if _ended(first):
            _check_unchanged(first)
        else:
            run_experiment(first, (*later, recipe.after))
            torch.distributed.barrier()  # one rank writes the policy that all of them load
        if not _ended(first):
            return None  # it was asked to stop
        recipe = _from_policy_of(first, recipe)
    if recipe.sft:
        from rlcore.sft.fine_tune import fine_tune  # TRL takes seconds to import

        return fine_tune(recipe)
    if not recipe.stages:
        return adapt(recipe) if recipe.adapt else evaluate(recipe)
    from rlcore.train.loop import train

    return train(recipe, base)


def _before(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe that this one comes after, with the folder that it runs in."""
    first = load_recipe(str(recipe.after), [f"seed={recipe.seed}", f"device={recipe.device}"])
    if not (first.stages or first.sft):
        raise UserError(f"after: recipe {recipe.after} has neither stages nor sft: it trains no policy to start from")
    return first.model_copy(update={"output": str(folder)})


def _from_policy_of(first: Recipe, recipe: Recipe) -> Recipe:
    """The recipe, which starts from the policy that `first` has trained."""
    model = recipe.model.model_copy(update={"path": str(Path(first.output) / "final"), "scratch": None})
    return recipe.model_copy(update={"model": model})


def _check_unchanged(recipe: Recipe) -> None:
    """Raises UserError where a run that has ended, or one that it came after, ran with other settings."""
    folder = Path(recipe.output)
    if recipe.after:
        first = _before(recipe, folder / BEFORE)
        if _ended(first):
            _check_unchanged(first)
        recipe = _from_policy_of(first, recipe)
    check_unchanged(folder, recipe)


def _ended(recipe: Recipe) -> bool:
    """Whether a run has written its policy and, where its recipe asks for it, the evaluation that follows."""
    folder = Path(recipe.output)
    return (folder / "final").is_dir() and (recipe.evaluate is None or (folder / EVALUATION).exists())


TABLE_WIDTH = 120


def paper_table(
    recipes: Sequence[Path], seeds: Sequence[int], output: Path, overrides: Sequence[str], against: str | None = None
) -> Path | None:
    """Trains each recipe with each seed below `output`, one after the other, and prints and writes the table.

    With `against`, the name of an arm, a second table has the differences of all others from it. Finished runs are not
    trained again, and interrupted ones resume. Returns the report's page; None when a run was asked to stop.
    """
    first = os.environ.get("RANK", "0") == "0"
    console = Console(highlight=False, quiet=not first)
    if not console.is_terminal:
        console = Console(highlight=False, quiet=not first, width=TABLE_WIDTH)  # a log file has no width of its own
    arms = [arm for path in recipes for arm in _arms(path)]
    if not arms:
        raise UserError(f"no recipes in {', '.join(map(str, recipes))}")
    runs = [_recipe(arm, seed, output, overrides) for seed in seeds for arm in arms]
    if shared := [folder for folder, times in Counter(recipe.output for recipe in runs).items() if times > 1]:
        raise UserError(f"two runs would be {shared[0]}: recipes of one table need names, and seeds, of their own")
    names = dict.fromkeys([BASE_ARM, *(recipe.name for recipe in runs)])
    if against not in (None, *names):
        raise UserError(f"no arm is called {against}, to print differences from{did_you_mean(against or '', names)}")
    if not _run_all(runs, _befores(runs, output), console):
        return None
    page = output / "report.html"
    if not first:
        return page
    from rlcore.report.page import write_report  # draws plots: matplotlib

    folders = [Path(recipe.output) for recipe in runs]
    _print_tables(results_of(read_runs(folders)), console, output, against)
    write_report(output, folders)
    console.print(f"report: {page}\ntable:  {output / 'table.md'}")
    return page


def _befores(runs: Sequence[Recipe], output: Path) -> list[Path | None]:
    """Where what each run comes after is run, once for all that share it. Raises UserError where two share a name."""
    after = {Path(recipe.after).resolve() for recipe in runs if recipe.after}
    named = Counter(path.stem for path in after)
    if shared := [name for name, paths in named.items() if paths > 1]:
        raise UserError(f"after: two recipes are called {shared[0]}; in one table they need names of their own")
    parent = output / BEFORE
    return [parent / f"{Path(recipe.after).stem}-seed{recipe.seed}" if recipe.after else None for recipe in runs]


def _run_all(runs: Sequence[Recipe], befores: Sequence[Path | None], console: Console) -> bool:
    """Runs them in turn; whether none was asked to stop. A base that several start from is measured once a seed."""
    bases: dict[str, Results | None] = {}
    for number, (recipe, before) in enumerate(zip(runs, befores, strict=True), start=1):
        console.rule(f"{recipe.name}, seed {recipe.seed} ({number} of {len(runs)})")
        console.print("\n".join(batch_arithmetic(recipe)))
        same = _base_identity(recipe)
        if run_experiment(recipe, base=bases.get(same), before=before) is None:
            return False
        bases[same] = bases.get(same) or read_run(Path(recipe.output)).base
    return True


def _base_identity(recipe: Recipe) -> str:
    """All that the evaluation of the policy that a recipe starts from depends on."""
    keys = {"seed", "device", "model", "data", "after", "rollout", "rewards", "evaluate"}  # a scratch model learns data
    parts = recipe.model_dump(mode="json", include=keys)
    return repr((parts, recipe.held_out_conversation))


def _print_tables(results: Sequence[Results], console: Console, output: Path, against: str | None) -> None:
    """The table, what its intervals are over, and the differences from an arm; in `table.md` too."""
    tables = [result_rows(results), *([difference_rows(results, against)] if against else [])]
    console.rule("result")
    for rows in tables:
        console.print(console_table(rows))
    console.print(coverage_note(results))
    text = "\n".join([*(markdown_table(rows) for rows in tables), coverage_note(results) + "\n"])
    (output / "table.md").write_text(text, encoding="utf-8")


def _arms(path: Path) -> list[Path]:
    """A recipe; or for a folder NAME its recipes, and NAME.yaml beside it, which they inherit from."""
    if not path.is_dir():
        return [path]
    parent = path.with_name(f"{path.name}.yaml")
    return [*sorted(path.glob("*.yaml")), *([parent] if parent.exists() else [])]


def _recipe(path: Path, seed: int, output: Path, overrides: Sequence[str]) -> Recipe:
    recipe = load_recipe(path, [*overrides, f"seed={seed}"])
    if recipe.evaluate is None:
        raise UserError(f"recipe {path} has no evaluate section, so it has no place in a table")
    return recipe.model_copy(update={"output": str(output / f"{recipe.name}-seed{seed}")})
