"""The command `rlcore`: train, evaluate, report, and look at recipes."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path

import rewards.cli
from rlcore.curate import add_arguments, parse_options
from rlcore.ending import said_elsewhere, say_why
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


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command; a user's mistake ends it with one line on stderr and code 2."""
    options = parse(arguments)
    try:
        options.run(options)
    except UserError as error:
        say_why(error)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception:
        if said_elsewhere():
            sys.exit(2)
        raise


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """What a command line asks for; `options.run` does it. Overrides may also come after flags."""
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

    text = "run a recipe to its end; the same command goes on after an interruption"
    _recipe_arguments(_command(commands, "train", _train, text))

    text = "measure a recipe's model, or a run's policy, on the held-out problems, greedy and sampled"
    _recipe_arguments(_command(commands, "eval", _eval, text))

    text = "answer held-out problems, each by the policy as its own demonstrations train it for a few steps"
    _recipe_arguments(_command(commands, "adapt", _adapt, text))

    show = commands.add_parser("recipe", help="look at a recipe").add_subparsers(required=True, metavar="show")
    command = _command(show, "show", _show, "print the resolved recipe and its batch arithmetic")
    _recipe_arguments(command)
    command.add_argument("--ranks", type=int, default=1, help="processes to share the batch between")

    text = "what a recipe needs of a cluster, before any GPU is used: memory by part, time of a step, what to change"
    _plan_arguments(_command(commands, "plan", _plan, text))

    _add_views(commands)

    text = "choose the problems of a recipe that are worth training on, by pass rate, overlap and diversity"
    command = _command(commands, "curate", _curate, text)
    _recipe_arguments(command)
    command.add_argument("--output", type=Path, required=True, help="folder of the problems and their statistics")
    add_arguments(command)

    text = "make a small policy and warm-start it on generated conversations (TRL's SFTTrainer)"
    _recipe_arguments(_command(commands, "sft", _sft, text))

    text = "look at this machine, with a remedy for what is lacking, and whether a recipe would start on it"
    command = _command(commands, "doctor", _doctor, text)
    command.add_argument("recipe", metavar="RECIPE", nargs="?", help="a YAML file")
    command.add_argument("overrides", nargs="*", default=[], metavar="key=value", help="values to replace")
    command.add_argument("--output", type=Path, default=Path("runs"), help="folder of runs, where there is no recipe")

    text = "write a run's policy as a plain Hugging Face folder, from its newest whole checkpoint or a given one"
    command = _command(commands, "export", _export, text)
    command.add_argument("source", type=Path, metavar="RUN|CHECKPOINT", help="folder of a run, or of one checkpoint")
    command.add_argument("output", type=Path, metavar="OUT", help="a new folder")
    command.add_argument("--adapter", action="store_true", help="write LoRA adapters alone instead of merging them")

    text = "score the completions of a file, or its reference solutions, with a reward"
    rewards.cli.add_arguments(_command(commands, "score", _score, text))
    return parser


