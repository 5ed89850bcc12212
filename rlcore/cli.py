"""The command `rlcore`: train, evaluate, report, and look at recipes."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import TypeAlias

import rewards.cli
import rlcore.curate.options
import rlcore.plan.arguments
from rlcore.ending import drop_output, reader_is_gone, said_elsewhere, say_why
from rlcore.errors import UserError
from rlcore.recipe import batch_arithmetic, dump_recipe, load_recipe, load_section

EPILOG = """examples:
  rlcore recipe show recipes/quickstart.yaml learner.lr=1e-4     what a recipe amounts to, before anything runs
  rlcore train recipes/quickstart.yaml seed=1 output=runs/one     train, evaluate, save
  torchrun --nproc-per-node 8 -m rlcore train RECIPE              the same on eight GPUs
  rlcore eval recipes/quickstart.yaml model.path=runs/one/final   measure any policy
  rlcore watch runs/one                                           follow a run, or look at a finished one
  rlcore export runs/one policy                                   its newest checkpoint, as transformers loads it
  rlcore report runs/one runs/two --output runs/report            tables, plots and a page to browse
  rlcore paper-table recipes/quickstart --seeds 0 1 2             every arm and seed, and the table of them
"""
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command; a user's mistake ends it with one line on stderr and code 2."""
    options = parse(arguments)
    try:
        options.run(options)
        sys.stdout.flush()
    except UserError as error:
        say_why(error)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        if not reader_is_gone():
            raise
        drop_output()
        sys.exit(1)
    except Exception:
        if said_elsewhere():
            sys.exit(2)
        raise


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses a command line; `options.run` executes it. Overrides may also follow flags."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    takes_overrides = hasattr(options, "overrides")
    if any(word.startswith("-") or "=" not in word for word in rest) or (rest and not takes_overrides):
        hint = "; what a recipe says is replaced by key=value" if takes_overrides else ""
        parser.error(f"unrecognized arguments: {' '.join(rest)}{hint}")
    if rest:
        options.overrides = [*options.overrides, *rest]
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rlcore", description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _recipe_command(commands, "train", _train)
    _recipe_command(commands, "eval", _eval)
    _recipe_command(commands, "adapt", _adapt)
    show = commands.add_parser("recipe", help="look at a recipe").add_subparsers(required=True, metavar="show")
    command = _recipe_command(show, "show", _show)
    command.add_argument("--ranks", type=int, default=1, help="processes that the batch is divided among")
    rlcore.plan.arguments.add_arguments(_recipe_command(commands, "plan", _plan))
    _add_views(commands)
    command = _recipe_command(commands, "curate", _curate)
    command.add_argument("--output", type=Path, required=True, help="folder of the problems and their statistics")
    rlcore.curate.options.add_arguments(command)
    _recipe_command(commands, "sft", _sft)

    command = _recipe_command(commands, "doctor", _doctor, nargs="?")
    command.add_argument("--output", type=Path, default=Path("runs"), help="folder of runs, where there is no recipe")

    command = _command(commands, "export", _export)
    command.add_argument("source", type=Path, metavar="RUN|CHECKPOINT", help="folder of a run, or of one checkpoint")
    command.add_argument("output", type=Path, metavar="OUT", help="a new folder")
    command.add_argument("--adapter", action="store_true", help="write LoRA adapters alone instead of merging them")

    rewards.cli.add_arguments(_command(commands, "score", _score))
    return parser


