"""Folders of runs as the trainer leaves them, with made-up figures."""

import json
from pathlib import Path

import numpy as np

from rlcore.evaluate.metrics import correction_rows, flip_kind
from rlcore.evaluate.results import Evaluation, Results, histogram, save_evaluation

HOSTILE = (
    "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
    "'\"><svg onload=alert(1)>{{ 7 * 7 }}{% raw %}&lt;\u2028\ud800"
)


def make_run(
    folder: Path, *, arm: str = "score", seed: int = 0, gain: float = 0.1, steps: int = 60, text: str = "b and c"
) -> Path:
    """A finished run of `steps` steps whose second attempt is better by `gain` in the end."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng([seed, steps])
    (folder / "recipe.yaml").write_text(f"name: {arm}\nseed: {seed}\nlearner:\n  lr: 1.0e-06\n")
    with (folder / "metrics.jsonl").open("w") as file:
        for step in range(1, steps + 1):
            file.write(json.dumps(_metrics(rng, step, steps, gain)) + "\n")
    with (folder / "trajectories.jsonl").open("w") as file:
        for step in range(1, steps + 1):
            file.write(json.dumps(trajectory(rng, step, "II", text)) + "\n")
    save_evaluation(folder / "evaluation_base.json", _results(np.random.default_rng(9), "base", 0, 0, -0.02, text))
    save_evaluation(folder / "evaluation.json", _results(rng, arm, seed, steps, gain, text))
    return folder


def _metrics(rng: np.random.Generator, step: int, steps: int, gain: float) -> dict:
    done = step / steps
    t1, delta = 0.45 + 0.1 * done + rng.normal(0, 0.02), gain * done + rng.normal(0, 0.01)
    spoilt = 0.08 - 0.05 * done
    record = {
        "step": step,
        "stage": "I" if done < 0.3 else "II",
        "train/t1": t1,
        "train/t2": t1 + delta,
        "train/delta": delta,
        "train/i_to_c": spoilt + delta,
        "train/c_to_i": spoilt,
        "learner/kl_t1": 0.05 * done + rng.exponential(0.002),
        "learner/kl_t2": 0.3 * gain * done + rng.exponential(0.004),
        "learner/grad_norm": None,
    }
    if step % 20 == 0:
        record |= {f"eval/sampled/{name}": record[f"train/{name}"] for name in ("t1", "t2", "i_to_c", "c_to_i")}
    if 10 <= step <= 25:
        record["alarm/dead_groups"] = 1.0
    return record


def trajectory(rng: np.random.Generator, step: int, stage: str, text: str) -> dict:
    """The record of a trajectory, as far as it is looked at."""
    scores = rng.integers(0, 2, 2).astype(float).tolist()
    texts = [f"{text}, because {rng.integers(9)} + 5 = {total}." for total in (12, 13)]
    return {
        "step": step,
        "stage": stage,
        "problem_id": f"pairs/{rng.integers(10_000)}",
        "messages": [{"role": "user", "content": f"a = 3, b = 8, c = 5. Which two add up to 13? {text}"}],
        "attempts": [
            {"text": t, "score": s, "status": "correct" if s else "wrong", "finish": "stop", "tokens": 12}
            for t, s in zip(texts, scores, strict=True)
        ],
        "between": [],
        "flip": flip_kind(*scores),
    }


def _results(rng: np.random.Generator, arm: str, seed: int, step: int, gain: float, text: str) -> Results:
    evaluations, ratios = [], np.zeros(0)
    for mode, more in (("greedy", -0.02), ("sampled", 0.0)):
        first = rng.random(400) < 0.5
        last = np.where(rng.random(400) < 0.8, first, rng.random(400) < 0.5 + 5 * (gain + more))
        rows = correction_rows(np.stack([first, last], axis=1).astype(float))
        rows["answer_change"] = (rng.random(400) < 0.3).astype(float)
        rows["edit_ratio"] = ratios = np.clip(rng.normal(0.1 + gain, 0.06, 400), 0, 0.5)
        evaluations.append(Evaluation.of_rows(mode, range(400), rows))
    examples = [trajectory(rng, step, mode, text) for mode in ("greedy", "sampled") for _ in range(40)]
    return Results(arm, seed, step, tuple(evaluations), {"edit_ratio": histogram(ratios)}, examples)