def _add_views(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The commands that show runs: reports, tables, a live view, a dashboard."""
    text = "put runs side by side: report.json, plots and a self-contained report.html"
    command = _command(commands, "report", _report, text)
    command.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a run")
    command.add_argument("--output", type=Path, default=Path("runs/report"), help="folder of the report")
    text = "only compute.html: accuracy against tokens, for every way in which the runs spent them"
    command.add_argument("--compute", action="store_true", help=text)

    text = "train every arm with every seed, then print the table that compares them and write the report"
    command = _command(commands, "paper-table", _paper_table, text)
    text = "a file, or a folder NAME for NAME.yaml and all in the folder"
    command.add_argument("recipes", nargs="+", metavar="RECIPES", help=text)
    command.add_argument("--seeds", type=int, nargs="+", default=[0])
    command.add_argument("--output", type=Path, default=Path("runs/paper-table"), help="folder of runs and report")
    command.add_argument("--against", metavar="ARM", help="also print the differences of all arms from this one")
    command.add_argument("--set", nargs="*", default=[], metavar="key=value", help="values to replace in every recipe")

    text = "a live view of a run in the terminal: rates, phases, accuracies, alarms, last trajectories"
    command = _command(commands, "watch", _watch, text)
    command.add_argument("folder", type=Path, metavar="RUN", help="folder of a run, running or finished")
    command.add_argument("--every", type=float, default=2.0, help="seconds between looks")
    command.add_argument("--once", action="store_true", help="print the view once")

    text = "save the W&B workspace that shows runs: accuracies, behaviour, learner, time, trajectories"
    command = _command(commands, "dashboard", _dashboard, text)
    command.add_argument("--project", default="rlcore", help="W&B project, as in track.project")
    command.add_argument("--entity", help="W&B user or team; your default one when left out")
    command.add_argument("--print", action="store_true", dest="print_only", help="print it as JSON, save nothing")


def _command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    run: Callable[[argparse.Namespace], None],
    text: str,
) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=text, description=text)
    command.set_defaults(run=run)
    return command


def _recipe_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("recipe", metavar="RECIPE", help="a YAML file")
    command.add_argument("overrides", nargs="*", default=[], metavar="key=value", help="values to replace, e.g. seed=1")


def _plan_arguments(command: argparse.ArgumentParser) -> None:
    from rlcore.plan.arguments import add_arguments

    _recipe_arguments(command)
    add_arguments(command)


# A recipe is read before what takes seconds to import: its mistakes are told at once.


def _plan(options: argparse.Namespace) -> None:
    recipe = load_recipe(options.recipe, options.overrides)
    from rlcore.plan.command import plan

    plan(recipe, options)


def _train(options: argparse.Namespace) -> None:
    recipe = load_recipe(options.recipe, options.overrides)
    from rlcore.experiment import run_experiment
    from rlcore.plan.start import check_memory

    if os.environ.get("RANK", "0") == "0":
        print("\n".join(batch_arithmetic(recipe, int(os.environ.get("WORLD_SIZE", "1")))))
    check_memory(recipe, training=bool(recipe.stages or recipe.sft))
    run_experiment(recipe)


def _eval(options: argparse.Namespace) -> None:
    path, overrides, name = Path(options.recipe), options.overrides, "eval"
    if path.is_dir():  # a run, for the policy it ended with, or one of its policies: final, best
        policy = path / "final" if (path / "recipe.yaml").exists() else path
        if not (policy.parent / "recipe.yaml").exists():
            raise UserError(f"{path} is neither a recipe nor the folder of a run, which has a recipe.yaml")
        overrides = [f"model={{path: {policy}}}", f"output={policy.parent}", *overrides]
        name += "" if policy.name == "final" else f"-{policy.name}"
        path = policy.parent / "recipe.yaml"
    recipe = load_recipe(path, overrides)
    from rlcore.plan.start import check_memory
    from rlcore.session.evaluation import evaluate

    check_memory(recipe, training=False)
    evaluate(recipe.model_copy(update={"output": str(Path(recipe.output) / name)}))


def _adapt(options: argparse.Namespace) -> None:
    recipe = load_recipe(options.recipe, options.overrides)
    if recipe.adapt is None or recipe.stages or recipe.sft:
        raise UserError(f"{options.recipe}: rlcore adapt needs a section adapt, no sft, and stages: []")
    from rlcore.experiment import run_experiment
    from rlcore.plan.start import check_memory

    check_memory(recipe, training=False)
    run_experiment(recipe)


def _show(options: argparse.Namespace) -> None:
    if options.ranks < 1:
        raise UserError("--ranks must be above 0")
    recipe = load_recipe(options.recipe, options.overrides)
    arithmetic = batch_arithmetic(recipe, options.ranks)
    print(dump_recipe(recipe))
    print("\n".join(f"# {line}" for line in arithmetic))


def _report(options: argparse.Namespace) -> None:
    if options.compute:
        from rlcore.report.compute import write_compute

        print(write_compute(options.output, options.runs))
        return
    from rlcore.report.page import write_report
    from rlcore.track.console import open_console

    console = open_console(0, done=0)
    try:
        with console.progress("parts of the report", len(options.runs) + 2) as advance:
            page = write_report(options.output, options.runs, advance)
    finally:
        console.close()
    print(page)


def _watch(options: argparse.Namespace) -> None:
    from rlcore.track.watch import watch

    watch(options.folder, every=options.every, once=options.once)


def _dashboard(options: argparse.Namespace) -> None:
    from rlcore.track.workspace import save_workspace, workspace_json

    show = workspace_json(options.project, options.entity or "") if options.print_only else None
    print(show or f"saved: {save_workspace(options.project, options.entity)}")


def _export(options: argparse.Namespace) -> None:
    from rlcore.export import export

    print(export(options.source, options.output, adapter=options.adapter))


def _score(options: argparse.Namespace) -> None:
    sys.exit(rewards.cli.main(options))


def _curate(options: argparse.Namespace) -> None:
    recipe, wanted = load_recipe(options.recipe, options.overrides), parse_options(options)
    from rlcore.curate.run import curate
    from rlcore.plan.start import check_memory

    check_memory(recipe, training=False)
    path = curate(recipe, wanted, options.output)
    if path and os.environ.get("RANK", "0") == "0":
        print(path)


def _doctor(options: argparse.Namespace) -> None:
    recipe = load_recipe(options.recipe, options.overrides) if options.recipe else None
    from rlcore.doctor import diagnose, examine

    if recipe is None:
        sys.exit(examine(diagnose(options.output)))
    from rlcore.preflight import inspect

    sys.exit(examine(chain(diagnose(Path(recipe.output)), inspect(recipe))))


def _sft(options: argparse.Namespace) -> None:
    from rlcore.sft import WarmStart, warm_start

    print(warm_start(load_section(WarmStart, options.recipe, options.overrides)))


def _paper_table(options: argparse.Namespace) -> None:
    from rlcore.experiment import paper_table

    recipes = [Path(recipe) for recipe in options.recipes]
    paper_table(recipes, options.seeds, options.output, options.set, options.against)