def _add_views(commands: Commands) -> None:
    """The commands that show runs: reports, tables, a live view, a dashboard."""
    command = _command(commands, "report", _report)
    command.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a run")
    command.add_argument("--output", type=Path, default=Path("runs/report"), help="folder of the report")
    text = "only compute.html: accuracy against tokens, for every way in which the runs spent them"
    command.add_argument("--compute", action="store_true", help=text)

    command = _command(commands, "paper-table", _paper_table)
    text = "a file, or a folder NAME for NAME.yaml and all in the folder"
    command.add_argument("recipes", nargs="+", metavar="RECIPES", help=text)
    command.add_argument("--seeds", type=int, nargs="+", default=[0])
    command.add_argument("--output", type=Path, help="folder of runs and report; by default runs/NAME")
    command.add_argument("--against", metavar="ARM", help="also print the differences of all arms from this one")
    command.add_argument("--set", nargs="*", default=[], metavar="key=value", help="values to replace in every recipe")

    command = _command(commands, "watch", _watch)
    command.add_argument("folder", type=Path, metavar="RUN", help="folder of a run, running or finished")
    command.add_argument("--every", type=float, default=2.0, help="seconds between looks")
    command.add_argument("--once", action="store_true", help="print the view once")

    command = _command(commands, "dashboard", _dashboard)
    command.add_argument("--project", default="rlcore", help="W&B project, as in track.project")
    command.add_argument("--entity", help="W&B user or team; your default one when left out")
    command.add_argument("--print", action="store_true", dest="print_only", help="print it as JSON, save nothing")


def _command(commands: Commands, name: str, run: Callable[[argparse.Namespace], None]) -> argparse.ArgumentParser:
    """A command that `run` does, whose docstring is the help."""
    command = commands.add_parser(name, help=run.__doc__, description=run.__doc__)
    command.set_defaults(run=run)
    return command


def _recipe_command(
    commands: Commands, name: str, run: Callable[[argparse.Namespace], None], nargs: str | None = None
) -> argparse.ArgumentParser:
    command = _command(commands, name, run)
    command.add_argument("recipe", metavar="RECIPE", nargs=nargs, help="a YAML file")
    command.add_argument("overrides", nargs="*", default=[], metavar="key=value", help="values to replace, e.g. seed=1")
    return command


# Recipes are read before slow imports, so that a mistake in one is reported at once.


def _plan(options: argparse.Namespace) -> None:
    """what a recipe needs of a cluster, before any GPU is used: memory by part, time of a step, what to change"""
    recipe = load_recipe(options.recipe, options.overrides)
    from rlcore.plan.command import plan

    plan(recipe, options)


def _train(options: argparse.Namespace) -> None:
    """run a recipe to its end; the same command resumes it after an interruption"""
    recipe = load_recipe(options.recipe, options.overrides)
    from rlcore.experiment import run_experiment

    if os.environ.get("RANK", "0") == "0":
        print("\n".join(batch_arithmetic(recipe, int(os.environ.get("WORLD_SIZE", "1")))))
    run_experiment(recipe)


def _eval(options: argparse.Namespace) -> None:
    """measure a recipe's model, or a run's policy, on the held-out problems, greedy and sampled"""
    path, overrides, name = Path(options.recipe), options.overrides, "eval"
    if path.is_dir():  # a run, for the policy it ended with, or one of its policies: final, best
        policy = path / "final" if (path / "recipe.yaml").exists() else path
        if not (policy.parent / "recipe.yaml").exists():
            raise UserError(f"{path} is neither a recipe nor the folder of a run, which has a recipe.yaml")
        weights = [f"model.path={policy}", "model.scratch=null", "model.lora=null"]  # adapters are merged into them
        overrides = [*weights, f"output={policy.parent}", *overrides]
        name += "" if policy.name == "final" else f"-{policy.name}"
        path = policy.parent / "recipe.yaml"
    recipe = load_recipe(path, overrides)
    if recipe.adapt:
        raise UserError(f"{path}: rlcore adapt answers by its section adapt; adapt=null measures the policy as it is")
    from rlcore.plan.start import check_memory
    from rlcore.session.evaluation import evaluate

    check_memory(recipe, training=False)
    evaluate(recipe.model_copy(update={"output": str(Path(recipe.output) / name), "stages": []}))


