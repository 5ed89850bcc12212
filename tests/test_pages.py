"""The pages: each is linked, each link leads somewhere, and each command that they give works as it stands there.

A command is read by its own program's parser, and the recipe that it names loads with its overrides. Then it is run in
a folder with a tiny run, unless `NOT_RUN` says what it needs that is not here.
"""

import argparse
import gc
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch.distributed.run import parse_args as parse_torchrun

from rlcore import cli
from rlcore.plan import arguments as plan_arguments
from rlcore.recipe import load_recipe, load_section
from rlcore.sft import WarmStart
from tests.session.chat_server import ChatServer

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = [path for path in ROOT.iterdir() if path.is_dir() and path.name[0] != "." and path.name != "runs"]
PAGES = sorted([*ROOT.glob("*.md"), *(page for folder in FOLDERS for page in folder.rglob("*.md"))])
PROGRAMS = ("rlcore", "torchrun", "python", "pip", "launch/", "sbatch", "kubectl", "wandb", "tensorboard", "echo")
NOT_RUN = {
    "GPUs": [r"torchrun", r"launch/(one_node|serve)\.sh", r"rollout\.engine=vllm"],
    "a cluster": [r"sbatch", r"kubectl"],
    "an account": [r"rlcore dashboard", r"wandb sync"],
    "downloads": [
        r"pip install",
        r"launch/setup_vllm_cpu\.sh",
        r"rlcore doctor recipes/",
        r"rlcore train mine\.yaml",
        r"test_time/diagram\.yaml",
        r"recipes/small",
    ],
    "minutes": [
        r"launch/(quickstart|test)\.sh",
        r"rlcore (paper-table|sft|adapt)",
        r"rlcore train recipes/test_time",
        r"python -m tests\.bench",
    ],
    "a browser": [r"tensorboard"],
    "arguments": [r"python -m rewards$"],
}
"""What commands need that is not here. Most are run on something small elsewhere: the launch files in tests/launch,
several processes in the rooms' tests, vLLM in tests/rollout, tables in tests/recipe, warm starts in tests/sft."""
PLACEHOLDERS = {
    "RECIPE": "recipes/quickstart.yaml",
    "RUN|CHECKPOINT": "runs/one",
    "RUN": "runs/one",
    "OUT": "exported",
    "FOLDER": "curated",
}
TINY = ["stages.0.steps=1", "stages.1.steps=1", "batch={problems: 2, group: 4}", "track.wandb=off"]
SERVED = ["rollout.engine=vllm", "rollout.mode=servers", "rollout.servers=[http://node:8000]"]
"""Overrides that slurm.sbatch puts before a command's own, with SERVERS."""
FEW = ["data.options.count=64", "evaluate.data.options.count=16"]
"""Of generated problems, which take longest where thousands are made."""
SMALL = {
    "train": [*TINY, "evaluate=null"],
    "eval": ["evaluate.problems=4", "track.wandb=off"],
    "curate": ["data.options.count=16", "evaluate.data.options.count=8"],
}
"""Overrides before a command's own, for it to take a second."""
LAST = {
    "train": ["output=trained"],
    "curate": ["--lowest", "0", "--highest", "1"],
    "plan": ["--model-config", "config"],
}


def snippets(text: str) -> Iterator[str]:
    """The commands in fences, and those in running text that are more than a program's name."""
    fences = re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = [line for language, fence in fences if language in ("", "sh") for line in fence.splitlines()]
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    lines += [code for code in re.findall(r"`([^`\n]+)`", prose) if " " in code or code.endswith(".sh")]
    yield from (line for line in lines if without_environment(line).startswith(PROGRAMS))


def without_environment(line: str) -> str:
    return re.sub(r"^([A-Z_]+=\S+ )+", "", line)


def words_of(line: str) -> list[str]:
    """A command without environment, comment and what is optional, placeholders filled in."""
    line = re.sub(r"\s\s.*| \[[^]]*\]| \.\.\.", "", without_environment(line))
    words = [PLACEHOLDERS.get(word, word) for word in shlex.split(line)]
    return [word.replace("=NAME", "=runs/one/final").replace("RUN/", "runs/one/") for word in words]


TEXTS = {str(page.relative_to(ROOT)): page.read_text() for page in PAGES}
COMMANDS = {
    tuple(words_of(line)): pytest.param(line, id=f"{page}: {line.split('  ')[0]}")
    for page, text in TEXTS.items()
    for line in snippets(text)
}
"""Each once, whatever pages give it."""


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder such as the pages suppose: the clone's recipes, runs, and files of the user's own."""
    folder = tmp_path_factory.mktemp("place")
    for name in ("recipes", "launch"):
        (folder / name).symlink_to(ROOT / name)
    for page in ("README.md", "rewards/README.md"):  # the functions that these pages show
        (shown,) = re.findall(r"```python\n# my_reward.py\n(.*?)```", TEXTS[page], re.DOTALL)
        with (folder / "my_reward.py").open("a") as file:
            file.write(shown)
    rows = [{"question": f"What is {n} + 2?", "gold": n + 2, "answer": f"#### {n + 2}"} for n in range(16)]
    for name, more in (("mine", {}), ("gsm8k_test", {}), ("data", {"completion": "#### 3"})):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row | more) + "\n" for row in rows))
    small = [*TINY, *FEW, "evaluate.problems=4", "evaluate.problems_while_training=4"]
    cli.main(["train", str(ROOT / "recipes/quickstart.yaml"), *small, f"output={folder / 'runs/one'}"])
    for name in ("two", "quickstart/score-seed0"):
        shutil.copytree(folder / "runs/one", folder / "runs" / name)
    shutil.copy(folder / "runs/one/final/config.json", folder / "config")
    (folder / "mine.yaml").write_text(re.findall(r"```yaml\n# mine.yaml\n(.*?)```", TEXTS["README.md"], re.DOTALL)[0])
    return folder


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The URL of a served model."""
    with ChatServer().serving() as serving:
        yield serving.url


