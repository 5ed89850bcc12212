"""A recipe small enough to train for a few steps in a test, on problems it can partly solve by chance."""

import json
from pathlib import Path

import yaml

REWARD = """
def letter_reward(completions, letter):
    return [float(c.count(l) > len(c) / 12) for c, l in zip(completions, letter)]
"""


def write_recipe(folder: Path, **changes: object) -> Path:
    """`recipe.yaml` with its data and reward in `folder`; `changes` replace top-level keys."""
    asked = [(letter, times) for times in range(8) for letter in "aeiou"]
    rows = [{"question": f"Write the letter {letter} {times} times.", "letter": letter} for letter, times in asked]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:32]))
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[32:]))
    (folder / "my_reward.py").write_text(REWARD)
    data = {"source": "jsonl", "columns": {"prompt": "question"}}
    recipe = {
        "name": "tiny",
        "output": str(folder / "run"),
        "device": "cpu",
        "model": {"scratch": {"hidden_size": 32, "layers": 1, "heads": 2, "kv_heads": 1, "vocab_size": 300}},
        "data": {**data, "path": "./train.jsonl"},
        "conversation": {"instruction": "Check it.", "max_prompt_tokens": 64, "max_attempt_tokens": 8},
        "rewards": {"functions": [{"name": "./my_reward.py:letter_reward"}]},
        "batch": {"problems": 4, "group": 4},
        "credit": {"baseline": "leave_one_out"},
        "stages": [
            {"name": "one", "steps": 3, "reward": [0, 1], "kl": [0.1, 0.01]},
            {"name": "two", "steps": 3, "bonus": 2, "kl": [0.01, 0.01]},
        ],
        "learner": {"lr": 0.003, "kl": "exact"},
        "evaluate": {"data": {**data, "path": "./test.jsonl"}, "problems": 8, "problems_while_training": 4, "every": 2},
        "checkpoint": {"every": 2},
        "track": {"wandb": "off"},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({**recipe, **changes}))
    return path


def figures(run: Path) -> list[dict[str, object]]:
    """The records of a run without what time it took."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    timed = ("time/", "publish/seconds", "publish/gb_per_s")
    return [{k: v for k, v in json.loads(line).items() if not k.startswith(timed)} for line in lines]