def _adapt(options: argparse.Namespace) -> None:
    """answer held-out problems, each by the policy as its own demonstrations train it for a few steps"""
    recipe = load_recipe(options.recipe, options.overrides)
    if recipe.adapt is None:
        raise UserError(f"{options.recipe}: rlcore adapt needs a section adapt, and stages: []")
    from rlcore.experiment import run_experiment

    run_experiment(recipe)


def _show(options: argparse.Namespace) -> None:
    """print the resolved recipe and its batch arithmetic"""
    if options.ranks < 1:
        raise UserError("--ranks must be above 0")
    recipe = load_recipe(options.recipe, options.overrides)
    arithmetic = batch_arithmetic(recipe, options.ranks)
    print(dump_recipe(recipe))
    print("\n".join(f"# {line}" for line in arithmetic))


def _report(options: argparse.Namespace) -> None:
    """put runs side by side: report.json, plots and a self-contained report.html"""
    if options.compute:
        from rlcore.report.compute import write_compute

        print(write_compute(options.output, options.runs))
        return
    from rlcore.report.page import write_report
    from rlcore.track.console import open_console

    with (
        closing(open_console(0, done=0)) as console,
        console.progress("parts of the report", len(options.runs) + 2) as advance,
    ):
        page = write_report(options.output, options.runs, advance)
    print(page)


def _watch(options: argparse.Namespace) -> None:
    """a live view of a run in the terminal: rates, phases, accuracies, alarms, last trajectories"""
    from rlcore.track.watch import watch

    watch(options.folder, every=options.every, once=options.once)


def _dashboard(options: argparse.Namespace) -> None:
    """save the W&B workspace that shows runs: accuracies, behaviour, learner, time, trajectories"""
    from rlcore.track.workspace import save_workspace, workspace_json

    show = workspace_json(options.project, options.entity or "") if options.print_only else None
    print(show or f"saved: {save_workspace(options.project, options.entity)}")


def _export(options: argparse.Namespace) -> None:
    """write a run's policy as a plain Hugging Face folder, from its newest whole checkpoint or a given one"""
    from rlcore.export import export

    print(export(options.source, options.output, adapter=options.adapter))


def _score(options: argparse.Namespace) -> None:
    """score the completions of a file, or its reference solutions, with a reward"""
    sys.exit(rewards.cli.main(options))


def _curate(options: argparse.Namespace) -> None:
    """choose the problems of a recipe that are worth training on, by pass rate, overlap and diversity"""
    recipe = load_recipe(options.recipe, options.overrides)
    wanted = rlcore.curate.options.parse_options(options)
    from rlcore.curate.run import curate
    from rlcore.plan.start import check_memory

    check_memory(recipe, training=False)
    path = curate(recipe, wanted, options.output)
    if path and os.environ.get("RANK", "0") == "0":
        print(path)


def _doctor(options: argparse.Namespace) -> None:
    """look at this machine, with a remedy for what is lacking, and whether a recipe would start on it"""
    recipe = load_recipe(options.recipe, options.overrides) if options.recipe else None
    from rlcore.doctor import diagnose, examine

    if recipe is None:
        sys.exit(examine(diagnose(options.output)))
    from rlcore.preflight import inspect

    sys.exit(examine(chain(diagnose(Path(recipe.output)), inspect(recipe))))


def _sft(options: argparse.Namespace) -> None:
    """make a small policy and warm-start it on generated conversations (TRL's SFTTrainer)"""
    from rlcore.sft import WarmStart, warm_start

    print(warm_start(load_section(WarmStart, options.recipe, options.overrides)))


def _paper_table(options: argparse.Namespace) -> None:
    """train every arm with every seed, then print the table that compares them and write the report"""
    from rlcore.experiment import paper_table

    recipes = [Path(recipe) for recipe in options.recipes]
    output = options.output or Path("runs", recipes[0].resolve().stem)
    paper_table(recipes, options.seeds, output, options.set, options.against)