@pytest.mark.parametrize("text", [cli.EPILOG, plan_arguments.EPILOG], ids=["rlcore --help", "rlcore plan --help"])
def test_examples_of_the_help_are_commands(text, place, monkeypatch):
    monkeypatch.chdir(place)
    examples = [line.strip() for line in text.splitlines() if line.strip().startswith(PROGRAMS)]
    assert len(examples) >= 5
    for line in examples:
        check(words_of(line))


@pytest.mark.parametrize("line", COMMANDS.values())
def test_a_command_on_a_page_works(line, place, server, monkeypatch, capsys):
    monkeypatch.chdir(place)
    words = words_of(line)
    if names_only(words):
        assert run([words[1], "--help"]) == 0
        shown = capsys.readouterr().out
        assert all(word in shown for word in words if word.startswith("--"))
        return
    check(words)
    if any(re.search(each, line) for some in NOT_RUN.values() for each in some):
        return
    if words[0] != "rlcore":
        path = {"PYTHONPATH": str(ROOT), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        done = subprocess.run(line, shell=True, env=os.environ | path, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, done.stderr
        return
    name, *rest = (word.replace("http://localhost:8000/v1", server) for word in words[1:])
    few = FEW if rest[:1] == [PLACEHOLDERS["RECIPE"]] and name in ("train", "eval", "doctor") else []
    small = [*few, *SMALL.get(name, []), *(["data.path=mine.jsonl"] if "gsm8k" in line else [])]
    assert run([name, *rest[:1], *small, *rest[1:], *LAST.get(name, [])]) == 0
    for made in ("exported", "trained", "curated"):
        shutil.rmtree(made, ignore_errors=True)


def test_the_reward_on_the_first_page_pays_right_answers_to_gsm8k(place, monkeypatch):
    monkeypatch.syspath_prepend(str(place))
    right_number = importlib.import_module("my_reward").right_number
    solution = "2 + 5 = <<2+5=7>>7\n#### 7"
    assert right_number(["So it is #### 7", "#### 8", "The answer: 7 "], [solution, solution, 7]) == [1.0, 0.0, 1.0]


def run(arguments: list[str]) -> object:
    """Runs the command in this process; its exit code."""
    gc.freeze()  # a session collects garbage as it begins, and need not look through all that tests have imported
    try:
        cli.main(arguments)
    except SystemExit as end:
        return end.code
    return 0


def names_only(words: list[str]) -> bool:
    """Whether a command of rlcore is only named, perhaps with a flag, and nothing is given that it could act on."""
    named = [word for word in words[1:] if not word.startswith("--")]
    return words[0] == "rlcore" and (len(named) == 1 or named == ["recipe", "show"]) and named != ["doctor"]


def check(words: list[str]) -> None:
    """Fails unless the program takes these words, and what they name is there."""
    program, rest = words[0], words[1:]
    if program == "rlcore" and rest != ["--help"]:
        check_recipe(cli.parse(rest))
    elif program == "torchrun":
        given = parse_torchrun(rest)
        assert given.training_script == "rlcore"
        check_recipe(cli.parse(given.training_script_args))
    elif program.startswith("launch/") or program == "sbatch":
        script = next(word for word in words if word.startswith("launch/"))
        assert os.access(script, os.X_OK) or (program == "sbatch" and Path(script).exists())
        if recipe := words[words.index(script) + 1 :]:
            load_recipe(*recipe[:1], [*(SERVED if program == "sbatch" else []), *recipe[1:]])
    elif program == "kubectl":
        assert Path(rest[-1]).exists()
    elif program == "python":
        assert importlib.util.find_spec(rest[1])
    elif program == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        assert rest[:2] == ["install", "-e"]
        assert rest[2:] in [["."], *([f".[{extra}]"] for extra in extras)]
    elif program != "rlcore":
        assert shutil.which(program) or program in ("wandb", "tensorboard")


def check_recipe(options: argparse.Namespace) -> None:
    """The recipe loads, as what its command takes it for."""
    recipe = getattr(options, "recipe", None)
    if recipe and recipe.endswith("quickstart_base.yaml"):
        load_section(WarmStart, recipe, options.overrides)
    elif recipe and not Path(recipe).is_dir():
        load_recipe(recipe, options.overrides)
    for path in getattr(options, "recipes", []):
        assert Path(path).exists()


def test_every_page_is_reached_from_the_first_and_every_link_leads_somewhere():
    reached, left = set(), [ROOT / "README.md"]
    while left:
        page = left.pop()
        reached.add(page)
        text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
        for link in re.findall(r"\]\(([^)\s]+)\)", text):
            if re.match(r"[a-z]+:", link):
                continue
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            assert target.exists(), f"{page}: {link}"
            if anchor:
                headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
                assert anchor in [slug(heading) for heading in headings], f"{page}: {link}"
            if target.suffix == ".md" and target not in reached:
                left.append(target)
    assert reached == set(PAGES)


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
