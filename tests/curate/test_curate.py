"""Curation: overlaps and selections worked by hand, and a real policy's pass rates from the command to Parquet."""

import argparse
import json
import math
import signal
import time
from functools import partial

import datasets
import numpy as np
import pytest

from rlcore.cli import main
from rlcore.curate.options import add_arguments, parse_options
from rlcore.curate.overlap import contaminated, duplicates
from rlcore.curate.select import band_of, select
from rlcore.data import load_problems
from rlcore.errors import UserError
from rlcore.recipe import load_recipe
from tests.processes import Started, python, rlcore, torchrun
from tests.refusals import refusal
from tests.tiny import write_recipe

TALE = "a train leaves the station at nine and meets another one that left an hour before at what time do they meet"


def test_duplicates_are_equal_words_or_mostly_equal_runs():
    texts = ["What is 2 + 3?", "what  IS 2+3", "What is 2 + 4?", TALE, TALE + " now", TALE.replace("nine", "ten")]
    assert duplicates(texts, near=1) == {1: 0}
    # 22 words are 18 runs of five; one more word adds one: 18 / 19. Another word in the middle changes five: 13 / 23.
    assert duplicates(texts, near=0.9) == {1: 0, 4: 3}
    assert duplicates(texts, near=0.5) == {1: 0, 4: 3, 5: 3}


def test_contamination_needs_so_many_words_in_a_row():
    words = TALE.split()
    thirteen, twelve = " ".join(words[3:16]), " ".join(words[3:15])
    texts = [f"Say: {thirteen}!", f"Say: {twelve} so?", "What is 2 + 3?", "What is 2 + 3 + 4?", "..."]
    assert contaminated(texts, [TALE, "what is 2+3", "?"], ngram=13) == {0: thirteen, 2: "what is 2 +3"}
    assert set(contaminated(texts, [TALE], ngram=12)) == {0, 1}
    signs = TALE.replace(" ", " - ")
    assert set(contaminated([signs], [TALE], ngram=13)) == {0}


FORMULAS = [
    *(f"Compute 7 {sign} 4." for sign in ("-", "+", "*", "/", "^", "<", ">", "=", "≤", "%", ",", "\\cdot")),
    *("What is $x^2-1$ at x=2?", "What is $x^2+1$ at x=2?"),
    *("Compute 5! and 3.", "Compute 5 and 3!", "Compute 5 and 3."),
    *("Compute (7 - 4) * 2.", "Compute 7 - (4 * 2).", "Compute 7 - 4 * 2."),
    *("Compute \\sqrt{7+4}.", "Compute \\sqrt{7}+4."),
    *("Find ⌈x/2⌉.", "Find ⌊x/2⌋.", "Find √2 x.", "Find 2√x.", "Find .2 x", "Find 2 x"),
    *("Plot (1.2, 3).", "Plot (1, 2.3).", "Measure (1, 2].", "Measure [1, 2)."),
]


def test_problems_with_other_signs_are_others():
    assert duplicates(FORMULAS, near=0.8) == {}
    for place, text in enumerate(FORMULAS):
        assert contaminated([text], FORMULAS[:place] + FORMULAS[place + 1 :], ngram=13) == {}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Compute 7 - 4.", "compute  $7-4$"),
        ("Compute 7 − 4", "**Compute:** 7 - 4"),
        ("Compute 7 × 4", "Compute 7*4."),
        ("Compute 7 ÷ 4", "Compute “7/4”"),
        ("Find x^{2} + 3.", "Find x^2+3"),
        ("Add a two-digit number, (say) 12.5 cm!", "Add a two digit number, say '12.5 cm'"),
        ("Choose *one*, then stop...", "- Choose one; then stop"),
        ("What is the x-axis?", "What is the x axis?"),
        ("What is the sum of a, b and c, if a=1?", "What is the sum of (a, b and c) if a = 1"),
    ],
)
def test_mere_punctuation_makes_no_other_problem(one, other):
    assert duplicates([one, other], near=1) == {1: 0}
    assert set(contaminated([one], [other], ngram=13)) == {0}


def test_bands():
    rates = [0, 0.125, 0.25, 0.5, 0.75, 0.875, 1]
    assert [band_of(r) for r in rates] == ["never", "hard", "hard", "medium", "medium", "easy", "always"]


def test_selection_by_difficulty_alone_and_by_new_words_alone():
    texts = ["apples and pears", "apples and pears again", "trains and hours", "circles and squares"]
    assert select(texts, [0.5, 0.4, 0.9, 0.1], 2, diversity=0) == [0, 1]
    assert set(select(texts, [0.5, 0.5, 0.5, 0.5], 3, diversity=1)) >= {2, 3}


def test_lazy_selection_takes_the_best_at_every_step():
    rng = np.random.default_rng(0)
    texts = [" ".join(f"w{n}" for n in rng.integers(0, 40, 8)) for _ in range(60)]
    rates = rng.integers(0, 9, 60) / 8
    words = [set(text.split()) for text in texts]
    idf = {w: math.log(60 / sum(w in own for own in words)) for own in words for w in own}
    covered, expected = set(), []
    for _ in range(20):
        worth = [
            0.5 * 4 * p * (1 - p) + 0.5 * sum(idf[w] for w in own - covered) / sum(idf[w] for w in own)
            for own, p in zip(words, rates, strict=True)
        ]
        best = max((i for i in range(60) if i not in expected), key=lambda i: round(worth[i], 9))
        expected.append(best)
        covered |= words[best]
    assert select(texts, list(rates), 20, diversity=0.5) == expected


def test_from_the_command_to_parquet_and_back(repository, tmp_path, capsys):
    recipe, folder = str(repository / "recipes/quickstart.yaml"), tmp_path / "curated"
    rows = [p.columns for p in load_problems(load_recipe(recipe, ["data.options.count=40"]).data)]
    held_out = load_problems(load_recipe(recipe, ["evaluate.data.options.count=5"]).evaluate.data)
    with (tmp_path / "rows.jsonl").open("w") as file:
        for row in [*rows, rows[0], held_out[0].columns]:
            file.write(json.dumps(row) + "\n")
    data = f"data={{source: jsonl, path: {tmp_path / 'rows.jsonl'}}}"
    command = ["curate", recipe, data, "evaluate.data.options.count=5", "--output", str(folder)]
    command += ["--samples", "4", "--lowest", "0.25", "--highest", "0.75", "--count", "6"]
    main(command)
    assert str(folder / "problems.parquet") in capsys.readouterr().out
    table = datasets.Dataset.from_parquet(str(folder / "problems.parquet"))
    assert len(table) == 6
    assert all(rate in (0.25, 0.5, 0.75) for rate in table["pass_rate"])
    statistics = json.loads((folder / "statistics.json").read_text())
    removed = [json.loads(line) for line in (folder / "removed.jsonl").read_text().splitlines()]
    assert statistics["removed"]["duplicate"] == statistics["removed"]["contamination"] == 1
    assert statistics["loaded"] == 42 == statistics["selected"] + len(removed)
    assert sum(band["measured"] for band in statistics["bands"].values()) == statistics["measured"] == 40
    assert "6 of 42 problems" in (folder / "statistics.md").read_text()
    again = load_problems(load_recipe(recipe, [f"data={{source: parquet, path: {folder / 'problems.parquet'}}}"]).data)
    assert {p.columns["prompt"] for p in again} == set(table["prompt"])
    (measured,) = folder.glob("pass_rates-*.jsonl")
    before = measured.read_bytes()
    main([*command[:-1], "4"])
    assert measured.read_bytes() == before
    assert len(datasets.Dataset.from_parquet(str(folder / "problems.parquet"))) == 4


def test_a_prompt_that_is_too_long_is_removed_and_the_others_are_measured(tmp_path):
    recipe, folder = write_recipe(tmp_path, evaluate=None), tmp_path / "curated"
    rows = [{"question": f"Write it {n} times.", "letter": "a"} for n in range(3)]
    rows.insert(1, {"question": "Write all of it. " * 30, "letter": "a"})
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["curate", str(recipe), "--output", str(folder), "--samples", "1", "--lowest", "0", "--highest", "1"]
    main([*command, "--near", "1"])
    kept = datasets.Dataset.from_parquet(str(folder / "problems.parquet"))
    assert list(kept["prompt"]) == [rows[place]["question"] for place in (0, 2, 3)]
    again = load_problems(load_recipe(recipe, ["data.source=parquet", f"data.path={folder / 'problems.parquet'}"]).data)
    assert [problem.text for problem in again] == list(kept["prompt"])
    (removed,) = [json.loads(line) for line in (folder / "removed.jsonl").read_text().splitlines()]
    assert (removed["text"], removed["reason"]) == (rows[1]["question"], "prompt")
    assert removed["detail"] == "more than 64 tokens"


def test_pass_rates_of_other_settings_weights_or_code_are_refused(tmp_path, capfd):
    """With a model that cannot be loaded: the settings are compared before it is."""
    recipe, model = write_recipe(tmp_path, evaluate=None, model={"path": "./model"}), tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    command = ["curate", recipe, "--output", tmp_path / "out", "--near", "1"]

    def refused(*changes):
        return refusal(capfd, *command, *changes).rpartition("holds pass rates measured with other ")[2]

    begun = refusal(capfd, *command)
    assert refused() == begun
    again = ": give another --output"
    assert refused("data.prompt=Think hard. {prompt}") == "data.prompt" + again
    assert refused("data.system=Answer with nothing.") == "data.system" + again
    assert refused("data.columns={prompt: question, extra: letter}") == "data.columns.extra" + again
    assert refused("rollout.temperature=0.5", "--samples", "2") == "samples, rollout.temperature" + again
    assert refused("data.limit=30") == begun
    (model / "config.json").write_text("{ }")
    assert refused() == "weights" + again
    (tmp_path / "my_reward.py").write_text("letter_reward = None")
    assert refused() == f"inputs.{tmp_path / 'my_reward.py'}, weights" + again


def test_two_ranks_choose_what_one_does(tmp_path):
    """With pass rates that no random number decides."""
    recipe = write_recipe(tmp_path, evaluate=None)
    (tmp_path / "my_reward.py").write_text(
        "def letter_reward(completions, letter):\n    return [float(l in 'aei') for l in letter]\n"
    )
    options = ["--samples", "2", "--lowest", "0.5", "--highest", "1", "--count", "10"]
    for name, launch in (("one", python), ("two", partial(torchrun, 2))):
        done = launch("-m", "rlcore", "curate", recipe, "--output", tmp_path / name, *options)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("problems.parquet") == 1
    one, two = tmp_path / "one", tmp_path / "two"
    measured = [(two / f"pass_rates-{rank}-of-2.jsonl").read_bytes().splitlines() for rank in (0, 1)]
    assert [len(lines) for lines in measured] == [16, 16]
    alone_measured = (one / "pass_rates-0-of-1.jsonl").read_bytes().splitlines()
    assert sorted(measured[0] + measured[1]) == sorted(alone_measured)
    for name in ("removed.jsonl", "statistics.json", "statistics.md"):
        assert (two / name).read_bytes() == (one / name).read_bytes()
    chosen = [datasets.Dataset.from_parquet(str(folder / "problems.parquet")) for folder in (one, two)]
    assert chosen[0].to_list() == chosen[1].to_list()
    assert len(chosen[0]) == 10


HOLDING_REWARD = """
import time
from pathlib import Path

def letter_reward(completions, letter):
    if "z" in letter and Path("HOLD").exists():
        Path("HOLD").write_text("reached")
        time.sleep(600)
    return [1.0] * len(letter)
"""


def test_sigterm_keeps_what_is_measured_and_the_same_command_goes_on(tmp_path):
    """The reward answers for 64 problems, and never for the next one: those that were under way with it are lost."""
    changes = {"rewards": {"functions": [{"name": "./my_reward.py:letter_reward"}], "deadline": 600}}
    changes |= {"rollout": {"slots": 8}}
    recipe, hold, folder = write_recipe(tmp_path, evaluate=None, **changes), tmp_path / "hold", tmp_path / "out"
    rows = [{"question": f"Write it {n} times.", "letter": "z" if n >= 64 else "a"} for n in range(80)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "my_reward.py").write_text(HOLDING_REWARD.replace("HOLD", str(hold)))
    hold.touch()
    flags = ["--output", str(folder), "--samples", "2", "--near", "1", "--highest", "1"]
    process = Started("-m", "rlcore", "curate", recipe, *flags)
    deadline = time.monotonic() + 300
    while not hold.read_text():
        assert time.monotonic() < deadline, "the curation did not get so far"
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    output = process.wait()
    assert process.returncode == 0, output
    assert "the same command goes on from there" in output
    (file,) = folder.glob("pass_rates-*.jsonl")
    kept = file.read_text().splitlines()
    assert 64 - 8 < len(kept) <= 64
    file.write_bytes(file.read_bytes()[:-5])  # as a crash leaves it
    hold.unlink()
    done = rlcore("curate", recipe, *flags)
    assert done.returncode == 0, done.stderr
    measured = file.read_text().splitlines()
    assert measured[: len(kept) - 1] == kept[:-1]
    assert len({json.loads(line)["id"] for line in measured}) == len(measured) == 80
    assert len(datasets.Dataset.from_parquet(str(folder / "problems.parquet"))) == 80


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--samples", "0"], "curate: samples: input should be greater than 0"),
        (["--lowest", "0.9", "--highest", "0.1"], "lowest 0.9 is above highest 0.1"),
    ],
)
def test_flags_that_cannot_be_are_named(flags, said):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    with pytest.raises(UserError, match=said):
        parse_options(parser.parse_args(flags))


def test_prompts_made_of_columns_are_compared_by_their_text(tmp_path):
    recipe, folder = write_recipe(tmp_path), tmp_path / "curated"
    rows = [{"question": "Which?", "choices": [f"{n}", f"{n + 1}"], "letter": "a"} for n in (1, 2, 3, 1)]
    for name in ("train", "test"):
        told = rows if name == "train" else rows[2:3]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in told))
    made = [
        f"{data}.{key}"
        for data in ("data", "evaluate.data")
        for key in ("columns={}", 'prompt="{question}\\n{choices}"')
    ]
    command = ["curate", str(recipe), *made, "--output", str(folder)]
    main([*command, "--samples", "1", "--lowest", "0", "--highest", "1", "--near", "1"])
    removed = [json.loads(line) for line in (folder / "removed.jsonl").read_text().splitlines()]
    assert [(line["reason"], line["text"]) for line in removed] == [
        ("contamination", "Which?\n3\n4"),
        ("duplicate", "Which?\n1\n2"),
    ]
